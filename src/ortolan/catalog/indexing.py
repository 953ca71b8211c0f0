"""Operators that pick, place, order and select elements by index or by value."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import BOOL, FIXED, FLOAT, FLOATS, INDEX, INT64, NUMBERS, type_set

_SCATTER = {"T": FIXED, "Tind": INDEX}
_SCATTER_ND = {"T": FIXED, "I": INT64}
_MOVED = {"T": FIXED}
_SORTED = {"T": NUMBERS, "I": INT64}
_SCANNED = FLOATS | type_set("int32", "int64", "uint32", "uint64")


def _scatter(name: str, versions: str, attributes: str) -> Operator:
    return op(
        name, versions, "data:T indices:Tind updates:T", "output:T", attributes, types=_SCATTER,
        kernel="ScatterElements", instances="once", prepare="plain", in_place=(0,),
    )  # fmt: skip


def _scatter_nd(versions: str, attributes: str) -> Operator:
    return op(
        "ScatterND", versions, "data:T indices:I updates:T", "output:T", attributes,
        types=_SCATTER_ND, instances="once", prepare="plain", in_place=(0,),
    )  # fmt: skip


def _top_k(versions: str, inputs: str, attributes: str) -> Operator:
    types = _SORTED if versions == "11-" else {"T": FLOATS, "I": INT64}
    return op(
        "TopK", versions, inputs, "Values:T Indices:I", attributes, types=types,
        instances="once", prepare="plain", value_inputs=(1,),
    )  # fmt: skip


def _depth_to_space(versions: str, attributes: str) -> Operator:
    return op(
        "DepthToSpace", versions, "input:T", "output:T", attributes, types=_MOVED,
        instances="once", prepare="plain",
    )  # fmt: skip


FAMILY = Family(
    "indexing",
    simd=False,
    operators=(
        _scatter("Scatter", "9-10", "axis:int=0"),
        _scatter("ScatterElements", "11-15", "axis:int=0"),
        _scatter("ScatterElements", "16-", "axis:int=0 reduction:string=none"),
        _scatter_nd("11-15", ""),
        _scatter_nd("16-", "reduction:string=none"),
        op(
            "GatherElements", "11-", "data:T indices:Tind", "output:T", "axis:int=0",
            types=_SCATTER, instances="width",
        ),
        op("GatherND", "11", "data:T indices:I", "output:T", types=_SCATTER_ND, instances="once"),
        op(
            "GatherND", "12-", "data:T indices:I", "output:T", "batch_dims:int=0",
            types=_SCATTER_ND, instances="once",
        ),
        op(
            "GatherND", "1-", "data:T indices:Tind", "output:T", domain="com.microsoft",
            types={"T": FIXED, "Tind": INDEX}, instances="once",
        ),
        op(
            "OneHot", "9-", "indices:T1 depth:T2 values:T3", "output:T3", "axis:int=-1",
            types={"T1": NUMBERS, "T2": NUMBERS, "T3": FIXED}, instances="width", keys="T3",
            value_inputs=(1,),
        ),
        _top_k("1-9", "X:T", "axis:int=-1 k!:int"),
        _top_k("10", "X:T K:I", "axis:int=-1"),
        _top_k("11-", "X:T K:I", "axis:int=-1 largest:int=1 sorted:int=1"),
        op(
            "Unique", "11-", "X:T", "Y:T indices?:I inverse_indices?:I counts?:I",
            "axis:int sorted:int=1", types=_SORTED, instances="once", flags=("data_dependent",),
        ),
        op(
            "Unique", "1-", "x:T", "y:T idx:I counts:I", domain="com.microsoft", types=_SORTED,
            instances="once", flags=("data_dependent",),
        ),
        op(
            "NonZero", "9-", "X:T", "Y:I", types={"T": NUMBERS | BOOL, "I": INT64},
            instances="width", flags=("data_dependent",),
        ),
        op(
            "Compress", "9-", "input:T condition:T1", "output:T", "axis:int",
            types={"T": FIXED, "T1": BOOL}, instances="once", flags=("data_dependent",),
        ),
        op(
            "NonMaxSuppression", "10-",
            "boxes:T scores:T max_output_boxes_per_class?:I iou_threshold?:T score_threshold?:T",
            "selected_indices:I", "center_point_box:int=0", types={"T": FLOAT, "I": INT64},
            instances="once", flags=("data_dependent",),
        ),
        op(
            "Trilu", "14-", "input:T k?:I", "output:T", "upper:int=1",
            types={"T": FIXED, "I": INT64}, instances="once", in_place=(0,),
        ),
        op(
            "Trilu", "1-", "X:T k?:I", "Y:T", "upper:int=1", domain="com.microsoft",
            types={"T": FIXED, "I": INT64}, instances="once", in_place=(0,),
        ),
        op(
            "CenterCropPad", "18-", "input_data:T shape:Tind", "output_data:T", "axes:ints",
            types=_SCATTER, instances="once", value_inputs=(1,),
        ),
        op(
            "UnfoldTensor", "1-", "input:T", "output:T", "dim:int=-1 size!:int step:int=1",
            domain="com.microsoft", types=_MOVED, instances="once",
        ),
        op(
            "CumSum", "11-", "x:T axis:T2", "y:T", "exclusive:int=0 reverse:int=0",
            types={"T": _SCANNED, "T2": INDEX},
        ),
        op(
            "CumProd", "26-", "x:T axis:T2", "y:T", "exclusive:int=0 reverse:int=0",
            types={"T": _SCANNED, "T2": INDEX},
        ),
        op(
            "ReverseSequence", "10-", "input:T sequence_lens:I", "Y:T",
            "batch_axis:int=1 time_axis:int=0", types={"T": FIXED, "I": INT64}, instances="once",
        ),
        _depth_to_space("1-10", "blocksize!:int"),
        _depth_to_space("11-", "blocksize!:int mode:string=DCR"),
        op(
            "SpaceToDepth", "1-27", "input:T", "output:T", "blocksize!:int", types=_MOVED,
            instances="once", prepare="plain",
        ),
        op(
            "SpaceToDepth", "28-", "input:T", "output:T", "blocksize!:int mode:string=DCR",
            types=_MOVED, instances="once", prepare="plain",
        ),
        # Left the standard with opset 10.
        op(
            "Crop", "1-9", "input:T", "output:T", "border:ints scale:ints", types={"T": FLOAT},
            instances="once", layout="axis",
        ),
    ),
)  # fmt: skip
