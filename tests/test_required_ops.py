"""The config of required operators: reading, writing, merging, selecting; onnxruntime as oracle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

import ortolan
from ortolan import catalog
from ortolan.build.variants import record_variants
from ortolan.catalog.types import DataType, type_set
from ortolan.errors import NoSuchFile
from ortolan.ortformat import read, tables
from ortolan.required_ops import (
    Config,
    ConfigError,
    absent_features,
    from_uses,
    minimise,
    missing,
    parse_config,
    read_config,
    required_operators,
    selector,
    variant_selector,
)
from ortolan.required_ops.config import FEATURES, merge
from ortolan.required_ops.reading import parse_types

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"


def of_model(source: Path | onnx.ModelProto) -> Config:
    content = ortolan.convert(source if isinstance(source, Path) else source.SerializeToString())
    return from_uses(required_operators(read(content)))


def model(*nodes: onnx.NodeProto, types: dict[str, int], output: str) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(k, t, ["n"]) for k, t in types.items() if k != output]
    outputs = [helper.make_tensor_value_info(output, types[output], ["n"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def kept(config: Config, name: str, data_type: DataType, version: int = 13) -> bool:
    """Whether the instance of an operator for one type of its first key is kept."""
    wanted = selector(config)
    operator = catalog.find("", name, version)
    assert operator is not None
    return wanted is None or wanted(operator, (frozenset({data_type}), frozenset({data_type})))


def test_the_forms_of_the_format_are_read() -> None:
    config = parse_config(
        "# comment\n\n"
        'ai.onnx;11,12;Add,Cast{"inputs": {"0": ["float","int32_t"]}, "outputs": '
        '{"0": ["float","int64_t"]}},Concat\n'
        "com.microsoft;1;FusedConv\n"
        'ai.onnx;11;OneHot{"custom": [["float","int64_t","int64_t"]]}\n'
        "!no_ops_specified_means_all_ops_are_required\n"
    )
    assert config.operators["", "Cast"] == {11, 12}
    assert config.operators["com.microsoft", "FusedConv"] == {1}
    assert config.types["", "Cast"].inputs == {0: type_set("float", "int32")}
    assert config.types["", "Cast"].outputs == {0: type_set("float", "int64")}
    (triple,) = config.types["", "OneHot"].triples
    assert triple == (DataType.FLOAT, DataType.INT64, DataType.INT64)
    assert ("", "Add") not in config.types
    assert config.all_if_empty and not config.keeps_all
    assert config.lines["com.microsoft", "FusedConv"] == 4


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("ai.onnx;11", 1, "domain;opsets;operators"),
        ("#\nai.onnx;x;Add", 2, "no opset"),
        ("ai.onnx;0;Add", 1, "no opset"),
        ("ai.onnx;11;Add,,Mul", 1, "no name of an operator"),
        ('ai.onnx;11;Add{"inputs": {"0": ["float"]}', 1, "no JSON"),
        ("ai.onnx;" + 5000 * "9" + ";Add", 1, "no opset"),
        ('ai.onnx;11;Add{"inputs": {"0": ["float"], "1": ' + 5000 * "9", 1, "too long"),
        ('ai.onnx;11;Add{"inputs": ' + 100_000 * "[", 1, "too deep"),
        ('ai.onnx;11;Add{"inputs": {"\u00b2": ["float"]}}', 1, "by number"),
        ('ai.onnx;11;Add{"inputs": {"' + 5000 * "1" + '": ["float"]}}', 1, "by number"),
        ('ai.onnx;11;Add{"inputs": {"0": ["flaot"]}}', 1, 'no type "flaot"'),
        ('ai.onnx;11;Add{"inputs": {"a": ["float"]}}', 1, "by number"),
        ('ai.onnx;11;Add{"inputs": {"0": "float"}}', 1, "a list of types"),
        ('ai.onnx;11;Add{"in": {}}', 1, "an object with"),
        ('ai.onnx;11;Add{"inputs": {}}Mul', 1, "a comma is missing"),
        ("!everything", 1, "there is no"),
        ("!globally_allowed_types;float\n\n!globally_allowed_types;int8_t", 3, "line 1"),
        ('!globally_allowed_types;float\nai.onnx;1;Add{"inputs":{"0":["float"]}}', 2, "globally"),
    ],
)
def test_an_error_names_the_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "my.config")
    assert f"my.config:{line}" in str(caught.value)
    assert words in str(caught.value)


def test_a_file_that_is_missing_or_binary(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFile, match=r"nothing\.config"):
        read_config(tmp_path / "nothing.config")
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no text file"):
        read_config(tmp_path / "b")


def test_what_is_written_is_read_as_the_same_by_us_and_by_onnxruntime(tmp_path: Path) -> None:
    tools = pytest.importorskip("onnxruntime.tools.reduced_build_config_parser")
    config = of_model(DIGITS)
    path = tmp_path / "digits.config"
    path.write_text(config.text(["made from digits"]))
    assert read_config(path) == config
    required, type_filter = tools.parse_config(str(path), True)
    ours = {
        (domain or "ai.onnx", opset, name)
        for (domain, name), opsets in config.operators.items()
        for opset in opsets
    }
    theirs = {(d, o, n) for d, by in required.items() for o, names in by.items() for n in names}
    assert ours == theirs
    assert type_filter is not None


def test_a_config_by_onnxruntimes_own_tool_keeps_what_the_model_needs(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "digits.onnx").write_bytes(DIGITS.read_bytes())
    command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", str(tmp_path)]
    command += ["--optimization_style", "Fixed", "--enable_type_reduction"]
    # The fusions of its higher levels are operators of its own, which the catalog may lack.
    level = {"ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL": "basic"}
    subprocess.run(command, check=True, capture_output=True, env=os.environ | level)
    (path,) = tmp_path.glob("*.config")
    config = read_config(path)
    assert not missing(config)
    wanted = selector(config)
    assert wanted is not None
    (converted,) = tmp_path.glob("*.ort")
    for use in required_operators(read(converted.read_bytes())):
        operator = catalog.find(use.domain, use.name, use.version)
        assert operator is not None
        types = [frozenset({t}) for t in use.types] + [frozenset[DataType]()] * 2
        assert wanted(operator, (types[0], types[1])), use


def test_writing_a_config_touches_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".my.config.tmp").symlink_to(tmp_path / "mine")
    Config().write(tmp_path / "my.config")
    assert (tmp_path / "mine").read_text() == "mine"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".my.config.tmp", "mine", "my.config"}


def test_a_comment_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "my.config"
    comments = ["a model \n!globally_allowed_types;float\x85ai.onnx;1;Abs\u2028\udcff.ort"]
    Config().write(path, comments)
    assert read_config(path) == Config()
    assert len(path.read_text("utf-8").splitlines()) == 1


def test_inputs_that_an_operator_does_not_have() -> None:
    made = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y)
        { r = RandomUniform<shape = [2]>() y = Add(x, r) }"""
    )
    session = read(ortolan.convert(made, level="disable"))
    session.model.graph.nodes[0].inputs = ["x"]
    assert {use.name for use in required_operators(session)} == {"Add", "RandomUniform"}


