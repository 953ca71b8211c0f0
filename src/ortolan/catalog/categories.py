"""Categories of ai.onnx.ml: one-hot codes, labels for labels, and what becomes of maps."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import FLOAT, FLOATS, INT64, STRING, TypeSet, type_set

_ML = "ai.onnx.ml"
_NUMBERS = FLOATS | type_set("int32", "int64")
_DEFAULTS = "default_float:float=-0.0 default_int64:int=-1 default_string:string=_Unused"
_LISTS = (
    "keys_floats:floats keys_int64s:ints keys_strings:strings"
    " values_floats:floats values_int64s:ints values_strings:strings"
)


def _encoder(name: str, versions: str, attributes: str, types: TypeSet, rule: str) -> Operator:
    return op(
        name, versions, "X:T1", "Y:T2", attributes, domain=_ML, types={"T1": types, "T2": types},
        kernel="LabelEncoder", instances="once", keys="T1", prepare="plain", type_attribute=rule,
    )  # fmt: skip


FAMILY = Family(
    "categories",
    simd=False,
    operators=(
        op(
            "OneHotEncoder", "1-", "X:T", "Y:F",
            "cats_int64s:ints cats_strings:strings zeros:int=1", domain=_ML,
            types={"T": _NUMBERS | STRING, "F": FLOAT}, instances="once", prepare="plain",
        ),
        _encoder(
            "LabelEncoder", "1",
            "classes_strings:strings default_int64:int=-1 default_string:string=_Unused",
            INT64 | STRING, "opposite",
        ),
        _encoder(
            "LabelEncoder", "2-3", f"{_DEFAULTS} {_LISTS}", INT64 | STRING | FLOAT, "label_values"
        ),
        _encoder(
            "LabelEncoder", "4-",
            f"{_DEFAULTS} {_LISTS} keys_tensor:tensor values_tensor:tensor default_tensor:tensor",
            INT64 | STRING | FLOATS | type_set("int16"), "label_values",
        ),
        _encoder(
            "CategoryMapper", "1-",
            "cats_int64s:ints cats_strings:strings default_int64:int=-1"
            " default_string:string=_Unused",
            INT64 | STRING, "opposite",
        ),
        op(
            "DictVectorizer", "1-", "X:Any", "Y:Any",
            "int64_vocabulary:ints string_vocabulary:strings", domain=_ML, instances="once",
            keys="", infer="none", flags=("data_dependent",), type_attribute="map_value",
        ),
        op(
            "CastMap", "1-", "X:Any", "Y:T2",
            "cast_to:string=TO_FLOAT map_form:string=DENSE max_map:int=1", domain=_ML,
            types={"T2": FLOAT | INT64 | STRING}, instances="once", keys="", infer="none",
            flags=("data_dependent",), type_attribute="cast_to",
        ),
    ),
)  # fmt: skip
