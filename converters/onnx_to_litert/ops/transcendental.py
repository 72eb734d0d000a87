"""Trigonometric and hyperbolic functions and their inverses, Erf: by ops that LiteRT has, exact to float32 rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node
from edgekit.converters.onnx_to_litert.view import View

__all__ = ["FUNCTIONS", "elementwise"]

Function = Callable[[Builder, Tensor], Tensor]

#: erf(x) = x P(x^2) / Q(x^2) on [-4, 4], highest power first (the coefficients that Eigen uses)
_ERF_ABOVE = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
              -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02)  # fmt: skip
_ERF_BELOW = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
              -1.42647390514189e-02)  # fmt: skip
#: log(1 + x) / x below the limit, highest power first
_LOG1P = (1 / 7, -1 / 6, 1 / 5, -1 / 4, 1 / 3, -1 / 2, 1.0)
_LOG1P_LIMIT = 0.1


def elementwise(function: Function) -> Callable[[Builder, Node], View]:
    """The lowering of an op that is ``function`` of every element."""

    def lower(b: Builder, node: Node) -> View:
        x = node.floats(0)
        return x.with_tensor(function(b, x.tensor))

    return lower


def _log1p(b: Builder, x: Tensor) -> Tensor:
    """log(1 + x) for x >= 0: a series near 0, where 1 + x rounds and XNNPACK's LOG is off by some 1e-7."""
    series = b.binary("MUL", x, _polynomial(b, x, _LOG1P))
    far = b.unary("LOG", _plus(b, x, 1.0))
    near = b.binary("LESS", x, b.scalar(_LOG1P_LIMIT, x), np.bool_)
    return b.emit("SELECT_V2", [near, series, far], x.shape, x.dtype)


def _plus(b: Builder, x: Tensor, value: float) -> Tensor:
    return b.binary("ADD", x, b.scalar(value, x))


def _times(b: Builder, x: Tensor, value: float) -> Tensor:
    return b.binary("MUL", x, b.scalar(value, x))


def _odd(b: Builder, x: Tensor, function: Function) -> Tensor:
    """``function`` of |x| with the sign of x."""
    return b.binary("MUL", b.unary("SIGN", x), function(b, b.unary("ABS", x)))


def _root_of_rest(b: Builder, x: Tensor) -> Tensor:
    """sqrt(1 - x^2) without cancellation near 1."""
    below, above = b.binary("SUB", b.scalar(1.0, x), x), _plus(b, x, 1.0)
    return b.unary("SQRT", b.binary("MUL", below, above))


def _acos(b: Builder, x: Tensor) -> Tensor:
    return b.binary("ATAN2", _root_of_rest(b, x), x)


def _asin(b: Builder, x: Tensor) -> Tensor:
    return b.binary("ATAN2", x, _root_of_rest(b, x))


def _atan(b: Builder, x: Tensor) -> Tensor:
    return b.emit("ATAN2", [x, _ones(b, x)], x.shape, x.dtype)


def _ones(b: Builder, x: Tensor) -> Tensor:
    """ATAN2 does not broadcast."""
    if min(x.shape, default=0) >= 0:
        return b.const(np.ones(x.shape, np.float32))
    return b.emit("FILL", [b.shape_of(x), b.scalar(1.0, x)], x.shape, x.dtype)


def _tan(b: Builder, x: Tensor) -> Tensor:
    return b.binary("DIV", b.unary("SIN", x), b.unary("COS", x))


def _sinh(b: Builder, x: Tensor) -> Tensor:
    return _odd(b, x, _sinh_positive)


def _sinh_positive(b: Builder, x: Tensor) -> Tensor:
    """From e = exp(-x) - 1, which ELU gives without cancellation: -e (e + 2) / (2 (e + 1))."""
    lost = b.unary("ELU", b.unary("NEG", x))
    above = b.binary("MUL", b.unary("NEG", lost), _plus(b, lost, 2.0))
    return b.binary("DIV", above, _times(b, b.unary("EXP", b.unary("NEG", x)), 2.0))


def _cosh(b: Builder, x: Tensor) -> Tensor:
    both = b.binary("ADD", b.unary("EXP", x), b.unary("EXP", b.unary("NEG", x)))
    return _times(b, both, 0.5)


def _asinh(b: Builder, x: Tensor) -> Tensor:
    return _odd(b, x, _asinh_positive)


def _asinh_positive(b: Builder, x: Tensor) -> Tensor:
    """log(1 + x + x^2 / (1 + sqrt(1 + x^2)))."""
    square = b.binary("MUL", x, x)
    below = _plus(b, b.unary("SQRT", _plus(b, square, 1.0)), 1.0)
    return _log1p(b, b.binary("ADD", x, b.binary("DIV", square, below)))


def _acosh(b: Builder, x: Tensor) -> Tensor:
    """log(1 + t + sqrt(2 t + t^2)) with t = x - 1."""
    over = _plus(b, x, -1.0)
    root = b.unary("SQRT", b.binary("MUL", over, _plus(b, over, 2.0)))
    return _log1p(b, b.binary("ADD", over, root))


def _atanh(b: Builder, x: Tensor) -> Tensor:
    return _odd(b, x, _atanh_positive)


def _atanh_positive(b: Builder, x: Tensor) -> Tensor:
    """log(1 + 2 x / (1 - x)) / 2."""
    ratio = b.binary("DIV", _times(b, x, 2.0), b.binary("SUB", b.scalar(1.0, x), x))
    return _times(b, _log1p(b, ratio), 0.5)


def _erf(b: Builder, x: Tensor) -> Tensor:
    near = b.binary("MAXIMUM", b.binary("MINIMUM", x, b.scalar(4.0, x)), b.scalar(-4.0, x))
    square = b.binary("MUL", near, near)
    above = b.binary("MUL", near, _polynomial(b, square, _ERF_ABOVE))
    return b.binary("DIV", above, _polynomial(b, square, _ERF_BELOW))


def _polynomial(b: Builder, x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Horner's scheme, the highest power first."""
    total = _plus(b, _times(b, x, coefficients[0]), coefficients[1])
    for coefficient in coefficients[2:]:
        total = _plus(b, b.binary("MUL", total, x), coefficient)
    return total


FUNCTIONS: dict[str, Function] = {
    "Acos": _acos, "Acosh": _acosh, "Asin": _asin, "Asinh": _asinh, "Atan": _atan, "Atanh": _atanh, "Cosh": _cosh,
    "Erf": _erf, "Sinh": _sinh, "Tan": _tan,
}  # fmt: skip
