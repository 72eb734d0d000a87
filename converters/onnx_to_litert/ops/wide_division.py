"""Division of 64-bit integers, for which LiteRT has no kernel: by int32 where the values fit for sure, else exactly.

The exact way takes some thirty small ops and only such kernels as compute in 64 bits (FLOOR_MOD, MUL, ADD, SUB).
"""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Op, Tensor

__all__ = ["divide_int64", "fits_int32"]

_MOST = 2**31 - 1
#: ops that make int64 of what can be counted: axes, places
_COUNTING = frozenset({"SHAPE", "ARG_MAX", "ARG_MIN"})
#: kind -> the operands whose values it hands on
_HANDS_ON = {
    **dict.fromkeys((
        "RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "SLICE", "GATHER", "GATHER_ND", "BROADCAST_TO", "TILE", "REVERSE_V2",
        "SQUEEZE", "EXPAND_DIMS", "REDUCE_MAX", "REDUCE_MIN", "TOPK_V2", "UNPACK", "SPLIT_V", "PAD",
    ), (0,)),
    **dict.fromkeys(("CONCATENATION", "PACK", "MAXIMUM", "MINIMUM", "RANGE"), None),
    "SPLIT": (1,), "SELECT_V2": (1, 2), "FLOOR_MOD": (1,),
}  # fmt: skip
#: a quotient of float32 times this, after three roundings, is not above the true one
_BELOW = 1 - 2.0**-22
#: each round leaves 2^-21 of the quotient: what the third meets is below 2^22, and float32 rounds that right
_ROUNDS = 3


def divide_int64(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    """``x / y`` of int64 tensors, truncated, for all values but -2^63 / -1."""
    if fits_int32(b, x) and fits_int32(b, y):
        return b.cast(b.binary("DIV", b.cast(x, np.int32), b.cast(y, np.int32)), np.int64)
    rest = b.binary("SUB", x, _remainder(b, x, y))
    divisor = b.cast(y, np.float32)
    total = None
    for number in range(_ROUNDS):
        quotient = b.binary("DIV", b.cast(rest, np.float32), divisor)
        last = number == _ROUNDS - 1
        quotient = b.unary("ROUND", quotient) if last else b.binary("MUL", quotient, b.scalar(_BELOW, quotient))
        part = b.cast(quotient, np.int64)
        total = part if total is None else b.binary("ADD", total, part)
        if not last:
            rest = b.binary("SUB", rest, b.binary("MUL", part, y))
    assert total is not None
    return total


def _remainder(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    """What truncated division leaves: it has the sign of ``x``, where FLOOR_MOD's result has that of ``y``."""
    rest = b.binary("FLOOR_MOD", x, y)
    zero = b.scalar(0, x)
    down, against = (b.binary("LESS", tensor, zero, np.bool_) for tensor in (x, y))
    left = b.binary("NOT_EQUAL", rest, zero, np.bool_)
    other = b.binary("LOGICAL_AND", b.binary("NOT_EQUAL", down, against, np.bool_), left, np.bool_)
    return b.emit("SELECT_V2", [other, b.binary("SUB", rest, y), rest], rest.shape, rest.dtype)


def fits_int32(b: Builder, tensor: Tensor) -> bool:
    """Whether the values of ``tensor`` are of 32 bits for sure: sizes, places, smaller types and what hands them on."""
    producers: dict[int, Op] = {}
    level: Builder | None = b
    while level is not None:
        producers.update((id(made), op) for op in level.graph.ops for made in op.outputs)
        level = level.outer
    front, seen = [tensor], set()
    while front:
        found = front.pop()
        if id(found) in seen or found.elements is not None or (found.dtype.kind in "iub" and found.dtype.itemsize < 4):
            continue
        seen.add(id(found))
        if found.dtype == np.int32:
            continue
        if found.data is not None:
            if found.data.size and (int(found.data.min()) < -_MOST or int(found.data.max()) > _MOST):
                return False
            continue
        op = producers.get(id(found))
        if op is not None and op.kind in _COUNTING:
            continue
        operands = _handed_on(op) if op is not None else None
        if operands is None:
            return False
        front.extend(operands)
    return True


def _handed_on(op: Op) -> list[Tensor] | None:
    """The operands whose values the results of ``op`` lie among; None where it computes others."""
    if op.kind == "CAST" and op.inputs[0] is not None and op.inputs[0].dtype.kind in "iub":
        places: tuple[int, ...] | None = (0,)
    elif op.kind in _HANDS_ON:
        places = _HANDS_ON[op.kind]
    else:
        return None
    tensors = op.inputs if places is None else [op.inputs[at] for at in places]
    return [tensor for tensor in tensors if tensor is not None]
