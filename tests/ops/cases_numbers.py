"""Cases of functions of single numbers and bits, of sums of products, and of element types."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from tests.ops.harness import Case, Fed

_RNG = np.random.default_rng(5)
_SPECIAL = np.array([1, np.nan, np.inf, -np.inf, 0], np.float32)
_SMALL = ("int8", "uint8", "int16", "uint16")
_WHOLE = (*_SMALL, "int32", "uint32", "int64")


def weights(*shape: int) -> np.ndarray:
    """Fixed random weights."""
    return _RNG.standard_normal(shape).astype(np.float32)


FUNCTIONS = [
    *(Case(op, [(4, 50)], {}, low=low, high=high) for op, low, high in (
        ("Acos", -1, 1), ("Acosh", 1, 5), ("Acosh", 1, 1.001), ("Asin", -1, 1), ("Asinh", -5, 5),
        ("Asinh", -1e-3, 1e-3), ("Atan", -5, 5), ("Atanh", -0.99, 0.99), ("Atanh", -1e-3, 1e-3), ("Cosh", -3, 3),
        ("Erf", -5, 5), ("Erf", -1e-3, 1e-3), ("Sinh", -3, 3), ("Sinh", -1e-3, 1e-3), ("Tan", -1, 1),
    )),
    Case("Atan", [(4, 5)], dynamic=(0,)),
    Case("Swish", [(4, 5)], {"alpha": 0.5}, opset=24, by_onnx=True),
    Case("IsNaN", [Fed(_SPECIAL)]),
    Case("IsInf", [Fed(_SPECIAL)]),
    Case("IsInf", [Fed(_SPECIAL)], {"detect_negative": 0}),
    Case("IsInf", [Fed(_SPECIAL)], {"detect_positive": 0}),
    Case("IsInf", [Fed(_SPECIAL)], {"detect_positive": 0, "detect_negative": 0}),
    Case("Mean", [(2, 3), (3,), (2, 1)]),
    Case("Dropout", [(2, 3), np.float32(0.5), np.bool_(False)], outputs=2),
    Case("PRelu", [(2, 3, 4), Fed(weights(3, 1))]),
    Case("PRelu", [(2, 3, 4), weights(3)], opset=6, by_onnx=True),
    Case("LpNormalization", [Fed(np.zeros((2, 3), np.float32))], {"axis": 1}),
    Case("Mish", [(4, 5)], low=-30, high=30),
]  # fmt: skip
BITS = [
    *(Case(op, [(9,), (9,)], dtype=dtype, low=-90, high=90, opset=18)
      for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor") for dtype in ("int8", "uint16", "int32", "uint32", "int64")),
    *(Case("BitwiseNot", [(9,)], dtype=dtype, low=-90, high=90, opset=18) for dtype in ("int8", "uint16", "int64")),
    *(Case("BitShift", [(9,), Fed(np.arange(9, dtype=dtype))], {"direction": way}, dtype=dtype, low=0, high=250,
           by_onnx=True)
      for way in ("LEFT", "RIGHT") for dtype in ("uint8", "uint32")),
    Case("BitCast", [(2, 3)], {"to": 6}, opset=26, by_onnx=True),
    Case("Xor", [(2, 3), (1, 3)], dtype="bool"),
]  # fmt: skip
#: element types that LiteRT's kernels do not compute in
TYPES = [
    *(Case(op, [(2, 3), (3,)], dtype=dtype, low=1, high=9, by_onnx=True)
      for op in ("Add", "Sub", "Mul", "Max", "Less", "Equal") for dtype in _SMALL),
    *(Case("Div", [(2, 3), (3,)], dtype=dtype, low=1, high=99, by_onnx=True) for dtype in _SMALL),
    *(Case("Mod", [(2, 3), (3,)], {"fmod": fmod}, dtype=dtype, low=1, high=99, by_onnx=True)
      for dtype in _WHOLE for fmod in (0, 1)),
    Case("Mod", [Fed(np.array([-7, 7, -7], np.int64)), Fed(np.array([3, -3, -3], np.int64))], {"fmod": 1}),
    Case("Mod", [Fed(np.array([-7.5, 7.5], np.float32)), Fed(np.array([2, -2], np.float32))], {"fmod": 1}),
    *(Case("Concat", [(2, 3), (1, 3)], {"axis": 0}, dtype=dtype, low=0, high=9) for dtype in (*_WHOLE, "bool")),
    *(Case("ReduceSum", [(2, 3)], dtype=dtype, low=0, high=9, by_onnx=True) for dtype in ("int32", "int64")),
    *(Case(op, [(2, 3), np.array([1], np.int64)], dtype="bool", by_onnx=True) for op in ("ReduceMax", "ReduceMin")),
    *(Case(op, [(2, 3)], dtype="int32", by_onnx=True) for op in ("Abs", "Neg", "Relu", "Sign")),
    *(Case(op, [(2, 3)], dtype="float16", tolerance=1e-3) for op in ("Relu", "Sigmoid", "Softmax", "ReduceMean")),
    Case("MatMul", [(2, 3), weights(3, 4).astype(np.float16)], dtype="float16", tolerance=2e-3),
    Case("CastLike", [(2, 3), np.int64(0)], high=9),
    Case("Pow", [(2, 3), (2, 3)], dtype="int32", low=0, high=5),
    Case("ConstantOfShape", [Fed(np.array([2, 0], np.int64))], {"value": numpy_helper.from_array(weights(1))}),
]
INTEGER = [
    Case("ConvInteger", [(1, 2, 5, 5), Fed(np.arange(16, dtype=np.uint8).reshape(2, 2, 2, 2)), np.uint8(3)],
         {"pads": [1, 1, 1, 1]}, dtype="uint8", low=0, high=9),
    Case("MatMulInteger", [(2, 3), (3, 4), np.uint8(3), np.uint8(1)], dtype="uint8", low=0, high=9),
    Case("QuantizeLinear", [(2, 3, 4), Fed(np.float32(0.1)), np.uint8(7)]),
    Case("QuantizeLinear", [(2, 3, 4), np.array([0.1, 0.2, 0.3], np.float32), np.array([1, 2, 3], np.int8)],
         {"axis": 1}),
    Case("QuantizeLinear", [(2, 6), np.array([[0.1, 0.2], [0.3, 0.1]], np.float32), np.zeros((2, 2), np.uint8)],
         {"axis": 1, "block_size": 3}, opset=21),
    Case("DequantizeLinear", [(2, 3), Fed(np.float32(0.1)), np.uint8(7)], dtype="uint8", high=99),
]
EINSUM = [
    Case("Einsum", [(2, 3), (3, 4)], {"equation": "ij,jk->ik"}, opset=12),
    Case("Einsum", [(2, 3), weights(4, 3)], {"equation": "ij,kj->ik"}, opset=12, expect={"FULLY_CONNECTED": 1}),
    Case("Einsum", [(2, 5, 3), (2, 4, 3)], {"equation": "bik,bjk->bij"}, opset=12, expect={"BATCH_MATMUL": 1}),
    Case("Einsum", [(2, 3, 4, 5), (2, 6, 4, 5)], {"equation": "bqhd,bkhd->bhqk"}, opset=12),
    Case("Einsum", [(2, 4, 3, 6), (2, 6, 4, 5)], {"equation": "bhqk,bkhd->bqhd"}, opset=12),
    Case("Einsum", [(2, 3), (4,)], {"equation": "ij,k->kij"}, opset=12),
    Case("Einsum", [(2, 3), (2, 3)], {"equation": "ij,ij->i"}, opset=12),
    Case("Einsum", [(3, 3)], {"equation": "ii->i"}, opset=12),
    Case("Einsum", [(2, 3, 4)], {"equation": "ijk->kj"}, opset=12),
    Case("Einsum", [(2, 3, 4), (2, 4, 5)], {"equation": "...ij,...jk->...ik"}, opset=12),
    Case("Einsum", [(2, 3), (3, 4), (4,)], {"equation": "ij,jk,k"}, opset=12),
    Case("Einsum", [(2, 3, 4), weights(4, 5)], {"equation": "bnd,de->bne"}, opset=12, dynamic=(0, 1)),
]
_HEADS = {"q_num_heads": 3, "kv_num_heads": 3}
ATTENTION = [
    Case("Attention", [(2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 8)], opset=23, by_onnx=True,
         expect={"BATCH_MATMUL": 2, "TRANSPOSE": 0}),
    Case("Attention", [(2, 5, 12), (2, 6, 12), (2, 6, 12)], _HEADS, opset=23, by_onnx=True),
    Case("Attention", [(2, 5, 12), (2, 6, 12), (2, 6, 12)], _HEADS | {"scale": 0.3}, opset=23, dynamic=(1,),
         by_onnx=True),
    Case("Attention", [(2, 5, 12), (2, 6, 12), (2, 6, 12), (5, 6)], _HEADS, opset=23, by_onnx=True),
    Case("Attention", [(2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4)], {"is_causal": 1}, opset=23, by_onnx=True),
    Case("Attention", [(2, 4, 5, 4), (2, 2, 6, 4), (2, 2, 6, 4)], opset=23, by_onnx=True),
]

NUMBERS = [*FUNCTIONS, *BITS, *TYPES, *INTEGER, *EINSUM, *ATTENTION]
