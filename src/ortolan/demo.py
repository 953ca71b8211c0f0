"""The demo: converts the digits example, runs it on held-out samples and shows the answers.

`python -m ortolan.demo` and `ortolan demo` need nothing but the installed package.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

import ortolan
from ortolan.errors import NoSuchFile
from ortolan.picture import answer_sheet

Array = npt.NDArray[Any]

FULL_INK = 16  # the samples count 0..16 inked cells per pixel
LEAST_ACCURACY = 0.98
TIMED_RUNS = 500
SHOWN = 6
DRAWN_WIDTH = 20  # characters of one digit with the space beside it
SHADES = " ░▒▓█"
ASCII_SHADES = " .:*#"


@dataclass(frozen=True)
class Measurements:
    """What the demo found out.

    Attributes:
        accuracy: share of the held-out samples that are answered right, 0..1.
        samples: number of held-out samples.
        onnx_bytes: size of the model as it was trained.
        ort_bytes: size of the converted model.
        arena_bytes: memory for intermediate values of a run on one sample.
        microseconds: median time of a run on one sample.
        runtime: `ortolan.runtime_info()`.
        answers: the model's digits, int64 [samples].
    """

    accuracy: float
    samples: int
    onnx_bytes: int
    ort_bytes: int
    arena_bytes: int
    microseconds: float
    runtime: dict[str, Any]
    answers: Array


def example_folder() -> Path:
    """The digits example: inside an installed package, or at the top of a checkout.

    Raises:
        FileNotFoundError: the package was installed without its example.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "examples" / "digits", package.parents[1] / "examples" / "digits"):
        if (folder / "digits.onnx").is_file():
            return folder
    raise FileNotFoundError(f"{package} holds no examples/digits; install ortolan again")


def load_held_out(folder: Path) -> tuple[Array, Array]:
    """The samples that training never saw.

    Returns:
        Images uint8 [n, 8, 8] with values 0..16, and labels uint8 [n].
    """
    with np.load(folder / "held_out.npz") as samples:
        return samples["images"], samples["labels"]


def median_microseconds(session: ortolan.InferenceSession, x: Array) -> float:
    """The median time of a run on one sample [1, 1, 8, 8], after some runs to warm up."""
    times = []
    for _ in range(TIMED_RUNS + TIMED_RUNS // 10):
        start = time.perf_counter_ns()
        session.run(None, {"image": x})
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times[TIMED_RUNS // 10 :]) / 1000


def measure(folder: Path, images: Array, labels: Array) -> Measurements:
    """Converts the example model and runs it.

    Args:
        folder: where digits.onnx is.
        images: uint8 [n, 8, 8] with values 0..16.
        labels: integers [n].

    Returns:
        Accuracy, sizes, memory and time.
    """
    x = images[:, None].astype(np.float32) / np.float32(FULL_INK)
    source = folder / "digits.onnx"
    with tempfile.TemporaryDirectory(prefix="ortolan-demo-") as temporary:
        converted = Path(temporary) / "digits.ort"
        ortolan.convert(str(source), str(converted))
        session = ortolan.InferenceSession(str(converted))
        (probabilities,) = session.run(None, {"image": x})
        microseconds = median_microseconds(session, x[:1])
        answers = np.asarray(probabilities).argmax(axis=1)
        measurements = Measurements(
            accuracy=float((answers == labels).mean()),
            samples=len(labels),
            onnx_bytes=source.stat().st_size,
            ort_bytes=converted.stat().st_size,
            arena_bytes=int(session.arena_bytes),
            microseconds=microseconds,
            runtime=dict(ortolan.runtime_info()),
            answers=answers,
        )
        # A mapped file cannot be deleted on Windows.
        del session
    return measurements


def draw(image: Array, shades: str = SHADES) -> list[str]:
    """An image uint8 [8, 8] as eight lines, two characters a pixel so that it looks square."""
    levels = np.round(image / FULL_INK * (len(shades) - 1)).astype(int)
    return ["".join(shades[level] * 2 for level in row) for row in levels]


def chosen_samples(answers: Array, labels: Array, count: int = SHOWN) -> list[int]:
    """Which samples to show: the first ones of different digits, the last place for a mistake."""
    _, first = np.unique(labels, return_index=True)
    mistakes = np.flatnonzero(answers != labels)
    right = [int(i) for i in sorted(first) if answers[i] == labels[i]]
    return [*right[: count - len(mistakes[:1])], *map(int, mistakes[:1])]


def answer_table(
    images: Array, labels: Array, answers: Array, shades: str, count: int = SHOWN
) -> Table:
    """Digits side by side, each with the model's answer under it."""
    table = Table.grid(padding=(0, 2))
    samples = chosen_samples(answers, labels, count)
    table.add_row(*("\n".join(draw(images[i], shades)) for i in samples))
    table.add_row(
        *(
            f"[green]it is a {answers[i]}[/]"
            if answers[i] == labels[i]
            else f"[red]{answers[i]}, not {labels[i]}[/]"
            for i in samples
        )
    )
    return table


def figure_table(found: Measurements) -> Table:
    """The measurements as two columns."""
    table = Table.grid(padding=(0, 2))
    right = round(found.accuracy * found.samples)
    rows = {
        "accuracy": f"{found.accuracy:.2%} ({right} of {found.samples} held-out samples)",
        "digits.onnx": f"{found.onnx_bytes:,} bytes",
        "digits.ort": f"{found.ort_bytes:,} bytes",
        "runtime library": f"{int(found.runtime['library_bytes']):,} bytes",
        "arena of a run": f"{found.arena_bytes:,} bytes",
        "time of a run": f"{found.microseconds:.1f} microseconds (median of {TIMED_RUNS} runs)",
        "instruction set": str(found.runtime["instruction_set"]),
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", value)
    return table


def shades_for(encoding: str) -> str:
    """Block characters, or ASCII where the terminal cannot show them."""
    try:
        SHADES.encode(encoding)
    except UnicodeEncodeError:
        return ASCII_SHADES
    return SHADES


def run(console: Console, picture: Path | None = None) -> int:
    """Runs the demo and prints it; returns 1 if the model answers worse than it should.

    Args:
        console: where to.
        picture: also draw the samples and answers into this PNG.
    """
    folder = example_folder()
    images, labels = load_held_out(folder)
    found = measure(folder, images, labels)
    shown = max(2, min(SHOWN, console.width // DRAWN_WIDTH))
    shades = shades_for(console.encoding)
    console.print(answer_table(images, labels, found.answers, shades, shown))
    console.print()
    console.print(figure_table(found))
    if picture is not None:
        chosen = chosen_samples(found.answers, labels)
        try:
            answer_sheet(images[chosen], found.answers[chosen], labels[chosen], picture)
        except OSError as error:
            raise NoSuchFile(f"{picture}: cannot be written ({error.strerror})") from error
        console.print(f"\ndrawn into {picture}")
    if found.accuracy < LEAST_ACCURACY:
        console.print(f"[red]the accuracy should be at least {LEAST_ACCURACY:.0%}[/]")
        return 1
    return 0


def main(picture: Path | None = None) -> int:
    """Entry point of `python -m ortolan.demo`; `picture` is that of `run`."""
    return run(Console(highlight=False), picture)


if __name__ == "__main__":
    sys.exit(main())
