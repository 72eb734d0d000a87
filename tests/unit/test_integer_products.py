"""MatMulInteger and ConvInteger are exact, however long their sums, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array
from edgekit.errors import UnsupportedOps
from tests.ops.harness import build, convert, reference, run_litert


def extreme(shape: tuple[int, ...], seed: int) -> Array:
    """uint8 values near the top, so that sums are large and odd."""
    return np.random.default_rng(seed).integers(236, 256, shape, np.uint8)


@pytest.mark.parametrize("constant", [True, False], ids=["weights", "computed"])
@pytest.mark.parametrize("count", [200, 259, 1000, 4100])
def test_matmul_is_exact(count: int, constant: bool) -> None:
    x, w = extreme((3, count), 0), extreme((count, 5), 1)
    infos = [helper.make_tensor_value_info("x", TensorProto.UINT8, list(x.shape))]
    infos += [] if constant else [helper.make_tensor_value_info("w", TensorProto.UINT8, list(w.shape))]
    nodes = [helper.make_node("MatMulInteger", ["x", "w", "zero", "zeros"], ["y"])]
    constants = [numpy_helper.from_array(np.array(1, np.uint8), "zero"),
                 numpy_helper.from_array(np.arange(5, dtype=np.uint8), "zeros")]
    constants += [numpy_helper.from_array(w, "w")] if constant else []
    proto = build(nodes, infos, ["y"], constants, 17)
    feeds = {"x": x} if constant else {"x": x, "w": w}
    (got,) = run_litert(convert(proto), feeds)
    want = (x.astype(np.int64) - 1) @ (w.astype(np.int64) - np.arange(5))
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(reference(proto, feeds)[0], want)


def test_small_weights_need_one_product() -> None:
    w = np.ones((2000, 4), np.int8)
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 2000])
    nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])]
    conversion = convert(build(nodes, [x], ["y"], [numpy_helper.from_array(w, "w")], 17))
    assert conversion.op_counts["FULLY_CONNECTED"] == 1


def test_convolution_is_exact() -> None:
    x, w = extreme((1, 64, 6, 6), 2), extreme((4, 64, 3, 3), 3)
    info = helper.make_tensor_value_info("x", TensorProto.UINT8, list(x.shape))
    proto = build([helper.make_node("ConvInteger", ["x", "w"], ["y"])], [info], ["y"],
                  [numpy_helper.from_array(w, "w")], 17)
    (got,) = run_litert(convert(proto), {"x": x})
    np.testing.assert_array_equal(got, reference(proto, {"x": x})[0])


@pytest.mark.parametrize("count", [5000, "k"])
def test_what_could_be_inexact_is_refused(count: int | str) -> None:
    infos = [helper.make_tensor_value_info("x", TensorProto.UINT8, [2, count]),
             helper.make_tensor_value_info("w", TensorProto.UINT8, [count, 2])]
    proto = build([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], infos, ["y"], [], 17)
    with pytest.raises(UnsupportedOps, match="exactly"):
        convert(proto)
