"""Scales behind dense layers: folded where the rows are read by nobody else, left where they are, and answers stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert.probe import probe
from edgekit.recipe import ConvertRecipe
from tests.unit.test_fusions import check, model, weights

QKV = [
    helper.make_node("MatMul", ["x", "w"], ["m"]),
    helper.make_node("Add", ["m", "c"], ["d"]),
    helper.make_node("Reshape", ["d", "heads"], ["h"]),
    helper.make_node("Transpose", ["h"], ["t"], perm=[2, 0, 3, 1, 4]),
    helper.make_node("Split", ["t"], ["q", "k", "v"], axis=0, num_outputs=3),
]
ATTENTION = [
    helper.make_node("Mul", ["q", "s"], ["qs"]),
    helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 2, 4, 3]),
    helper.make_node("Mul", ["kt", "s"], ["ks"]),
    helper.make_node("MatMul", ["qs", "ks"], ["a"]),
    helper.make_node("Softmax", ["a"], ["p"], axis=-1),
    helper.make_node("MatMul", ["p", "v"], ["y"]),
]
CONSTANTS = {
    "w": weights(8, 24), "c": weights(24), "heads": np.array([2, 5, 3, 2, 4], np.int64), "s": np.array(0.5, np.float32),
}


def attention(nodes: list[onnx.NodeProto], outputs: list[str]) -> dict[str, int]:
    proto = model(nodes, (2, 5, 8), outputs, **CONSTANTS)
    proto.opset_import[0].version = 18
    return dict(check(proto, (2, 5, 8)).op_counts)


def test_scales_of_attention_vanish() -> None:
    assert "MUL" not in attention([*QKV, *ATTENTION], ["y"])


@pytest.mark.parametrize(("outputs", "left"), [(["y", "q"], 1), (["y", "t"], 2), (["y", "qs"], 1), (["y", "d"], 2)])
def test_scales_stay_where_the_unscaled_rows_are_read_too(outputs: list[str], left: int) -> None:
    assert attention([*QKV, *ATTENTION], outputs)["MUL"] == left


def test_a_scaled_part_that_overlaps_another_stays() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Slice", ["m", "from0", "to6", "last"], ["a"]),
        helper.make_node("Slice", ["m", "from4", "to8", "last"], ["b"]),
        helper.make_node("Mul", ["a", "s"], ["as"]),
        helper.make_node("Relu", ["as"], ["y"]),
        helper.make_node("Tanh", ["b"], ["z"]),
    ]
    places = {name: np.array([value], np.int64)
              for name, value in {"from0": 0, "to6": 6, "from4": 4, "to8": 8, "last": 2}.items()}
    constants = {"w": weights(8, 8), "s": np.array(3.0, np.float32), **places}
    assert check(model(nodes, (2, 5, 8), ["y", "z"], **constants), (2, 5, 8)).op_counts["MUL"] == 1
    places["from4"] = np.array([6], np.int64)
    apart = model(nodes, (2, 5, 8), ["y", "z"], **{**constants, **places})
    assert "MUL" not in check(apart, (2, 5, 8)).op_counts


def test_scaled_values_are_not_taken_for_those_of_the_source() -> None:
    proto = model([*QKV, *ATTENTION], (2, 5, 8), ["y"], **CONSTANTS)
    proto.opset_import[0].version = 18
    orders = probe(describe(proto), ConvertRecipe()).orders
    assert {"qs", "ks", "v", "a", "y"} <= set(orders), "they hold what they held"
    assert not {"d", "h", "t", "q", "k"} & set(orders), "they hold scaled rows"


def test_layers_that_share_weights_are_scaled_apart() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Mul", ["m", "s"], ["n"]),
        helper.make_node("Relu", ["n"], ["y"]),
        helper.make_node("Tanh", ["x"], ["u"]),
        helper.make_node("MatMul", ["u", "w"], ["v"]),
        helper.make_node("Relu", ["v"], ["z"]),
    ]
    proto = model(nodes, (4, 8), ["y", "z"], w=weights(8, 8), s=np.array([-2.0], np.float32))
    assert "MUL" not in check(proto, (4, 8)).op_counts


def test_a_scale_of_zero_is_as_good_as_any() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Mul", ["m", "s"], ["n"]),
             helper.make_node("Exp", ["n"], ["y"])]
    proto = model(nodes, (4, 8), ["y"], w=weights(8, 8), s=np.array(0.0, np.float32))
    assert "MUL" not in check(proto, (4, 8)).op_counts
