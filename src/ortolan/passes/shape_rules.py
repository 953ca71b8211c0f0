"""The sizes of what nodes compute, from the sizes and elements of their inputs.

onnx's inference knows more operators, but loses a size that is computed, or that is one of two
names. These rules keep them: a size that no rule tells gets a name of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import onnx_ir as ir

from ortolan.importing.shapes import known_shape, own_size, set_known_shape
from ortolan.passes.dimensions import Dimensions
from ortolan.passes.matching import integers
from ortolan.passes.sizes import Element, Known, divide, is_plain, multiply, wider

__all__ = ["improve_shapes"]

Rule: TypeAlias = Callable[[Dimensions, ir.Node], list[Known | None]]


def improve_shapes(dimensions: Dimensions, node: ir.Node) -> None:
    """Sets the sure sizes of a node's outputs; those of its inputs are set."""
    rule = _RULES.get(node.op_type) if node.domain in ("", "com.microsoft") else None
    found = [] if rule is None else rule(dimensions, node)
    for k, value in enumerate(node.outputs):
        if value.name == "":
            continue
        known = known_shape(value)
        better = found[k] if k < len(found) else None
        sizes: Sequence[int | str | None] | None = known if better is None else better
        if sizes is None:
            continue
        if better is not None and known is not None and len(better) == len(known):
            sizes = [_number(a, b) for a, b in zip(known, better, strict=True)]
        names = [
            own_size(value, i) if size is None or not is_plain(size) else size
            for i, size in enumerate(sizes)
        ]
        set_known_shape(value, tuple(names))


def _number(known: int | str | None, better: Element) -> Element:
    return known if isinstance(known, int) and not isinstance(better, int) else better


def _shape(value: ir.Value | None) -> Known | None:
    shape = known_shape(value)
    if shape is None or value is None:
        return None
    return tuple(own_size(value, i) if size is None else size for i, size in enumerate(shape))


def _own(node: ir.Node, k: int, output: int = 0) -> str:
    """A name for a size that only this output has."""
    return own_size(node.outputs[output], k)


def _same(_: Dimensions, node: ir.Node) -> list[Known | None]:
    return [_shape(node.inputs[0])]


def _broadcast(_: Dimensions, node: ir.Node) -> list[Known | None]:
    result: Known = ()
    for value in node.inputs:
        shape = _shape(value)
        if shape is None:
            return []
        result = _stretch(node, result, shape)
    return [result]


def _stretch(node: ir.Node, a: Known, b: Known) -> Known:
    rank = max(len(a), len(b))
    padded = [(1,) * (rank - len(shape)) + shape for shape in (a, b)]
    sizes = [wider(*pair) for pair in zip(*padded, strict=True)]
    return tuple(_own(node, k) if size is None else size for k, size in enumerate(sizes))


def _transpose(_: Dimensions, node: ir.Node) -> list[Known | None]:
    shape = _shape(node.inputs[0])
    if shape is None:
        return []
    order = node.attributes.get_ints("perm") or tuple(range(len(shape)))[::-1]
    return [tuple(shape[k] for k in order)] if len(order) == len(shape) else []


def _reshape(d: Dimensions, node: ir.Node) -> list[Known | None]:
    shape = _shape(node.inputs[0])
    wanted = d.elements(node.inputs[1]) if len(node.inputs) > 1 else None
    if wanted is None or wanted.scalar:
        return []
    sizes: list[Element] = []
    zero = node.attributes.get_int("allowzero", 0)
    for k, element in enumerate(wanted):
        if element == 0 and not zero:
            if shape is None or k >= len(shape):
                return []
            sizes.append(shape[k])
        else:
            # What is computed from sizes may be 0 or -1, which mean something else here.
            sizes.append(_own(node, k) if str(element).startswith("(") else element)
    if -1 in sizes:
        open_ = sizes.index(-1)
        rest = multiply(*(size for size in sizes if size != -1))
        whole = None if shape is None else multiply(*shape)
        exact = whole is not None and rest != 0 and divide(whole, rest)
        # A quotient in brackets may be none at all: the name of the place is as good.
        sizes[open_] = exact if exact and "/" not in str(exact) else _own(node, open_)
    return [tuple(sizes)]


def _flatten(_: Dimensions, node: ir.Node) -> list[Known | None]:
    shape = _shape(node.inputs[0])
    if shape is None:
        return []
    axis = node.attributes.get_int("axis", 1)
    axis += len(shape) if axis < 0 else 0
    return [(multiply(*shape[:axis]), multiply(*shape[axis:]))]


def _axes(node: ir.Node, index: int = 1) -> list[int] | None:
    given = node.attributes.get_ints("axes")
    if given is not None:
        return list(given)
    return integers(node.inputs[index]) if len(node.inputs) > index else None


