"""The ops of the main subgraph that have constant weights, and what each reads, as rows of a matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.converters.quantize.flatbuffer import constant_bytes, kind_of, name_of

__all__ = ["Weighted", "constant", "patches", "set_constant", "weighted_ops"]

_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
Floats = npt.NDArray[np.float32]


class Weighted(msgspec.Struct, frozen=True):
    """A convolution or matrix product with float32 weights that no other op reads.

    ``result`` and ``source``: names of the first result and of the first operand. ``weights`` and ``bias``: indices of
    tensors; ``bias`` is -1 where there is none, or where another op reads it too.
    """

    result: str
    kind: str
    source: str
    weights: int
    bias: int
    operator: int


def weighted_ops(tables: Any) -> list[Weighted]:
    """Those of the main subgraph, in the order of computation."""
    subgraph, float32 = tables.subgraphs[0], schema().TensorType.FLOAT32
    readers = Counter(int(index) for op in subgraph.operators for index in set(op.inputs) if index >= 0)
    owners = Counter(tensor.buffer for graph in tables.subgraphs for tensor in graph.tensors)
    found = []
    for number, op in enumerate(subgraph.operators):
        kind = kind_of(tables, op)
        if kind not in _KINDS or len(op.inputs) < 2 or op.inputs[0] < 0 or op.inputs[1] < 0:
            continue
        weights = subgraph.tensors[op.inputs[1]]
        lone = readers[int(op.inputs[1])] == 1 and owners[weights.buffer] == 1
        if not lone or weights.type != float32 or not constant_bytes(tables, weights) or weights.sparsity is not None:
            continue
        bias = int(op.inputs[2]) if len(op.inputs) > 2 else -1
        if bias >= 0 and (readers[bias] > 1 or owners[subgraph.tensors[bias].buffer] > 1
                          or not constant_bytes(tables, subgraph.tensors[bias])):
            bias = -1
        found.append(Weighted(name_of(subgraph.tensors[op.outputs[0]]), kind, name_of(subgraph.tensors[op.inputs[0]]),
                              int(op.inputs[1]), bias, number))
    return found


def constant(tables: Any, index: int) -> Floats:
    """A copy of the float32 constant tensor ``index`` of the main subgraph."""
    tensor = tables.subgraphs[0].tensors[index]
    raw = np.ascontiguousarray(tables.buffers[tensor.buffer].data, np.uint8)
    return raw.view(np.float32).reshape(tuple(int(dim) for dim in tensor.shape)).copy()


def set_constant(tables: Any, index: int, values: Floats) -> None:
    """Put ``values`` in the place of the constant tensor ``index``, which has as many."""
    tensor = tables.subgraphs[0].tensors[index]
    tables.buffers[tensor.buffer].data = np.ascontiguousarray(values, np.float32).view(np.uint8).ravel()


def patches(operator: Any, kind: str, weights: Sequence[int], source: Array, limit: int) -> Array:
    """What the op multiplies with its weights, at up to ``limit`` evenly spread places of its result.

    ``weights``: the shape of the weights. Returns (places, taps * channels), for a depthwise op (places, taps,
    channels).
    """
    if kind == "FULLY_CONNECTED":
        rows = source.reshape(-1, weights[1])
        return rows[_spread(len(rows), limit)]
    options = operator.builtinOptions
    height, width = int(weights[1]), int(weights[2])
    rows_at, top = _starts(source.shape[1], height, options.strideH, options.dilationHFactor, options.padding)
    cols_at, left = _starts(source.shape[2], width, options.strideW, options.dilationWFactor, options.padding)
    places = np.array([(n, y, x) for n in range(source.shape[0]) for y in rows_at for x in cols_at])
    places = places[_spread(len(places), limit)]
    tall, wide = (height - 1) * options.dilationHFactor, (width - 1) * options.dilationWFactor
    padded = np.pad(source, ((0, 0), (top, tall + options.strideH), (left, wide + options.strideW), (0, 0)))
    dy = np.repeat(np.arange(height) * options.dilationHFactor, width)
    dx = np.tile(np.arange(width) * options.dilationWFactor, height)
    taken: npt.NDArray[Any] = padded[places[:, :1], places[:, 1:2] + dy, places[:, 2:] + dx]
    return taken if kind == "DEPTHWISE_CONV_2D" else taken.reshape(len(taken), -1)


def _starts(size: int, kernel: int, stride: int, dilation: int, padding: int) -> tuple[npt.NDArray[np.int64], int]:
    """Where the kernel starts in the padded source, and how much padding comes before it."""
    reach = (kernel - 1) * dilation + 1
    if padding == schema().Padding.VALID:
        return np.arange(0, max(size - reach + 1, 0), stride), 0
    count = -(-size // stride)
    return np.arange(count) * stride, max((count - 1) * stride + reach - size, 0) // 2


def _spread(count: int, limit: int) -> npt.NDArray[np.int64]:
    return np.arange(count) if count <= limit else np.linspace(0, count - 1, limit).astype(np.int64)
