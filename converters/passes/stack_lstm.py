"""Run two small LSTM layers in one loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.passes.match import add_weight, producer, sole_reader
from edgekit.converters.passes.recurrent import folded, given, static_dim, trail

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["stack_lstm"]

# Up to which hidden size of both layers together a step's fixed cost outweighs the zeros in the joint matrix. The
# figures are CPU time on x86 (one thread, 50 steps), one loop over two loops; files alike differ by up to 0.05.
#: a batch of one and layers of equal size, of whose matrix ``ops/stacked_cells`` leaves the zeros out: 0.62 at 64, 0.79
#: at 128, 0.85 at 192, 0.93 at 224, 0.98 at 240, 1.06 at 256, 1.19 at 384
_LARGEST_OF_HALVES = 224
#: a batch of one and layers of different sizes: 0.64 at 64, 0.88 at 128, 0.96 at 160, 1.10 at 192, 1.44 at 256
_LARGEST_OF_ONE = 144
#: larger batches: at 64 0.85 (of 2), 0.78 (4), 0.89 (8), 0.88 (16), 0.92 (64); at 80 0.97 (2), 0.84 (4), 0.96 (16); at
#: 128 1.17 (2), 1.07 (4), 1.12 (8)
_LARGEST_OF_MORE = 80
#: still larger ones were not measured
_LARGEST_BATCH = 64
#: fewer steps than this are not worth a loop of one more
_FEWEST_STEPS = 4
#: below it the second layer's state before the first step would be too large a number
_SMALLEST_FORGET = 1e-4
_STANDARD = ("sigmoid", "tanh", "tanh")


def stack_lstm(model: ir.Model) -> tuple[ir.Model, bool]:
    """A forward LSTM that only feeds another becomes one with it, in which the second layer runs a step behind.

    before: Y1 = LSTM(x, W1, R1, B1); Y = LSTM(Y1, W2, R2, B2)                 (hidden sizes p and q, T steps)
    after:  Z = LSTM(Pad(x, one step), [W1; 0], [[R1, 0], [W2, R2]], [B1; B2], initial_c); Y = Z[1:, ..., p:]
    In the first step the second layer has no input yet: its part of initial_c makes its states zero after that step.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    opset = model.opset_imports.get("", 0)
    modified = False
    for second in list(model.graph):
        pair = _pair(second, opset)
        if pair is not None and _merge(model, pair, second, opset):
            modified = True
    if modified:
        RemoveUnusedNodesPass()(model)
    return model, modified


def _plain(node: ir.Node, opset: int) -> bool:
    """Whether ``node`` is a forward LSTM with the usual activations that starts with zeros."""
    attributes = node.attributes
    names = [name.lower() for name in attributes.get_strings("activations", _STANDARD)]
    if node.op_type != "LSTM" or node.domain or attributes.get_string("direction", "forward") != "forward":
        return False
    if names != list(_STANDARD) or "clip" in attributes or attributes.get_int("input_forget", 0) != 0:
        return False
    if given(node, 4) is not None or given(node, 7) is not None:
        return False
    states = [value for index in (5, 6) if (value := given(node, index)) is not None]
    return all((data := folded(value, opset)) is not None and not np.any(data) for value in states)


def _pair(second: ir.Node, opset: int) -> ir.Node | None:
    """The LSTM whose only reader is ``second``, if both are plain and small."""
    if not _plain(second, opset):
        return None
    node = producer(second.inputs[0], "Identity", "Transpose", "Squeeze", "Reshape", "LSTM")
    while node is not None and node.op_type != "LSTM":
        node = producer(node.inputs[0], "Identity", "Transpose", "Squeeze", "Reshape", "LSTM")
    layouts = second.attributes.get_int("layout", 0), 0 if node is None else node.attributes.get_int("layout", 0)
    if node is None or layouts != (0, 0) or not _plain(node, opset):
        return None
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return None
    value, axes = list(trail(node, opset))[-1]
    if axes != "TBH" or sole_reader(value) is not second or second.inputs[0] is not value:
        return None
    steps, batch = static_dim(node.inputs[0], 0), static_dim(node.inputs[0], 1)
    hidden = [part.attributes.get_int("hidden_size", 0) for part in (node, second)]
    if batch is None or batch > _LARGEST_BATCH or (steps is not None and steps < _FEWEST_STEPS):
        return None
    largest = _LARGEST_OF_MORE if batch > 1 else _LARGEST_OF_HALVES if hidden[0] == hidden[1] else _LARGEST_OF_ONE
    return node if sum(hidden) <= largest else None