def _squeeze(_: Dimensions, node: ir.Node) -> list[Known | None]:
    shape, axes = _shape(node.inputs[0]), _axes(node)
    if shape is None or not axes:
        return []  # No axes mean all of size 1.
    gone = {axis % len(shape) for axis in axes} if shape else set()
    return [tuple(size for k, size in enumerate(shape) if k not in gone)]


def _unsqueeze(_: Dimensions, node: ir.Node) -> list[Known | None]:
    shape, axes = _shape(node.inputs[0]), _axes(node)
    if shape is None or axes is None:
        return []
    rank = len(shape) + len(axes)
    new = {axis % rank for axis in axes}
    if len(new) < len(axes):
        return []
    rest = iter(shape)
    return [tuple(1 if k in new else next(rest) for k in range(rank))]


def _concat(_: Dimensions, node: ir.Node) -> list[Known | None]:
    shapes = [_shape(value) for value in node.inputs]
    known = [shape for shape in shapes if shape is not None]
    if not known or any(len(shape) != len(known[0]) for shape in known):
        return []
    axis = node.attributes.get_int("axis", 1) % max(len(known[0]), 1)
    sizes: list[Element] = []
    for k, column in enumerate(zip(*known, strict=True)):
        if k != axis:
            # All are equal, or the node fails.
            sizes.append(next((size for size in column if isinstance(size, int)), column[0]))
        elif len(known) == len(shapes) and all(isinstance(size, int) for size in column):
            sizes.append(sum(size for size in column if isinstance(size, int)))
        else:
            sizes.append(_own(node, k))
    return [tuple(sizes)]


