"""What transformers need beside attention: caches, states, quantized tables, small matrices."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FIXED, FLOAT, FLOATS, INDEX, INT64, type_set

_MICROSOFT = "com.microsoft"
_LINEAR_INPUTS = "query:T key:T value:T past_state?:T decay?:T beta?:T"
_LINEAR = (
    "q_num_heads!:int kv_num_heads!:int update_rule:string=gated_delta scale:float=0.0 "
    "chunk_size:int=64"
)
_CONV_INPUTS = "input:T weight:T bias?:T past_state?:T"

FAMILY = Family(
    "transformer",
    simd=False,
    operators=(
        op(
            "TensorScatter", "24-", "past_cache:T update:T write_indices?:I", "present_cache:T",
            "mode:string=linear axis:int=-2", types={"T": FIXED, "I": INT64}, instances="once",
            prepare="plain", in_place=(0,),
        ),
        op(
            "LinearAttention", "27-", _LINEAR_INPUTS, "output:T present_state:T", _LINEAR,
            types={"T": FLOAT}, instances="once", prepare="plain",
        ),
        op(
            "LinearAttention", "1", _LINEAR_INPUTS, "output:T present_state:T",
            f"{_LINEAR} state_window:int=0", domain=_MICROSOFT, types={"T": FLOAT},
            instances="once", prepare="plain",
        ),
        op(
            "CausalConvWithState", "27-", _CONV_INPUTS, "output:T present_state:T",
            "activation:string=none", types={"T": FLOAT}, instances="once", prepare="plain",
        ),
        op(
            "CausalConvWithState", "1", _CONV_INPUTS,
            "output:T present_state:T",
            "activation:string=none dilation:int=1 ndim:int=1 channels_last:int=0 "
            "state_window:int=0 state_length:int=0 state_channels_last:int=-1 "
            "state_update_capacity:int=0 input_channels:int=0 input_channel_offset:int=0",
            domain=_MICROSOFT, types={"T": FLOAT}, instances="once", prepare="plain",
        ),
        op(
            "GatherBlockQuantized", "1", "data:T1 indices:Tind scales:T2 zero_points?:T1",
            "output:T2",
            "bits:int=4 block_size:int=128 gather_axis:int=0 quantize_axis:int=1",
            domain=_MICROSOFT,
            types={"T1": type_set("uint8", "uint4", "int4"), "T2": FLOAT, "Tind": INDEX},
            keys="T1 Tind", instances="once", prepare="plain",
        ),
        op(
            "CDist", "1", "A:T B:T", "C:T", "metric:string=sqeuclidean", domain=_MICROSOFT,
            types={"T": FLOATS},
        ),
    ),
)  # fmt: skip
