"""A model as one HTML page: facts, operators, and a map of the weights by their size.

Self-contained: no script, no address of anything else.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ortolan.ortformat.inspect import InitializerSummary, OrtSummary

__all__ = ["Box", "page", "treemap"]

_WIDTH, _HEIGHT = 1200.0, 640.0
# Weights that are drawn one by one; the rest is one box.
_DRAWN = 400
_LEGEND = "The area of a box is the bytes of a weight, its colour the element type."
_LEAST_LABEL = (60.0, 16.0)
_HUES = {"float": 210, "float16": 170, "bfloat16": 150, "int8": 30, "uint8": 45, "int64": 300}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
       color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #ddd; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; border: 1px solid #ccc; }
svg text { font-size: 11px; fill: #123; pointer-events: none; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818; } th, td { border-color: #444; } }
"""


class Box(NamedTuple):
    """A rectangle of a map; `item` counts the sizes."""

    item: int
    x: float
    y: float
    width: float
    height: float


def treemap(sizes: Sequence[float], width: float, height: float) -> list[Box]:
    """Fills a rectangle with one box per size, its area in proportion, as square as it goes.

    Args:
        sizes: greater than 0, in falling order.
        width: of the rectangle.
        height: of the rectangle.
    """
    boxes: list[Box] = []
    total = sum(sizes)
    if not total:
        return boxes
    scale = width * height / total
    areas = [size * scale for size in sizes]
    x, y = 0.0, 0.0
    begin = 0
    while begin < len(areas):
        side = min(width, height)
        end = begin + 1
        while end < len(areas) and _worst(areas[begin : end + 1], side) <= _worst(
            areas[begin:end], side
        ):
            end += 1
        row = areas[begin:end]
        depth = sum(row) / side if side else 0.0
        along = 0.0
        for offset, area in enumerate(row):
            length = area / depth if depth else 0.0
            if width >= height:
                boxes.append(Box(begin + offset, x, y + along, depth, length))
            else:
                boxes.append(Box(begin + offset, x + along, y, length, depth))
            along += length
        if width >= height:
            x, width = x + depth, width - depth
        else:
            y, height = y + depth, height - depth
        begin = end
    return boxes


def _worst(row: Sequence[float], side: float) -> float:
    """How far the worst box of a row is from a square."""
    whole = sum(row)
    if not whole or not side:
        return float("inf")
    return max(side * side * max(row) / whole**2, whole**2 / (side * side * min(row)))


def page(title: str, facts: Iterable[tuple[str, str]], summary: OrtSummary) -> str:
    """The page of a model.

    Args:
        title: name of the file.
        facts: names and texts of a first table.
        summary: of the model.
    """
    weights = [item for item in summary.initializers if item.bytes]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(title)}</h1>",
        _table(("", ""), [(name, text) for name, text in facts]),
        "<h2>Weights</h2>",
        f"<p>{len(weights):,} weights, {summary.initializer_bytes:,} bytes. {_LEGEND}</p>",
        _map(weights),
        "<h2>Inputs and outputs</h2>",
        _table(
            ("name", "type", "shape"),
            [
                (value.name, value.type, _shape(value.shape))
                for value in (*summary.inputs, *summary.outputs)
            ],
        ),
        "<h2>Operators</h2>",
        _table(
            ("operator", "since version", "nodes"),
            [
                (f"{o.domain}:{o.name}" if o.domain else o.name, o.since_version, o.count)
                for o in sorted(summary.operators, key=lambda o: (-o.count, o.name))
            ],
        ),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _shape(shape: Sequence[int | str | None] | None) -> str:
    if shape is None:
        return "unknown"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    lines = ["<table>"]
    if any(heads):
        lines.append("<tr>" + "".join(f"<th>{_text(head)}</th>" for head in heads) + "</tr>")
    for row in rows:
        cells = (
            f'<td class="number">{cell:,}</td>'
            if isinstance(cell, int)
            else f"<td>{_text(cell)}</td>"
            for cell in row
        )
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _map(weights: Sequence[InitializerSummary]) -> str:
    """The weights as boxes; a box tells name, type, shape and bytes when pointed at."""
    drawn = list(weights[:_DRAWN])
    rest = sum(item.bytes for item in weights[_DRAWN:])
    labels = [
        (item.name, item.element_type, (f"{item.name}: {item.element_type} {list(item.dims)}, "
         f"{item.bytes:,} bytes"))
        for item in drawn
    ]  # fmt: skip
    sizes = [float(item.bytes) for item in drawn]
    if rest:
        count = len(weights) - _DRAWN
        labels.append((f"{count} more", "", f"{count:,} smaller weights, {rest:,} bytes"))
        sizes.append(float(rest))
    order = sorted(range(len(sizes)), key=lambda k: -sizes[k])
    lines = [f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img">']
    for box in treemap([sizes[k] for k in order], _WIDTH, _HEIGHT):
        name, kind, hint = labels[order[box.item]]
        hue = _HUES.get(kind, 0)
        colour = f"hsl({hue} {45 if kind else 0}% {72 + box.item % 3 * 6}%)"
        lines.append(
            f'<g><title>{_text(hint)}</title><rect x="{box.x:.2f}" y="{box.y:.2f}" '
            f'width="{box.width:.2f}" height="{box.height:.2f}" fill="{colour}" '
            'stroke="#fff" stroke-width="1"/>'
        )
        if box.width >= _LEAST_LABEL[0] and box.height >= _LEAST_LABEL[1]:
            fits = int(box.width / 7)
            short = name if len(name) <= fits else name[: fits - 1] + "…"
            lines.append(f'<text x="{box.x + 4:.2f}" y="{box.y + 13:.2f}">{_text(short)}</text>')
        lines.append("</g>")
    return "\n".join([*lines, "</svg>"])
