"""Groups of ops of random graphs that networks are made of, whose layouts the converter treats with care."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.property.graphs import Draft, Step, Value

__all__ = ["MOTIFS"]


def attention(g: Draft, x: Value) -> Value | None:
    """Heads out of one linear layer or three, softmax over keys, heads merged again."""
    if x.rank != 3 or x.shape[1] > 12:
        return None
    batch, rows, channels = x.shape
    heads, depth = g.number(1, 3), g.number(1, 4)
    width = heads * depth
    if g.flag():
        parts = [_linear(g, x, channels, width) for _ in range(3)]
        query, key, value = (_heads(g, part, [batch, rows, heads, depth], [0, 2, 1, 3]) for part in parts)
    else:
        packed = _heads(g, _linear(g, x, channels, 3 * width), [batch, rows, 3, heads, depth], [2, 0, 3, 1, 4])
        query, key, value = (_picked(g, packed, index) for index in range(3))
    turned = g.add("Transpose", [key], key.bound, perm=[0, 1, 3, 2])
    scores = g.add("Mul", [g.add("MatMul", [query, turned], 50.0), g.const(np.array(depth**-0.5, np.float32))], 50.0)
    weights = g.add("Softmax", [scores], 1.0, axis=-1)
    mixed = g.add("MatMul", [weights, value], value.bound)
    merged = g.add("Transpose", [mixed], mixed.bound, perm=[0, 2, 1, 3])
    flat = g.add("Reshape", [merged, g.const([batch, rows, width] if g.flag() else [0, 0, -1])], mixed.bound)
    return g.add("Add", [x, _linear(g, flat, width, channels)], x.bound + 2 * flat.bound)


def _linear(g: Draft, x: Value, inner: int, units: int) -> Value:
    made = g.add("MatMul", [x, g.weight(inner, units, scale=2 / inner)], 2 * x.bound)
    return g.add("Add", [made, g.weight(units)], made.bound + 1) if g.flag() else made


def _heads(g: Draft, x: Value, shape: Sequence[int], perm: Sequence[int]) -> Value:
    return g.add("Transpose", [g.add("Reshape", [x, g.const(shape)], x.bound)], x.bound, perm=list(perm))


def _picked(g: Draft, packed: Value, index: int) -> Value:
    if g.flag():
        return g.add("Gather", [packed, g.const(np.array(index, np.int64))], packed.bound, axis=0)
    bounds = [g.const([value]) for value in (index, index + 1, 0)]
    return g.add("Squeeze", [g.add("Slice", [packed, *bounds], packed.bound), g.const([0])], packed.bound)


def channel_shuffle(g: Draft, x: Value) -> Value | None:
    """Channels of two groups interleaved."""
    if x.rank != 4 or x.shape[1] % 2:
        return None
    n, channels, height, width = x.shape
    split = g.add("Reshape", [x, g.const([n, 2, channels // 2, height, width])], x.bound)
    turned = g.add("Transpose", [split], x.bound, perm=[0, 2, 1, 3, 4])
    return g.add("Reshape", [turned, g.const([n, channels, height, width])], x.bound)


def squeeze_excite(g: Draft, x: Value) -> Value | None:
    """A gate per channel from the mean over the sides."""
    if x.rank != 4:
        return None
    channels = x.shape[1]
    keep = g.number(0, 1)
    mean = g.add("ReduceMean", [x, g.const([2, 3])], x.bound, keepdims=keep)
    if keep:
        gate = g.add("Conv", [mean, g.weight(channels, channels, 1, 1, scale=1 / channels)], x.bound)
        return g.add("Mul", [x, g.add("Sigmoid", [gate], 1.0)], x.bound)
    dense = g.add("Gemm", [mean, g.weight(channels, channels, scale=1 / channels)], x.bound, transB=1)
    gate = g.add("Unsqueeze", [g.add("HardSigmoid", [dense], 1.0), g.const([2, 3])], 1.0)
    return g.add("Mul", [gate, x], x.bound)


def windows(g: Draft, x: Value) -> Value | None:
    """Cut into windows of 2 x 2 as rows of tokens, normalised, and put together again (channels last in between)."""
    if x.rank != 4 or x.shape[2] % 2 or x.shape[3] % 2:
        return None
    n, channels, height, width = x.shape
    last = g.add("Transpose", [x], x.bound, perm=[0, 2, 3, 1])
    cut = g.add("Reshape", [last, g.const([n, height // 2, 2, width // 2, 2 * channels])], x.bound)
    side_by_side = g.add("Transpose", [cut], x.bound, perm=[0, 1, 3, 2, 4])
    rows = g.add("Reshape", [side_by_side, g.const([-1, 4, channels])], x.bound)
    tokens = g.add("LayerNormalization", [rows, g.weight(channels)], 6.0, epsilon=0.1)
    apart = g.add("Reshape", [tokens, g.const([n, height // 2, width // 2, 2, 2 * channels])], 6.0)
    back = g.add("Transpose", [apart], 6.0, perm=[0, 1, 3, 2, 4])
    image = g.add("Reshape", [back, g.const([n, height, width, channels])], 6.0)
    return g.add("Transpose", [image], 6.0, perm=[0, 3, 1, 2])


def tokens_of_an_image(g: Draft, x: Value) -> Value | None:
    """(N, C, H, W) to (N, HW, C), as vision transformers do behind the patches."""
    if x.rank != 4:
        return None
    flat = g.add("Reshape", [x, g.const([0, 0, -1])], x.bound)
    return g.add("Transpose", [flat], x.bound, perm=[0, 2, 1])


MOTIFS: Sequence[Step] = (attention, attention, channel_shuffle, squeeze_excite, windows, tokens_of_an_image)
