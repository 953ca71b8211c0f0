"""Runs a model many times with random inputs and tells how long it took."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from typing import Any

from ortolan.errors import InvalidArgument
from ortolan.feeds import make_feeds
from ortolan.session import InferenceSession, SessionOptions
from ortolan.tools.common import finish

__all__ = ["generate_feeds", "main", "run_model"]


def generate_feeds(
    sess: InferenceSession, symbolic_dims: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Random values for the inputs of a session.

    Args:
        sess: any.
        symbolic_dims: sizes by the names of symbolic dimensions; others are 1.
    """
    sizes = {name: (size,) for name, size in (symbolic_dims or {}).items()}
    return dict(make_feeds(sess.get_inputs(), [], sizes, 0)[0])


def run_model(
    model_path: str, num_iters: int = 1, debug: bool | None = None, profile: bool | None = None,
    symbolic_dims: Mapping[str, int] | None = None, feeds: Mapping[str, Any] | None = None,
    override_initializers: bool = True,
) -> tuple[int, Mapping[str, Any] | None, list[Any]]:  # fmt: skip
    """Runs a model and prints the times.

    Args:
        model_path: of the model.
        num_iters: how many calls.
        debug: wait for a debugger first.
        profile: write a Chrome trace.
        symbolic_dims: as for `generate_feeds`.
        feeds: values by name; None: random ones.
        override_initializers: ignored: weights stay as they are.

    Returns:
        0, the feeds, and the outputs of the last call.
    """
    del override_initializers
    if debug:
        input(f"attach a debugger to process {os.getpid()} and press return")
    options = SessionOptions()
    options.enable_profiling = bool(profile)
    session = InferenceSession(model_path, options)
    given = generate_feeds(session, symbolic_dims) if feeds is None else feeds
    results: list[Any] = []
    begin = time.perf_counter()
    for _ in range(num_iters):
        results = session.run(None, given)
    seconds = time.perf_counter() - begin
    for argument in session.get_inputs():
        print(f"input {argument.name}: {argument.type} {argument.shape}")
    if num_iters:
        print(f"{num_iters} runs, {seconds * 1000 / num_iters:.4f} ms each, {seconds:.3f} s in all")
    if profile:
        print(f"profile: {session.end_profiling()}")
    return 0, given, results


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m ortolan.tools.onnxruntime_test", description="Simple test tool."
    )
    parser.add_argument("model_path")
    parser.add_argument("num_iters", nargs="?", type=int, default=1000)
    parser.add_argument("--debug", action="store_true", help="wait for a debugger")
    parser.add_argument("--profile", action="store_true", help="write a Chrome trace")
    parser.add_argument("--symbolic_dims", default="", help="such as batch=1,seqlen=5")
    given = parser.parse_args()
    dimensions = {}
    for pair in filter(None, given.symbolic_dims.split(",")):
        name, _, size = pair.partition("=")
        if not size.strip().isdigit():
            parser.error(f"--symbolic_dims: {pair!r} is no name=size")
        dimensions[name.strip()] = int(size)

    def work() -> None:
        if given.num_iters < 1:
            raise InvalidArgument("num_iters must be at least 1")
        run_model(given.model_path, given.num_iters, given.debug, given.profile, dimensions)

    finish(work)


if __name__ == "__main__":
    main()
