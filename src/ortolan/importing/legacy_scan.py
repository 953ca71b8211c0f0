"""Rewrites Scan of version 8, which has a batch and lengths of sequences, to version 9.

    sequence_lens, states, sequences -> Scan-8(body) -> ...

becomes a Scan over the batch whose body scans one sequence:

    states, sequences, lengths -> Scan-9(Slice each sequence; Scan-9(body); Pad results) -> ...

Results beyond the length of a sequence are zeros, as in onnxruntime.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.errors import InvalidGraph
from ortolan.importing.element_types import label
from ortolan.importing.rewriting import Editor

__all__ = ["rewrite_scan"]

_VERSION = 9


def rewrite_scan(edit: Editor) -> None:
    """Replaces a node of Scan-8 by the same computation in Scan-9.

    Raises:
        InvalidGraph: num_scan_inputs or the body does not fit the node.
    """
    node = edit.node
    lengths, operands = node.inputs[0], node.inputs[1:]
    scans = node.attributes["num_scan_inputs"].as_int()
    body = node.attributes["body"].as_graph()
    states = len(operands) - scans
    if scans < 1 or states < 0 or len(body.inputs) != len(operands):
        raise InvalidGraph(
            f"{label(node)}: num_scan_inputs {scans} and a body of {len(body.inputs)} inputs do "
            f"not fit {len(operands)} operands"
        )
    directions = node.attributes.get("directions")
    outer_inputs = [*operands, *([lengths] if lengths is not None else [])]
    formal = [ir.Value(name=f"{node.name or 'scan'}_item{k}") for k in range(len(outer_inputs))]
    # A node to write the body's nodes in front of; it is not kept.
    end = ir.Node("", "Identity", [formal[0]], version=1, name=node.name)
    outer = ir.Graph(formal, [], nodes=[end], name=f"{body.name or 'body'}_batch")
    inner = Editor(end)
    length = formal[-1] if lengths is not None else None
    sequences = formal[states : len(operands)]
    items = sequences if length is None else [_first(inner, s, length) for s in sequences]
    attributes = [
        ir.AttrGraph("body", body),
        ir.AttrInt64("num_scan_inputs", scans),
    ]
    if directions is not None:
        attributes.append(ir.AttrInt64s("scan_input_directions", directions.as_ints()))
    node.attributes.clear()
    results = inner.add_all(
        "Scan", _VERSION, [*formal[:states], *items], attributes, len(node.outputs)
    )
    if length is not None:
        longest = inner.add("Shape", 1, [sequences[0]])
        longest = inner.add("Gather", 1, [longest, inner.integers([0])])
        missing = inner.add("Sub", 7, [longest, _vector(inner, length)])
        results = [
            value if k < states else _padded(inner, value, missing)
            for k, value in enumerate(results)
        ]
    outer.remove(end, safe=True)
    outer.outputs.extend(results)
    node.attributes.add(ir.AttrGraph("body", outer))
    node.attributes.add(ir.AttrInt64("num_scan_inputs", len(outer_inputs)))
    node.resize_inputs(len(outer_inputs))
    for k, value in enumerate(outer_inputs):
        node.replace_input_with(k, value)
    node.version = _VERSION


def _vector(edit: Editor, scalar: ir.Value) -> ir.Value:
    return edit.add("Reshape", 5, [scalar, edit.integers([1])])


def _first(edit: Editor, sequence: ir.Value, length: ir.Value) -> ir.Value:
    """As many elements of a sequence."""
    zero = edit.integers([0])
    return edit.add("Slice", 10, [sequence, zero, _vector(edit, length), zero])


def _padded(edit: Editor, value: ir.Value, missing: ir.Value) -> ir.Value:
    """With so many zeros behind the elements of dimension 0."""
    rank = edit.add("Shape", 1, [edit.add("Shape", 1, [value])])
    before = edit.add("ConstantOfShape", 9, [rank], [_zero()])
    others = edit.add("Sub", 7, [rank, edit.integers([1])])
    behind = edit.add("ConstantOfShape", 9, [others], [_zero()])
    pads = edit.add("Concat", 4, [before, missing, behind], [ir.AttrInt64("axis", 0)])
    return edit.add("Pad", 11, [value, pads])


def _zero() -> ir.Attr:
    return ir.AttrTensor("value", ir.tensor([0], dtype=ir.DataType.INT64))
