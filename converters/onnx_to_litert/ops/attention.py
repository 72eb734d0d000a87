"""Attention of opset 23 in its plain form. Masks, caches and the like go by the function body of the standard."""

from __future__ import annotations

import math

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.matmul import product
from edgekit.converters.onnx_to_litert.refusal import NoOwnForm
from edgekit.converters.onnx_to_litert.view import View, reshape_view

__all__ = ["attention"]

#: attributes that the plain form understands, or that do not matter to it
_PLAIN = frozenset({
    "is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap", "softmax_precision",
})  # fmt: skip
#: (batch, sequence, heads, depth) <-> (batch, heads, sequence, depth)
_SWAP = (0, 2, 1, 3)


def attention(b: Builder, node: Node) -> View:
    """Softmax(scale * q k') v for every head, without a mask: two BATCH_MATMUL around a SOFTMAX."""
    q, k, v = (node.floats(index) for index in range(3))
    extras = any(node.has_input(index) for index in range(3, len(node.inputs)))
    extras = extras or any(node.has_output(index) for index in range(1, node.output_count))
    extras = extras or any(name not in _PLAIN for name in node.ir.attributes)
    if extras or node.integer("is_causal", 0) or node.real("softcap", 0.0):
        raise NoOwnForm("it has a mask, a cache or a window")
    three = q.rank == 3
    if three:
        heads = node.integer("q_num_heads", 1), node.integer("kv_num_heads", 1)
        q, k, v = _heads(b, q, heads[0]), _heads(b, k, heads[1]), _heads(b, v, heads[1])
    if q.shape[1] != k.shape[1] or q.shape[-1] < 0:
        raise NoOwnForm("its queries and keys differ in the number of heads")
    scale = node.real("scale", 1 / math.sqrt(q.shape[-1]))
    q = q.with_tensor(b.binary("MUL", q.tensor, b.scalar(scale, q.tensor)))
    turned = View(k.tensor, tuple({2: 3, 3: 2}.get(axis, axis) for axis in k.order))
    scores = product(b, q, turned)
    weights = scores.with_tensor(b.unary("SOFTMAX", scores.tensor, beta=1.0))
    mixed = product(b, weights, v)
    if not three:
        return mixed
    n, count, rows, depth = mixed.shape
    back = View(mixed.tensor, tuple(_SWAP[axis] for axis in mixed.order))
    return reshape_view(b, back, (n, rows, count * depth))


def _heads(b: Builder, x: View, heads: int) -> View:
    """(batch, sequence, heads * depth) as (batch, heads, sequence, depth)."""
    n, rows, width = x.shape
    if width < 0 or width % heads:
        raise Refused(f"{width} columns do not fall into {heads} heads")
    split = reshape_view(b, x, (n, rows, heads, width // heads))
    return View(split.tensor, tuple(_SWAP[axis] for axis in split.order))
