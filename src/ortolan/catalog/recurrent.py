"""Recurrent networks."""

from __future__ import annotations

from typing import Any

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FLOAT, type_set

_TYPES = {"T": FLOAT, "T1": type_set("int32")}
_INPUTS = "X:T W:T R:T B?:T sequence_lens?:T1 initial_h?:T"
_OUTPUTS = "Y?:T Y_h?:T"
_LSTM_INPUTS = _INPUTS + " initial_c?:T P?:T"
_LSTM_OUTPUTS = _OUTPUTS + " Y_c?:T"
_COMMON = (
    "activation_alpha:floats activation_beta:floats activations:strings clip:float"
    " direction:string=forward hidden_size:int"
)
_LSTM = _COMMON + " input_forget:int=0"
_GRU = _COMMON + " linear_before_reset:int=0"
_LAYOUT = " layout:int=0"

# Curves: activations that are not the defaults.
_GIVEN: dict[str, Any] = {"types": _TYPES, "prepare": "plain", "variants": "curves"}

FAMILY = Family(
    "recurrent",
    simd=True,
    operators=(
        op("LSTM", "7", _LSTM_INPUTS, _LSTM_OUTPUTS, _LSTM, **_GIVEN),
        op("LSTM", "14-", _LSTM_INPUTS, _LSTM_OUTPUTS, _LSTM + _LAYOUT, **_GIVEN),
        op("GRU", "7", _INPUTS, _OUTPUTS, _GRU, **_GIVEN),
        op("GRU", "14-", _INPUTS, _OUTPUTS, _GRU + _LAYOUT, **_GIVEN),
        op("RNN", "7", _INPUTS, _OUTPUTS, _COMMON, **_GIVEN),
        op("RNN", "14-", _INPUTS, _OUTPUTS, _COMMON + _LAYOUT, **_GIVEN),
    ),
)  # fmt: skip
