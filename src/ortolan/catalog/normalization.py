"""Operators that bring rows, channels or groups to a mean of 0 and a variance or norm of 1."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FLOAT, FLOATS, type_set

_T = {"T": FLOATS}
_LAYER = "axis:int=-1 epsilon:float=1e-05 stash_type:int=1"
_MICROSOFT = "com.microsoft"

FAMILY = Family(
    "normalization",
    simd=True,
    operators=(
        op(
            "InstanceNormalization", "1-", "input:T scale:T B:T", "output:T",
            "consumed_inputs:ints epsilon:float=1e-05", types=_T, prepare="plain", layout="axis",
            in_place=(0,),
        ),
        op(
            "GroupNormalization", "18-20", "X:T scale:T bias:T", "Y:T",
            "epsilon:float=1e-05 num_groups!:int", types=_T, prepare="plain", in_place=(0,),
        ),
        op(
            "GroupNormalization", "21-", "X:T scale:T bias:T", "Y:T",
            "epsilon:float=1e-05 num_groups!:int stash_type:int=1", types=_T, prepare="plain",
            in_place=(0,),
        ),
        # onnxruntime had it before the standard.
        op(
            "LayerNormalization", "1-16", "X:T Scale:V B?:V", "Y:V Mean?:U InvStdDev?:U", _LAYER,
            types={"T": FLOAT, "V": FLOAT, "U": FLOAT}, prepare="plain", in_place=(0,),
        ),
        op(
            "LayerNormalization", "17-", "X:T Scale:T B?:T", "Y:T Mean?:U InvStdDev?:U", _LAYER,
            types={"T": FLOATS, "U": FLOAT}, prepare="plain", in_place=(0,),
        ),
        op(
            "RMSNormalization", "23-", "X:T scale:V", "Y:V", _LAYER,
            types={"T": FLOATS, "V": FLOATS}, keys="V", prepare="plain", in_place=(0,),
        ),
        op(
            "SkipLayerNormalization", "1", "input:T skip:T gamma:T beta?:T bias?:T",
            "output:T mean?:U inv_std_var?:U input_skip_bias_sum?:T", "epsilon:float=1e-12",
            domain=_MICROSOFT, types={"T": FLOAT, "U": FLOAT}, prepare="plain", in_place=(0,),
        ),
        op(
            "SkipSimplifiedLayerNormalization", "1", "input:T skip:T gamma:T bias?:T",
            "output:T mean?:U inv_std_var?:U input_skip_bias_sum?:T", "epsilon:float=1e-12",
            domain=_MICROSOFT, types={"T": FLOAT, "U": FLOAT}, prepare="plain", in_place=(0,),
        ),
        # onnxruntime's, in the standard's domain.
        op(
            "SimplifiedLayerNormalization", "1-", "X:T scale:T", "Y:T inv_std_var?:U", _LAYER,
            types={"T": FLOATS, "U": FLOAT}, prepare="plain", in_place=(0,),
        ),
        op(
            "EmbedLayerNormalization", "1",
            "input_ids:T1 segment_ids?:T1 word_embedding:T position_embedding:T "
            "segment_embedding?:T gamma:T beta:T mask?:T1 position_ids?:T1",
            "output:T mask_index?:T1 embedding_sum?:T",
            "epsilon:float=1e-12 mask_index_type:int=1", domain=_MICROSOFT, keys="T",
            types={"T1": type_set("int32"), "T": FLOAT}, prepare="plain",
        ),
        op(
            "LRN", "1-", "X:T", "Y:T",
            "alpha:float=0.0001 beta:float=0.75 bias:float=1.0 size!:int", types=_T,
            prepare="plain",
        ),
        op(
            "LpNormalization", "1-", "input:T", "output:T", "axis:int=-1 p:int=2", types=_T,
            prepare="plain", in_place=(0,),
        ),
        op(
            "MeanVarianceNormalization", "9-", "X:T", "Y:T", "axes:ints", types=_T,
            in_place=(0,),
        ),
    ),
)  # fmt: skip
