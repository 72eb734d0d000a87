"""Elementwise ops: one table for those that LiteRT has under another name, functions for the rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.view import View, align

__all__ = [
    "BINARY",
    "COMPARE",
    "UNARY",
    "binary",
    "cast",
    "clip",
    "compare",
    "divide",
    "identity_op",
    "modulo",
    "not_op",
    "power",
    "reciprocal",
    "unary",
    "variadic",
    "where",
]

Lowering = Callable[[Builder, Node], View]

#: ONNX op -> LiteRT op, float32
UNARY = {
    "Abs": "ABS", "Ceil": "CEIL", "Cos": "COS", "Elu": "ELU", "Exp": "EXP", "Floor": "FLOOR", "Log": "LOG",
    "Neg": "NEG", "Relu": "RELU", "Round": "ROUND", "Sigmoid": "LOGISTIC", "Sign": "SIGN", "Sin": "SIN",
    "Sqrt": "SQRT", "Tanh": "TANH",
}  # fmt: skip
BINARY = {"Add": "ADD", "Mul": "MUL", "Sub": "SUB"}
COMPARE = {
    "Equal": "EQUAL", "Greater": "GREATER", "GreaterOrEqual": "GREATER_EQUAL", "Less": "LESS",
    "LessOrEqual": "LESS_EQUAL", "And": "LOGICAL_AND", "Or": "LOGICAL_OR",
}  # fmt: skip
_ARITHMETIC = (np.float32, np.int32, np.int64)
#: integer dtypes that LiteRT stores but does not compute in, and the one it does
_COMPUTE_AS = {"int8": np.int32, "uint8": np.int32, "int16": np.int32, "uint16": np.int32, "uint32": np.int64}


def aligned(b: Builder, views: list[View]) -> tuple[list[Tensor], tuple[int, ...]]:
    """The operands in one storage order, in a dtype that LiteRT computes in."""
    tensors, order = align(b, views)
    dtype = views[0].dtype
    if dtype.name in _COMPUTE_AS:
        tensors = [b.cast(tensor, _COMPUTE_AS[dtype.name]) for tensor in tensors]
    return tensors, order


def unary(kind: str) -> Lowering:
    """The lowering of an op that LiteRT has as ``kind``."""

    def lower(b: Builder, node: Node) -> View:
        x = node.view(0)
        if x.dtype != np.float32 and not (kind in ("ABS", "NEG") and x.dtype in (np.int32, np.int64)):
            node.floats(0)
        return x.with_tensor(b.unary(kind, x.tensor))

    return lower


def binary(kind: str) -> Lowering:
    """The lowering of a broadcasting op that LiteRT has as ``kind``."""

    def lower(b: Builder, node: Node) -> View:
        return _fold(b, node, [node.view(0), node.view(1)], kind)

    return lower


def variadic(kind: str) -> Lowering:
    """The lowering of Sum, Max, Min: any number of operands."""

    def lower(b: Builder, node: Node) -> View:
        return _fold(b, node, [node.view(index) for index in range(len(node.inputs))], kind)

    return lower


def _fold(b: Builder, node: Node, views: list[View], kind: str) -> View:
    dtype = views[0].dtype
    if dtype not in _ARITHMETIC and dtype.name not in _COMPUTE_AS:
        raise Refused(f"LiteRT has no {node.op_type} for {dtype.name}", "Convert the model to float32.")
    tensors, order = aligned(b, views)
    result = tensors[0]
    for tensor in tensors[1:]:
        result = b.binary(kind, result, tensor)
    return View(b.cast(result, dtype), order)


def compare(kind: str) -> Lowering:
    """The lowering of comparisons and of And / Or; the result is bool."""

    def lower(b: Builder, node: Node) -> View:
        views = [node.view(0), node.view(1)]
        if views[0].dtype not in (*_ARITHMETIC, np.bool_) and views[0].dtype.name not in _COMPUTE_AS:
            raise Refused(f"LiteRT has no {node.op_type} for {views[0].dtype.name}")
        tensors, order = aligned(b, views)
        return View(b.binary(kind, tensors[0], tensors[1], np.bool_), order)

    return lower


def not_op(b: Builder, node: Node) -> View:
    """Not -> LOGICAL_NOT."""
    x = node.view(0)
    return x.with_tensor(b.unary("LOGICAL_NOT", x.tensor))


def divide(b: Builder, node: Node) -> View:
    """Div -> DIV; a constant divisor becomes a multiplication where that is exact (powers of two)."""
    x, divisor = node.view(0), node.view(1).const
    if x.dtype == np.float32 and divisor is not None and divisor.size and np.all(np.frexp(divisor)[0] == 0.5):
        reciprocal_view = View.of(b.const((1 / divisor).astype(np.float32)))
        tensors, order = align(b, [x, reciprocal_view])
        return View(b.binary("MUL", *tensors), order)
    if x.dtype == np.int64:
        # LiteRT has no 64-bit DIV; FLOOR_DIV differs from ONNX's truncation only for negative quotients
        tensors, order = align(b, [x, node.view(1)])
        quotient = b.binary("DIV", *(b.cast(tensor, np.int32) for tensor in tensors))
        return View(b.cast(quotient, np.int64), order)
    return _fold(b, node, [x, node.view(1)], "DIV")


def modulo(b: Builder, node: Node) -> View:
    """Mod with fmod=0 on integers -> FLOOR_MOD."""
    if node.integer("fmod", 0):
        raise Refused("LiteRT has no fmod (remainder with the sign of the dividend)")
    return _fold(b, node, [node.view(0), node.view(1)], "FLOOR_MOD")


def power(b: Builder, node: Node) -> View:
    """Pow -> cheaper ops for the usual constant exponents, else POW."""
    x, exponent = node.floats(0), node.view(1).const
    if exponent is not None and exponent.size == 1 and node.view(1).rank <= x.rank:
        value = float(exponent.reshape(-1)[0])
        if value == 2:
            return x.with_tensor(b.binary("MUL", x.tensor, x.tensor))
        if value == 1:
            return x
        if value == 0.5:
            return x.with_tensor(b.unary("SQRT", x.tensor))
        if value == -0.5:
            return x.with_tensor(b.unary("RSQRT", x.tensor))
        if value == 3:
            return x.with_tensor(b.binary("MUL", b.binary("MUL", x.tensor, x.tensor), x.tensor))
    y = node.view(1)
    tensors, order = align(b, [x, View(b.cast(y.tensor, np.float32), y.order)])
    return View(b.binary("POW", *tensors), order)


def reciprocal(b: Builder, node: Node) -> View:
    """Reciprocal -> DIV."""
    x = node.floats(0)
    return x.with_tensor(b.emit("DIV", [b.scalar(1.0, x.tensor), x.tensor], x.tensor.shape, x.dtype))


def clip(b: Builder, node: Node) -> View:
    """Clip -> RELU6 and its like, else MINIMUM and MAXIMUM."""
    x = node.view(0)
    low, high = _bounds(node)
    if x.dtype == np.float32 and (low, high) in _RELUS:
        return x.with_tensor(b.unary(_RELUS[low, high], x.tensor))
    tensor = b.cast(x.tensor, _COMPUTE_AS.get(x.dtype.name, x.dtype))
    for kind, bound, index in (("MAXIMUM", low, 1), ("MINIMUM", high, 2)):
        if bound is not None:
            tensor = b.binary(kind, tensor, b.scalar(bound, tensor))
        elif node.has_input(index):
            tensor = b.binary(kind, tensor, b.cast(b.reshape(node.view(index).tensor, ()), tensor.dtype))
    return x.with_tensor(b.cast(tensor, x.dtype))


_RELUS: dict[tuple[float | None, float | None], str] = {
    (0.0, None): "RELU",
    (0.0, 6.0): "RELU6",
    (-1.0, 1.0): "RELU_N1_TO_1",
}


def _bounds(node: Node) -> tuple[float | None, float | None]:
    """The constant bounds; None for those that are absent, infinite or computed."""
    if node.opset < 11:
        low, high = node.real("min", -np.inf), node.real("max", np.inf)
        limit = 3.4e38  # the default bounds of opset 6 are the largest floats
        return (None if low <= -limit else low), (None if high >= limit else high)
    found: list[float | None] = []
    for index in (1, 2):
        data = node.view(index).const if node.has_input(index) else None
        bound = None if data is None else data.reshape(-1)[0].item()
        found.append(None if bound is None or (isinstance(bound, float) and np.isinf(bound)) else bound)
    return found[0], found[1]


def where(b: Builder, node: Node) -> View:
    """Where -> SELECT_V2."""
    tensors, order = align(b, [node.view(0), node.view(1), node.view(2)])
    shape = b.broadcast(tensors)
    return View(b.emit("SELECT_V2", tensors, shape, tensors[1].dtype), order)


def identity_op(b: Builder, node: Node) -> View:
    """Identity, and Dropout at inference: another name for the same value."""
    return node.view(0)


def cast(b: Builder, node: Node) -> View:
    """Cast -> CAST."""
    import onnx_ir as ir

    x = node.view(0)
    if node.op_type == "CastLike":
        target = node.view(1).dtype
    else:
        target = ir.DataType(node.integer("to", 1)).numpy()
    names = ("float32", "float16", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")
    for dtype in (x.dtype, target):
        if dtype.name not in names:
            raise Refused(f"LiteRT has no cast from {x.dtype.name} to {target.name}")
    return x.with_tensor(b.cast(x.tensor, target))
