"""An output of size 0 at run time comes back as an empty array."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.runtime.engines import open_session
from tests.ops.harness import build


def test_an_empty_output_of_dynamic_size() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    conversion = to_litert(describe(build([helper.make_node("NonZero", ["x"], ["y"])], [x], ["y"])))
    session = open_session("litert", conversion.model.data)
    full = session.run({"x": np.array([1, 0, 2, 0], np.float32)})["y"]
    np.testing.assert_array_equal(full, [[0, 2]])
    empty = session.run({"x": np.zeros(4, np.float32)})["y"]
    assert empty.shape == (1, 0)
    assert empty.dtype == np.int64
