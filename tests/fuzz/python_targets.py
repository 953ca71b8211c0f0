"""The Python targets: bytes in, a result or an error of ours out. Everything else is a finding.

`main` runs one of them: under atheris, which is guided by coverage, where it is installed; else in
a plain loop that mutates the corpus and counts no coverage.

    python tests/fuzz/python_targets.py NAME SECONDS CORPUS FOUND
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

Target = Callable[[bytes], None]


def config(data: bytes) -> None:
    """The parser of configs of required operators."""
    from ortolan.errors import OrtolanError
    from ortolan.required_ops.reading import parse_config

    with contextlib.suppress(OrtolanError):
        parse_config(data.decode("utf-8", "replace"))


def ort_file(data: bytes) -> None:
    """The reader of ORT format files, and the writer of what it read."""
    from ortolan.errors import OrtolanError
    from ortolan.ortformat import reader, tables, writer

    with contextlib.suppress(OrtolanError, tables.OrtFormatError):
        writer.write(reader.read(data))


def onnx_file(data: bytes) -> None:
    """Import and conversion of ONNX files."""
    import ortolan
    from ortolan.errors import OrtolanError

    with contextlib.suppress(OrtolanError):
        ortolan.convert(data, level="basic")


def nodes(data: bytes) -> None:
    """Import and conversion of models that the bytes decide."""
    from random_nodes import make

    import ortolan
    from ortolan.errors import OrtolanError

    with contextlib.suppress(OrtolanError):
        ortolan.convert(make(data).SerializeToString(), level="all")


def session(data: bytes) -> None:
    """A session of either kind of file."""
    import ortolan
    from ortolan.errors import OrtolanError

    ortolan.runtime_info()  # without the library every file would be refused, and nothing tried
    options = ortolan.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("ortolan.max_tensor_bytes", "1048576")
    options.add_session_config_entry("ortolan.max_iterations", "100")
    with contextlib.suppress(OrtolanError):
        made = ortolan.InferenceSession(data, options)
        for value in (*made.get_inputs(), *made.get_outputs()):
            str(value)
        made.get_modelmeta()


TARGETS: dict[str, Target] = {
    "config": config, "ort_file": ort_file, "onnx_file": onnx_file, "nodes": nodes,
    "session": session,
}  # fmt: skip


def loop(target: Target, seconds: float, corpus: list[bytes], found: Path) -> tuple[int, int]:
    """Mutates the corpus at random.

    Returns:
        How often the target ran, and how many inputs were findings; those are in `found`.
    """
    draw = random.Random(time.time_ns())
    end = time.monotonic() + seconds
    runs = findings = 0
    while time.monotonic() < end:
        data = bytearray(draw.choice(corpus))
        for _ in range(draw.choice((1, 1, 2, 4, 8))):
            _mutate(data, draw, corpus)
        runs += 1
        try:
            target(bytes(data))
        except Exception as error:  # whatever it is, it is a finding
            findings += 1
            found.mkdir(parents=True, exist_ok=True)
            path = found / f"crash-{type(error).__name__}-{findings}"
            path.write_bytes(bytes(data))
            print(f"finding {path}: {type(error).__name__}: {error}", file=sys.stderr)
    return runs, findings


def _mutate(data: bytearray, draw: random.Random, corpus: list[bytes]) -> None:
    at = draw.randrange(len(data) + 1)
    match draw.randrange(5):
        case 0:
            data[at:at] = draw.randbytes(draw.randrange(1, 5))
        case 1:
            del data[at : at + draw.randrange(1, 9)]
        case 2 if at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        case 3 if at < len(data):
            data[at] = draw.choice((0, 1, 127, 128, 255))
        case _:
            other = draw.choice(corpus)
            start = draw.randrange(len(other) + 1)
            piece = other[start : start + draw.randrange(1, 32)]
            data[at : at + draw.choice((0, len(piece)))] = piece


def main(name: str, seconds: float, corpus: Path, found: Path) -> int:
    """Runs a target."""
    target = TARGETS[name]
    try:
        import atheris
    except ImportError:
        files = [path.read_bytes() for path in sorted(corpus.iterdir())]
        runs, findings = loop(target, seconds, files, found)
        print(f"Done {runs} runs in {seconds:.0f} second(s), {findings} findings", file=sys.stderr)
        return 1 if findings else 0
    # Only our own code counts, not the packages below it.
    with atheris.instrument_imports(include=["ortolan"]):
        target(b"")
    found.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0], f"-max_total_time={seconds:.0f}", "-timeout=900", "-rss_limit_mb=3000",
        f"-artifact_prefix={found}/", "-print_final_stats=1", "-max_len=16384",
        "-report_slow_units=100000", str(corpus),
    ]  # fmt: skip
    atheris.Setup(arguments, target)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])))
