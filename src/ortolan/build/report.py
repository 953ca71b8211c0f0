"""A page without outside parts that shows where the bytes of a build went, as nested areas."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ortolan.build.compile import BuildError
from ortolan.ortformat import read
from ortolan.ortformat.links import graphs
from ortolan.ortformat.packed import packed_weights

if TYPE_CHECKING:
    from ortolan.build.product import Product

__all__ = ["treemap", "weights_by_layer", "write_report"]

_COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb", "#997700")
_WIDTH, _HEIGHT = 1000.0, 560.0
Box = tuple[float, float, float, float]


def treemap(sizes: Sequence[float], box: Box) -> list[Box]:
    """Splits a box into parts of the given sizes, in order, by halves of about the same sum."""
    if len(sizes) == 1:
        return [box]
    total, half, at = sum(sizes), 0.0, 0
    while at < len(sizes) - 1 and (at == 0 or half + sizes[at] / 2 <= total / 2):
        half += sizes[at]
        at += 1
    share = half / total if total else 0.5
    x, y, width, height = box
    if width >= height:
        first: Box = (x, y, width * share, height)
        second: Box = (x + width * share, y, width * (1 - share), height)
    else:
        first = (x, y, width, height * share)
        second = (x, y + height * share, width, height * (1 - share))
    return treemap(sizes[:at], first) + treemap(sizes[at:], second)


def weights_by_layer(content: bytes) -> dict[str, dict[str, int]]:
    """Bytes of an `.ort` file's weights by operator and name of the first node that uses them."""
    session = read(content)
    assert session.model is not None and session.model.graph is not None
    users: dict[str, tuple[str, str]] = {}
    sizes: dict[str, int] = {}
    packed: dict[str, str] = {}  # weights as they are stored, and as nodes use them
    for graph in graphs(session.model.graph):
        packed.update((each.stored.name, each.name) for each in packed_weights(graph))
        for index, node in enumerate(graph.nodes):
            for name in (*node.inputs, *node.implicit_inputs):
                users.setdefault(name, (node.op_type, node.name or f"node {index}"))
        for tensor in graph.initializers:
            sizes[tensor.name] = sizes.get(tensor.name, 0) + len(tensor.raw_data or b"")
    found: dict[str, dict[str, int]] = {}
    for name, size in sizes.items():
        operator, layer = users.get(packed.get(name, name), ("unused", name))
        layers = found.setdefault(operator, {})
        layers[layer] = layers.get(layer, 0) + size
    return {key: {k: v for k, v in layers.items() if v} for key, layers in found.items()}


def write_report(path: Path, product: Product) -> None:
    """Writes the page.

    Raises:
        BuildError: it cannot be written.
    """
    sections = []
    for each in product.manifest["artefacts"]:
        sizes = ", ".join(f"{size:,} bytes {kind}" for kind, size in each["bytes"].items())
        sections.append(f"<h2>{html.escape(each['target'])}</h2><p>{sizes}</p>")
        parts = product.parts[each["target"]]
        if parts:
            sections += [_map(parts), _table(parts)]
        else:
            sections.append("<p>The linker of this platform tells no sizes.</p>")
    for model, weights in product.weights.items():
        total = sum(sum(layers.values()) for layers in weights.values())
        sections.append(f"<h2>{html.escape(model)}</h2><p>{total:,} bytes of weights, by layer</p>")
        sections += [_map(weights), _table(weights)] if total else []
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Ortolan build</title>'
        "<style>body{font:14px sans-serif;margin:2em;max-width:1000px}"
        "svg text{font:11px sans-serif;pointer-events:none}td{padding:0 1em 0 0}"
        "td:last-child{text-align:right}</style><h1>Where the bytes went</h1>"
        + "".join(sections)
        + "</html>\n"
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BuildError(f"{path}: cannot be written ({error.strerror or error})") from error


def _map(parts: Mapping[str, Mapping[str, int]]) -> str:
    rows = [f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img">']
    filled = [item for item in parts.items() if item[1]]
    ordered = sorted(filled, key=lambda item: -sum(item[1].values()))
    boxes = treemap([sum(sizes.values()) for _, sizes in ordered], (0, 0, _WIDTH, _HEIGHT))
    for index, ((part, sizes), box) in enumerate(zip(ordered, boxes, strict=True)):
        colour = _COLOURS[index % len(_COLOURS)]
        inner = sorted(sizes.items(), key=lambda item: -item[1])
        for (name, size), (x, y, w, h) in zip(
            inner, treemap([s for _, s in inner], box), strict=True
        ):
            label = html.escape(f"{part}: {name}, {size:,} bytes")
            rows.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{colour}"'
                f' stroke="white" stroke-width="0.5"><title>{label}</title></rect>'
            )
        x, y, w, _ = box
        if w > 60:
            rows.append(f'<text x="{x + 4:.1f}" y="{y + 14:.1f}">{html.escape(part)}</text>')
    return "".join([*rows, "</svg>"])


def _table(parts: Mapping[str, Mapping[str, int]]) -> str:
    rows = [
        f"<tr><td>{html.escape(part)}</td><td>{html.escape(name)}</td><td>{size:,}</td></tr>"
        for part, sizes in parts.items()
        for name, size in sorted(sizes.items(), key=lambda item: -item[1])
    ]
    return f"<details><summary>every function</summary><table>{''.join(rows)}</table></details>"