def test_types_decide_which_kernels_are_kept() -> None:
    config = of_model(
        model(
            helper.make_node("Abs", ["x"], ["y"]),
            types={"x": TensorProto.INT32, "y": TensorProto.INT32},
            output="y",
        )
    )
    assert kept(config, "Abs", DataType.INT32)
    assert not kept(config, "Abs", DataType.FLOAT)
    assert not kept(config, "Neg", DataType.INT32)


def test_half_precision_keeps_float32_and_the_casts() -> None:
    config = parse_config('ai.onnx;13;Sigmoid{"inputs": {"0": ["MLFloat16"]}}')
    sigmoid = catalog.find("", "Sigmoid", 13)
    assert sigmoid is not None
    if DataType.FLOAT16 in sigmoid.types["T"]:
        pytest.skip("Sigmoid has kernels for half precision")
    assert kept(config, "Sigmoid", DataType.FLOAT)
    assert not kept(config, "Sigmoid", DataType.DOUBLE)
    wanted, cast = selector(config), catalog.find("", "Cast", 13)
    assert wanted is not None and cast is not None
    half, single = type_set("float16"), type_set("float")
    if half <= cast.types["T1"]:
        assert wanted(cast, (half, single)) and wanted(cast, (single, half))
    assert not wanted(cast, (type_set("int64"), single))


def test_an_opset_means_the_version_that_it_has() -> None:
    config = parse_config("ai.onnx;15;Relu")  # versions 6, 13 and 14
    assert minimise(config).operators["", "Relu"] == {14}
    assert kept(config, "Relu", DataType.FLOAT, 14)


