"""Elementwise ops: one table for those that LiteRT has under another name, functions for the rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.wide_division import divide_int64
from edgekit.converters.onnx_to_litert.sizes import ones_of
from edgekit.converters.onnx_to_litert.view import View, align, reshape_view

__all__ = [
    "BINARY",
    "COMPARE",
    "UNARY",
    "binary",
    "cast",
    "clip",
    "compare",
    "divide",
    "dropout",
    "identity_op",
    "mean",
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
    "LessOrEqual": "LESS_EQUAL", "And": "LOGICAL_AND", "Or": "LOGICAL_OR", "Xor": "NOT_EQUAL",
}  # fmt: skip
def unary(kind: str) -> Lowering:
    """The lowering of an op that LiteRT has as ``kind``."""

    def lower(b: Builder, node: Node) -> View:
        x = node.view(0)
        if x.dtype.kind in "iu" and kind in _ON_INTEGERS:
            return x.with_tensor(_ON_INTEGERS[kind](b, x.tensor))
        return x.with_tensor(b.unary(kind, x.tensor))

    return lower


def _relu_of_integers(b: Builder, x: Tensor) -> Tensor:
    return b.binary("MAXIMUM", x, b.scalar(0, x))


def _magnitude(b: Builder, x: Tensor) -> Tensor:
    """|x| of integers of any size."""
    return x if x.dtype.kind == "u" else b.binary("MAXIMUM", x, b.unary("NEG", x))


def _unchanged(b: Builder, x: Tensor) -> Tensor:
    return x


_ON_INTEGERS: dict[str, Callable[[Builder, Tensor], Tensor]] = {
    "ABS": _magnitude,
    "RELU": _relu_of_integers,
    **dict.fromkeys(("CEIL", "FLOOR", "ROUND"), _unchanged),
}


def binary(kind: str) -> Lowering:
    """The lowering of a broadcasting op that LiteRT has as ``kind``."""

    def lower(b: Builder, node: Node) -> View:
        return _fold(b, operands(b, node), kind)

    return lower


def operands(b: Builder, node: Node) -> list[View]:
    """Both operands; before opset 7 the second one's axes start at ``axis`` of the first one."""
    x, y = node.view(0), node.view(1)
    if node.opset >= 7 or not node.has("axis") or y.rank == 0:
        return [x, y]
    behind = x.rank - node.integer("axis", 0) % max(x.rank, 1) - y.rank
    return [x, reshape_view(b, y, (*y.shape, *(1,) * max(behind, 0)))]


def variadic(kind: str) -> Lowering:
    """The lowering of Sum, Max, Min: any number of operands."""

    def lower(b: Builder, node: Node) -> View:
        return _fold(b, [node.view(index) for index in range(len(node.inputs))], kind)

    return lower


def mean(b: Builder, node: Node) -> View:
    """Mean of any number of operands: their sum, scaled."""
    total = variadic("ADD")(b, node)
    return total.with_tensor(b.binary("MUL", total.tensor, b.scalar(1 / len(node.inputs), total.tensor)))


def _fold(b: Builder, views: list[View], kind: str) -> View:
    tensors, order = align(b, views)
    result = tensors[0]
    for tensor in tensors[1:]:
        result = b.binary(kind, result, tensor)
    return View(result, order)


def compare(kind: str) -> Lowering:
    """The lowering of comparisons and of And / Or / Xor; the result is bool."""

    def lower(b: Builder, node: Node) -> View:
        tensors, order = align(b, operands(b, node))
        return View(b.binary(kind, tensors[0], tensors[1], np.bool_), order)

    return lower


def not_op(b: Builder, node: Node) -> View:
    """Not -> LOGICAL_NOT."""
    x = node.view(0)
    return x.with_tensor(b.unary("LOGICAL_NOT", x.tensor))


def divide(b: Builder, node: Node) -> View:
    """Div -> DIV; a constant divisor becomes a multiplication where that is exact (powers of two)."""
    x, y = operands(b, node)
    divisor = y.const
    if x.dtype == np.float32 and divisor is not None and divisor.size and np.all(np.frexp(divisor)[0] == 0.5):
        reciprocal_view = View.of(b.const((1 / divisor).astype(np.float32)))
        tensors, order = align(b, [x, reciprocal_view])
        return View(b.binary("MUL", *tensors), order)
    if x.dtype == np.int64:
        tensors, order = align(b, [x, y])
        return View(divide_int64(b, *tensors), order)
    return _fold(b, [x, y], "DIV")


def modulo(b: Builder, node: Node) -> View:
    """Mod -> FLOOR_MOD (the sign of the divisor); with fmod=1 the remainder has the sign of the dividend."""
    x = node.view(0)
    if not node.integer("fmod", 0) or x.dtype.kind == "u":
        return _fold(b, [x, node.view(1)], "FLOOR_MOD")
    tensors, order = align(b, [x, node.view(1)])
    wide = x.dtype if x.dtype.itemsize >= 4 else np.dtype(np.int32)
    left, right = (b.cast(tensor, wide) for tensor in tensors)
    rest = b.binary("FLOOR_MOD", _positive(b, left), _positive(b, right))
    negative = b.binary("LESS", left, b.scalar(0, left), np.bool_)
    signed = b.emit("SELECT_V2", [negative, b.unary("NEG", rest), rest], rest.shape, wide)
    return View(b.cast(signed, x.dtype), order)


def _positive(b: Builder, x: Tensor) -> Tensor:
    return b.unary("ABS", x) if x.dtype.kind == "f" else _magnitude(b, x)


def power(b: Builder, node: Node) -> View:
    """Pow -> cheaper ops for the usual constant exponents, else POW."""
    x, y = operands(b, node)
    exponent = y.const
    if x.dtype.kind in "iu":
        return _integer_power(b, x, y)
    if exponent is not None and exponent.size == 1 and y.rank <= x.rank:
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
    tensors, order = align(b, [x, View(b.cast(y.tensor, np.float32), y.order)])
    return View(b.binary("POW", *tensors), order)


def _integer_power(b: Builder, x: View, exponent: View) -> View:
    """Integers to the power of integers -> POW on int32."""
    if exponent.dtype.kind not in "iu":
        raise Refused(f"LiteRT has no power of {x.dtype.name} with {exponent.dtype.name} exponents", "Cast the base.")
    tensors, order = align(b, [x, exponent])
    return View(b.binary("POW", tensors[0], b.cast(tensors[1], x.dtype)), order)


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
    tensor = x.tensor
    for kind, bound, index in (("MAXIMUM", low, 1), ("MINIMUM", high, 2)):
        if bound is not None:
            tensor = b.binary(kind, tensor, b.scalar(bound, tensor))
        elif node.has_input(index):
            tensor = b.binary(kind, tensor, b.reshape(node.view(index).tensor, ()))
    return x.with_tensor(tensor)


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
    """Identity: another name for the same value."""
    return node.view(0)


def dropout(b: Builder, node: Node) -> list[View]:
    """Dropout at inference: nothing is dropped, and the mask is true everywhere."""
    x = node.view(0)
    if node.has_input(2):
        training, ratio = node.view(2).const, node.view(1).const if node.has_input(1) else np.array(0.5)
        if training is None or (training.any() and (ratio is None or ratio.any())):
            raise Refused("it drops elements at random (training mode)", "Export the model in eval mode.")
    if not node.has_output(1):
        return [x]
    mask = ones_of(b, x.tensor, np.bool_ if node.opset >= 10 else x.dtype.type)
    return [x, x.with_tensor(mask)]


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
