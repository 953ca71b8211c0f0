"""Makes the corpora that fuzzing starts from, out of the models of the tests: nothing is copied.

One-node models of the operators' cases, the tiny models with traps, and the two hostile ones, as
ORT format files and as ONNX; those whose weights can be packed also so. Only small files: a fuzzer
changes few bytes at a time. Where bytes decide what model is made, they are random.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import onnx

import cases_lib
import cases_oracle
import cases_variants
import corpus
import hostile_models
import ortolan

_MOST_BYTES = 6000
_PER_OPERATOR = 3


def models() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Small models by name."""
    for name in hostile_models.TEXTS:
        yield name, hostile_models.model(name)
    for name in corpus.names():
        with contextlib.suppress(Exception):  # what a package that is not here would make
            yield name.replace("/", "-"), corpus.entry(name).model
    counts: dict[str, int] = {}
    for case in cases_lib.load_cases():
        key = f"{case.domain}:{case.operator}"
        if counts.get(key, 0) < _PER_OPERATOR:
            with contextlib.suppress(Exception):  # cases of errors may not be models at all
                model = cases_lib.make_model(case).proto
                if model.ByteSize() <= _MOST_BYTES:
                    counts[key] = counts.get(key, 0) + 1
                    yield case.id.replace("/", "-"), model


def write(folder: Path) -> None:
    """Fills `folder`: "ort", "onnx", "options", "config" and "kernels" below it."""
    for kind in ("ort", "onnx", "options", "config", "kernels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for name, model in models():
        (folder / "onnx" / name).write_bytes(model.SerializeToString())
        with contextlib.suppress(ortolan.errors.OrtolanError):
            content = ortolan.convert(model, level="disable")
            if len(content) <= 2 * _MOST_BYTES:
                (folder / "ort" / name).write_bytes(content)
    for case in cases_variants.packed_variants(cases_lib.load_cases()):
        content = cases_oracle.convert(cases_lib.make_model(case), packed=True)
        if len(content) <= _MOST_BYTES:
            (folder / "ort" / case.id.replace("/", "-")).write_bytes(content)
    for k, text in enumerate(_OPTIONS):
        (folder / "options" / str(k)).write_text(text)
    for k, text in enumerate(_CONFIGS):
        (folder / "config" / str(k)).write_text(text)
    draw = random.Random(1)
    for k in range(64):
        (folder / "kernels" / str(k)).write_bytes(draw.randbytes(draw.choice((16, 40, 80, 160))))


_OPTIONS = (
    "session.intra_op_num_threads=1\nsession.set_denormal_as_zero=1",
    "ortolan.instruction_set=base\nortolan.seed=9",
    "ortolan.max_tensor_bytes=100\nortolan.max_nodes=3\nortolan.max_iterations=18446744073709551615",
    "ortolan.max_model_bytes=100\nortolan.max_run_bytes=5\nortolan.max_depth=3",
    "ortolan.max_milliseconds=100\nanything=else",
)
_CONFIGS = (
    "ai.onnx;12;Add,Conv,Relu\ncom.microsoft;1;FusedConv\n",
    "# comment\n!globally_allowed_types;bool,float,int8_t,uint8_t\nai.onnx;13;Cast,Gemm\n",
    'ai.onnx;12;Add{"inputs": {"0": ["float", "int32_t"]}},Cast{"outputs": {"0": ["float"]}}\n',
    "!no_ops_specified_means_all_ops_are_required\n",
)
