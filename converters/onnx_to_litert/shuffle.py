"""Channel shuffle followed by a split (ShuffleNet): move only the half that must really be moved.

before: t = TRANSPOSE(x (n, h, w, 2, c) -> (n, h, w, c, 2)); s = RESHAPE(t, (n, h, w, 2c)); a, b = SPLIT(s)
        y = CONV_2D(b, k)
after:  p = STRIDED_SLICE(x, (n, h, w, 2, c/2), the first half); a = RESHAPE(TRANSPOSE(p), (n, h, w, c))
        q = STRIDED_SLICE(x, (n, h, w, 2, c/2), the second half); y = CONV_2D(RESHAPE(q, (n, h, w, c)), k')

Channel 2i + g of each half lies at g * c/2 + i of its slice. A convolution takes that order by a permutation of its
weights' input channels; only a half that something else reads is put in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.graph import Graph, Op, Tensor

__all__ = ["split_shuffles"]


@dataclass(frozen=True, slots=True)
class _Shuffle:
    """``source`` is (..., groups, c); ``split`` takes its shuffled channels apart in halves."""

    source: Tensor
    split: Op


def split_shuffles(graph: Graph) -> int:
    """Rewrite every shuffle whose only reader splits it into halves; how many were."""
    producers = {id(tensor): op for op in graph.ops for tensor in op.outputs}
    readers = graph.consumers()
    outputs = {id(tensor) for tensor in graph.outputs}
    found: dict[int, _Shuffle] = {}
    for op in graph.ops:
        shuffle = _match(op, producers, readers, outputs) if op.kind == "SPLIT" else None
        if shuffle is not None:
            found[id(op)] = shuffle
    if not found:
        return 0
    rebuilt: list[Op] = []
    for op in graph.ops:
        if id(op) in found:
            rebuilt.extend(_halves(found[id(op)], readers, outputs))
        else:
            rebuilt.append(op)
    graph.ops = rebuilt
    return len(found)


def _match(split: Op, producers: dict[int, Op], readers: dict[int, list[Op]], outputs: set[int]) -> _Shuffle | None:
    axis, flat = split.inputs
    merge = None if flat is None else producers.get(id(flat))
    if axis is None or axis.data is None or flat is None or merge is None or merge.kind != "RESHAPE":
        return None
    moved = merge.inputs[0]
    move = None if moved is None else producers.get(id(moved))
    if moved is None or move is None or move.kind != "TRANSPOSE":
        return None
    source, perm = move.inputs
    if source is None or perm is None or perm.data is None or len(split.outputs) != 2:
        return None
    alone = all(len(readers[id(t)]) == 1 and id(t) not in outputs for t in (flat, moved))
    rank = source.rank
    swap = (*range(rank - 2), rank - 1, rank - 2)
    if tuple(perm.data) != swap or not alone or int(axis.data) % flat.rank != flat.rank - 1:
        return None
    groups, channels = source.shape[-2:]
    fits = flat.shape == (*source.shape[:-2], groups * channels) and groups == 2 and channels % 2 == 0
    known = sum(dim < 0 for dim in source.shape) <= 1 and min(groups, channels) > 0
    return _Shuffle(source, split) if fits and known and split.outputs[0].shape == split.outputs[1].shape else None


def _halves(shuffle: _Shuffle, readers: dict[int, list[Op]], outputs: set[int]) -> list[Op]:
    source, split = shuffle.source, shuffle.split
    half = source.shape[-1] // 2
    ops: list[Op] = []
    for place, result in enumerate(split.outputs):
        part = Tensor(f"{result.name}/half", result.dtype, (*source.shape[:-1], half))
        ops.append(_slice(source, part, place * half, split.source))
        consumers = readers.get(id(result), [])
        if consumers and id(result) not in outputs and all(_is_plain_conv(op, result) for op in consumers):
            for op in consumers:
                _permute_inputs(op, half)
            ops.append(_reshape(part, result, split.source))
            continue
        rank = part.rank
        perm = np.array((*range(rank - 2), rank - 1, rank - 2), np.int32)
        ordered = Tensor(f"{result.name}/ordered", result.dtype, (*part.shape[:-2], half, part.shape[-2]))
        ops.append(Op("TRANSPOSE", [part, _const(perm)], [ordered], source=split.source))
        ops.append(_reshape(ordered, result, split.source))
    return ops


def _is_plain_conv(op: Op, data: Tensor) -> bool:
    """Whether ``op`` is an ungrouped float convolution of ``data`` with constant weights."""
    if op.kind != "CONV_2D" or op.inputs[0] is not data:
        return False
    weights = op.inputs[1]
    if weights is None or weights.data is None or weights.stored is not None:
        return False
    return weights.shape[3] == data.shape[3] and weights.dtype == np.float32


def _permute_inputs(conv: Op, half: int) -> None:
    weights = conv.inputs[1]
    if weights is None or weights.data is None:
        return
    order = np.arange(2 * half).reshape(half, 2).T.reshape(-1)  # stored place g * half + i holds channel 2i + g
    data = np.ascontiguousarray(weights.data[..., order])
    conv.inputs[1] = Tensor(weights.name, weights.dtype, weights.shape, data)


def _slice(source: Tensor, part: Tensor, start: int, name: str) -> Op:
    rank = source.rank
    begin, end = np.zeros(rank, np.int32), np.full(rank, 2**31 - 1, np.int32)
    begin[-1], end[-1] = start, start + part.shape[-1]
    mask = (1 << (rank - 1)) - 1
    vectors = [_const(begin), _const(end), _const(np.ones(rank, np.int32))]
    return Op("STRIDED_SLICE", [source, *vectors], [part], {"beginMask": mask, "endMask": mask}, name)


def _reshape(x: Tensor, result: Tensor, name: str) -> Op:
    target = np.array([max(dim, -1) for dim in result.shape], np.int32)
    return Op("RESHAPE", [x, _const(target)], [result], source=name)


def _const(data: Array) -> Tensor:
    return Tensor("shuffle/const", data.dtype, data.shape, data)
