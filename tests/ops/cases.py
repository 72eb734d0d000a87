"""The table of op cases: every lowering, every branch of it. One line an op variant."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from tests.ops.cases_control import CONTROL
from tests.ops.cases_indexing import INDEXING
from tests.ops.cases_numbers import NUMBERS
from tests.ops.cases_recurrent import RECURRENT
from tests.ops.cases_run_time import RUN_TIME
from tests.ops.cases_windows import WINDOWS
from tests.ops.harness import Case

_RNG = np.random.default_rng(3)


def weights(*shape: int) -> np.ndarray:
    """Fixed random weights."""
    return _RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    """An int64 vector."""
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    """A float32 vector."""
    return np.array(values, np.float32)


IMAGE = (1, 4, 9, 11)
BIG = 2**62

CONV = [
    Case("Conv", [IMAGE, weights(6, 4, 3, 3)], {"pads": [1, 1, 1, 1]}, expect={"CONV_2D": 1, "PAD": 0, "TRANSPOSE": 0}),
    Case("Conv", [IMAGE, weights(6, 4, 3, 3), weights(6)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    Case("Conv", [(1, 4, 8, 8), weights(6, 4, 3, 3)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}, expect={"PAD": 1}),
    Case("Conv", [(1, 4, 8, 8), weights(6, 4, 3, 3)], {"pads": [0, 0, 1, 1], "strides": [2, 2]}, expect={"PAD": 0}),
    Case("Conv", [IMAGE, weights(6, 4, 1, 1)], {"strides": [2, 2]}),
    Case("Conv", [IMAGE, weights(6, 4, 3, 2)], {"pads": [2, 0, 1, 3]}),
    Case("Conv", [IMAGE, weights(6, 4, 3, 3)], {"dilations": [2, 3]}),
    Case("Conv", [IMAGE, weights(6, 4, 3, 3)], {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    Case("Conv", [IMAGE, weights(4, 1, 3, 3)], {"group": 4, "pads": [1, 1, 1, 1]}, expect={"DEPTHWISE_CONV_2D": 1}),
    Case("Conv", [IMAGE, weights(8, 1, 5, 5), weights(8)], {"group": 4, "pads": [2, 2, 2, 2], "strides": [2, 2]}),
    Case("Conv", [IMAGE, weights(4, 1, 3, 3)], {"group": 4, "dilations": [2, 2]}),
    Case("Conv", [IMAGE, weights(6, 2, 3, 3), weights(6)], {"group": 2, "pads": [1, 1, 1, 1]}),
    Case("Conv", [IMAGE, weights(6, 4, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", [IMAGE, weights(6, 4, 2, 4)], {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    Case("Conv", [IMAGE, weights(6, 4, 3, 3)], {"auto_pad": "VALID"}),
    Case("Conv", [(2, 4, 9, 11), weights(6, 4, 3, 3)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}, dynamic=(0, 2, 3)),
    Case("Conv", [(2, 4, 9, 11), weights(6, 4, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, dynamic=(2, 3)),
    Case("Conv", [(2, 4, 15), weights(6, 4, 3)], {"pads": [1, 1]}),
    Case("Conv", [(2, 4, 15), weights(6, 4, 3), weights(6)], {"pads": [2, 0], "dilations": [2], "strides": [2]}),
    Case("Conv", [(1, 4, 15), weights(4, 1, 4)], {"group": 4}),
    Case("Conv", [IMAGE, (6, 4, 3, 3)], {"pads": [1, 1, 1, 1]}),
    Case("ConvTranspose", [IMAGE, weights(4, 6, 2, 2)], {"strides": [2, 2]}),
    Case("ConvTranspose", [IMAGE, weights(4, 6, 3, 3), weights(6)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case(
        "ConvTranspose",
        [IMAGE, weights(4, 6, 4, 4)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1]},
        expect={"STRIDED_SLICE": 0},
    ),
    Case(
        "ConvTranspose",
        [IMAGE, weights(4, 6, 3, 3), weights(6)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    Case("ConvTranspose", [IMAGE, weights(4, 6, 2, 2), weights(6)], {"strides": [3, 3], "output_padding": [1, 1]}),
    Case("ConvTranspose", [IMAGE, weights(4, 3, 3, 3), weights(6)], {"strides": [2, 2], "group": 2}),
    Case("ConvTranspose", [IMAGE, weights(4, 6, 3, 3)], {"dilations": [2, 2]}),
    Case("ConvTranspose", [IMAGE, weights(4, 6, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("ConvTranspose", [IMAGE, weights(4, 6, 3, 3)], {"output_shape": [20, 22], "strides": [2, 2]}),
    Case("ConvTranspose", [(1, 4, 7), weights(4, 6, 4), weights(6)], {"strides": [2], "pads": [1, 1]}),
    Case("ConvTranspose", [(2, 4, 9, 11), weights(4, 6, 2, 2), weights(6)], {"strides": [2, 2]}, dynamic=(0, 2, 3)),
    Case(
        "ConvTranspose", [(2, 4, 9, 11), weights(4, 6, 3, 3)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}, dynamic=(2, 3)
    ),
    Case("ConvTranspose", [(2, 4, 9, 11), weights(4, 6, 2, 2)], {"strides": [2, 2]}, dynamic=(0,)),
]

POOL = [
    Case("MaxPool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("MaxPool", [(1, 4, 8, 8)], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, low=-9, high=-5),
    Case("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("MaxPool", [(1, 4, 8, 8)], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 0, 0]}),
    Case("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case(
        "MaxPool",
        [(2, 4, 9, 11)],
        {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        dynamic=(2, 3),
    ),
    Case("MaxPool", [(2, 4, 9, 11)], {"kernel_shape": [2, 2], "strides": [2, 2]}, dynamic=(0, 2, 3)),
    Case("MaxPool", [(2, 4, 15)], {"kernel_shape": [3], "strides": [2]}),
    Case("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    Case("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    Case("AveragePool", [(1, 4, 8, 8)], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case(
        "AveragePool",
        [(1, 4, 8, 8)],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    Case("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    Case("AveragePool", [(2, 4, 15)], {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    Case("AveragePool", [(2, 4, 9, 11)], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, dynamic=(0, 2, 3)),
    Case("GlobalAveragePool", [IMAGE]),
    Case("GlobalAveragePool", [(2, 4, 9, 11)], dynamic=(0, 2, 3)),
    Case("GlobalMaxPool", [IMAGE]),
]

_UNARY: list[tuple[str, dict[str, Any], float, float]] = [
        ("Abs", {}, -2, 2), ("Ceil", {}, -2, 2), ("Cos", {}, -2, 2), ("Exp", {}, -2, 2), ("Floor", {}, -2, 2),
        ("Log", {}, 0.1, 2), ("Neg", {}, -2, 2), ("Relu", {}, -2, 2), ("Round", {}, -3, 3), ("Sigmoid", {}, -2, 2),
        ("Sign", {}, -2, 2), ("Sin", {}, -2, 2), ("Sqrt", {}, 0, 2), ("Tanh", {}, -2, 2), ("Reciprocal", {}, 1, 2),
        ("Elu", {}, -2, 2), ("Elu", {"alpha": 0.5}, -2, 2), ("Selu", {}, -2, 2), ("Celu", {"alpha": 0.5}, -2, 2),
        ("LeakyRelu", {"alpha": 0.2}, -2, 2), ("HardSigmoid", {}, -5, 5),
        ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, -5, 5), ("HardSwish", {}, -5, 5), ("Gelu", {}, -3, 3),
        ("Gelu", {"approximate": "tanh"}, -3, 3), ("Softplus", {}, -30, 30), ("Softsign", {}, -2, 2),
        ("Mish", {}, -5, 5), ("ThresholdedRelu", {"alpha": 0.7}, -2, 2), ("Identity", {}, -2, 2),
        ("Softmax", {}, -2, 2), ("Softmax", {"axis": 1}, -2, 2), ("LogSoftmax", {"axis": 0}, -2, 2),
        ("LpNormalization", {"axis": 1}, -2, 2), ("LpNormalization", {"axis": -1, "p": 1}, -2, 2),
]  # fmt: skip
UNARY = [Case(op, [(2, 3, 5)], attributes, low=low, high=high) for op, attributes, low, high in _UNARY]
ACTIVATION = [
    Case("PRelu", [IMAGE, weights(4, 1, 1)]),
    Case("PRelu", [IMAGE, floats(0.3)]),
    Case("Clip", [(2, 3), np.float32(0), np.float32(6)], high=9, expect={"RELU6": 1}),
    Case("Clip", [(2, 3), np.float32(-1), np.float32(1)], expect={"RELU_N1_TO_1": 1}),
    Case("Clip", [(2, 3), np.float32(-0.5), np.float32(0.7)]),
    Case("Clip", [(2, 3), np.float32(0)], expect={"RELU": 1}),
    Case("Clip", [(2, 3), None, np.float32(0.5)]),
    Case("Clip", [(2, 3), (), ()], low=-0.2, high=0.5),
    Case("Clip", [(2, 3)], {"min": 0.0, "max": 6.0}, opset=6, high=9, expect={"RELU6": 1}),
    Case("Clip", [(2, 3), np.array(1, np.int32), np.array(3, np.int32)], dtype="int32", low=0, high=6),
    Case("Softmax", [(2, 3, 4)], {"axis": 1}, opset=11),
    Case("Softmax", [(2, 3, 1, 1)], {"axis": 1}, opset=11),
    Case("BatchNormalization", [IMAGE, weights(4), weights(4), weights(4), np.abs(weights(4)) + 0.1]),
    Case("BatchNormalization", [(5, 4), weights(4), weights(4), weights(4), np.abs(weights(4)) + 0.1]),
    Case("InstanceNormalization", [IMAGE, weights(4), weights(4)], tolerance=1e-5),
    Case("LayerNormalization", [(2, 3, 8), weights(8), weights(8)], tolerance=1e-5),
    Case("LayerNormalization", [(2, 3, 8), weights(3, 8)], {"axis": 1}, tolerance=1e-5),
    Case("LRN", [IMAGE], {"size": 3, "alpha": 0.02, "beta": 0.6, "bias": 2.0}, tolerance=1e-5),
]

BINARY = [
    *(Case(op, [IMAGE, IMAGE], high=3, low=1) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")),
    *(Case(op, [IMAGE, weights(4, 1, 1)]) for op in ("Add", "Sub", "Mul")),
    *(Case(op, [weights(11), IMAGE]) for op in ("Add", "Sub", "Mul")),
    *(Case(op, [(2, 3), (2, 3)], dtype="int64", low=1, high=9) for op in ("Add", "Sub", "Mul", "Div", "Mod")),
    *(Case(op, [(2, 3), (2, 3)], dtype="int32", low=1, high=9) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min")),
    *(Case(op, [(2, 3), (3,)], dtype="uint8", low=1, high=9) for op in ("Add", "Mul", "Sub")),
    *(Case(op, [(2, 3), (2, 3)]) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *(Case(op, [(2, 3), (2, 3)], dtype="int64") for op in ("Equal", "Greater", "Less")),
    *(Case(op, [(2, 3), (1, 3)], dtype="bool") for op in ("And", "Or")),
    Case("Not", [(2, 3)], dtype="bool"),
    Case("Div", [(2, 3), floats(4.0)], expect={"MUL": 1, "DIV": 0}),
    Case("Div", [(2, 3), floats(3.0)]),
    Case("Add", [(3, 1), (1, 4)]),
    Case("Sum", [(2, 3), (2, 3), (3,)]),
    Case("Max", [(2, 3), (2, 3), (3,)]),
    *(Case("Pow", [(2, 3), np.float32(exponent)], low=0.5) for exponent in (2, 3, 0.5, -0.5, 1, 1.7)),
    Case("Where", [np.array([[True], [False]]), (2, 3), (2, 3)]),
    Case("Cast", [(2, 3)], {"to": 7}, high=9),
    Case("Cast", [(2, 3)], {"to": 1}, dtype="int64", high=9),
    Case("Cast", [(2, 3)], {"to": 1}, dtype="bool"),
]

REDUCE = [
    *(
        Case(op, [IMAGE], {"axes": [2, 3]}, opset=12, low=0.5, tolerance=5e-6)
        for op in (
            "ReduceMean",
            "ReduceSum",
            "ReduceMax",
            "ReduceMin",
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceSumSquare",
        )
    ),
    Case("ReduceMean", [IMAGE, ints(1)], {"keepdims": 0}),
    Case("ReduceMean", [IMAGE, ints(-1, -2)], {"keepdims": 0}),
    Case("ReduceMean", [IMAGE]),
    Case("ReduceSum", [IMAGE], {"noop_with_empty_axes": 1}),
    Case("ReduceProd", [(2, 3), ints(1)]),
    Case("ReduceLogSumExp", [(2, 3), ints(1)], {"keepdims": 0}),
    Case("ArgMax", [(2, 3, 5)], {"axis": 1}),
    Case("ArgMax", [(2, 3, 5)], {"axis": -1, "keepdims": 0}),
    Case("ArgMin", [(2, 3, 5)], {"axis": 0}),
]

MATMUL = [
    Case("Gemm", [(3, 4), weights(4, 5), weights(5)], expect={"FULLY_CONNECTED": 1, "ADD": 0}),
    Case("Gemm", [(3, 4), weights(5, 4), weights(5)], {"transB": 1}),
    Case("Gemm", [(4, 3), weights(5, 4), weights(3, 5)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", [(3, 4), weights(4, 5)], {"alpha": 0.5}),
    Case("Gemm", [(3, 4), weights(4, 5), np.float32(2.0).reshape(1)]),
    Case("Gemm", [(3, 4), (4, 5), (5,)], {"alpha": 0.5}),
    Case("MatMul", [(3, 4), weights(4, 5)], expect={"FULLY_CONNECTED": 1}),
    Case("MatMul", [(2, 3, 4), weights(4, 5)]),
    Case("MatMul", [(2, 3, 4), (2, 4, 5)], expect={"BATCH_MATMUL": 1}),
    Case("MatMul", [(2, 2, 3, 4), (2, 2, 4, 5)]),
    Case("MatMul", [(2, 2, 3, 4), (4, 5)]),
    Case("MatMul", [(4,), (2, 4, 5)]),
    Case("MatMul", [(2, 3, 4), (4,)]),
    Case("MatMul", [(4,), (4,)]),
    Case("MatMul", [(2, 3, 4), weights(4, 5)], dynamic=(0, 1)),
]

SHAPE = [
    Case("Reshape", [(2, 3, 4), ints(0, -1)]),
    Case("Reshape", [(2, 3, 4), ints(4, 6)]),
    Case("Reshape", [(2, 3, 4), ints(-1)], dynamic=(0,)),
    Case("Reshape", [(2, 3, 4), ints(0, 12)], dynamic=(0,)),
    Case("Reshape", [(2, 3, 4), ints(-1, 4)], dynamic=(0, 1)),
    Case("Flatten", [IMAGE]),
    Case("Flatten", [IMAGE], {"axis": 2}),
    Case("Flatten", [(2, 3, 4)], dynamic=(0,)),
    Case("Squeeze", [(2, 1, 3, 1), ints(1, 3)]),
    Case("Squeeze", [(2, 1, 3, 1)], opset=11),
    Case("Squeeze", [(2, 1, 3, 1), ints(1)], dynamic=(0, 2)),
    Case("Unsqueeze", [(2, 3), ints(0, 3)]),
    Case("Unsqueeze", [(2, 3)], {"axes": [1]}, opset=11),
    Case("Unsqueeze", [(2, 3), ints(1)], dynamic=(0, 1)),
    Case("Transpose", [(2, 3, 4)], {"perm": [2, 0, 1]}),
    Case("Transpose", [(2, 3, 4)]),
    Case("Shape", [(2, 3, 4)]),
    Case("Shape", [(2, 3, 4)], dynamic=(0, 2)),
    Case("Shape", [(2, 3, 4)], {"start": 1}, dynamic=(1,)),
    Case("Size", [(2, 3, 4)], dynamic=(1,)),
    Case("Expand", [(3, 1), ints(2, 3, 4)]),
    Case("Expand", [(3, 1), ints(1, 1)]),
    Case("Expand", [(1, 3), ints(5, 1)], dynamic=(0,)),
    Case("Tile", [(2, 3), ints(2, 1)]),
    Case("Tile", [(2, 3), ints(2, 3)], dynamic=(0,)),
    Case("ConstantOfShape", [ints(2, 3)], {"value": numpy_helper.from_array(floats(3.0))}),
]

SLICING = [
    Case("Slice", [(5, 6), ints(1), ints(4)]),
    Case("Slice", [(5, 6), ints(1, 2), ints(BIG, -1), ints(0, 1)]),
    Case("Slice", [(5, 6), ints(-3), ints(BIG), ints(1), ints(2)]),
    Case("Slice", [(5, 6), ints(-1), ints(-BIG), ints(0), ints(-1)]),
    Case("Slice", [(5, 6)], {"starts": [1], "ends": [100], "axes": [1]}, opset=9),
    Case("Slice", [(5, 6), ints(1), ints(-1), ints(0)], dynamic=(0,)),
    Case("Slice", [(5, 6), ints(0), ints(2), ints(0)], dynamic=(0,)),
    Case("Split", [(6, 4)], {"num_outputs": 3}, opset=18, outputs=3),
    Case("Split", [(6, 4), ints(1, 5)], outputs=2, expect={"SPLIT_V": 0, "STRIDED_SLICE": 2}),
    Case("Split", [(6, 4), ints(1, 5)], outputs=2, dtype="int32"),
    Case("Split", [(6, 4), ints(1, 5)], outputs=2, dynamic=(1,)),
    Case("Split", [(6, 4)], {"axis": 1, "split": [1, 3]}, opset=11, outputs=2),
    Case("Split", [(7, 4)], {"num_outputs": 3}, opset=18, outputs=3),
    Case("Concat", [(2, 3), (2, 5)], {"axis": 1}),
    Case("Concat", [(2, 3), weights(1, 3), (4, 3)], {"axis": -2}),
    Case("Concat", [(2, 3), (4, 3)], {"axis": 0}, dynamic=(0,)),
    Case("Gather", [(5, 6), ints(0, 2, -1)]),
    Case("Gather", [(5, 6), np.array(3, np.int64)], {"axis": 1}, expect={"GATHER": 0}),
    Case("Gather", [(5, 6, 3), np.array(-2, np.int64)], {"axis": 1}),
    Case("Gather", [(5, 6, 3), np.array(-1, np.int64)], {"axis": 1}, dynamic=(0, 1, 2)),
    Case("Gather", [(5, 6, 3), np.array(2, np.int64)], {"axis": 0}, dynamic=(0, 1)),
    Case("Gather", [(5, 6, 3), np.array(-3, np.int64)], {"axis": -1}, dynamic=(0, 2)),
    Case("Gather", [(2, 2, 2, 2, 2, 3), np.array(1, np.int64)], {"axis": 4}),
    Case("Gather", [(5, 6), np.array([[0, 1], [2, 3]], np.int64)], {"axis": 1}),
    Case("Pad", [(2, 3, 4), ints(0, 1, 2, 1, 0, 1)]),
    Case("Pad", [(2, 3, 4), ints(0, 1, 2, 1, 0, 1), np.float32(1.5)]),
    Case("Pad", [(2, 3, 4), ints(1, 2), None, ints(2)]),
    Case("Pad", [(2, 3, 4), ints(0, 0, 2, 0, 1, 1)], {"mode": "reflect"}),
    Case("Pad", [(2, 3, 4), ints(0, -1, 2, 0, 0, -1)]),
    Case("Pad", [(2, 3, 4)], {"pads": [0, 0, 1, 0, 0, 1], "value": 0.5}, opset=10),
    Case("DepthToSpace", [(1, 8, 3, 4)], {"blocksize": 2}),
    Case("DepthToSpace", [(1, 8, 3, 4)], {"blocksize": 2, "mode": "CRD"}),
    Case("DepthToSpace", [(1, 8, 3, 4)], {"blocksize": 2, "mode": "CRD"}, dynamic=(0, 2, 3)),
    Case("DepthToSpace", [(1, 4, 3, 4)], {"blocksize": 2, "mode": "CRD"}, expect={"TRANSPOSE": 0, "RESHAPE": 0}),
    Case("DepthToSpace", [(1, 4, 3, 4)], {"blocksize": 2, "mode": "CRD"}, dynamic=(3,)),
    Case("SpaceToDepth", [(1, 2, 4, 6)], {"blocksize": 2}),
]

_R = np.array([], np.float32)
RESIZE = [
    *(
        Case(
            "Resize",
            [(1, 3, 5, 6), _R, floats(1, 1, 2, 2)],
            {"mode": mode, "coordinate_transformation_mode": where}
            | ({"nearest_mode": rounding} if mode == "nearest" else {}),
        )
        for mode in ("nearest", "linear")
        for where in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for rounding in (("floor", "ceil", "round_prefer_floor", "round_prefer_ceil") if mode == "nearest" else ("",))
    ),
    *(
        Case(
            "Resize", [(1, 3, 5, 6), _R, _R, ints(1, 3, 7, 4)], {"mode": mode, "coordinate_transformation_mode": where}
        )
        for mode in ("nearest", "linear", "cubic")
        for where in ("half_pixel", "asymmetric", "align_corners")
    ),
    Case("Resize", [(1, 3, 5, 6), _R, floats(1, 1, 0.6, 0.6)], {"mode": "linear"}),
    Case("Resize", [(1, 3, 5, 6), _R, floats(1, 1, 0.5, 0.5)], {"mode": "nearest"}),
    Case(
        "Resize",
        [(1, 3, 5, 6), _R, _R, ints(1, 3, 9, 9)],
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
    ),
    Case("Resize", [(1, 3, 5, 6), None, floats(2, 2)], {"mode": "linear", "axes": [2, 3]}, opset=18),
    Case("Resize", [(2, 3, 5, 6), _R, floats(1, 1, 2, 2)], {"mode": "linear"}, dynamic=(0, 2, 3)),
    Case(
        "Resize",
        [(2, 3, 5, 6), _R, floats(1, 1, 2, 2)],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        dynamic=(2, 3),
    ),
    Case("Resize", [(2, 3, 5), _R, floats(1, 1, 2)], {"mode": "linear"}),
    Case("Upsample", [(1, 3, 5, 6), floats(1, 1, 2, 3)], {"mode": "nearest"}, opset=9),
    Case("Upsample", [(1, 3, 5, 6), floats(1, 1, 2, 2)], {"mode": "linear"}, opset=9),
]

_SCALE, _SCALES = np.float32(0.02), floats(0.02, 0.05, 0.1)
QUANTIZE = [
    Case("QuantizeLinear", [(2, 3, 5), _SCALE, np.int8(3)], high=3),
    Case("QuantizeLinear", [(2, 3, 5), _SCALE, np.uint8(100)], high=5),
    Case("QuantizeLinear", [(2, 3, 5), _SCALE], low=0, high=5),
    Case("DequantizeLinear", [(2, 3, 5), _SCALE, np.int8(3)], dtype="int8", low=-128, high=127),
    Case("DequantizeLinear", [(2, 3, 5), _SCALE, np.uint8(3)], dtype="uint8", low=0, high=255),
    Case("DequantizeLinear", [(2, 3, 5), _SCALES, np.array([1, 2, 3], np.int8)], dtype="int8", low=-9, high=9),
    Case("DequantizeLinear", [(2, 5, 3), _SCALES], {"axis": 2}, dtype="int32", low=-9, high=9),
]

CASES = [
    *CONV, *POOL, *UNARY, *ACTIVATION, *BINARY, *REDUCE, *MATMUL, *SHAPE, *SLICING, *RESIZE, *QUANTIZE,
    *RECURRENT, *CONTROL, *INDEXING, *NUMBERS, *RUN_TIME, *WINDOWS,
]  # fmt: skip
