"""Attention in all its forms: com.microsoft's with and without projections, and the standard's."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import BOOL, FLOAT, INT64, type_set

_MICROSOFT = "com.microsoft"
_INT32 = type_set("int32")

_INPUTS = "Q:T1 K:T1 V:T1 attn_mask?:U past_key?:T1 past_value?:T1"
_OUTPUTS = "Y:T1 present_key?:T1 present_value?:T1 qk_matmul_output?:T1"
_ATTRIBUTES = (
    "is_causal:int=0 kv_num_heads:int q_num_heads:int qk_matmul_output_mode:int=0 scale:float "
    "softcap:float=0.0 softmax_precision:int"
)


def _attention(versions: str, inputs: str, attributes: str) -> Operator:
    return op(
        "Attention", versions, inputs, _OUTPUTS, attributes, keys="T1",
        types={"T1": FLOAT, "U": FLOAT | BOOL} | ({"I": INT64} if ":I" in inputs else {}),
        prepare="plain",
    )  # fmt: skip


FAMILY = Family(
    "attention",
    simd=True,
    operators=(
        _attention("23", _INPUTS, _ATTRIBUTES),
        _attention("24", f"{_INPUTS} nonpad_kv_seqlen?:I", _ATTRIBUTES),
        _attention(
            "25-", f"{_INPUTS} nonpad_kv_seqlen?:I",
            f"{_ATTRIBUTES} left_window_size:int=-1 right_window_size:int=-1",
        ),
        op(
            "RotaryEmbedding", "23-", "X:T cos_cache:T sin_cache:T position_ids?:M", "Y:T",
            "interleaved:int=0 num_heads:int=0 rotary_embedding_dim:int=0",
            types={"T": FLOAT, "M": INT64}, prepare="plain", in_place=(0,),
        ),
        op(
            "RotaryEmbedding", "1", "input:T position_ids:M cos_cache:T sin_cache:T", "output:T",
            "interleaved:int=0 num_heads:int=0 rotary_embedding_dim:int=0 "
            "is_packed_batching:int=0 scale:float=1.0",
            domain=_MICROSOFT, kernel="MicrosoftRotaryEmbedding", types={"T": FLOAT, "M": INT64},
            prepare="plain", in_place=(0,),
        ),
        op(
            "Attention", "1",
            "input:T weights:T bias?:T mask_index?:M past?:T attention_bias?:T "
            "past_sequence_length?:M",
            "output:T present?:T",
            "num_heads!:int unidirectional:int=0 qkv_hidden_sizes:ints "
            "past_present_share_buffer:int=0 do_rotary:int=0 rotary_embedding_dim:int=0 "
            "mask_filter_value:float=-10000.0 scale:float",
            domain=_MICROSOFT, kernel="MicrosoftAttention", types={"T": FLOAT, "M": _INT32},
            variants="products_in_place! products_dots!",
            prepare="plain",
        ),
        op(
            "GroupQueryAttention", "1",
            "query:T key?:T value?:T past_key?:T past_value?:T seqlens_k:M "
            "total_sequence_length:M cos_cache?:T sin_cache?:T position_ids?:I attention_bias?:T "
            "head_sink?:T k_scale?:T v_scale?:T q_norm_weight?:T k_norm_weight?:T "
            "query_seqlens?:M",
            "output:T present_key?:T present_value?:T output_qk?:T",
            "num_heads!:int kv_num_heads!:int scale:float softcap:float=0.0 "
            "local_window_size:int=-1 do_rotary:int=0 rotary_interleaved:int=0 "
            "smooth_softmax:int=0 qk_output:int=0 causal:int=1 sliding_window_cache:int=0 "
            "k_quant_type:string v_quant_type:string kv_cache_bit_width:int "
            "qk_norm_epsilon:float q_norm_epsilon:float k_norm_epsilon:float",
            domain=_MICROSOFT, types={"T": FLOAT, "M": _INT32, "I": INT64}, prepare="plain",
            value_inputs=(6,),
        ),
        op(
            "MultiHeadAttention", "1",
            "query:T key?:T value?:T bias?:T key_padding_mask?:M attention_bias?:T past_key?:T "
            "past_value?:T past_sequence_length?:M cache_indirection?:M",
            "output:T present_key?:T present_value?:T qk?:T",
            "num_heads!:int unidirectional:int=0 mask_filter_value:float=-10000.0 scale:float",
            domain=_MICROSOFT, types={"T": FLOAT, "M": _INT32}, prepare="plain",
        ),
    ),
)  # fmt: skip
