"""The operator cases of tests/cases: reading them, making models of them, comparing results.

In: the JSON files (form: tests/cases/README.md). Out: ONNX models of one node with their feeds.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes  # noqa: F401 - makes numpy know bfloat16 and the types of 8 bits
import numpy as np
import numpy.typing as npt
import onnx
import onnx.defs
import onnx.parser
from onnx import helper, numpy_helper

import ortolan
from ortolan import catalog
from ortolan.catalog.operator import Operator
from ortolan.catalog.types import DataType

CASES = Path(__file__).resolve().parent / "cases"
# What a model of another domain imports beside it.
STANDARD_OPSET = 17
DEFAULT_TOLERANCE = 1e-5
FLOOR = 1e-7

Array: TypeAlias = npt.NDArray[Any]
Spec: TypeAlias = dict[str, Any]
"""A tensor in a case file: its type, its shape, and its numbers or how they are drawn."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One case as the file states it.

    Attributes:
        family: folder of the file, named like the catalog's family.
        outputs: how many outputs there are (onnxruntime says what is in them), or the tensors;
            None stands for an output that the node leaves out.
        model: text of the main graph instead of a node.
        types: type by variable of the catalog entry, for a case that was made for these types.
        stand_ins: the same case in other types, for a runtime that lacks the kernel.
        channels_last: images reach the node through a pool of one element, which runtimes that
            have layouts compute in channels_last order.
        packed: weights are constants in the packed form of files.
    """

    family: str
    operator: str
    domain: str
    name: str
    opset: int
    inputs: tuple[Spec | None, ...]
    outputs: int | tuple[Spec | None, ...]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    constants: tuple[int, ...] = ()
    tolerance: float | None = None
    error: str | None = None
    model: str | None = None
    note: str = ""
    types: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stand_ins: tuple[Case, ...] = ()
    channels_last: bool = False
    packed: bool = False

    @property
    def id(self) -> str:
        """``elementwise/Relu/nan``."""
        return f"{self.family}/{self.operator}/{self.name}"

    @property
    def count(self) -> int:
        """How many outputs the node has, left out ones included."""
        return self.outputs if isinstance(self.outputs, int) else len(self.outputs)

    @functools.cached_property
    def since(self) -> int:
        """The since_version that the opset means for the operator."""
        try:
            return int(onnx.defs.get_schema(self.operator, self.opset, self.domain).since_version)
        except onnx.defs.SchemaError:  # of another domain
            return self.opset

    @functools.cached_property
    def entry(self) -> Operator | None:
        """The operator's entry in the catalog."""
        return catalog.find(self.domain, self.operator, self.since)


_KEYS = frozenset(
    "name opset attributes inputs constants outputs tolerance error note model".split()
)


def load_cases(folder: Path = CASES) -> list[Case]:
    """Every case below a folder, ordered by file.

    Raises:
        ValueError: a case has an unknown key, or two have one name.
    """
    found: dict[str, Case] = {}
    for path in sorted(folder.glob("*/*.json")):
        content = json.loads(path.read_text("utf-8"))
        for item in content["cases"]:
            case = _case(path.parent.name, content, item)
            if set(item) - _KEYS:
                raise ValueError(f"{case.id}: unknown keys {sorted(set(item) - _KEYS)}")
            if case.id in found:
                raise ValueError(f"{case.id}: there are two cases of this name")
            found[case.id] = case
    return list(found.values())


def _case(family: str, content: Mapping[str, Any], item: Mapping[str, Any]) -> Case:
    outputs = item.get("outputs", 1)
    model = item.get("model")
    return Case(
        family=family,
        operator=content["operator"],
        domain=content.get("domain", ""),
        name=item["name"],
        opset=item["opset"],
        inputs=tuple(item["inputs"]),
        outputs=outputs if isinstance(outputs, int) else tuple(outputs),
        attributes=item.get("attributes", {}),
        constants=tuple(item.get("constants", ())),
        tolerance=item.get("tolerance"),
        error=item.get("error"),
        model="\n".join(model) if isinstance(model, list) else model,
        note=item.get("note", ""),
    )


