"""A page without outside parts that shows where the bytes of a build went, as nested areas."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ortolan.build.compile import BuildError
from ortolan.build.product import Product

__all__ = ["treemap", "write_report"]

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
    ordered = sorted(parts.items(), key=lambda item: -sum(item[1].values()))
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
