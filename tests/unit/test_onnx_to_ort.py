"""ONNX -> ONNX Runtime: what is written, that it is the same every time, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from edgekit.artifacts import Array, Conversion, OnnxModel, OrtModel
from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_ort import to_ort
from edgekit.converters.ort_format import canonical_ort
from edgekit.converters.source_lines import source_of
from edgekit.errors import BadModel, BadRecipe, InternalError, UnknownName, UnsupportedOps
from edgekit.recipe import ConvertRecipe
from tests.graphs import conv_net, model_of, node


def answer(data: bytes, **inputs: Array) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, inputs)
    return outputs


def image(height: int, width: int) -> Array:
    return np.random.default_rng(1).normal(size=(1, 3, height, width)).astype(np.float32)


@pytest.fixture(scope="module")
def converted() -> Conversion:
    return to_ort(conv_net())


@pytest.fixture(scope="module")
def as_ort() -> Conversion:
    return to_ort(conv_net(), file_format="ort")


def test_the_optimised_graph_answers_as_the_original_at_any_size(converted: Conversion) -> None:
    for size in ((8, 8), (5, 17)):
        want = answer(conv_net().data, image=image(*size))
        got = answer(converted.model.data, image=image(*size))
        for one, other in zip(want, got, strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)


def test_names_order_dtypes_and_dynamic_dimensions_stay(converted: Conversion) -> None:
    source = conv_net()
    assert converted.model.inputs == source.inputs
    assert converted.model.outputs == source.outputs
    assert [spec.shape for spec in converted.model.outputs] == [(1, 4, -1, -1), (1, 4)]


def test_the_graph_is_optimised_but_only_in_ways_that_any_cpu_can_run(converted: Conversion) -> None:
    proto = onnx.load_from_string(converted.model.data)
    assert {node.domain for node in proto.graph.node} <= {"", "com.microsoft"}
    assert converted.op_counts["FusedConv"] == 2
    assert "Relu" not in converted.op_counts
    assert {opset.domain for opset in proto.opset_import} == {"", "com.microsoft"}


def test_a_graph_without_fusions_does_not_ask_for_the_engines_own_ops() -> None:
    model = model_of([node("Exp", ["x"], ["y"])], {"x": [2, 3]}, {"y": [2, 3]})
    proto = onnx.load_from_string(to_ort(model).model.data)
    assert [opset.domain for opset in proto.opset_import] == [""]


def test_fused_nodes_keep_a_source_line(converted: Conversion) -> None:
    proto = onnx.load_from_string(converted.model.data)
    fused = {node.output[0]: source_of(node) for node in proto.graph.node if node.op_type == "FusedConv"}
    assert fused == {"r0": "net.py:4 in forward", "features": "net.py:6 in forward"}


def test_the_account_says_what_each_node_became(converted: Conversion) -> None:
    became = {lowering.node: (lowering.op_type, lowering.target_ops, lowering.source) for lowering in converted.nodes}
    assert became["node_c0"] == ("Conv", ("FusedConv",), "net.py:3 in forward")
    assert became["node_r0"] == ("Relu", ("FusedConv",), "net.py:4 in forward")
    assert became["node_p"] == ("GlobalAveragePool", ("GlobalAveragePool",), "net.py:7 in forward")
    assert len(converted.nodes) == 6


@pytest.mark.parametrize("file_format", ["onnx", "ort"])
def test_the_same_input_gives_the_same_bytes(file_format: str, converted: Conversion, as_ort: Conversion) -> None:
    first = {"onnx": converted, "ort": as_ort}[file_format]
    again = to_ort(conv_net(), file_format="onnx" if file_format == "onnx" else "ort")
    assert again.model.data == first.model.data


def test_the_ort_format_is_one_and_answers_alike(as_ort: Conversion) -> None:
    assert isinstance(as_ort.model, OrtModel)
    assert as_ort.model.format == "ort"
    assert as_ort.model.data[4:8] == b"ORTM"
    for one, other in zip(answer(conv_net().data, image=image(6, 9)), answer(as_ort.model.data, image=image(6, 9)),
                          strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)
    assert as_ort.model.inputs == conv_net().inputs


def raw_ort(model: OnnxModel, path: Path) -> bytes:
    """What ONNX Runtime itself writes."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
    return path.read_bytes()