def _split(d: Dimensions, node: ir.Node) -> list[Known | None]:
    shape = _shape(node.inputs[0])
    if shape is None:
        return []
    axis = node.attributes.get_int("axis", 0) % max(len(shape), 1)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    parts = list(node.attributes.get_ints("split") or integers(given) or ())
    n = len(node.outputs)
    whole = shape[axis]
    # Where parts are computed they need not be equal.
    if not parts and given is None and isinstance(whole, int) and whole % n == 0:
        parts = [whole // n] * n
    return [
        (*shape[:axis], parts[k] if len(parts) == n else _own(node, axis, k), *shape[axis + 1 :])
        for k in range(n)
    ]


def _slice(_: Dimensions, node: ir.Node) -> list[Known | None]:
    shape = _shape(node.inputs[0])
    if shape is None:
        return []
    bounds: list[list[int] | None] = []
    for k, name in enumerate(("starts", "ends", "axes", "steps"), start=1):
        given = node.attributes.get_ints(name)
        value = node.inputs[k] if k < len(node.inputs) else None
        bounds.append(list(given) if given is not None else integers(value))
    starts, ends, axes, steps = bounds
    if axes is None:
        if starts is None or (len(node.inputs) > 3 and node.inputs[3] is not None):
            return [tuple(_own(node, k) for k in range(len(shape)))]
        axes = list(range(len(starts)))
    sizes = list(shape)
    for i, axis in enumerate(axes):
        whole = shape[axis]
        no_step = steps is None and (len(node.inputs) <= 4 or node.inputs[4] is None)
        step = 1 if no_step else None if steps is None else steps[i]
        sizes[axis % len(shape)] = _own(node, axis % len(shape))
        if starts is None or ends is None or step is None:
            continue
        if isinstance(whole, int):
            sizes[axis % len(shape)] = len(range(whole)[starts[i] : ends[i] : step])
        elif step == 1 and starts[i] == 0 and ends[i] >= (1 << 31) - 1:
            sizes[axis % len(shape)] = whole
    return [tuple(sizes)]


def _gather(_: Dimensions, node: ir.Node) -> list[Known | None]:
    data, chosen = _shape(node.inputs[0]), _shape(node.inputs[1])
    if data is None or chosen is None:
        return []
    axis = node.attributes.get_int("axis", 0) % max(len(data), 1)
    return [(*data[:axis], *chosen, *data[axis + 1 :])]


def _expand(d: Dimensions, node: ir.Node) -> list[Known | None]:
    shape, wanted = _shape(node.inputs[0]), d.elements(node.inputs[1])
    if shape is None or wanted is None:
        return []
    return [_stretch(node, shape, tuple(wanted))]


def _constant_of_shape(d: Dimensions, node: ir.Node) -> list[Known | None]:
    wanted = d.elements(node.inputs[0])
    return [] if wanted is None else [tuple(wanted)]


def _reduce(_: Dimensions, node: ir.Node) -> list[Known | None]:
    shape, axes = _shape(node.inputs[0]), _axes(node)
    if shape is None:
        return []
    computed = len(node.inputs) > 1 and node.inputs[1] is not None
    if axes is None and (computed or node.attributes.get_int("noop_with_empty_axes", 0) != 0):
        return []
    if not axes:
        axes = list(range(len(shape)))
        if computed and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
            return [shape]
    gone = {axis % len(shape) for axis in axes} if shape else set()
    if node.attributes.get_int("keepdims", 1):
        return [tuple(1 if k in gone else size for k, size in enumerate(shape))]
    return [tuple(size for k, size in enumerate(shape) if k not in gone)]


def _matmul(_: Dimensions, node: ir.Node) -> list[Known | None]:
    a, b = (_shape(value) for value in node.inputs[:2])
    if a is None or b is None or not a or not b:
        return []
    batch = _stretch(node, a[:-2], b[:-2])
    rows = (a[-2],) if len(a) > 1 else ()
    columns = (b[-1],) if len(b) > 1 else ()
    return [(*batch, *rows, *columns)]


def _gemm(_: Dimensions, node: ir.Node) -> list[Known | None]:
    a, b = (_shape(value) for value in node.inputs[:2])
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return []
    flipped = [node.attributes.get_int(name, 0) for name in ("transA", "transB")]
    return [(a[1 if flipped[0] else 0], b[0 if flipped[1] else 1])]


def _conv(_: Dimensions, node: ir.Node) -> list[Known | None]:
    """Batch and channels; the weights tell the rank, too. Spatial sizes are for others to find."""
    x, w = (_shape(value) for value in node.inputs[:2])
    if w is None or len(w) < 3:
        return []
    sizes = [_own(node, k) for k in range(len(w))]
    return [(x[0] if x else sizes[0], w[0], *sizes[2:])]


def _many_heads(_: Dimensions, node: ir.Node) -> list[Known | None]:
    query, value = _shape(node.inputs[0]), _shape(node.inputs[2] if len(node.inputs) > 2 else None)
    if query is None or len(query) != 3:
        return []
    wide = value is not None and len(value) == 3
    return [(*query[:2], value[2] if wide and value else _own(node, 2))]


def _group_query(_: Dimensions, node: ir.Node) -> list[Known | None]:
    """Keys and values may be columns beside those of the query."""
    query, key = _shape(node.inputs[0]), node.inputs[1] if len(node.inputs) > 1 else None
    if query is None or len(query) != 3:
        return []
    return [query if key is not None else (*query[:2], _own(node, 2))]


def _attention(_: Dimensions, node: ir.Node) -> list[Known | None]:
    """That of com.microsoft: the weights are those of query, key and value side by side."""
    x, weights = (_shape(value) for value in node.inputs[:2])
    if node.domain == "" or x is None or weights is None or len(x) != 3 or len(weights) != 2:
        return []
    if "qkv_hidden_sizes" in node.attributes:
        return [(*x[:2], _own(node, 2))]
    return [(*x[:2], divide(weights[1], 3))]


def _fused_matmul(_: Dimensions, node: ir.Node) -> list[Known | None]:
    a, b = (_shape(value) for value in node.inputs[:2])
    batches = any(node.attributes.get_int(f"transBatch{side}", 0) for side in "AB")
    if a is None or b is None or len(a) < 2 or len(b) < 2 or batches:
        return []
    if node.attributes.get_int("transA", 0):
        a = (*a[:-2], a[-1], a[-2])
    if node.attributes.get_int("transB", 0):
        b = (*b[:-2], b[-1], b[-2])
    return [(*_stretch(node, a[:-2], b[:-2]), a[-2], b[-1])]


_SAME = (
    "Abs Acos Asin Atan Cast Ceil Clip Cos Elu Erf Exp FastGelu Floor Gelu HardSigmoid HardSwish "
    "Identity IsInf IsNaN LayerNormalization LeakyRelu Log LogSoftmax Neg Not QuickGelu "
    "Reciprocal Relu RMSNormalization Round Selu Sigmoid Sign SimplifiedLayerNormalization Sin "
    "SkipLayerNormalization SkipSimplifiedLayerNormalization Softmax Softplus Softsign Sqrt Tan "
    "RotaryEmbedding Tanh ThresholdedRelu Trilu CumSum BiasGelu PRelu Mish QuantizeLinear "
    "DequantizeLinear"
).split()
_BROADCAST = (
    "Add Sub Mul Div Pow Mod Max Min Mean Sum Where And Or Xor Equal Less LessOrEqual Greater "
    "GreaterOrEqual BitwiseAnd BitwiseOr BitwiseXor"
).split()
_REDUCE = (
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare "
    "ReduceLogSum ReduceLogSumExp"
).split()

_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(_REDUCE, _reduce),
    "Transpose": _transpose, "Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Concat": _concat, "Split": _split, "Slice": _slice,
    "Gather": _gather, "Expand": _expand, "ConstantOfShape": _constant_of_shape,
    "MatMul": _matmul, "Gemm": _gemm, "Conv": _conv,
    "FusedConv": _conv, "FusedGemm": _gemm, "FusedMatMul": _fused_matmul,
    "MultiHeadAttention": _many_heads, "GroupQueryAttention": _group_query, "Attention": _attention,
}  # fmt: skip
