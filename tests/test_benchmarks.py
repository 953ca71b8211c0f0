"""The benchmarks: what their tables say of given measurements, and that they run at all."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
sys.path.append(str(BENCHMARKS))

import arm_loops  # noqa: E402 - the path above
import engines  # noqa: E402
import floors  # noqa: E402
import peak  # noqa: E402
import report  # noqa: E402


def turns(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"median": t, "min": t * 0.9, "calls": 5, "others": o} for t, o in pairs]


def run_of(model: str = "m", **found: Any) -> dict[str, Any]:
    return {"model": model, "threads": 1, "avx2": False, "engines": found}


def test_loud_turns_are_left_out_where_enough_are_quiet() -> None:
    found = report.times({"turns": turns((1, 0), (3, 0.1), (2, 0.2), (90, 0.3))})
    assert found == report.Times(0.9, 2, 3, 4)
    few = report.times({"turns": turns((1, 0), (3, 0.9), (5, 0.9))})
    assert few == report.Times(0.9, 3, 1, 3)
    assert "(loud)" in report.cell(run_of(a={"turns": turns((1, 0), (3, 0.9), (5, 0.9))}), "a")


def test_the_best_peer_is_a_right_one() -> None:
    run = run_of(
        ortolan={"turns": turns((2, 0), (2, 0), (2, 0))},
        wrong={"turns": turns((1, 0), (1, 0), (1, 0)), "error": 0.5},
        slow={"turns": turns((9, 0), (9, 0), (9, 0)), "error": 1e-6},
        good={"turns": turns((3, 0), (3, 0), (3, 0)), "error": None},
        broken={"turns": [], "failed": "it is"},
    )
    run["engines"]["ortolan simd128"] = {"turns": turns((1, 0), (1, 0), (1, 0))}
    row = report.row_of(run)
    assert row.best == "good"
    assert row.ratio == (1.5, 1.5)
    table = list(report.latency_table([run], list(run["engines"])))
    assert "wrong by 5e-01" in table[2] and "| fails |" in table[2]
    assert table[-1] == "Behind the best peer (under 0.97 by medians): none."


def test_peers_that_cannot_be_held_are_reported_only() -> None:
    run = run_of(
        ortolan={"turns": turns((2, 0), (2, 0), (2, 0))},
        free={"turns": turns((1, 0), (1, 0), (1, 0)), "held": False},
        held={"turns": turns((3, 0), (3, 0), (3, 0)), "held": True},
    )
    assert report.row_of(run).best == "free"
    run["avx2"] = True
    assert report.row_of(run).best == "held"
    assert "not held" in report.cell(run, "free")


def test_means_are_geometric_and_name_who_is_behind() -> None:
    peer = {"turns": turns(*[(1, 0)] * 3)}
    runs = [
        run_of(name, ortolan={"turns": turns(*[(mine, 0)] * 3)}, peer=peer)
        for name, mine in (("a", 0.5), ("b", 2.0))
    ]
    lines = list(report.latency_table(runs, ["ortolan", "peer"]))
    assert "1.00 times as fast by minima, 1.00 by medians (geometric mean of 2)" in lines[5]
    assert lines[-1].endswith(": b 0.50.")
    assert math.isnan(report.geometric_mean([]))
    assert report.plot(runs, ["ortolan", "peer"], "t").count("<circle") == 3


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "expected"),
    [
        ("Conv", [[1, 8, 5, 5], [4, 2, 3, 3]], [[1, 4, 5, 5]], 100 * 18),
        ("ConvTranspose", [[1, 8, 5, 5], [8, 2, 3, 3]], [[1, 2, 7, 7]], 200 * 18),
        ("MatMul", [[2, 3, 4], [4, 5]], [[2, 3, 5]], 30 * 4),
        ("Gemm", [[4, 3], [4, 5]], [[3, 5]], 15 * 4),
        ("LSTM", [[7, 2, 5], [2, 12, 5], [2, 12, 3]], [[7, 2, 2, 3]], 7 * 2 * 2 * 12 * 8),
        ("Relu", [[5]], [[5]], 0),
    ],
)
def test_multiply_adds(
    operator: str, inputs: list[list[int]], outputs: list[list[int]], expected: int
) -> None:
    assert floors.node_madds(operator, inputs, outputs) == expected


def test_a_model_is_counted() -> None:
    """digits: convolutions of 3x3 and a product, as examples/digits/model.py has them."""
    import onnx

    model = onnx.load(DIGITS)
    known = {t.name: t.dims for t in model.graph.initializer}
    need = floors.count(str(DIGITS), {"image": np.zeros((1, 1, 8, 8), np.float32)})
    stored = sum(4 * math.prod(d) for d in known.values())
    assert 0.9 * stored < need.constant_bytes <= DIGITS.stat().st_size
    assert need.edge_bytes == 4 * (64 + 10)
    assert need.madds > 64 * 9
    peaks = peak.Peaks({"base": 10.0, "wide": 20.0}, {1024: 100.0, 4096: 25.0})
    assert peaks.read(2048) == pytest.approx(50)
    assert (peaks.read(1), peaks.read(1 << 30)) == (100, 25)
    arithmetic, memory = need.floor(peaks, "wide", 2)
    assert arithmetic == need.madds / 40e9
    assert memory > 0


def test_errors_are_relative_and_know_other_shapes() -> None:
    one = np.ones(4, np.float32)
    assert engines.largest_error([one], [one]) == 0
    assert engines.largest_error([one * 1.5], [one]) == pytest.approx(0.5)
    assert engines.largest_error([one[:3]], [one]) == math.inf
    assert engines.largest_error([np.arange(3)], [np.arange(3)]) is None


@pytest.mark.slow
def test_the_comparison_runs_on_a_small_model(tmp_path: Path) -> None:
    saved, plot = tmp_path / "saved.json", tmp_path / "plot.svg"
    arguments = ["--engines", "ortolan,onnxruntime,ncnn", "--rounds", "2", "--seconds", "0.02"]
    arguments += ["--threads", "1", "--save", str(saved), "--plot", str(plot), str(DIGITS)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "compare.py"), *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "| digits |" in done.stdout
    (run,) = json.loads(saved.read_text())["runs"]
    for engine in ("ortolan", "onnxruntime"):
        result = run["engines"][engine]
        assert len(result["turns"]) == 2 and not result.get("failed")
        assert result["load"] > 0 and result["first"] > 0 and result["file"] > 0
    assert plot.read_text().startswith("<svg")


@pytest.mark.slow
def test_small_models_are_called_from_c() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "tiny.py"), "--rounds", "2", str(DIGITS)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert "| digits | " in done.stdout and "| - |" not in done.stdout


@pytest.mark.slow
def test_a_kernel_is_measured_against_its_floor() -> None:
    chosen = ["1x1, 7² 320", "Transpose 0213"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "kernels.py"), *chosen, "--runs", "3"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith(("| 1x1", "| Transpose"))]
    assert len(lines) == 2
    assert "% of peak" in lines[0] and "% of bandwidth" in lines[1]


def test_loops_of_arm_code_are_found_and_counted() -> None:
    code = [
        ("f", 0x10, "ld1r { v0.4s }, [x0], #4"),
        ("f", 0x14, "fmla v1.4s, v2.4s, v0.4s"),
        ("f", 0x18, "fmla v3.4s, v2.4s, v0.s[1]"),
        ("f", 0x1C, "b.ne 0x14 <.text+0x14>"),
        ("f", 0x20, "b.eq 0x40 <.text+0x40>"),
        ("f", 0x24, "fmla v1.4s, v2.4s, v0.4s"),
        ("f", 0x28, "b 0x10 <.text+0x10>"),
    ]
    (loop,) = arm_loops.hot_loops(code, 1)
    assert (loop.start, loop.madds, len(loop.code), loop.kind) == (0x14, 2, 3, "product")
    assert list(arm_loops.hot_loops(code, 3)) == []
