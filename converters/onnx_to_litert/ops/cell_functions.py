"""The activation functions that the attributes of LSTM, GRU and RNN name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused

__all__ = ["Function", "cell_functions"]

Function = Callable[[Builder, Tensor], Tensor]
_Parametric = Callable[[Builder, Tensor, float, float], Tensor]


def _op(kind: str) -> _Parametric:
    return lambda b, x, _alpha, _beta: b.unary(kind, x)


def _affine(b: Builder, x: Tensor, alpha: float, beta: float) -> Tensor:
    scaled = x if alpha == 1 else b.binary("MUL", x, b.scalar(alpha, x))
    return scaled if beta == 0 else b.binary("ADD", scaled, b.scalar(beta, x))


def _scaled_tanh(b: Builder, x: Tensor, alpha: float, beta: float) -> Tensor:
    return _affine(b, b.unary("TANH", _affine(b, x, beta, 0.0)), alpha, 0.0)


def _hard_sigmoid(b: Builder, x: Tensor, alpha: float, beta: float) -> Tensor:
    return b.unary("RELU", b.binary("MINIMUM", _affine(b, x, alpha, beta), b.scalar(1.0, x)))


def _softsign(b: Builder, x: Tensor, _alpha: float, _beta: float) -> Tensor:
    return b.binary("DIV", x, _affine(b, b.unary("ABS", x), 1.0, 1.0))


#: lower-case name -> (the function, the defaults of the parameters that it takes out of the attributes' lists)
_FUNCTIONS: dict[str, tuple[_Parametric, dict[str, float | None]]] = {
    "sigmoid": (_op("LOGISTIC"), {}),
    "tanh": (_op("TANH"), {}),
    "relu": (_op("RELU"), {}),
    "softsign": (_softsign, {}),
    "affine": (_affine, {"alpha": 1.0, "beta": 0.0}),
    "scaledtanh": (_scaled_tanh, {"alpha": None, "beta": None}),  # ONNX gives it no defaults
    "hardsigmoid": (_hard_sigmoid, {"alpha": 0.2, "beta": 0.5}),
    "leakyrelu": (lambda b, x, alpha, _beta: b.unary("LEAKY_RELU", x, alpha=alpha), {"alpha": 0.01}),
}


def cell_functions(node: Node, defaults: Sequence[str], directions: int) -> list[list[Function]]:
    """The functions of each direction: those that ``activations`` names, else ``defaults``."""
    names = node.texts("activations") or list(defaults) * directions
    if len(names) != len(defaults) * directions:
        raise Refused(f"it names {len(names)} activations where {len(defaults) * directions} are needed")
    given = {name: list(node.reals(f"activation_{name}")) for name in ("alpha", "beta")}
    functions = [_function(name, given) for name in names]
    return [functions[at : at + len(defaults)] for at in range(0, len(functions), len(defaults))]


def _function(name: str, given: dict[str, list[float]]) -> Function:
    """The function ``name``; the parameters that it takes are removed from the front of ``given``."""
    if name.lower() not in _FUNCTIONS:
        known = "Affine, HardSigmoid, LeakyRelu, Relu, ScaledTanh, Sigmoid, Softsign, Tanh"
        raise Refused(f"its activation '{name}' is none that EdgeKit knows here ({known})", "Use one of these.")
    function, parameters = _FUNCTIONS[name.lower()]
    values = {"alpha": 0.0, "beta": 0.0}
    for key, default in parameters.items():
        value = given[key].pop(0) if given[key] else default
        if value is None:
            raise Refused(f"its activation '{name}' has no {key}", f"Set activation_{key}.")
        values[key] = value
    return lambda b, x: function(b, x, values["alpha"], values["beta"])