def data_type(name: str) -> DataType:
    """The type of that ONNX name, such as "float" or "int64"."""
    return DataType[name.upper()]


def numpy_type(name: str) -> np.dtype[Any]:
    """The numpy type of an element type's ONNX name."""
    return helper.tensor_dtype_to_np_dtype(int(data_type(name)))


def type_name(dtype: np.dtype[Any]) -> str:
    """ONNX's name of a numpy type, such as "float" for float32."""
    return DataType(helper.np_dtype_to_tensor_dtype(dtype)).onnx_name


def make_array(spec: Spec) -> Array:
    """The tensor that a case states.

    Raises:
        ValueError: the numbers do not fill the shape, or nothing says what they are.
    """
    dtype, shape = numpy_type(spec["type"]), tuple(spec["shape"])
    if spec["type"] == "string":
        return _make_texts(spec, shape)
    if "data" in spec:
        numbers = [float(x) if isinstance(x, str) else x for x in spec["data"]]
        return np.array(numbers, dtype=dtype).reshape(shape)
    random = np.random.default_rng(spec["seed"])
    match spec.get("random"):
        case "normal":
            drawn: Any = random.standard_normal(shape)
        case "uniform":
            drawn = random.uniform(spec.get("low", 0.0), spec.get("high", 1.0), shape)
        case "integers":
            drawn = random.integers(spec["low"], spec["high"], shape)
        case other:
            raise ValueError(f'a tensor has neither "data" nor a known "random": {other!r}')
    return np.asarray(drawn).astype(dtype)


def _make_texts(spec: Spec, shape: tuple[int, ...]) -> Array:
    """Strings as stated, or the decimal digits of drawn integers."""
    texts = spec.get("data")
    if texts is None:
        numbers = make_array({**spec, "type": "int64"})
        texts = [str(n) for n in numbers.reshape(-1).tolist()]
    result = np.empty(shape, object)
    result.reshape(-1)[:] = texts
    return result


@dataclasses.dataclass(frozen=True)
class Model:
    """A case as an ONNX model, and what to feed it by name."""

    proto: onnx.ModelProto
    feeds: dict[str, Array]
    outputs: list[str]


def input_name(index: int) -> str:
    """Name of an input of a case's model."""
    return f"i{index}"


def make_model(case: Case) -> Model:
    """The ONNX model of a case."""
    arrays = [None if spec is None else make_array(spec) for spec in case.inputs]
    if case.model is not None:
        return _written_model(case, [a for a in arrays if a is not None])
    names = ["" if a is None else input_name(k) for k, a in enumerate(arrays)]
    present = {k: a for k, a in enumerate(arrays) if a is not None}
    feeds = {names[k]: a for k, a in present.items() if k not in case.constants}
    results = [f"o{k}" if _is_wanted(case, k) else "" for k in range(case.count)]
    nodes = []
    if case.channels_last:
        for k in images(case):
            nodes.append(_pool(names[k], len(present[k].shape) - 2))
            names[k] = nodes[-1].output[0]
    node = helper.make_node(case.operator, names, results, name="node", domain=case.domain)
    node.attribute.extend(_attributes(case))
    outputs = [name for name in results if name]
    graph = helper.make_graph(
        [*nodes, node],
        "case",
        [_value_info(name, array) for name, array in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(present[k], names[k]) for k in case.constants],
    )
    return Model(_wrap(case, graph), feeds, outputs)


def images(case: Case) -> list[int]:
    """The inputs that a pool could give: float, 1 to 3 spatial dimensions, no constants."""
    return [
        k
        for k, spec in enumerate(case.inputs)
        if spec is not None
        and spec["type"] == "float"
        and 3 <= len(spec["shape"]) <= 5
        and k not in case.constants
    ]


