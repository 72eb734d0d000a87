"""Two multiplications of something large by something small become one."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.graph import Graph, Op, Shape, Tensor

__all__ = ["merge_factors"]

#: how many times smaller the product of the two factors must be than what they multiply
_SMALLER = 8


def merge_factors(graph: Graph) -> int:
    """Multiply a computed factor by a constant one while both are small; how often that was possible.

    before: t = MUL(x, a); y = MUL(t, c)      x N, H, W, C; a N, 1, 1, C (a deviation, a gate); c C
    after:  m = MUL(a, c); y = MUL(x, m)
    """
    producers = {id(tensor): op for op in graph.ops for tensor in op.outputs}
    readers = graph.consumers()
    outputs = {id(tensor) for tensor in graph.outputs}
    dropped: set[int] = set()
    before: dict[int, Op] = {}  # id of an op -> what must run before it
    for second in graph.ops:
        found = _constant_product(second)
        if found is None or id(second) in dropped:
            continue
        product, constant = found
        first = producers.get(id(product))
        if first is None or id(first) in before or len(readers[id(product)]) != 1 or id(product) in outputs:
            continue
        operands = _large_and_small(first, constant)
        if operands is None:
            continue
        large, small, shape = operands
        merged = Tensor(f"{small.name}/scaled", small.dtype, shape)
        before[id(first)] = Op("MUL", [small, constant], [merged], source=second.source)
        first.inputs = [large, merged]
        first.outputs = second.outputs
        producers[id(second.outputs[0])] = first
        dropped.add(id(second))
    graph.ops = [
        made
        for op in graph.ops
        if id(op) not in dropped
        for made in ((before[id(op)], op) if id(op) in before else (op,))
    ]
    return len(dropped)


def _is_product(op: Op) -> bool:
    return op.kind == "MUL" and not op.options.get("fusedActivationFunction") and op.outputs[0].dtype == np.float32


def _constant_product(op: Op) -> tuple[Tensor, Tensor] | None:
    """The value and the constant that ``op`` multiplies."""
    if not _is_product(op):
        return None
    for value, constant in (op.inputs, op.inputs[::-1]):
        if value is not None and constant is not None and constant.data is not None and value.data is None:
            return (value, constant) if value.shape == op.outputs[0].shape else None
    return None


def _large_and_small(op: Op, constant: Tensor) -> tuple[Tensor, Tensor, Shape] | None:
    """The operands of a product by a computed factor, and the shape of that factor times ``constant``."""
    if not _is_product(op):
        return None
    for large, small in (op.inputs, op.inputs[::-1]):
        if large is None or small is None or large.data is not None or small.data is not None:
            continue
        shape = _broadcast(small.shape, constant.shape)
        if shape is not None and large.shape == op.outputs[0].shape and _is_small(shape, large.shape):
            return large, small, shape
    return None


def _broadcast(shape: Shape, constant: Shape) -> Shape | None:
    """The shape of the product; None if ``constant`` has more axes."""
    if len(constant) > len(shape):
        return None
    padded = (1,) * (len(shape) - len(constant)) + constant
    if any(dim != other and 1 not in (dim, other) for dim, other in zip(shape, padded, strict=True)):
        return None
    return tuple(other if dim == 1 else dim for dim, other in zip(shape, padded, strict=True))


def _is_small(shape: Shape, large: Shape) -> bool:
    """Whether ``shape`` leaves out axes of ``large`` that make it much larger; an unknown size is taken for large."""
    if len(shape) != len(large):
        return False
    left_out = [dim for own, dim in zip(shape, large, strict=True) if own == 1]
    return any(dim < 0 for dim in left_out) or int(np.prod(left_out)) >= _SMALLER
