"""Fourier transforms, windows and mel bands."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import FLOATS, INDEX, INT64, NUMBERS

_TRANSFORM = {"T1": FLOATS, "T2": INDEX}


def _window(name: str) -> Operator:
    return op(
        name, "17-", "size:T1", "output:T2", "output_datatype:int=1 periodic:int=1",
        types={"T1": INDEX, "T2": NUMBERS}, instances="once", keys="T2", value_inputs=(0,),
        type_attribute="output_datatype=float",
    )  # fmt: skip


FAMILY = Family(
    "signal",
    simd=False,
    operators=(
        op(
            "DFT", "17-19", "input:T1 dft_length?:T2", "output:T1",
            "axis:int=1 inverse:int=0 onesided:int=0", types=_TRANSFORM, keys="T1",
            value_inputs=(1,),
        ),
        op(
            "DFT", "20-", "input:T1 dft_length?:T2 axis?:S", "output:T1",
            "inverse:int=0 onesided:int=0", types={**_TRANSFORM, "S": INT64}, keys="T1",
            value_inputs=(1, 2),
        ),
        op(
            "STFT", "17-", "signal:T1 frame_step:T2 window?:T1 frame_length?:T2", "output:T1",
            "onesided:int=1", types={"T1": FLOATS, "T2": INDEX}, keys="T1", value_inputs=(1, 3),
        ),
        _window("HannWindow"),
        _window("HammingWindow"),
        _window("BlackmanWindow"),
        op(
            "MelWeightMatrix", "17-",
            "num_mel_bins:T1 dft_length:T1 sample_rate:T1 lower_edge_hertz:T2"
            " upper_edge_hertz:T2",
            "output:T3", "output_datatype:int=1",
            types={"T1": INDEX, "T2": FLOATS, "T3": NUMBERS}, instances="once", keys="T3",
            value_inputs=(0, 1), type_attribute="output_datatype=float",
        ),
    ),
)  # fmt: skip
