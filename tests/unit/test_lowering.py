"""The interface of a converted model: names, order, shapes, dtypes; what a graph is refused for; the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import BadModel, BadRecipe, UnknownName, UnsupportedOps
from edgekit.recipe import ConvertRecipe
from tests.onnx_graphs import Graph, answer, info, ints, node, same_answer, scalar, weights
from tests.ops.harness import assert_same, build, convert

IMAGE = (2, 4, 6, 5)


KERNEL = {"w": weights(4, 4, 1, 1)}
TWICE = {"sc": np.array([1, 1, 2, 2], np.float32)}


# -- names, order, unusual outputs -----------------------------------------------------------------------------------


def test_names_and_order_are_those_of_the_onnx_graph() -> None:
    nodes = [node("Sub", "b a", "mid"), node("Neg", "c", "last/out:0"), node("Add", "mid c", "zeta")]
    inputs = [info(name, (2, 3)) for name in ("c", "unused", "a", "b")]
    model = build(nodes, inputs, ["zeta", "last/out:0", "mid"])
    conversion = convert(model)
    interpreter = Interpreter(model_content=conversion.model.data)
    for found, specs in (
        (interpreter.get_input_details(), conversion.model.inputs),
        (interpreter.get_output_details(), conversion.model.outputs),
    ):
        assert [detail["name"] for detail in found] == [spec.name for spec in specs]
    assert [spec.name for spec in conversion.model.inputs] == ["c", "unused", "a", "b"]
    assert [spec.name for spec in conversion.model.outputs] == ["zeta", "last/out:0", "mid"]
    feeds = {name: weights(2, 3) for name in ("c", "unused", "a", "b")}
    same_answer(model, conversion, feeds)
    runner = interpreter.get_signature_runner("serving_default")
    result = runner(**feeds)
    assert_same([result[spec.name] for spec in conversion.model.outputs], answer(model, feeds), 1e-6)


@pytest.mark.parametrize("dynamic", [False, True])
def test_outputs_that_are_inputs_constants_or_the_same_value_twice(dynamic: bool) -> None:
    nodes = [
        node("Identity", "x", "same"), node("Identity", "k", "fixed"), node("Relu", "x", "r"),
        node("Identity", "r", "r2"), node("Identity", "r", "r3"), node("Reshape", "r s", "flat"),
        node("Shape", "x", "shape"),
    ]  # fmt: skip
    tensors = [numpy_helper.from_array(weights(2, 2), "k"), numpy_helper.from_array(ints(-1), "s")]
    outputs = ["same", "fixed", "r", "r2", "r3", "flat", "shape"]
    model = build(nodes, [info("x", ("n", "m") if dynamic else (2, 3))], outputs, tensors)
    same_answer(model, convert(model), {"x": weights(2, 3)})


def test_a_graph_without_nodes_of_its_own() -> None:
    graph = helper.make_graph([], "pass", [info("x", (2, 3))], [info("x", (2, 3))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    conversion = convert(model)
    assert conversion.model.inputs == conversion.model.outputs
    same_answer(model, conversion, {"x": weights(2, 3)})


def test_the_account_names_every_node_with_its_source() -> None:
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Flatten", "r", "y")]
    nodes[0].metadata_props.add(key="edgekit.source", value="net.py:3 in forward")
    conversion = convert(Graph("account", nodes, KERNEL).model())
    assert [(found.node, found.op_type, found.source, found.how) for found in conversion.nodes] == [
        ("node_c", "Conv", "net.py:3 in forward", "ops"),
        ("node_r", "Relu", "", "fused"),
        ("node_y", "Flatten", "", "ops"),
    ]
    assert "CONV_2D" in conversion.nodes[0].target_ops
    assert conversion.op_counts["CONV_2D"] == 1
    assert "RELU" not in conversion.op_counts, "the convolution applies it"
    assert conversion.seconds > 0


# -- shapes ----------------------------------------------------------------------------------------------------------


def dynamic_net() -> onnx.ModelProto:
    """image (n, 3, h, w) -> scores (n, 5) and features (n, 8, h/2, w/2), with a skip and a resize back."""
    nodes = [
        node("Conv", "image w0", "c0", pads=[1, 1, 1, 1], strides=[2, 2]), node("Relu", "c0", "features"),
        node("MaxPool", "features", "p", kernel_shape=[2, 2], strides=[2, 2]), node("Conv", "p w1", "c1"),
        node("Resize", "c1 - sc", "up", mode="linear"), node("Add", "up features", "sum"),
        node("GlobalAveragePool", "sum", "g"), node("Flatten", "g", "f"), node("Gemm", "f w2", "scores"),
    ]  # fmt: skip
    constants = {"w0": weights(8, 3, 3, 3), "w1": weights(8, 8, 1, 1), "w2": weights(8, 5), **TWICE}
    tensors = [numpy_helper.from_array(data, name) for name, data in constants.items()]
    return build(nodes, [info("image", ("n", 3, "h", "w"))], ["scores", "features"], tensors)


def test_dynamic_dimensions_stay_dynamic_through_many_resizes() -> None:
    model = dynamic_net()
    conversion = convert(model)
    assert conversion.model.inputs[0].shape == (-1, -1, -1, 3)
    assert [spec.shape for spec in conversion.model.outputs] == [(-1, 5), (-1, -1, -1, 8)]
    interpreter = Interpreter(model_content=conversion.model.data, num_threads=1)
    place = interpreter.get_input_details()[0]["index"]
    for shape in [(1, 3, 16, 16), (3, 3, 32, 24), (1, 3, 8, 40), (2, 3, 16, 16), (1, 3, 64, 64)]:
        image = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
        interpreter.resize_tensor_input(place, (shape[0], shape[2], shape[3], 3))
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, image.transpose(0, 2, 3, 1))
        interpreter.invoke()
        scores, features = (interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details())
        assert_same([scores, features.transpose(0, 3, 1, 2)], answer(model, {"image": image}), 1e-5)


def test_shapes_fix_dynamic_dimensions() -> None:
    model = dynamic_net()
    conversion = convert(model, ConvertRecipe(shapes={"image": (2, 3, 16, 24)}))
    assert conversion.model.inputs[0].shape == (2, 16, 24, 3)
    assert [spec.shape for spec in conversion.model.outputs] == [(2, 5), (2, 8, 12, 8)]
    assert "SHAPE" not in conversion.op_counts
    same_answer(model, conversion, {"image": weights(2, 3, 16, 24)})
    static = Graph("static", [node("Conv", "x w", "y")], KERNEL).model()
    assert convert(static, ConvertRecipe(shapes={"x": IMAGE})).model.inputs[0].shape == (2, 6, 5, 4)


@pytest.mark.parametrize(
    ("shapes", "error", "message"),
    [
        ({"image": (2, 3, 16)}, BadRecipe, r"\[2, 3, 16\] does not fit the input 'image'"),
        (
            {"image": (2, 4, 16, 16)},
            BadRecipe,
            r"\[2, 4, 16, 16\] does not fit the input 'image' \['\?', 3, '\?', '\?'\]",
        ),
        ({"picture": (1, 3, 16, 16)}, UnknownName, r"Unknown input 'picture'. Known: image"),
        ({"w0": (8, 3, 3, 3)}, UnknownName, r"Unknown input 'w0'"),
    ],
)
def test_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        convert(dynamic_net(), ConvertRecipe(shapes=shapes))


def test_an_input_without_a_shape_needs_one() -> None:
    graph = helper.make_graph([node("Relu", "x", "y")], "g", [info("x", ())], [info("y", ())])
    graph.input[0].type.tensor_type.ClearField("shape")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(BadModel, match=r"The input 'x' has no shape\. Give it with --shape x="):
        convert(model)
    same_answer(model, convert(model, ConvertRecipe(shapes={"x": (2, 3)})), {"x": weights(2, 3)})


def written_sizes(model: onnx.ModelProto) -> list[int]:
    return [int(dim) for dim in Interpreter(model_content=convert(model).model.data).get_input_details()[0]["shape"]]


def test_sizes_written_for_dynamic_dimensions_are_those_of_the_example() -> None:
    model = dynamic_net()
    assert written_sizes(model) == [1, 64, 64, 3]
    entry = model.metadata_props.add(key="edgekit.example_shapes", value='{"image": [4, 3, 32, 48]}')
    assert written_sizes(model) == [4, 32, 48, 3]
    for useless in (
        '{"image": [4, 3]}',
        '{"other": [1, 3, 32, 32]}',
        '{"image": ["n", 3, 0, -1]}',
        "[]",
        "{",
        '{"image": 5}',
    ):
        entry.value = useless
        assert written_sizes(model) == [1, 64, 64, 3]


def test_dimensions_of_one_name_are_one_size() -> None:
    """Two inputs with the batch "n": the sum has a shape that LiteRT and the account agree on."""
    inputs = [info("a", ("n", 3)), info("b", ("n", 3))]
    model = build(
        [node("Concat", "a b", "t", axis=1), node("Reshape", "t s", "y")],
        inputs,
        ["y"],
        [numpy_helper.from_array(ints(0, 2, 3), "s")],
    )
    conversion = convert(model)
    assert conversion.model.outputs[0].shape == (-1, 2, 3)
    same_answer(model, conversion, {"a": weights(5, 3), "b": weights(5, 3)})


# -- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool"]
)
def test_every_dtype_travels_through(dtype: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        node("Identity", "x", "same"),
        node("Transpose", "x", "turned"),
        node("Cast", "x", "real", to=TensorProto.FLOAT),
    ]
    model = build(nodes, [info("x", (2, 3), kind)], ["same", "turned", "real"])
    x = np.array([[0, 1, 2], [3, 100, 127]]).astype(dtype)
    conversion = convert(model)
    assert [spec.dtype for spec in conversion.model.inputs + conversion.model.outputs] == [
        dtype,
        dtype,
        dtype,
        "float32",
    ]
    same_answer(model, conversion, {"x": x}, 0)


@pytest.mark.parametrize(
    "kind",
    [TensorProto.BFLOAT16, TensorProto.COMPLEX64, TensorProto.STRING, TensorProto.UINT64, TensorProto.FLOAT8E4M3FN],
)
def test_dtypes_that_litert_does_not_have_are_refused_by_name(kind: int) -> None:
    model = build([node("Identity", "x", "y")], [info("x", (2, 3), kind)], ["y"])
    with pytest.raises((BadModel, UnsupportedOps), match="'x'"):
        convert(model)


def test_token_ids_and_masks() -> None:
    """int64 ids through an embedding, added under a bool mask."""
    nodes = [node("Gather", "table ids", "e"), node("Unsqueeze", "mask last", "m"), node("Where", "m e zero", "y")]
    tensors = [
        numpy_helper.from_array(data, name)
        for name, data in {"table": weights(11, 4), "last": ints(-1), "zero": scalar(0)}.items()
    ]
    inputs = [info("ids", ("n", 5), TensorProto.INT64), info("mask", ("n", 5), TensorProto.BOOL)]
    model = build(nodes, inputs, ["y"], tensors)
    ids = np.array([[0, 10, 3, -1, 5], [1, 1, 2, 2, -11]], np.int64)
    same_answer(model, convert(model), {"ids": ids, "mask": ids > 2}, 0)


# -- refusals --------------------------------------------------------------------------------------------------------

TRACE = """File "/home/u/.venv/lib/python3.11/site-packages/torch/nn/modules/module.py", line 9, in _call_impl
  File "/home/u/net.py", line 31, in forward
    y = x.det()"""


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(UnsupportedOps) as caught:
        convert(model)
    return str(caught.value)


def test_all_unsupported_ops_are_named_with_node_and_source_line() -> None:
    nodes = [
        node("Det", "x", "a"), node("Bernoulli", "x", "b"), node("MaxRoiPool", "i r", "c", pooled_shape=[2, 2]),
        node("Relu", "x", "d"), node("Softplus", "a", "e"), node("Softplus", "b", "f"), node("Relu", "c", "g"),
    ]  # fmt: skip
    nodes[0].metadata_props.add(key="edgekit.source", value="nets/unet.py:7 in forward")
    nodes[1].metadata_props.add(key="pkg.torch.onnx.stack_trace", value=TRACE)
    model = build(nodes, [info("x", (3, 3)), info("i", (1, 2, 8, 8)), info("r", (1, 5))], ["d", "e", "f", "g"])
    message = refusal(model)
    assert message.startswith("3 nodes cannot be lowered to LiteRT:")
    assert "node 'node_a' (Det) [nets/unet.py:7 in forward]:" in message
    assert "node 'node_b' (Bernoulli) [" in message
    assert "net.py:31 in forward]" in message
    assert "node 'node_c' (MaxRoiPool):" in message
    assert message.count("\n") == 3, "what depends on a refused node is not reported once more"


def test_ops_of_other_domains_are_refused_by_domain() -> None:
    nodes = [helper.make_node("FusedThing", ["x"], ["t"], "mine", domain="com.example"), node("Relu", "t", "y")]
    graph = helper.make_graph(nodes, "g", [info("x", (2, 3))], [info("y", (2, 3))])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    message = refusal(helper.make_model(graph, opset_imports=opsets, ir_version=9))
    assert message.startswith("1 node cannot")
    assert "node 'mine' (FusedThing): it belongs to the domain 'com.example'" in message


def test_a_refusal_says_what_to_do() -> None:
    pool = node("AveragePool", "x", "y", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    model = build([pool], [info("x", (1, 4, "h", "w"))], ["y"])
    assert "Fix the input's shape with --shape" in refusal(model)
    conversion = convert(model, ConvertRecipe(shapes={"x": (1, 4, 5, 7)}))
    same_answer(model, conversion, {"x": weights(1, 4, 5, 7)})


def test_an_unnamed_node_is_named_by_its_output() -> None:
    model = build([helper.make_node("Det", ["x"], ["determinant"])], [info("x", (3, 3))], ["determinant"])
    assert "node 'determinant' (Det)" in refusal(model)


# -- determinism -----------------------------------------------------------------------------------------------------

_PROCESS = """
import hashlib, sys
from pathlib import Path
from edgekit.converters.onnx_model import load_onnx
from edgekit.converters.onnx_to_litert import to_litert
print(hashlib.sha256(to_litert(load_onnx(Path(sys.argv[1]))).model.data).hexdigest())
"""


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    model = dynamic_net()
    assert convert(model).model.data == convert(model).model.data
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    digests = {
        subprocess.run(
            [sys.executable, "-c", _PROCESS, str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "4711")
    }
    assert len(digests) == 1

@pytest.mark.parametrize("right", [(2, 7, 3), (7, 3), (7,)])
def test_matrices_that_do_not_multiply_are_named(right: tuple[int, ...]) -> None:
    """ONNX Runtime's quantizer writes such files when an intermediate value and a weight have one name."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4, 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constant = numpy_helper.from_array(np.zeros(right, np.float32), "w")
    product = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    graph = helper.make_graph([product], "g", [x], [y], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(UnsupportedOps, match=r"'product' \(MatMul\): its operands \[2, 4, 5\] and .* do not multiply"):
        convert(model)
