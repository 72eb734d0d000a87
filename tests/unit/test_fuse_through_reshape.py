"""An activation behind a Conv of one axis goes into the convolution, although a RESHAPE lies between them."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.ops.harness import assert_same, build, convert, reference, run_litert


def test_activation_of_a_conv_of_one_axis() -> None:
    rng = np.random.default_rng(3)
    weights = [numpy_helper.from_array(rng.standard_normal((8, width, 3)).astype(np.float32), name)
               for name, width in (("w1", 4), ("w2", 8))]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
        helper.make_node("Neg", ["c"], ["z"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 20])
    for outputs, left in ((["y"], 0), (["y", "z"], 1)):  # what another op reads too must stay as it is
        proto = build(nodes[: 3 + len(outputs)], [x], outputs, weights, 17)
        conversion = convert(proto)
        feeds = {"x": rng.standard_normal((1, 4, 20)).astype(np.float32)}
        assert conversion.op_counts.get("RELU", 0) == left
        assert_same(run_litert(conversion, feeds), reference(proto, feeds), 1e-5)
