"""onnx's own node tests: about 1,900 models of one operator with the standard's answers.

What is left out is named below with the reason; a test that is left out and passes is an error.
"""

from __future__ import annotations

import fnmatch
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase as Case
from onnx.backend.test.loader import load_model_tests

import ortolan

pytestmark = pytest.mark.slow

# Patterns of names -> why the test cannot pass.
EXCLUDED = {
    # The standard fixes a distribution, not the numbers.
    "test_bernoulli*": "draws of onnx's reference generator",
    "test_training_dropout_default": "draws of numpy's generator",
    "test_training_dropout_default_mask": "draws of numpy's generator",
    "test_training_dropout": "draws of numpy's generator",
    "test_training_dropout_mask": "draws of numpy's generator",
    # Not fixed by the standard's text: length_resized is "the length of the resized tensor", of
    # which the reference takes the fraction before it is rounded down; onnxruntime does as we do.
    "test_resize_downsample_scales_linear_align_corners": "length_resized is a fraction there",
    "test_resize_downsample_scales_cubic_align_corners": "length_resized is a fraction there",
    # Operators that are no part of inference.
    "test_adagrad*": "ai.onnx.preview.training",
    "test_adam*": "ai.onnx.preview.training",
    "test_momentum*": "ai.onnx.preview.training",
    "test_nesterov_momentum": "ai.onnx.preview.training",
    # The state goes in as an optional and comes out of the body as a sequence.
    "test_loop16_seq_none": "a loop's state changes its type",
    # No kernel: a decoder for each image format.
    "test_image_decoder_*": "ImageDecoder",
}

# Absolute and relative errors beyond the test's own: a rounding of the type, twice.
BFLOAT16, FLOAT16 = 2.0**-6, 2.0**-9
# onnx's own answers of inverse DFTs are single precision with noise of that size around zero.
NOISE = {"test_dft_inverse*": 1e-6}


@functools.cache
def cases() -> dict[str, Case]:
    """All node tests by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in load_model_tests(kind="node")}


def reason(name: str) -> str | None:
    """Why a test is left out."""
    return next((why for key, why in EXCLUDED.items() if fnmatch.fnmatchcase(name, key)), None)


def value_of(item: Any) -> Any:
    """A value of a data set as arrays, lists, dicts and None."""
    if isinstance(item, onnx.TensorProto):
        return numpy_helper.to_array(item)
    if isinstance(item, onnx.SequenceProto):
        return numpy_helper.to_list(item)
    if isinstance(item, onnx.OptionalProto):
        return numpy_helper.to_optional(item)
    if isinstance(item, onnx.MapProto):
        return numpy_helper.to_dict(item)
    return item


def compare(found: Any, expected: Any, rtol: float, atol: float) -> None:
    """Both have the same structure, types and shapes, and elements that are near."""
    if expected is None or found is None:
        assert found is expected
        return
    if isinstance(expected, list | tuple):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            compare(a, b, rtol, atol)
        return
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    if expected.dtype.kind in "OUST":
        assert [str(x) for x in found.flat] == [
            x.decode() if isinstance(x, bytes) else str(x) for x in expected.flat
        ]
        return
    assert found.dtype == expected.dtype
    if found.dtype.kind in "biu":
        np.testing.assert_array_equal(found, expected)
        return
    if found.dtype.name == "bfloat16":
        rtol = max(rtol, BFLOAT16)
    elif found.dtype == np.float16:
        rtol = max(rtol, FLOAT16)
    if found.dtype.itemsize <= 2:
        found, expected = found.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def check(case: Case, level: str) -> None:
    """Converts the model of a test and compares what it gives on all the test's data."""
    assert case.model is not None and case.data_sets is not None
    atol = next((a for k, a in NOISE.items() if fnmatch.fnmatchcase(case.name, k)), case.atol)
    session = ortolan.InferenceSession(ortolan.convert(case.model.SerializeToString(), level=level))
    names = [info.name for info in case.model.graph.input]
    for inputs, outputs in case.data_sets:
        # A test may leave out the last inputs.
        feeds = dict(zip(names, map(value_of, inputs), strict=False))
        found = session.run(None, feeds)
        assert len(found) == len(outputs)
        for a, b in zip(found, outputs, strict=True):
            compare(a, value_of(b), case.rtol, atol)


def failures(level: str, chosen: list[Case]) -> Iterator[str]:
    """Yields the name of each test that fails, and how."""
    for case in chosen:
        try:
            check(case, level)
        # Whatever is raised belongs to the one test, and the others are to be run as well.
        except Exception as error:
            yield f"{case.name}: {type(error).__name__}: {error}"


@pytest.mark.parametrize("level", ["disable", "all"])
def test_node_tests(level: str) -> None:
    chosen = [case for name, case in cases().items() if reason(name) is None]
    assert len(chosen) > 1800
    wrong = list(failures(level, chosen))
    assert not wrong, "\n".join(wrong)


def test_exclusions_are_needed() -> None:
    names = {pattern: fnmatch.filter(cases(), pattern) for pattern in EXCLUDED}
    assert not [pattern for pattern, found in names.items() if not found]
    chosen = [case for name, case in cases().items() if reason(name) is not None]
    failing = {text.split(":")[0] for text in failures("disable", chosen)}
    # Chance may give a draw that is right.
    random = {case.name for case in chosen if "bernoulli" in case.name}
    assert not {case.name for case in chosen} - failing - random