def _merge(model: ir.Model, first: ir.Node, second: ir.Node, opset: int) -> bool:
    """Put the joint layer in the place of ``second``; False where a weight is computed at run time."""
    import onnx_ir as ir

    layers = [_Layer.of(node, opset) for node in (first, second)]
    batch = static_dim(first.inputs[0], 1)
    joint = None if layers[0] is None or layers[1] is None or not batch else _joint(layers[0], layers[1], batch)
    if joint is None or layers[0] is None:
        return False
    name = second.name or second.outputs[0].name or "lstm"
    kernel, recurrent, bias, memory = (add_weight(model, f"{name}/{part}", data) for part, data in joint.items())
    padded = _padded(model, first.inputs[0], opset)
    inputs = [padded.outputs[0], kernel, recurrent, bias, None, None, memory]
    hidden = ir.AttrInt64("hidden_size", joint["R"].shape[2])
    merged = ir.Node("", "LSTM", inputs, [hidden], num_outputs=3, name=name, metadata_props=dict(second.metadata_props))
    nodes = [padded, merged]
    for index, (value, whole) in enumerate(zip(second.outputs, merged.outputs, strict=False)):
        whole.name = f"{name}/stacked{index}"
        if value.uses() or value.is_graph_output():
            starts, axes = ([1, layers[0].hidden], [0, 3]) if index == 0 else ([layers[0].hidden], [2])
            nodes.append(_cut(model, whole, starts, axes, opset))
            _replace(value, nodes[-1].outputs[0])
    model.graph.insert_before(second, nodes)
    return True


@dataclass(frozen=True, slots=True)
class _Layer:
    """The weights of one LSTM by gate (i, o, f, c): (4, hidden, in), (4, hidden, hidden), (4, hidden)."""

    hidden: int
    kernel: Array
    recurrent: Array
    bias: Array

    @classmethod
    def of(cls, node: ir.Node, opset: int) -> _Layer | None:
        """None where a weight is computed at run time."""
        kernel, recurrent, bias = (folded(given(node, index), opset) for index in (1, 2, 3))
        if kernel is None or recurrent is None or (bias is None and given(node, 3) is not None):
            return None
        hidden = recurrent.shape[2]
        both = np.zeros((2, 4, hidden), np.float32) if bias is None else bias.reshape(2, 4, hidden)
        return cls(hidden, kernel.reshape(4, hidden, -1), recurrent.reshape(4, hidden, hidden), both.sum(0))


def _joint(first: _Layer, second: _Layer, batch: int) -> dict[str, Array] | None:
    """The weights of the joint layer, and its initial_c; None where that would be a large number."""
    own, hidden = first.hidden, first.hidden + second.hidden
    kernel = np.zeros((4, hidden, first.kernel.shape[2]), np.float32)
    kernel[:, :own] = first.kernel
    recurrent = np.zeros((4, hidden, hidden), np.float32)
    recurrent[:, :own, :own] = first.recurrent
    recurrent[:, own:, :own] = second.kernel
    recurrent[:, own:, own:] = second.recurrent
    bias = np.concatenate([first.bias, second.bias], axis=1)
    gate_i, _, gate_f, _ = 1 / (1 + np.exp(-second.bias.astype(np.float64)))
    if gate_f.min() < _SMALLEST_FORGET:
        return None
    memory = np.zeros((1, batch, hidden), np.float32)
    memory[..., own:] = -gate_i * np.tanh(second.bias[3].astype(np.float64)) / gate_f
    return {
        "W": kernel.reshape(1, 4 * hidden, -1),
        "R": recurrent.reshape(1, 4 * hidden, hidden),
        "B": np.concatenate([bias.reshape(1, -1), np.zeros((1, 4 * hidden), np.float32)], axis=1),
        "initial_c": memory,
    }


def _padded(model: ir.Model, x: ir.Value | None, opset: int) -> ir.Node:
    """``x`` (time, batch, width) with one step more."""
    import onnx_ir as ir

    amounts = [0, 0, 0, 1, 0, 0]
    if opset < 11:
        return ir.Node("", "Pad", [x], [ir.AttrInt64s("pads", amounts)], num_outputs=1)
    return ir.Node("", "Pad", [x, add_weight(model, "one_step", np.array(amounts, np.int64))], num_outputs=1)


def _cut(model: ir.Model, x: ir.Value, starts: list[int], axes: list[int], opset: int) -> ir.Node:
    """``x`` from ``starts`` on along ``axes``."""
    import onnx_ir as ir

    lists = {"starts": starts, "ends": [2**31 - 1] * len(axes), "axes": axes}
    if opset < 10:
        return ir.Node("", "Slice", [x], [ir.AttrInt64s(name, values) for name, values in lists.items()], num_outputs=1)
    vectors = [add_weight(model, f"{x.name}/{name}", np.array(values, np.int64)) for name, values in lists.items()]
    return ir.Node("", "Slice", [x, *vectors], num_outputs=1)


def _replace(value: ir.Value, by: ir.Value) -> None:
    """Let ``by`` stand where ``value`` stood, under its name."""
    value.replace_all_uses_with(by, replace_graph_outputs=True)
    by.name, value.name = value.name, f"{value.name}/before"
    by.shape, by.type = value.shape, value.type
