"""Attention in all its forms: com.microsoft's with and without projections, and the standard's."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FLOAT, type_set

_MICROSOFT = "com.microsoft"
_INT32 = type_set("int32")

FAMILY = Family(
    "attention",
    simd=True,
    operators=(
        op(
            "Attention", "1",
            "input:T weights:T bias?:T mask_index?:M past?:T attention_bias?:T "
            "past_sequence_length?:M",
            "output:T present?:T",
            "num_heads!:int unidirectional:int=0 qkv_hidden_sizes:ints "
            "past_present_share_buffer:int=0 do_rotary:int=0 rotary_embedding_dim:int=0 "
            "mask_filter_value:float=-10000.0 scale:float",
            domain=_MICROSOFT, kernel="MicrosoftAttention", types={"T": FLOAT, "M": _INT32},
            prepare="plain",
        ),
    ),
)  # fmt: skip
