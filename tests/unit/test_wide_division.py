"""Division of 64-bit integers: exact for all values, by int32 where they are known to fit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array, Conversion
from tests.ops.harness import build, convert, run_litert

_LIMIT = 2**63 - 1


def division(nodes: list[onnx.NodeProto], *inputs: onnx.ValueInfoProto, y: Array | None = None) -> Conversion:
    constants = [] if y is None else [numpy_helper.from_array(y, "y")]
    return convert(build(nodes, list(inputs), ["q"], constants, 17))


def truncated(x: Array, y: Array) -> list[int]:
    pairs = zip(x.tolist(), y.tolist(), strict=True)
    return [(abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1) for a, b in pairs]


@pytest.fixture(scope="module")
def computed() -> Conversion:
    infos = [helper.make_tensor_value_info(name, TensorProto.INT64, [64]) for name in "xy"]
    return division([helper.make_node("Div", ["x", "y"], ["q"])], *infos)


_WIDE = st.one_of(
    st.integers(-_LIMIT, _LIMIT),
    st.integers(-300, 300),
    st.builds(lambda bits, off, sign: sign * min(2**bits + off, _LIMIT), st.integers(20, 63), st.integers(-2, 2),
              st.sampled_from((1, -1))),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.tuples(_WIDE, _WIDE.filter(bool)), min_size=64, max_size=64))
def test_all_values_are_divided_exactly(computed: Conversion, values: list[tuple[int, int]]) -> None:
    x, y = (np.array(column, np.int64) for column in zip(*values, strict=True))
    (got,) = run_litert(computed, {"x": x, "y": y})
    assert got.tolist() == truncated(x, y)


def test_a_constant_divisor() -> None:
    x = np.array([2**40 + 17, -(2**40) - 17, 5, -5, _LIMIT, -_LIMIT - 1], np.int64)
    info = helper.make_tensor_value_info("x", TensorProto.INT64, [6])
    conversion = division([helper.make_node("Div", ["x", "y"], ["q"])], info, y=np.array([7], np.int64))
    (got,) = run_litert(conversion, {"x": x})
    assert got.tolist() == truncated(x, np.full(6, 7))


def test_places_are_divided_by_one_op() -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
        helper.make_node("Div", ["place", "y"], ["q"]),
    ]
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 20])
    conversion = division(nodes, info, y=np.array([4], np.int64))
    assert conversion.op_counts["DIV"] == 1
    assert "FLOOR_MOD" not in conversion.op_counts
    x = np.random.default_rng(0).standard_normal((3, 20)).astype(np.float32)
    (got,) = run_litert(conversion, {"x": x})
    assert got.tolist() == (x.argmax(1) // 4).tolist()
