"""`ortolan run`: one call of a model, with inputs from files or random ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ortolan.commands.common import escape, make_console
from ortolan.errors import InvalidArgument, NoSuchFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ortolan.session import InferenceSession

__all__ = ["command"]

# Elements of an output that are shown one by one.
_FEW = 8


def command(
    model: Annotated[Path, typer.Argument(help="an .ort or .onnx file")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]FILE...",
            help=".npy, .npz, images, NAME=NUMBER; in order if not named; other inputs are random",
        ),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            "--size",
            "-s",
            metavar="NAME=SIZES",
            help="size of a symbolic dimension, or shape of an input: batch=2, image=1,3,224,224",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="of the random inputs")] = 0,
    top: Annotated[int, typer.Option(help="how many of the largest values to show")] = 5,
    labels: Annotated[
        Path | None, typer.Option(help="names of classes, one a line, for the largest values")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="write all outputs to this .npz")
    ] = None,
    threads: Annotated[int, typer.Option(help="0: one per processor")] = 0,
    config: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="entry of the session's configuration, such as ortolan.max_milliseconds=500",
        ),
    ] = None,
    with_onnxruntime: Annotated[
        bool, typer.Option("--compare", help="compare the outputs with onnxruntime's")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="with --compare: the result of every node")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="of --compare, relative to the largest magnitude of a result")
    ] = 1e-4,
) -> None:
    """Run a model once and show its outputs."""
    from ortolan.feeds import make_feeds, parse_sizes

    session = open_session(model, threads, _entries(config or []))
    feeds, made = make_feeds(session.get_inputs(), inputs or [], parse_sizes(size or []), seed)
    if with_onnxruntime or layers:
        console = make_console()
        _show_inputs(console, feeds, made)
        if made:
            console.print(f"random inputs of seed {seed}")
        raise typer.Exit(_compare(console, model, feeds, layers, tolerance))
    results = session.run(None, feeds)
    console = make_console()
    _show_inputs(console, feeds, made)
    names = [argument.name for argument in session.get_outputs()]
    words = _read_labels(labels)
    for name, value in zip(names, results, strict=True):
        _show(console, name, value, top, words)
    if output is not None:
        write_arrays(output, dict(zip(names, results, strict=True)))
        console.print(f"written to {escape(str(output))}")


def _entries(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise InvalidArgument(f"--config {key}: KEY=VALUE is expected")
    return {key: value for key, _, value in pairs}


def _compare(
    console: Console, model: Path, feeds: Mapping[str, Any], layers: bool, tolerance: float
) -> int:
    """Shows the first result that differs from onnxruntime's; returns the exit status."""
    from ortolan.compare import compare

    if model.suffix == ".ort":
        raise InvalidArgument(f"{model}: to compare, give the ONNX model that it was made from")
    found = compare(model, feeds, layers=layers, tolerance=tolerance)
    first, worst = found.first, found.worst
    if first is None:
        most = f"; the largest error is {worst.error:.2g}, of {worst.output}" if worst else ""
        console.print(f"{len(found.layers)} results agree{escape(most)}")
        if found.fused and layers:
            console.print(f"{found.fused} nodes have no result of their own in Ortolan")
        return 0
    console.print(f"[bold red]node {first.index} differs[/]: {escape(first.operator)}")
    rows = {
        "name": first.node or "none",
        "output": first.output,
        "inputs": ", ".join(first.inputs),
        "Ortolan": first.ours,
        "onnxruntime": first.theirs,
        "error": f"{first.error:.3g} of the largest magnitude",
    }
    for title, text in rows.items():
        console.print(f"  {title}: {escape(text)}")
    wrong = sum(not layer.error <= tolerance for layer in found.layers)
    console.print(f"{wrong} of {len(found.layers)} results differ")
    return 1


def open_session(
    model: Path, threads: int, entries: Mapping[str, str] | None = None
) -> InferenceSession:
    """A session for a command line, with configuration entries."""
    from ortolan.session import InferenceSession, SessionOptions

    chosen = SessionOptions()
    chosen.intra_op_num_threads = threads
    for key, value in (entries or {}).items():
        chosen.add_session_config_entry(key, value)
    return InferenceSession(model, chosen)


def _read_labels(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise NoSuchFile(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path}: this is no text file (byte {error.start})") from error


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes outputs to an .npz.

    Raises:
        ortolan.errors.InvalidArgument: an output is no tensor of numbers.
        ortolan.errors.NoSuchFile: the file cannot be written.
    """
    import zipfile

    import numpy as np

    for name, value in arrays.items():
        if not isinstance(value, np.ndarray) or value.dtype == object:
            raise InvalidArgument(f"output {name!r} cannot be written: it is no tensor of numbers")
    try:
        # Not savez: names such as "file" are arguments of it.
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as part:
                    np.lib.format.write_array(part, value, allow_pickle=False)
    except OSError as error:
        raise NoSuchFile(f"{path}: cannot be written ({error.strerror or error})") from error


def _show_inputs(console: Console, feeds: Mapping[str, Any], made: Sequence[str]) -> None:
    for name, array in feeds.items():
        note = "  [dim]random[/]" if name in made else ""
        shape = escape(str(list(array.shape)))
        console.print(f"{escape(name)}  {array.dtype} {shape}{note}")


def _show(console: Console, name: str, value: Any, top: int, labels: list[str]) -> None:
    import numpy as np

    if not isinstance(value, np.ndarray):
        console.print(f"[bold]{escape(name)}[/]  {escape(repr(value))}")
        return
    shape = escape(str(list(value.shape)))
    console.print(f"[bold]{escape(name)}[/]  {value.dtype} {shape}")
    if value.size == 0:
        return
    if value.dtype == object or value.dtype.kind == "b" or value.size <= _FEW:
        console.print("  " + escape(" ".join(str(item) for item in value.ravel()[:_FEW].tolist())))
        return
    numbers = value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)
    numbers = np.abs(numbers) if value.dtype.kind == "c" else numbers
    console.print(
        f"  least {numbers.min():.6g}, mean {numbers.mean():.6g}, most {numbers.max():.6g}"
    )
    if value.shape[-1] != value.size or top < 1:
        return
    # One row: most likely classes or scores.
    row = numbers.ravel()
    table = Table(box=None, show_header=False, padding=(0, 2))
    for index in np.argsort(-row, kind="stable")[:top]:
        label = labels[index] if index < len(labels) else ""
        table.add_row(f"[{index}]".replace("[", r"\["), f"{row[index]:.6g}", escape(label))
    console.print(table)
