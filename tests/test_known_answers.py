"""Real models say what is known of real samples; the decoding itself is tested on small boxes."""

from __future__ import annotations

import numpy as np
import pytest

import known_answers as lib
import models_lib


@pytest.mark.skipif(bool(models_lib.MISSING), reason=models_lib.MISSING)
@pytest.mark.parametrize("name", lib.names())
def test_answer(name: str) -> None:
    answer = lib.answer(name)
    assert answer.is_right, f"{answer.said} instead of {answer.known}"


@pytest.mark.skipif(bool(models_lib.MISSING), reason=models_lib.MISSING)
def test_every_entry_is_shown_or_explained() -> None:
    assert set(lib.NOT_HERE) <= set(lib.known())
    assert len(lib.names()) == 16


@pytest.mark.skipif(bool(models_lib.MISSING), reason=models_lib.MISSING)
def test_another_image_has_another_answer() -> None:
    image = lib.sample("ultraface_uf_13")["rgb"]
    assert lib.faces(np.zeros_like(image)) == 0
    assert lib.objects(np.zeros((416, 416, 3), np.uint8)) == []


def test_overlapping_boxes_are_one() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 2.1], [1, 1, 3, 3], [5, 5, 6, 6]], np.float64)
    scores = np.array([0.8, 0.9, 0.7, 0.95])
    assert lib.keep_best(boxes, scores, 0.5) == [3, 1, 2]
    assert lib.keep_best(boxes, scores, 0.1) == [3, 1]
    assert lib.keep_best(boxes[:0], scores[:0], 0.5) == []
