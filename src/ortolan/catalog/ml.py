"""Classical machine learning, the domain ai.onnx.ml."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import FLOAT, FLOATS, INT64, STRING, TypeSet, type_set

_NUMBERS = FLOATS | type_set("int32", "int64")
_TREE = (
    "nodes_nodeids:ints nodes_treeids:ints nodes_featureids:ints nodes_values:floats"
    " nodes_hitrates:floats nodes_modes:strings nodes_truenodeids:ints nodes_falsenodeids:ints"
    " nodes_missing_value_tracks_true:ints base_values:floats post_transform:string=NONE"
)
_TREE_TENSORS = " nodes_values_as_tensor:tensor nodes_hitrates_as_tensor:tensor"
_CLASSIFIER = (
    f"{_TREE} class_ids:ints class_nodeids:ints class_treeids:ints class_weights:floats"
    " classlabels_int64s:ints classlabels_strings:strings"
)
_REGRESSOR = (
    f"{_TREE} target_ids:ints target_nodeids:ints target_treeids:ints target_weights:floats"
    " n_targets:int aggregate_function:string=SUM"
)
_SVM = (
    "kernel_type:string=LINEAR kernel_params:floats support_vectors:floats coefficients:floats"
    " rho:floats post_transform:string=NONE"
)


def _classifier(name: str, versions: str, attributes: str) -> Operator:
    return op(
        name, versions, "X:T1", "Y:T2 Z:F", attributes, domain="ai.onnx.ml",
        types={"T1": _NUMBERS, "T2": INT64 | STRING, "F": FLOAT}, keys="T1",
        type_attribute="labels", prepare="typed" if name.startswith("Tree") else "plain",
    )  # fmt: skip


def _regressor(name: str, versions: str, attributes: str) -> Operator:
    return op(
        name, versions, "X:T", "Y:F", attributes, domain="ai.onnx.ml",
        types={"T": _NUMBERS, "F": FLOAT},
        prepare="typed" if name.startswith("Tree") else "plain",
    )  # fmt: skip


def _features(
    name: str, inputs: str, outputs: str, attributes: str, types: TypeSet = _NUMBERS,
    infer: str = "own",
) -> Operator:  # fmt: skip
    allowed = {"T": types}
    if ":F" in inputs + outputs:
        allowed["F"] = FLOAT
    return op(
        name, "1-", inputs, outputs, attributes, domain="ai.onnx.ml", types=allowed, infer=infer
    )  # fmt: skip


FAMILY = Family(
    "ml",
    simd=False,
    operators=(
        _classifier("TreeEnsembleClassifier", "1-2", _CLASSIFIER),
        _classifier(
            "TreeEnsembleClassifier", "3-",
            f"{_CLASSIFIER}{_TREE_TENSORS} base_values_as_tensor:tensor"
            " class_weights_as_tensor:tensor",
        ),
        _regressor("TreeEnsembleRegressor", "1-2", _REGRESSOR),
        _regressor(
            "TreeEnsembleRegressor", "3-",
            f"{_REGRESSOR}{_TREE_TENSORS} base_values_as_tensor:tensor"
            " target_weights_as_tensor:tensor",
        ),
        op(
            "TreeEnsemble", "5-", "X:T", "Y:T",
            "aggregate_function:int=1 post_transform:int=0 n_targets:int tree_roots!:ints"
            " nodes_featureids!:ints nodes_splits!:tensor nodes_hitrates:tensor"
            " nodes_modes!:tensor nodes_truenodeids!:ints nodes_trueleafs!:ints"
            " nodes_falsenodeids!:ints nodes_falseleafs!:ints"
            " nodes_missing_value_tracks_true:ints membership_values:tensor"
            " leaf_targetids!:ints leaf_weights!:tensor",
            domain="ai.onnx.ml", types={"T": FLOATS}, prepare="typed",
            infer="TreeEnsembleRegressor::infer",
        ),
        _classifier(
            "LinearClassifier", "1-",
            "coefficients!:floats intercepts:floats multi_class:int=0 classlabels_ints:ints"
            " classlabels_strings:strings post_transform:string=NONE",
        ),
        _regressor(
            "LinearRegressor", "1-",
            "coefficients:floats intercepts:floats targets:int=1 post_transform:string=NONE",
        ),
        _classifier(
            "SVMClassifier", "1-",
            f"{_SVM} classlabels_ints:ints classlabels_strings:strings prob_a:floats prob_b:floats"
            " vectors_per_class:ints",
        ),
        _regressor("SVMRegressor", "1-", f"{_SVM} n_supports:int=0 one_class:int=0"),
        _features("Normalizer", "X:T", "Y:F", "norm:string=MAX"),
        _features("Scaler", "X:T", "Y:F", "offset:floats scale:floats"),
        _features(
            "Imputer", "X:T", "Y:T",
            "imputed_value_floats:floats replaced_value_float:float=0.0"
            " imputed_value_int64s:ints replaced_value_int64:int=0",
        ),
        _features("FeatureVectorizer", "X*:T", "Y:F", "inputdimensions:ints"),
        _features("Binarizer", "X:T", "Y:T", "threshold:float=0.0", infer="infer_same"),
        op(
            "ArrayFeatureExtractor", "1-", "X:T Y:I", "Z:T", domain="ai.onnx.ml",
            types={"T": _NUMBERS | STRING, "I": INT64}, instances="width",
        ),
    ),
)  # fmt: skip
