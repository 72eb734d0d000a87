"""One file with several signatures: resolutions, stages, and float beside quantized, on shared weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array, Conversion, LiteRTModel
from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import pack_signatures, to_litert
from edgekit.errors import BadRecipe, UnknownName
from edgekit.graph.cut import cut
from edgekit.recipe import ConvertRecipe
from tests.ops.harness import reference

_RNG = np.random.default_rng(11)


def network() -> onnx.ModelProto:
    """Two convolutions with a dynamic side, a mean and a dense layer: 0.3 MB of weights."""
    weights = {
        "w1": _RNG.standard_normal((64, 3, 3, 3)),
        "w2": _RNG.standard_normal((128, 64, 3, 3)) * 0.1,
        "w3": _RNG.standard_normal((10, 128)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["middle"]),
        helper.make_node("Conv", ["middle", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c2"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(data.astype(np.float32), name) for name, data in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def litert(conversion: Conversion) -> LiteRTModel:
    assert isinstance(conversion.model, LiteRTModel)
    return conversion.model


def run_signature(conversion: Conversion, name: str, **feeds: Array) -> Array:
    runner = Interpreter(model_content=conversion.model.data).get_signature_runner(name)
    (result,) = runner(**feeds).values()
    return np.asarray(result)


def nhwc(array: Array) -> Array:
    return np.moveaxis(array, 1, -1)


def test_resolutions_share_their_weights() -> None:
    proto = network()
    model = describe(proto)
    alone = to_litert(model, ConvertRecipe(shapes={"x": (1, 3, 32, 32)}))
    parts = {f"side_{side}": (model, ConvertRecipe(shapes={"x": (1, 3, side, side)})) for side in (16, 24, 32)}
    packed = pack_signatures(parts)
    assert [signature.name for signature in litert(packed).signatures] == list(parts)
    assert len(packed.model.data) < 1.05 * len(alone.model.data)
    for side in (16, 24, 32):
        x = _RNG.standard_normal((1, 3, side, side)).astype(np.float32)
        got = run_signature(packed, f"side_{side}", x=nhwc(x))
        np.testing.assert_allclose(got, reference(proto, {"x": x})[0], atol=1e-4)


def test_chained_stages_are_bit_equal_to_the_whole() -> None:
    model, recipe = describe(network()), ConvertRecipe(shapes={"x": (1, 3, 32, 32)})
    first, second = cut(model, [], ["middle"]), cut(model, ["middle"], [])
    middle = ConvertRecipe(shapes={"middle": (1, 64, 16, 16)})
    packed = pack_signatures({"stage_1": (first, recipe), "stage_2": (second, middle), "full": (model, recipe)})
    assert len(packed.model.data) < 1.05 * len(to_litert(model, recipe).model.data)
    x = nhwc(_RNG.standard_normal((1, 3, 32, 32)).astype(np.float32))
    handed_on = run_signature(packed, "stage_1", x=x)
    np.testing.assert_array_equal(
        run_signature(packed, "stage_2", middle=handed_on), run_signature(packed, "full", x=x)
    )


def test_dynamic_parts_keep_their_own_placeholders() -> None:
    model = describe(network())
    packed = pack_signatures(
        {"fixed": (model, ConvertRecipe(shapes={"x": (1, 3, 24, 24)})), "free": (model, ConvertRecipe())}
    )
    shapes = {s.name: s.inputs[0].shape for s in litert(packed).signatures}
    assert shapes == {"fixed": (1, 24, 24, 3), "free": (1, -1, -1, 3)}


def test_cut_names_what_is_wrong() -> None:
    model = describe(network())
    with pytest.raises(UnknownName, match="nowhere"):
        cut(model, ["nowhere"], [])
    two_inputs = network()
    two_inputs.graph.node.append(helper.make_node("Add", ["logits", "logits_2"], ["sum"]))
    two_inputs.graph.input.append(helper.make_tensor_value_info("logits_2", TensorProto.FLOAT, [1, 10]))
    two_inputs.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 10]))
    with pytest.raises(BadRecipe, match="logits_2"):
        cut(describe(two_inputs), ["x"], ["sum"])


def test_cut_keeps_what_it_needs_and_no_more() -> None:
    part = cut(describe(network()), ["middle"], ["g"])
    proto = onnx.load_model_from_string(part.data)
    assert [node.op_type for node in proto.graph.node] == ["Conv", "GlobalAveragePool"]
    assert [tensor.name for tensor in proto.graph.initializer] == ["w2"]
    assert [spec.name for spec in part.inputs] == ["middle"]
