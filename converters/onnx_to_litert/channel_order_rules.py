"""What each LiteRT op does to the channels of a value, which lie along its last axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.channel_order_moves import Indices
from edgekit.converters.onnx_to_litert.graph import ANONYMOUS, Graph, Op, Shape, Tensor

__all__ = ["ELEMENTWISE", "MIXERS", "Shuffle", "find_shuffles", "is_plain_float", "joins_channels", "keeps_channels",
           "mixer_groups", "reordered", "taken"]

#: one operand, computed element by element
_UNARY = frozenset({
    "ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG", "RELU",
    "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE", "TANH",
})  # fmt: skip
#: over the sides of an image, channel by channel
_SPATIAL = frozenset({"AVERAGE_POOL_2D", "MAX_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"})
_REDUCTIONS = frozenset({"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"})
#: operands that broadcast against each other, element by element
ELEMENTWISE = frozenset({"ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "PRELU", "SQUARED_DIFFERENCE", "SUB"})
#: sums over all channels -> which operand is the data; the last axis of operand 1 is their weights
MIXERS = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 2}


@dataclass(frozen=True, slots=True, eq=False)
class Shuffle:
    """``result`` is ``source`` with its channels in ``order``; ``ops`` make it, and nothing else reads in between."""

    source: Tensor
    result: Tensor
    order: Indices
    ops: tuple[Op, ...]


def is_plain_float(tensor: Tensor | None) -> bool:
    """Whether the tensor holds floats, computed at run time, along a last axis of known size."""
    if tensor is None or tensor.data is not None or tensor.quantization is not None:
        return False
    return tensor.dtype == np.float32 and tensor.rank > 1 and tensor.shape[-1] > 0


def find_shuffles(graph: Graph, readers: dict[int, list[Op]]) -> list[Shuffle]:
    """RESHAPE (.., g, c), TRANSPOSE (.., c, g), RESHAPE (.., g c); and GATHER of all channels in a constant order."""
    producers = {id(tensor): op for op in graph.ops for tensor in op.outputs}
    outputs = {id(tensor) for tensor in graph.outputs}
    found = []
    for op in graph.ops:
        shuffle = None
        if op.kind == "GATHER":
            shuffle = _gathered(op)
        elif op.kind == "TRANSPOSE":
            split = None if op.inputs[0] is None else producers.get(id(op.inputs[0]))
            merge = next(iter(readers.get(id(op.outputs[0]), [])), None)
            inner = [op.inputs[0], op.outputs[0]]
            alone = all(len(readers.get(id(t), ())) == 1 and id(t) not in outputs for t in inner)
            if alone and split is not None and merge is not None and split.kind == merge.kind == "RESHAPE":
                shuffle = _turned(split, op, merge)
        if shuffle is not None and is_plain_float(shuffle.source):
            found.append(shuffle)
    return found


def _turned(split: Op, turn: Op, merge: Op) -> Shuffle | None:
    source, perm, result = split.inputs[0], turn.inputs[1], merge.outputs[0]
    inner = split.outputs[0]
    if source is None or perm is None or perm.data is None or inner.rank < 3:
        return None
    swap = [*range(inner.rank - 2), inner.rank - 1, inner.rank - 2]
    groups, depth = inner.shape[-2:]
    fits = perm.data.reshape(-1).tolist() == swap and min(groups, depth) > 1 and groups * depth == source.shape[-1]
    if not fits or not _same_shape(source.shape, result.shape):
        return None
    order = np.arange(groups * depth).reshape(groups, depth).T.reshape(-1)
    return Shuffle(source, result, order, (split, turn, merge))


def _gathered(op: Op) -> Shuffle | None:
    source, indices = op.inputs
    if source is None or indices is None or indices.data is None or indices.rank != 1 or op.options.get("batchDims"):
        return None
    order = indices.data.astype(np.int64)
    last = op.options.get("axis", 0) in (source.rank - 1, -1)
    if not last or not np.array_equal(np.sort(order), np.arange(source.shape[-1])):
        return None
    return Shuffle(source, op.outputs[0], order, (op,))


def _same_shape(a: Shape, b: Shape) -> bool:
    return a == b and a.count(ANONYMOUS) <= 1


def joins_channels(op: Op) -> bool:
    """Whether ``op`` is a concatenation of channels of values computed at run time."""
    if op.kind != "CONCATENATION" or set(op.options) != {"axis"} or not is_plain_float(op.outputs[0]):
        return False
    last = op.options["axis"] in (op.outputs[0].rank - 1, -1)
    return last and all(is_plain_float(tensor) for tensor in op.inputs)


def taken(op: Op) -> tuple[Tensor, list[tuple[Tensor, Indices]]] | None:
    """(value, [(result, which of its channels)]) if ``op`` takes channels of a value apart; else None."""
    if op.kind in {"SPLIT", "SPLIT_V"}:
        at = {"SPLIT": (1, 0), "SPLIT_V": (0, 2)}[op.kind]
        x, axis = op.inputs[at[0]], op.inputs[at[1]]
        if x is None or axis is None or axis.data is None or int(axis.data) % x.rank != x.rank - 1:
            return None
        widths = [part.shape[-1] for part in op.outputs]
        if min(widths) <= 0 or sum(widths) != x.shape[-1]:
            return None
        ends = np.cumsum(widths)
        return x, [(t, np.arange(e - w, e)) for t, w, e in zip(op.outputs, widths, ends, strict=True)]
    if op.kind != "STRIDED_SLICE" or not set(op.options) <= {"beginMask", "endMask"}:
        return None
    x, begin, end, step = op.inputs
    if x is None or begin is None or end is None or step is None:
        return None
    if begin.data is None or end.data is None or step.data is None or not _slices_only_last(op, x, step.data):
        return None
    last = 1 << (x.rank - 1)
    start = None if _mask(op, "beginMask") & last else int(begin.data[-1])
    stop = None if _mask(op, "endMask") & last else int(end.data[-1])
    channels = np.arange(x.shape[-1])[start : stop : int(step.data[-1])]
    return (x, [(op.outputs[0], channels)]) if len(channels) == op.outputs[0].shape[-1] > 0 else None


def _mask(op: Op, name: str) -> int:
    value = op.options.get(name, 0)
    return value if isinstance(value, int) else 0


def _slices_only_last(op: Op, x: Tensor, step: Array) -> bool:
    others = (1 << (x.rank - 1)) - 1
    whole = _mask(op, "beginMask") & _mask(op, "endMask") & others == others
    return whole and bool((step[:-1] == 1).all()) and op.outputs[0].rank == x.rank


def keeps_channels(op: Op, x: Tensor) -> bool:
    """Whether each channel of the result depends on that channel of ``x``, operand 0, alone, all in the same way."""
    if not is_plain_float(op.outputs[0]) or len(op.outputs) != 1 or op.inputs[0] is not x:
        return False
    if op.outputs[0].shape[-1] != x.shape[-1] or any(tensor is x for tensor in op.inputs[1:]):
        return False
    if op.kind in _UNARY or op.kind in _SPATIAL:
        return True
    if op.kind == "RESHAPE":
        return True  # elements keep their order, so a last axis of the same size is the same axis
    constant = op.inputs[1].data if len(op.inputs) > 1 and op.inputs[1] is not None else None
    if constant is None:
        return False
    if op.kind in {"PAD", "MIRROR_PAD"}:
        return not constant.reshape(-1, 2)[-1].any()
    if op.kind == "TRANSPOSE":
        return int(constant.reshape(-1)[-1]) == x.rank - 1
    return op.kind in _REDUCTIONS and x.rank - 1 not in {int(axis) % x.rank for axis in constant.reshape(-1)}


def mixer_groups(op: Op, x: Tensor) -> int:
    """In how many groups ``op`` sums over the channels of ``x`` with constant weights; 0 if it does not."""
    at = MIXERS.get(op.kind, -1)
    if at < 0 or [index for index, tensor in enumerate(op.inputs) if tensor is x] != [at]:
        return 0
    weights = op.inputs[1]
    if weights is None or not is_constant_float(weights):
        return 0
    groups, rest = divmod(x.shape[-1], weights.shape[-1])
    whole = not rest and (groups == 1 or (op.kind == "CONV_2D" and weights.shape[0] % groups == 0))
    return groups if whole else 0


def is_constant_float(tensor: Tensor | None) -> bool:
    """Whether the tensor is a float constant that does not come from stored integers."""
    return tensor is not None and tensor.data is not None and tensor.stored is None and tensor.dtype == np.float32


def reordered(weights: Tensor, order: Sequence[int] | Indices, groups: int = 1) -> Tensor:
    """``weights`` with last axis in ``order``; with groups, each first index in that of the group it belongs to."""
    if weights.data is None:
        return weights
    width = weights.shape[-1]
    if groups == 1:
        data = weights.data[..., np.asarray(order)]
    else:
        inside = np.asarray(order).reshape(groups, width) - np.arange(groups)[:, None] * width
        parts = np.split(weights.data, groups)
        data = np.concatenate([part[..., index] for part, index in zip(parts, inside, strict=True)])
    return Tensor(weights.name, weights.dtype, weights.shape, np.ascontiguousarray(data))