def _pool(name: str, rank: int) -> onnx.NodeProto:
    return helper.make_node("MaxPool", [name], [f"{name}_image"], kernel_shape=[1] * rank)


def _is_wanted(case: Case, output: int) -> bool:
    return isinstance(case.outputs, int) or case.outputs[output] is not None


def _value_info(name: str, array: Array) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, element, array.shape)


def _wrap(case: Case, graph: onnx.GraphProto) -> onnx.ModelProto:
    imports = {"": STANDARD_OPSET, case.domain: case.opset}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in imports.items()],
        # From version 4 on initializers need not be inputs as well.
        ir_version=4 if imports[""] < 9 else 8 if imports[""] < 18 else 10,
    )


def _written_model(case: Case, arrays: Sequence[Array]) -> Model:
    assert case.model is not None
    graph = onnx.parser.parse_graph(case.model)
    names = [value.name for value in graph.input]
    feeds = dict(zip(names, arrays, strict=True))
    return Model(_wrap(case, graph), feeds, [value.name for value in graph.output])


def _attributes(case: Case) -> list[onnx.AttributeProto]:
    kinds = {a.name: a.kind for a in case.entry.attributes} if case.entry else {}
    made = []
    for name, value in case.attributes.items():
        kind = kinds.get(name, "")
        attr_type = None
        if isinstance(value, dict) and "graph" in value:
            text = value["graph"]
            value = onnx.parser.parse_graph("\n".join(text) if isinstance(text, list) else text)
        elif isinstance(value, dict):
            value = numpy_helper.from_array(make_array(value), name)
        elif isinstance(value, list) and kind:
            # An empty list does not tell what it is a list of.
            value = [float(x) for x in value] if kind == "floats" else value
            attr_type = onnx.AttributeProto.AttributeType.Value(kind.upper())
        elif kind == "float":
            value = float(value)
        made.append(helper.make_attribute(name, value, attr_type=attr_type))
    return made


def differences(got: Array, expected: Array, tolerance: float | None = None) -> str:
    """What is wrong with a result; empty when nothing is.

    The rule, for all runtimes (tests/web/compare.mjs has it in JavaScript): types and shapes are
    equal; NaN equals NaN and an infinity itself; float and double differ by at most `tolerance`
    times the largest finite magnitude of the expected tensor, or 1e-7; the rest is equal.
    """
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return f"{got.dtype}{list(got.shape)} instead of {expected.dtype}{list(expected.shape)}"
    if expected.dtype == object:
        return "" if got.tolist() == expected.tolist() else f"{got} instead of {expected}"
    if expected.dtype not in (np.float32, np.float64):
        return "" if got.tobytes() == expected.tobytes() else "elements differ"
    a, b = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(np.where(finite, 0, a), np.where(finite, 0, b), equal_nan=True):
        return "NaN or infinity where it should not be, or none where it should be"
    if not finite.any():
        return ""
    bound = max((DEFAULT_TOLERANCE if tolerance is None else tolerance) * scale(b), FLOOR)
    error = float(np.abs(np.where(finite, a, 0) - np.where(finite, b, 0)).max())
    # Not error > bound: a NaN must not pass.
    return "" if error <= bound else f"off by {error:.3g}, {bound:.3g} is allowed"


def scale(expected: Array) -> float:
    """The largest finite magnitude of a tensor, at least 1e-30."""
    finite = expected[np.isfinite(expected)]
    return max(float(np.abs(finite).max(initial=0)), 1e-30)


def levels() -> list[str]:
    """The instruction sets of this machine, as `ortolan.instruction_set` names them."""
    sets = ["sse2", "avx2", "avx512"]
    found = str(ortolan.runtime_info()["instruction_set"])
    return [str(k) for k in range(sets.index(found) + 1)] if found in sets else ["255"]
