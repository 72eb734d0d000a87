"""The step of two stacked LSTM layers that leaves out the zeros of their joint matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array
from tests.ops.harness import build, convert, reference

_WIDTH, _MOST_OPS = 12, 24


def network(steps: int, hidden: int, batch: int = 1, outputs: tuple[str, ...] = ("y",), **attributes: Any) -> Any:
    """Two LSTM layers as torch exports them, over (steps, batch, 12); the outputs are Y, Y_h and Y_c of the second."""
    rng = np.random.default_rng(steps)
    constants: dict[str, Array] = {"axis": np.array([1], np.int64)}
    for name, width in (("a", _WIDTH), ("b", hidden)):
        for part, shape in (("w", (4 * hidden, width)), ("r", (4 * hidden, hidden)), ("b", (8 * hidden,))):
            constants[name + part] = (rng.standard_normal((1, *shape)) / np.sqrt(hidden)).astype(np.float32)
    made = ["" if name not in outputs else name for name in ("y", "h", "c")]
    nodes = [
        helper.make_node("LSTM", ["x", "aw", "ar", "ab"], ["v"], hidden_size=hidden),
        helper.make_node("Squeeze", ["v", "axis"], ["t"]),
        helper.make_node("LSTM", ["t", "bw", "br", "bb"], made, hidden_size=hidden, **attributes),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, batch, _WIDTH])
    weights = [numpy_helper.from_array(data, name) for name, data in constants.items()]
    return build(nodes, [x], list(outputs), weights, 17)


def loop_products(data: bytes) -> list[tuple[int, ...]]:
    """The shapes of the matrices of FULLY_CONNECTED ops in the body of the loop."""
    from edgekit.graph.facts_tflite import _op_name
    from edgekit.graph.tflite_reader import root

    model = root(data)
    names = [_op_name(code) for code in model.tables("OperatorCodes")]
    body = list(model.tables("Subgraphs"))[2]
    tensors = list(body.tables("Tensors"))
    return [
        tensors[(op.numbers("Inputs") or ())[1]].numbers("Shape") or ()
        for op in body.tables("Operators")
        if names[op.number("OpcodeIndex")] == "FULLY_CONNECTED"
    ]


def answers(data: bytes, x: Array, runs: int = 2) -> list[dict[str, Array]]:
    """What ``runs`` runs in a row give, by the name of the output."""
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    found = []
    for _ in range(runs):
        runner = interpreter.get_signature_runner()
        found.append({name: np.array(value) for name, value in runner(x=x).items()})
    return found


@pytest.mark.parametrize("outputs", [("h",), ("y",), ("y", "h", "c")], ids="".join)
@pytest.mark.parametrize("steps", [4, 5, 37, 200])
def test_two_layers_in_one_loop(steps: int, outputs: tuple[str, ...]) -> None:
    proto: onnx.ModelProto = network(steps, 64, outputs=outputs)
    conversion = convert(proto)
    x = np.random.default_rng(1).standard_normal((steps, 1, _WIDTH)).astype(np.float32)
    first, second = answers(conversion.model.data, x)
    for name, want in zip(outputs, reference(proto, {"x": x}), strict=True):
        np.testing.assert_allclose(first[name], want, atol=1e-5)
        np.testing.assert_array_equal(first[name], second[name])
    if outputs == ("h",):
        assert sum(conversion.op_counts.values()) <= _MOST_OPS
        assert loop_products(conversion.model.data) == [(256, 64), (256, 128)]


def test_other_activations_and_small_layers_keep_the_joint_matrix() -> None:
    relu = network(6, 64, outputs=("h",), activations=["Sigmoid", "Relu", "Tanh"])
    small = network(6, 24, outputs=("h",))
    for proto in (relu, small):
        conversion = convert(proto)
        x = np.random.default_rng(1).standard_normal((6, 1, _WIDTH)).astype(np.float32)
        (got,) = answers(conversion.model.data, x, 1)
        np.testing.assert_allclose(got["h"], reference(proto, {"x": x})[0], atol=1e-5)
    assert loop_products(convert(small).model.data) == [(192, 48)]


@pytest.mark.parametrize(
    ("hidden", "batch", "one_loop"), [(112, 1, True), (40, 2, True), (48, 2, False), (128, 1, False)]
)
def test_up_to_which_size_two_layers_share_a_loop(hidden: int, batch: int, one_loop: bool) -> None:
    proto = network(6, hidden, batch, outputs=("h",))
    conversion = convert(proto)
    x = np.random.default_rng(1).standard_normal((6, batch, _WIDTH)).astype(np.float32)
    (got,) = answers(conversion.model.data, x, 1)
    np.testing.assert_allclose(got["h"], reference(proto, {"x": x})[0], atol=1e-5)
    assert conversion.op_counts["WHILE"] == (1 if one_loop else 2)
    if batch == 1 and one_loop:
        assert loop_products(conversion.model.data) == [(4 * hidden, hidden), (4 * hidden, 2 * hidden)]
