"""What is known of integer vectors that are computed from shapes: dimensions stay symbols through shape arithmetic.

A network exported with dynamic sizes computes shapes at run time (Shape, Gather, Mul, ...). Following those values
lets a Reshape or Resize downstream know which of its dimensions are fixed and which equal another one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape
from edgekit.converters.onnx_to_litert.node import Node
from edgekit.converters.onnx_to_litert.ops.shape import known_elements
from edgekit.converters.onnx_to_litert.view import View

__all__ = ["follow"]

Ints = npt.NDArray[np.int64]
#: longer vectors are data, not shapes
_LONGEST = 64


def follow(b: Builder, node: Node, out: View) -> Shape | None:
    """The known elements of ``out``, the result of ``node``, or None."""
    rule = _RULES.get(node.op_type)
    if rule is None or out.dtype not in (np.int64, np.int32) or out.rank > 1 or min(out.shape, default=1) < 0:
        return None
    operands = []
    for view in node.inputs:
        if view is None:
            continue
        elements = known_elements(view) if view.dtype in (np.int64, np.int32) and view.rank <= 1 else None
        if elements is None or len(elements) > _LONGEST:
            return None
        operands.append(np.array(elements, np.int64).reshape([len(elements)] if view.rank else []))
    result = rule(b, node, operands)
    return None if result is None else tuple(int(value) for value in result.reshape(-1))


def _same(b: Builder, node: Node, operands: list[Ints]) -> Ints:
    return operands[0]


def _concat(b: Builder, node: Node, operands: list[Ints]) -> Ints:
    return np.concatenate(operands)


def _gather(b: Builder, node: Node, operands: list[Ints]) -> Ints | None:
    return operands[0][operands[1]] if operands[0].ndim and _literal(operands[1]) else None


def _slice(b: Builder, node: Node, operands: list[Ints]) -> Ints | None:
    if node.opset < 10:
        return operands[0][node.integers("starts")[0] : node.integers("ends")[0]]
    start, stop = int(operands[1].reshape(-1)[0]), int(operands[2].reshape(-1)[0])
    step = int(operands[4].reshape(-1)[0]) if len(operands) > 4 else 1
    return operands[0][start:stop:step]


def _literal(values: Ints) -> bool:
    return bool(np.all(values >= -_LONGEST))


def _arithmetic(name: str) -> Callable[[Builder, Node, list[Ints]], Ints | None]:
    def rule(b: Builder, node: Node, operands: list[Ints]) -> Ints:
        left, right = np.broadcast_arrays(*operands)
        values = [_combine(b, name, int(x), int(y)) for x, y in zip(left.reshape(-1), right.reshape(-1), strict=True)]
        return np.array(values, np.int64).reshape(left.shape)

    return rule


def _combine(b: Builder, name: str, x: int, y: int) -> int:
    if x >= 0 and y >= 0:
        if name == "Div":
            return x // y if y else b.new_dim()
        value = x + y if name == "Add" else x * y if name == "Mul" else x - y
        return value if value >= 0 else b.new_dim()
    if (name in ("Add", "Sub") and y == 0) or (name in ("Mul", "Div") and y == 1):
        return x
    if (name == "Add" and x == 0) or (name == "Mul" and x == 1):
        return y
    return b.new_dim((name, x, y))


_RULES: dict[str, Callable[[Builder, Node, list[Ints]], Ints | None]] = {
    "Cast": _same,
    "Identity": _same,
    "Reshape": _same,
    "Squeeze": _same,
    "Unsqueeze": _same,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Add": _arithmetic("Add"),
    "Sub": _arithmetic("Sub"),
    "Mul": _arithmetic("Mul"),
    "Div": _arithmetic("Div"),
}
