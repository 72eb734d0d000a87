"""Fold what scales or shifts the channels of a convolution into its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.passes.match import add_weight, const_of, producer, remove, sole_reader

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fold_affine"]

_FOLDED = ("BatchNormalization", "Mul", "Div", "Add", "Sub")


def fold_affine(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fold BatchNormalization, Mul, Div, Add and Sub by per-channel constants into the Conv or ConvTranspose before.

    before: t = Conv(x, w, b); y = BatchNormalization(t, scale, bias, mean, var)
    after:  y = Conv(x, w * f, (b - mean) * f + bias)     with f = scale / sqrt(var + epsilon) per output channel
    """
    modified = False
    for node in list(model.graph):
        if node.domain == "" and node.op_type in _FOLDED and _fold(model, node):
            modified = True
    return model, modified


def _fold(model: ir.Model, node: ir.Node) -> bool:
    conv = next((found for value in node.inputs[:2] if (found := producer(value, "Conv", "ConvTranspose"))), None)
    if conv is None or sole_reader(conv.outputs[0]) is not node or len(node.inputs) < 2:
        return False
    weights = const_of(conv.inputs[1])
    has_bias = len(conv.inputs) > 2 and conv.inputs[2] is not None
    bias = const_of(conv.inputs[2]) if has_bias else None
    if weights is None or (has_bias and bias is None) or weights.dtype != np.float32:
        return False
    groups = conv.attributes.get_int("group", 1)
    transposed = conv.op_type == "ConvTranspose"
    channels = weights.shape[1] * groups if transposed else weights.shape[0]
    affine = _affine(node, conv.outputs[0], channels, weights.ndim)
    if affine is None:
        return False
    factor, shift = affine
    new_bias = (0.0 if bias is None else bias.astype(np.float64)) * factor + shift
    scaled = weights.astype(np.float64) * _along_outputs(factor, weights, groups, transposed)
    name = conv.inputs[1].name if conv.inputs[1] is not None else None
    kernel = add_weight(model, f"{name or 'weight'}/folded", scaled.astype(np.float32))
    old = conv.inputs[1], conv.inputs[2] if has_bias else None
    conv.replace_input_with(1, kernel)
    bias_value = add_weight(model, f"{name or 'weight'}/folded_bias", new_bias.astype(np.float32))
    if len(conv.inputs) > 2:
        conv.replace_input_with(2, bias_value)
    else:
        conv.resize_inputs(3)
        conv.replace_input_with(2, bias_value)
    for value in old:
        if value is not None and value.is_initializer() and not value.uses():
            model.graph.initializers.pop(value.name or "", None)
    _replace(model, node, conv)
    return True


def _replace(model: ir.Model, node: ir.Node, conv: ir.Node) -> None:
    """Let ``conv`` make what ``node`` made, under the same name."""
    result, old = node.outputs[0], conv.outputs[0]
    result.replace_all_uses_with(old, replace_graph_outputs=True)
    name = result.name
    result.name = f"{name}/before_folding"
    old.name = name
    remove(model, [node])


def _along_outputs(factor: Array, weights: Array, groups: int, transposed: bool) -> Array:
    """``factor`` per output channel, shaped to multiply (out, in, ...), or transposed (in, out/group, ...) weights."""
    if not transposed:
        return factor.reshape(-1, *[1] * (weights.ndim - 1))
    per_group = factor.reshape(groups, 1, -1)
    full = np.repeat(per_group, weights.shape[0] // groups, axis=1).reshape(weights.shape[0], -1)
    return full.reshape(*full.shape, *[1] * (weights.ndim - 2))


def _affine(node: ir.Node, source: ir.Value, channels: int, rank: int) -> tuple[Array, Array] | None:
    """(factor, shift) per channel, float64, that ``node`` applies to ``source``; None if it is something else."""
    ones, zeros = np.ones(channels), np.zeros(channels)
    if node.op_type == "BatchNormalization":
        found = [const_of(value) for value in node.inputs[1:5]]
        parameters = [data.astype(np.float64) for data in found if data is not None and data.shape == (channels,)]
        trains = node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1
        if node.inputs[0] is not source or len(parameters) != 4 or trains:
            return None
        scale, bias, mean, variance = parameters
        factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        return factor, bias - mean * factor
    at = 0 if node.inputs[0] is source else 1
    data = const_of(node.inputs[1 - at])
    constant = None if data is None or data.dtype != np.float32 else _per_channel(data, channels, rank)
    if constant is None:
        return None
    if node.op_type == "Mul":
        return constant, zeros
    if node.op_type == "Add":
        return ones, constant
    if node.op_type == "Sub":
        return (ones, -constant) if at == 0 else (-ones, constant)
    return (1 / constant, zeros) if at == 0 and np.all(constant != 0) else None


def _per_channel(data: Array, channels: int, rank: int) -> Array | None:
    """``data`` as one number a channel if it varies along the channel axis (1 of ``rank``) only, else None."""
    if data.size == 1 and data.ndim <= rank:
        return np.full(channels, float(data.reshape(-1)[0]))
    shape = (1,) * (rank - data.ndim) + data.shape
    if len(shape) != rank or data.size != channels or shape[1] != channels:
        return None
    return data.reshape(-1).astype(np.float64)
