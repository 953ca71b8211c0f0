"""Pictures without a library: an array of pixels as a PNG, digits drawn from a 3 x 5 font."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["GLYPHS", "answer_sheet", "draw_digit", "png"]

Array = npt.NDArray[Any]

# Rows of three pixels from the top, as bits.
_FONT = {
    0: (7, 5, 5, 5, 7), 1: (2, 6, 2, 2, 7), 2: (7, 1, 7, 4, 7), 3: (7, 1, 7, 1, 7),
    4: (5, 5, 7, 1, 1), 5: (7, 4, 7, 1, 7), 6: (7, 4, 7, 5, 7), 7: (7, 1, 1, 2, 2),
    8: (7, 5, 7, 5, 7), 9: (7, 5, 7, 1, 7),
}  # fmt: skip
GLYPHS = {
    digit: np.array([[row >> (2 - x) & 1 for x in range(3)] for row in rows], bool)
    for digit, rows in _FONT.items()
}
_PIXEL = 10  # screen pixels per pixel of a sample
_GLYPH_PIXEL = 6
_MARGIN = 16
_RIGHT, _WRONG = (24, 128, 56), (190, 40, 30)


def png(pixels: Array) -> bytes:
    """A PNG file.

    Args:
        pixels: uint8 [height, width, 3].
    """
    height, width, _ = pixels.shape
    # Each line begins with the number of its filter, 0: none.
    lines = np.zeros((height, width * 3 + 1), np.uint8)
    lines[:, 1:] = pixels.reshape(height, width * 3)

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + chunk(b"IEND", b"")
    )


def draw_digit(pixels: Array, digit: int, y: int, x: int, colour: Sequence[int]) -> None:
    """Draws a digit with its upper left corner at a place, in place."""
    glyph = GLYPHS[digit].repeat(_GLYPH_PIXEL, 0).repeat(_GLYPH_PIXEL, 1)
    height, width = glyph.shape
    pixels[y : y + height, x : x + width][glyph] = colour


def answer_sheet(images: Array, answers: Array, labels: Array, path: Path) -> None:
    """Draws samples side by side, the model's answer under each: green if right, else red.

    Args:
        images: numbers [n, rows, columns]; the greatest is black.
        answers: digits [n].
        labels: digits [n].
        path: of the PNG to write.
    """
    count, rows, columns = images.shape
    cell = columns * _PIXEL + _MARGIN
    glyph_height, glyph_width = 5 * _GLYPH_PIXEL, 3 * _GLYPH_PIXEL
    height = rows * _PIXEL + glyph_height + 3 * _MARGIN
    pixels = np.full((height, count * cell + _MARGIN, 3), 255, np.uint8)
    ink = 255 - np.round(images * (255 / max(1, images.max()))).astype(np.uint8)
    for k in range(count):
        x = _MARGIN + k * cell
        tile = ink[k].repeat(_PIXEL, 0).repeat(_PIXEL, 1)
        pixels[_MARGIN : _MARGIN + rows * _PIXEL, x : x + columns * _PIXEL] = tile[..., None]
        middle = x + (columns * _PIXEL - glyph_width) // 2
        colour = _RIGHT if answers[k] == labels[k] else _WRONG
        draw_digit(pixels, int(answers[k]), rows * _PIXEL + 2 * _MARGIN, middle, colour)
    path.write_bytes(png(pixels))
