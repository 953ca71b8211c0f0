"""Matrix products."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FLOAT, FLOATS, type_set

_WITH_INTEGERS = FLOATS | type_set("int32", "int64", "uint32", "uint64")
_MICROSOFT = "com.microsoft"
_GEMM = "alpha:float=1.0 beta:float=1.0 transA:int=0 transB:int=0"
_WAYS = "products_in_place products_dots products_prepacked"

FAMILY = Family(
    "matrix",
    simd=True,
    operators=(
        op(
            "MatMul",
            "1-8",
            "A:T B:T",
            "Y:T",
            types={"T": FLOATS},
            prepare="typed",
            variants=_WAYS,
            packed=(1,),
        ),
        op(
            "MatMul",
            "9-",
            "A:T B:T",
            "Y:T",
            types={"T": _WITH_INTEGERS},
            prepare="typed",
            variants=_WAYS,
            packed=(1,),
        ),
        op(
            "Gemm",
            "7-10",
            "A:T B:T C:T",
            "Y:T",
            _GEMM,
            types={"T": FLOATS},
            prepare="typed",
            variants=_WAYS,
            packed=(1,),
        ),
        op(
            "Gemm",
            "11-",
            "A:T B:T C?:T",
            "Y:T",
            _GEMM,
            types={"T": FLOATS},
            prepare="typed",
            variants=_WAYS,
            packed=(1,),
        ),
        op(
            "MatMulNBits",
            "1",
            "A:T1 B:T2 scales:T1 zero_points?:T3 g_idx?:T4 bias?:T1",
            "Y:T1",
            "K!:int N!:int bits:int=4 block_size!:int accuracy_level:int=0 weight_prepacked:int=0",
            domain=_MICROSOFT,
            keys="T1",
            prepare="plain",
            types={
                "T1": FLOAT,
                "T2": type_set("uint8"),
                "T3": type_set("uint8", "float"),
                "T4": type_set("int32"),
            },
        ),
        op(
            "FusedMatMul",
            "1",
            "A:T B:T",
            "Y:T",
            "alpha:float=1.0 transA:int=0 transB:int=0 transBatchA:int=0 transBatchB:int=0",
            domain=_MICROSOFT,
            kernel="MatMul",
            types={"T": FLOATS},
            prepare="typed",
            variants=_WAYS,
            packed=(1,),
        ),
        op(
            "TransposeMatMul",
            "1",
            "A:T B:T",
            "Y:T",
            "alpha:float=1.0 transA:int=0 transB:int=0",
            domain=_MICROSOFT,
            kernel="MatMul",
            types={"T": FLOATS},
            prepare="typed",
            variants=_WAYS,
            packed=(1,),
        ),
        op(
            "FusedGemm",
            "1",
            "A:T B:T C?:T",
            "Y:T",
            f"{_GEMM} activation:string activation_alpha:float activation_beta:float "
            "activation_gamma:float",
            domain=_MICROSOFT,
            kernel="Gemm",
            types={"T": FLOAT},
            prepare="typed",
            variants=_WAYS + " gemm_activation! activations!",
            packed=(1,),
        ),
    ),
)
