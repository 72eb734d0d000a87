"""A concatenation that begins with all parts of an earlier one reads that one's result instead (dense blocks)."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.graph import Graph, Op, Tensor

__all__ = ["reuse_concat"]


def reuse_concat(graph: Graph) -> int:
    """Copy from few tensors instead of many, which XNNPACK takes only up to five; how many ops were changed.

    before: s = CONCATENATION(a, b); t = CONCATENATION(a, b, c)
    after:  s = CONCATENATION(a, b); t = CONCATENATION(s, c)
    """
    made: dict[tuple[object, ...], Tensor] = {}  # axis and ids of the parts -> what they were put together to
    changed = 0
    for op in graph.ops:
        if op.kind != "CONCATENATION" or op.options.get("fusedActivationFunction"):
            continue
        if any(part is None or part.dtype != np.float32 for part in op.inputs):
            continue
        parts = list(op.inputs)
        changed += _shorten(op, made)
        made.setdefault(_key(op, parts), op.outputs[0])
    return changed


def _shorten(op: Op, made: dict[tuple[object, ...], Tensor]) -> bool:
    """Whether the longest known beginning of ``op`` could take the place of its parts."""
    for count in range(len(op.inputs) - 1, 1, -1):
        known = made.get(_key(op, op.inputs[:count]))
        if known is not None:
            op.inputs = [known, *op.inputs[count:]]
            return True
    return False


def _key(op: Op, parts: list[Tensor | None]) -> tuple[object, ...]:
    return (op.options.get("axis"), *(id(part) for part in parts))
