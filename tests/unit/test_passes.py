"""The lists of passes, and the inlining of functions, which comes first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgekit.converters.passes import LITERT_PASSES, PORTABLE_PASSES, run_passes
from edgekit.converters.passes.inline_functions import inline_functions
from edgekit.errors import BadModel, InternalError
from tests.onnx_graphs import Graph, answer, ints, node, scalar, weights
from tests.ops.harness import assert_same
from tests.pass_check import leftovers, ops

FLAT = (3, 8)


def with_function(body: Sequence[onnx.NodeProto], calls: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    standard = helper.make_opsetid("", 20)
    function = helper.make_function("mine", "Block", ["a"], ["b"], body, [standard])
    graph = helper.make_graph(
        calls,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, FLAT)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, FLAT)],
    )
    opsets = [standard, helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)


def test_inline_functions() -> None:
    call = (
        helper.make_node("Block", ["x"], ["t"], domain="mine"),
        helper.make_node("Block", ["t"], ["y"], domain="mine"),
    )
    before = with_function([node("Relu", "a", "r"), node("Neg", "r", "b")], call)
    model, modified = inline_functions(ir.serde.deserialize_model(before))
    after = ir.serde.serialize_model(model)
    assert modified
    assert ops(after) == {"Relu": 2, "Neg": 2}
    assert not after.functions
    feeds = {"x": np.linspace(-4, 4, 24, dtype=np.float32).reshape(FLAT)}
    assert_same(answer(after, feeds), answer(before, feeds), 0)
    assert not inline_functions(model)[1]


def test_inline_functions_without_functions() -> None:
    model = Graph("plain", [node("Relu", "x", "y")], {}).model()
    assert not inline_functions(ir.serde.deserialize_model(model))[1]


def test_inline_functions_refuses_recursion() -> None:
    call = helper.make_node("Block", ["a"], ["b"], domain="mine")
    model = with_function([call], [helper.make_node("Block", ["x"], ["y"], domain="mine")])
    with pytest.raises(BadModel, match="cannot be inlined"):
        inline_functions(ir.serde.deserialize_model(model))


def test_all_passes_in_order() -> None:
    """Pad, Conv, BatchNormalization and a hard swish in parts become two nodes."""
    nodes = [
        node("Pad", "x p", "t0"), node("Conv", "t0 w", "t"), node("BatchNormalization", "t s o m v", "n"),
        node("Add", "n three", "a"), node("Clip", "a zero six", "c"), node("Mul", "n c", "q"),
        node("Div", "q six", "y"),
    ]  # fmt: skip
    constants = {
        "w": weights(6, 4, 3, 3), "p": ints(0, 0, 1, 2, 0, 0, 1, 2), "s": weights(6), "o": weights(6), "m": weights(6),
        "v": np.abs(weights(6)) + 0.1, "three": scalar(3), "zero": scalar(0), "six": scalar(6),
    }  # fmt: skip
    before = Graph("net", nodes, constants)
    model, modified = run_passes(ir.serde.deserialize_model(before.model()), LITERT_PASSES)
    after = ir.serde.serialize_model(model)
    assert modified
    assert ops(after) == {"Conv": 1, "HardSwish": 1}
    assert not leftovers(after)
    assert_same(answer(after, before.feeds()), answer(before.model(), before.feeds()), 3e-6)
    assert not run_passes(model, LITERT_PASSES)[1]


def test_portable_passes_leave_the_opset_alone() -> None:
    """They run before ONNX Runtime too, which knows Gelu from opset 20 and HardSwish from 14 on only."""
    nodes = [
        node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "e one", "a"), node("Mul", "x a", "p"),
        node("Mul", "p half", "y"),
    ]  # fmt: skip
    constants = {"root": scalar(2**0.5), "one": scalar(1), "half": scalar(0.5)}
    model = Graph("old", nodes, constants, None, FLAT, opset=13).model()
    assert run_passes(ir.serde.deserialize_model(model), LITERT_PASSES)[1]
    assert not run_passes(ir.serde.deserialize_model(model), PORTABLE_PASSES)[1]


def test_a_pass_that_breaks_down_is_named() -> None:
    def broken(model: ir.Model) -> tuple[ir.Model, bool]:
        raise IndexError("list index out of range")

    model = ir.serde.deserialize_model(Graph("plain", [node("Relu", "x", "y")], {}).model())
    with pytest.raises(InternalError, match="The pass 'broken' failed: IndexError: list index"):
        run_passes(model, [broken])
