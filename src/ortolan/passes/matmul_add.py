"""Makes a Gemm of a product of matrices and a sum.

    a -> MatMul -> Add -> y      =>      a -> Gemm(b, c) -> y
    b ---^    c ---^

1. `a` and `b` have two dimensions, and `c` is a constant or input that fits the rows of the
   product: (columns), (1, columns), or (rows, columns).

Not rewritten when ranks are not known, the product has another user, or `c` is wider.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.pattern import Pattern
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_matmul_add"]

_PATTERN = Pattern("""
    product = MatMul(a, b)
    y = Add(product, c)
""")


def fuse_matmul_add(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Fuses sums into products of matrices; returns whether there were any."""
    return rewrite(model, target, _PATTERN.operators, _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    match = _PATTERN.match(node)
    version = rewriter.version("", "Gemm")
    if match is None or version is None or version < 7:
        return False
    a, b, c = (known_shape(match[name]) for name in "abc")
    if a is None or b is None or c is None or len(a) != 2 or len(b) != 2:
        return False
    if not c or len(c) > 2 or not _fits(c, (a[0], b[1])):
        return False
    inputs = [match[name] for name in "abc"]
    return rewriter.replace(node, [rewriter.node("Gemm", inputs, version=version)])


def _fits(shape: tuple[int | str | None, ...], wanted: tuple[int | str | None, ...]) -> bool:
    """Whether a shape surely stretches to the wanted one."""
    pairs = zip(shape[::-1], wanted[::-1], strict=False)
    return all(size is not None and size in (1, whole) for size, whole in pairs)