def test_minimising_keeps_the_selection() -> None:
    config = parse_config("ai.onnx;11,12,13,14;Concat,Conv,NoSuchThing\n")
    small = minimise(config)
    assert ("", "NoSuchThing") not in small.operators
    assert next(str(m) for m in missing(config)) == "config:1: ai.onnx:NoSuchThing, opset 11"
    a, b = selector(config), selector(small)
    assert a is not None and b is not None
    for family in catalog.FAMILIES:
        for operator in family.operators:
            types = operator.types.get(operator.keys[0], frozenset()) if operator.keys else []
            for t in types:
                pair = (frozenset({t}), frozenset({t}))
                assert a(operator, pair) == b(operator, pair), operator.name
    assert len(small.text()) < len(config.text())


def test_globally_allowed_types_keep_what_shapes_are_computed_with() -> None:
    config = parse_config("!globally_allowed_types;float\nai.onnx;13;Add,Exp,Gather,Sigmoid")
    assert kept(config, "Add", DataType.FLOAT) and kept(config, "Add", DataType.INT64)
    assert not kept(config, "Add", DataType.DOUBLE)
    assert kept(config, "Gather", DataType.INT64)
    assert not kept(config, "Exp", DataType.DOUBLE)


def test_merging_keeps_what_each_keeps() -> None:
    a = parse_config('ai.onnx;13;Add{"inputs": {"0": ["float"]}},Neg{"inputs": {"0": ["float"]}}')
    b = parse_config('ai.onnx;14;Add{"inputs": {"0": ["int8_t"]}},Neg\nai.onnx;13;Relu')
    both = merge([a, b])
    assert both.operators["", "Add"] == {13, 14}
    assert both.types["", "Add"].inputs == {0: type_set("float", "int8")}
    assert ("", "Neg") not in both.types and ("", "Relu") in both.operators
    with pytest.raises(ConfigError, match="cannot be merged"):
        merge([a, parse_config("!globally_allowed_types;float\nai.onnx;1;Abs")])


def test_no_operators_means_none_or_all() -> None:
    assert not kept(parse_config(""), "Add", DataType.FLOAT)
    everything = parse_config("!no_ops_specified_means_all_ops_are_required")
    assert everything.keeps_all and selector(everything) is None


def test_types_by_name() -> None:
    assert parse_types("float, int8,int64_t") == type_set("float", "int8", "int64")
    with pytest.raises(ConfigError, match='no type "real"'):
        parse_types("real")


DEEP = "#ortolan:variant;ai.onnx;11;Conv;float;depthwise"


def test_variants_stand_in_comments_and_are_kept_by_operator() -> None:
    text = f"ai.onnx;11;Conv\nai.onnx;14;LSTM\n{DEEP}\n"
    config = parse_config(text)
    assert parse_config(config.text()) == config == minimise(config)
    conv, lstm = catalog.find("", "Conv", 11), catalog.find("", "LSTM", 14)
    wanted = variant_selector(config)
    assert wanted is not None and conv is not None and lstm is not None
    assert wanted(conv, "depthwise") and not wanted(conv, "depthwise_3")
    assert wanted(lstm, "curves")  # nothing is said of it
    assert variant_selector(parse_config("ai.onnx;11;Conv")) is None
    # Without a word on variants, one of both needs all of them.
    both = variant_selector(merge([config, parse_config("ai.onnx;11;Conv")]))
    assert both is None or both(conv, "depthwise_3")
    more = merge([config, parse_config(text.replace("depthwise", "pointwise"))])
    assert more.variants_of("", "Conv", 1, 255) == frozenset({"depthwise", "pointwise"})


def test_a_line_of_a_variant_that_is_wrong_is_told() -> None:
    with pytest.raises(ConfigError, match=r'c:2: Conv of version 11 has no variant "depth"'):
        parse_config(f"ai.onnx;11;Conv\n{DEEP[:-4]}\n", "c")
    with pytest.raises(ConfigError, match="c:1: a line of a variant is #ortolan:variant;domain"):
        parse_config("#ortolan:variants;Conv", "c")


def test_features_that_no_model_has_are_left_out() -> None:
    config = parse_config("ai.onnx;13;Identity\n#ortolan:without;sparse,strings\n")
    assert config.without == {"sparse", "strings"}
    assert parse_config(config.text()) == config == minimise(config)
    assert merge([config, parse_config("ai.onnx;13;Identity")]).without == frozenset()
    other = parse_config("ai.onnx;13;Identity\n#ortolan:without;containers,sparse\n")
    assert merge([config, other]).without == {"sparse"}
    with pytest.raises(ConfigError, match=r"c:1: a line of what no model has .* not \"text\""):
        parse_config("#ortolan:without;text", "c")
    identity = catalog.find("", "Identity", 13)
    kept, everything = selector(config), selector(parse_config("ai.onnx;13;Identity"))
    assert identity is not None and kept is not None and everything is not None
    texts = (type_set("string"), type_set())
    assert everything(identity, texts) and not kept(identity, texts)
    assert kept(identity, (type_set("int64", "string"), type_set()))