def test_canonical_bytes_do_not_depend_on_the_engines_hash_map(tmp_path: Path) -> None:
    saved: list[bytes] = []
    while len(saved) < 40 and (len(saved) < 6 or len(set(saved)) == 1):  # which order comes is chance
        saved.append(raw_ort(conv_net(), tmp_path / f"{len(saved)}.ort"))
    assert len(set(saved)) > 1, "ONNX Runtime has become deterministic: canonical_ort may go"
    canonical = {canonical_ort(data) for data in saved}
    assert len(canonical) == 1
    (data,) = canonical
    assert canonical_ort(data) == data
    for one, other in zip(answer(saved[0], image=image(8, 8)), answer(data, image=image(8, 8)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_ort_file_of_another_layout_is_our_error(tmp_path: Path) -> None:
    data = bytearray(raw_ort(conv_net(), tmp_path / "m.ort"))
    data[4:8] = b"ORTX"
    with pytest.raises(InternalError):
        canonical_ort(bytes(data))


def test_shapes_are_fixed_where_the_recipe_says_so() -> None:
    result = to_ort(conv_net(), ConvertRecipe(shapes={"image": (1, 3, 8, 10)}))
    assert [spec.shape for spec in result.model.inputs] == [(1, 3, 8, 10)]
    assert [spec.shape for spec in result.model.outputs] == [(1, 4, 8, 10), (1, 4)]


def test_only_the_named_input_is_fixed() -> None:
    model = model_of([node("Mul", ["x", "x"], ["a"]), node("Exp", ["y"], ["b"])],
                     {"x": ["n"], "y": ["m"]}, {"a": ["n"], "b": ["m"]})
    result = to_ort(model, ConvertRecipe(shapes={"x": (7,)}))
    assert [spec.shape for spec in result.model.inputs + result.model.outputs] == [(7,), (-1,), (7,), (-1,)]


@pytest.mark.parametrize(
    ("shapes", "error", "words"),
    [
        ({"picture": (1, 3, 8, 8)}, UnknownName, "Known: image"),
        ({"image": (1, 4, 8, 8)}, BadRecipe, r"\[1, 4, 8, 8\] does not fit the input 'image' \[1, 3, '\?', '\?'\]"),
        ({"image": (1, 3, 8)}, BadRecipe, "does not fit"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shapes: dict[str, tuple[int, ...]], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        to_ort(conv_net(), ConvertRecipe(shapes=shapes))


def test_two_sizes_for_one_symbol_are_refused() -> None:
    model = model_of([node("Add", ["x", "y"], ["z"])], {"x": ["n"], "y": ["n"]}, {"z": ["n"]})
    with pytest.raises(BadRecipe, match="'n' the sizes 3 and 4"):
        to_ort(model, ConvertRecipe(shapes={"x": (3,), "y": (4,)}))


def test_another_layout_is_refused() -> None:
    with pytest.raises(BadRecipe, match="keeps the layout"):
        to_ort(conv_net(), ConvertRecipe(io_layout="nhwc"))


def test_all_unsupported_nodes_are_reported_at_once_with_node_and_source() -> None:
    nodes = [
        node("Foo", ["x"], ["a"], "net.py:10 in forward", domain="ai.acme"),
        node("NotAnOp", ["a"], ["b"], "net.py:11 in head"),
        node("Exp", ["b"], ["c"]),
        node("Scan2", ["c"], ["y"], "net.py:12 in forward"),
    ]
    with pytest.raises(UnsupportedOps) as caught:
        to_ort(model_of(nodes, {"x": [2]}, {"y": [2]}))
    text = str(caught.value)
    assert "3 nodes" in text
    for part in ("'node_a' (Foo) [net.py:10 in forward]", "'ai.acme'", "'node_b' (NotAnOp) [net.py:11 in head]",
                 "'node_y' (Scan2) [net.py:12 in forward]", "opset 17 has no such op"):
        assert part in text
    assert "Exp" not in text


def test_an_unsupported_node_inside_a_branch_is_found() -> None:
    branch = helper.make_graph([node("NotAnOp", ["x"], ["t"])], "then", [],
                               [helper.make_tensor_value_info("t", TensorProto.FLOAT, [2])])
    other = helper.make_graph([node("Exp", ["x"], ["e"])], "else", [],
                              [helper.make_tensor_value_info("e", TensorProto.FLOAT, [2])])
    graph = helper.make_graph(
        [node("If", ["flag"], ["y"], then_branch=branch, else_branch=other)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
         helper.make_tensor_value_info("flag", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])])
    model = describe(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    with pytest.raises(UnsupportedOps, match="'node_t'"):
        to_ort(model)


def test_a_dtype_without_a_kernel_is_reported_with_the_node() -> None:
    graph = helper.make_graph(
        [node("GlobalAveragePool", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1, 1, 1, 1])])
    model = describe(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    with pytest.raises(UnsupportedOps, match="node_y"):
        to_ort(model)


def test_a_graph_with_contradicting_shapes_is_a_bad_model() -> None:
    model = model_of([node("MatMul", ["x", "w"], ["y"])], {"x": [2, 3]}, {"y": [2, 5]}, {"w": (4, 5)})
    with pytest.raises(BadModel, match="ONNX Runtime refuses"):
        to_ort(model)


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"not onnx at all"])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(BadModel):
        to_ort(OnnxModel(data=data, inputs=(), outputs=()))
