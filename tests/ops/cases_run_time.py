"""Cases of ops whose shapes, axes, bounds and amounts are operands that the network is given at run time."""

from __future__ import annotations

import numpy as np

from tests.ops.harness import Case, Fed

_NO = np.array([], np.float32)
_BIG = 2**62


def ints(*values: int) -> Fed:
    """An int64 vector fed at run time."""
    return Fed(np.array(values, np.int64))


def floats(*values: float) -> Fed:
    """A float32 vector fed at run time."""
    return Fed(np.array(values, np.float32))


_REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
               "ReduceProd", "ReduceSum", "ReduceSumSquare")  # fmt: skip
AXES = [
    *(Case(op, [(2, 3, 4), ints(-1, 0)], {"keepdims": keep}, opset=18, low=0.5, tolerance=5e-6)
      for op in _REDUCTIONS for keep in (0, 1)),
    Case("ReduceMax", [(2, 0, 4), ints(1)], {"keepdims": 0}, by_onnx=True),
    Case("Unsqueeze", [(2, 3), ints(-1, 1)]),
    Case("Unsqueeze", [(), ints(0)]),
    Case("Squeeze", [(2, 1, 3, 1), ints(1, -1)]),
]  # fmt: skip
BOUNDS = [
    Case("Slice", [(5, 6), ints(1, -3), ints(_BIG, -1)]),
    Case("Slice", [(5, 6), ints(4), ints(-_BIG), ints(-1), ints(-2)]),
    Case("Slice", [(1, 3, 5, 6), ints(1), ints(4), np.array([2], np.int64)], dynamic=(0,)),
    Case("Slice", [(5, 6), ints(9), ints(99), ints(0)]),
    Case("Split", [(6, 4), ints(1, 5)], outputs=2),
    Case("Split", [(2, 6), ints(6, 0)], {"axis": 1}, outputs=2),
    Case("Split", [(6, 4)], {"axis": 0}, opset=11, outputs=2, dynamic=(0,)),
]
PADS = [
    *(Case("Pad", [(4, 5), ints(1, 0, 2, 3)], {"mode": mode}, opset=19)
      for mode in ("constant", "edge", "reflect", "wrap")),
    *(Case("Pad", [(4, 5), np.array([1, 0, 2, 3], np.int64)], {"mode": mode}, opset=19) for mode in ("edge", "wrap")),
    Case("Pad", [(4, 5), np.array([4, 0, 0, 6], np.int64)], {"mode": "edge"}),
    Case("Pad", [(4, 5), np.array([6, 0, 0, 7], np.int64)], {"mode": "wrap"}, opset=19),
    Case("Pad", [(4, 5), np.array([1, 0, 0, 2], np.int64)], {"mode": "edge"}, dynamic=(0, 1)),
    Case("Pad", [(4, 5), ints(1, 2), np.float32(3), ints(-1)]),
    Case("Pad", [(4, 5), np.array([1, 0, 0, 2], np.int64), floats(7).array.reshape(())]),
    Case("Pad", [(4, 5), np.array([1, 0, 0, 2], np.int64), Fed(np.float32(7))]),
]  # fmt: skip
RESIZE = [
    *(Case("Resize", [(1, 2, 5, 6), _NO, floats(1, 1, 1.6, 0.7)],
           {"mode": mode, "coordinate_transformation_mode": where}, tolerance=5e-6)
      for mode in ("nearest", "linear", "cubic")
      for where in ("half_pixel", "asymmetric", "pytorch_half_pixel")),
    *(Case("Resize", [(1, 2, 5, 6), _NO, _NO, ints(1, 2, 8, 3)],
           {"mode": mode, "coordinate_transformation_mode": where}, tolerance=5e-6)
      for mode in ("nearest", "linear", "cubic")
      for where in ("half_pixel", "align_corners")),
    Case("Resize", [(1, 2, 5, 6), _NO, _NO, ints(1, 2, 8, 3)], {"mode": "cubic", "exclude_outside": 1}, tolerance=5e-6),
    Case("Resize", [(1, 2, 5, 6), None, None, ints(7, 7)],
         {"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}, opset=18, tolerance=5e-6),
    Case("Resize", [(1, 2, 5, 6), floats(0, 0, 0.2, -0.2, 1, 1, 0.9, 1.1), _NO, np.array([1, 2, 4, 5], np.int64)],
         {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 9.0},
         tolerance=5e-6),
    Case("Resize", [(1, 2, 5, 6), _NO, np.array([1, 1, 2, 2], np.float32)], {"mode": "cubic"}, dynamic=(2, 3),
         tolerance=5e-6),
    Case("Upsample", [(1, 2, 5, 6), floats(1, 1, 2, 3)], {"mode": "nearest"}, opset=9),
]  # fmt: skip
WEIGHTS = [
    Case("ConvTranspose", [(1, 4, 5, 6), (4, 3, 3, 3), (3,)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("ConvTranspose", [(1, 4, 5, 6), (4, 3, 3, 3)], {"strides": [2, 2], "group": 2}),
    Case("ConvTranspose", [(1, 4, 5), (4, 3, 3)], {"strides": [2], "output_padding": [1]}),
    Case("BatchNormalization", [(2, 4, 3, 3), (4,), (4,), (4,), (4,)], low=0.1, tolerance=5e-6),
    Case("InstanceNormalization", [(2, 4, 3, 3), (4,), (4,)], tolerance=1e-5),
    Case("GroupNormalization", [(2, 6, 3, 4), (6,), (6,)], {"num_groups": 3}, opset=21, tolerance=1e-5),
    Case("GroupNormalization", [(2, 6, 5), (2,), (2,)], {"num_groups": 2}, opset=18, by_onnx=True, tolerance=1e-5),
    Case("GroupNormalization", [(2, 6, 3, 4), (6,), (6,)], {"num_groups": 3}, opset=21, dynamic=(0, 2), tolerance=1e-5),
    Case("RMSNormalization", [(2, 3, 4), (4,)], opset=23, by_onnx=True),
    Case("RMSNormalization", [(2, 3, 4), (3, 4)], {"axis": 1, "epsilon": 0.1}, opset=23, by_onnx=True),
]

RUN_TIME = [*AXES, *BOUNDS, *PADS, *RESIZE, *WEIGHTS]