@pytest.mark.parametrize(
    ("name", "features"),
    [("Relu", set()), ("StringNormalizer", {"strings"}), ("SequenceInsert", {"containers"})],
)
def test_features_of_a_model_follow_from_its_values(name: str, features: set[str]) -> None:
    value = helper.make_tensor_value_info
    if name == "Relu":
        ends = [value("x", TensorProto.FLOAT, [2])], [value("y", TensorProto.FLOAT, [2])]
        ends[0][0].type.denotation = "TENSOR"  # what a value means, as mnist-7 has it
    elif name == "StringNormalizer":
        ends = [value("x", TensorProto.STRING, [2])], [value("y", TensorProto.STRING, [None])]
    else:
        info = helper.make_tensor_sequence_value_info
        ends = [info("x", TensorProto.FLOAT, None)], [info("y", TensorProto.FLOAT, None)]
    inputs = ["x", "t"] if name == "SequenceInsert" else ["x"]
    graph = helper.make_graph(
        [helper.make_node(name, inputs, ["y"])], "g", *ends,
        [numpy_helper.from_array(np.zeros(2, np.float32), "t")] if len(inputs) > 1 else [],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = ortolan.convert(made.SerializeToString())
    assert isinstance(content, bytes)
    assert absent_features(read(content)) == FEATURES - features


def test_sparse_constants_are_a_feature() -> None:
    session = tables.InferenceSession(tables.Model(tables.Graph()))
    assert absent_features(session) == FEATURES
    empty = tables.Tensor("s")
    session.model.graph.sparse_initializers.append(tables.SparseTensor(empty, empty, [1]))
    assert absent_features(session) == FEATURES - {"sparse"}


def test_variants_of_a_model_follow_from_constants_and_vectors() -> None:
    weights = np.zeros((6, 1, 3, 3), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], group=6, pads=[1, 1, 1, 1])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 9, 9])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 9, 9])],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = ortolan.convert(made.SerializeToString())

    def names(lanes: int) -> set[str]:
        return {use.variant for use in record_variants(content, [lanes])}

    assert names(4) == {"depthwise", "depthwise_3"}
    assert names(8) == names(16) == {"depthwise_narrow"}
    assert {use.version for use in record_variants(content, [4])} == {11}


def test_layouts_of_values_in_half_precision_are_kept() -> None:
    """The loader converts them beside operators that compute in float."""
    layout = catalog.find("ai.ortolan", "Layout", 1)
    assert layout is not None
    text = 'ai.onnx;11;Conv{"inputs": {"0": ["float"]}}\n'
    cast = 'ai.onnx;13;Cast{"inputs": {"0": ["MLFloat16"]}, "outputs": {"0": ["float"]}}\n'
    for config, expected in ((text, False), (text + cast, True)):
        wanted = selector(parse_config(config))
        assert wanted is not None
        assert wanted(layout, (type_set("float16"), type_set())) is expected
        assert wanted(layout, (type_set("float"), type_set()))


def test_identity_of_a_sequence_is_kept_where_there_are_sequences() -> None:
    """The loader calls it ai.ortolan:Share."""
    share = catalog.find("ai.ortolan", "Share", 1)
    assert share is not None
    for text, expected in (("Identity", False), ("Identity,SequenceConstruct", True)):
        wanted = selector(parse_config(f"ai.onnx;11;{text}\n"))
        assert wanted is not None and wanted(share, (type_set(), type_set())) is expected


def test_bodies_see_the_types_of_outer_values_and_rare_types_are_all_kept() -> None:
    made = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2] x, bool c) => (float[2] y)
        { t = If(c) <then_branch = a () => (float[2] r) { r = Sin(x) },
                     else_branch = b () => (float[2] q) { q = Cos(x) }>
          s = SequenceConstruct(t, x) u = If(c)
            <then_branch = d () => (seq(float[2]) v) { v = Identity(s) },
             else_branch = e () => (seq(float[2]) w) { w = SequenceInsert(s, x) }>
          i = Constant<value = int64 {1}>() y = SequenceAt(u, i) }"""
    )
    config = of_model(made)
    assert config.types["", "Sin"].inputs == {0: type_set("float")}
    assert ("", "Identity") in config.operators and ("", "Identity") not in config.types
    assert parse_config(config.text()) == config
