"""LSTM, GRU and RNN as a loop over time.

One FULLY_CONNECTED projects the input of all time steps before the loop. The body of the WHILE takes one row of that,
multiplies the state, applies the gates and writes one row of Y; both directions share it. A sequence of length 1 needs
no loop. LiteRT's own sequence ops are of no use here: their states live on from one run to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor
from edgekit.converters.onnx_to_litert.node import Node
from edgekit.converters.onnx_to_litert.ops.cell_functions import Function, cell_functions
from edgekit.converters.onnx_to_litert.ops.cells import Cell, Step, gru_step, linear, lstm_step, rnn_step
from edgekit.converters.onnx_to_litert.ops.over_time import Made, OverTime, sliced, zeros
from edgekit.converters.onnx_to_litert.ops.stacked_cells import stacked_lstm
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["gru", "lstm", "rnn"]

_REVERSE = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}


@dataclass(frozen=True, slots=True)
class _Kind:
    """What sets LSTM, GRU and RNN apart: ``states`` are the inputs with the initial ones."""

    gates: int
    activations: tuple[str, ...]
    states: Sequence[int]
    make_step: Callable[[Builder, Cell], Step]


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The input of all time steps: ``tensor`` is (time, batch, width) or (batch, time, width); ``axis`` is time's."""

    tensor: Tensor
    axis: int

    @property
    def length(self) -> int:
        return self.tensor.shape[self.axis]

    def row(self, width: int) -> Shape:
        """The shape of one time step."""
        batch = self.tensor.shape[1 - self.axis]
        return (1, batch, width) if self.axis == 0 else (batch, 1, width)


@dataclass(frozen=True, slots=True)
class _Direction:
    """One pass over time: the projected input, the initial states, and what a step does."""

    reverse: bool
    rows: Tensor
    states: list[Tensor]
    step: Step


def lstm(b: Builder, node: Node) -> list[View]:
    """LSTM, with peepholes and coupled gates where the node has them -> Y, Y_h, Y_c."""
    return _recurrent(b, node, _Kind(4, ("Sigmoid", "Tanh", "Tanh"), (5, 6), lstm_step))


def gru(b: Builder, node: Node) -> list[View]:
    """GRU, the reset gate before or after the recurrent product -> Y, Y_h."""
    return _recurrent(b, node, _Kind(3, ("Sigmoid", "Tanh"), (5,), gru_step))


def rnn(b: Builder, node: Node) -> list[View]:
    """RNN -> Y, Y_h."""
    return _recurrent(b, node, _Kind(1, ("Tanh",), (5,), rnn_step))


def _recurrent(b: Builder, node: Node, kind: _Kind) -> list[View]:
    sequence = _sequence(b, node)
    reverse = _REVERSE[node.text("direction", "forward")]
    functions = cell_functions(node, kind.activations, len(reverse))
    directions = []
    for index, backward in enumerate(reverse):
        cell = _cell(b, node, index, kind.gates, functions[index])
        initial = [_initial_state(b, node, at, index, sequence.row(cell.hidden)) for at in kind.states]
        stacked = stacked_lstm(b, cell) if _may_be_stacked(node, sequence, kind, cell) else None
        if stacked is None:
            step = kind.make_step(b, cell)
        else:
            cell, step = stacked
            initial[1] = b.reshape(initial[1], (initial[1].shape[0], 2, cell.hidden // 2))
        rows = linear(b, sequence.tensor, cell.kernel, cell.bias)
        directions.append(_Direction(backward, rows, initial, step))
    states, outputs = _run(b, sequence, directions, _lengths(b, node, sequence), node.has_output(0))
    states = [[b.reshape(state, group[0].shape) for state in group] for group in states]
    last = [_last_step(b, node, [state[index] for state in states]) for index in range(len(kind.states))]
    return [_all_steps(b, node, outputs, sequence) if outputs else last[0], *last]  # without a reader, Y is anything


def _may_be_stacked(node: Node, sequence: _Sequence, kind: _Kind, cell: Cell) -> bool:
    """Whether the cell is an ordinary LSTM, and its steps lie as (batch, 1, width)."""
    usual = [name.lower() for name in kind.activations * len(_REVERSE[node.text("direction", "forward")])]
    named = [name.lower() for name in node.texts("activations")] or usual
    plain = kind.gates == 4 and named == usual and not (cell.clip > 0 or cell.flag or cell.peepholes)
    return plain and (sequence.axis == 1 or sequence.tensor.shape[1] == 1)


def _run(
    b: Builder, sequence: _Sequence, directions: list[_Direction], lengths: Tensor | None, want_all: bool
) -> Made:
    """The final states of each direction and, if wanted, the outputs of all steps (else [])."""
    limit = b.dims((sequence.length,))

    def steps(b: Builder, number: Tensor, rows: list[Tensor], states: list[list[Tensor]]) -> Made:
        made = [one.step(b, row, before) for one, row, before in zip(directions, rows, states, strict=True)]
        if lengths is None:
            return made, [after[0] for after in made]
        outputs = []
        for one, after, before in zip(directions, made, states, strict=True):
            # counted from the other end, step number n is at limit - 1 - n
            left = b.binary("SUB", b.binary("SUB", limit, b.const(np.ones(1, np.int32))), number)
            alive = b.binary("LESS", left if one.reverse else number, lengths, np.bool_)
            outputs.append(_select(b, alive, after[0], b.scalar(0.0, after[0])))
            after[:] = [_select(b, alive, new, old) for new, old in zip(after, before, strict=True)]
        return made, outputs

    rows, states = [one.rows for one in directions], [one.states for one in directions]
    if sequence.length == 1:
        after, outputs = steps(b, b.const(np.zeros(1, np.int32)), rows, states)
        return after, outputs if want_all else []
    over = OverTime(sequence.axis, [one.reverse for one in directions], want_all)
    size = 0 if lengths is not None else over.block_length(rows, sum(group[0].shape[2] for group in states))
    return over.blocks(b, rows, states, size, steps) if size else over.run(b, rows, states, limit, steps)


# -- inputs ----------------------------------------------------------------------------------------------------------


def _sequence(b: Builder, node: Node) -> _Sequence:
    """The input, in whichever order of time and batch it lies."""
    x = node.floats(0)
    time = node.integer("layout", 0)
    if x.order[-1] != 2:
        x = View(store(b, x, (time, 1 - time, 2)), (time, 1 - time, 2))
    return _Sequence(x.tensor, x.order.index(time))


def _cell(b: Builder, node: Node, direction: int, gates: int, functions: list[Function]) -> Cell:
    (kernel,), (recurrent,) = _part(b, node, 1, direction), _part(b, node, 2, direction)
    hidden = recurrent.shape[1]
    flag = bool(node.integer("linear_before_reset" if gates == 3 else "input_forget", 0))
    bias = recurrent_bias = b.const(np.zeros(gates * hidden, np.float32))
    for both in _part(b, node, 3, direction):
        bias, added = (sliced(b, both, 0, at * gates * hidden, gates * hidden) for at in (0, 1))
        if gates == 3 and flag:  # the last gate's part goes into the product with the state
            apart = np.repeat(np.array([0, 0, 1], np.float32), hidden)
            recurrent_bias = _arithmetic(b, "MUL", added, b.const(apart))
            added = _arithmetic(b, "MUL", added, b.const(1 - apart))
        bias = _arithmetic(b, "ADD", bias, added)
    peepholes = _part(b, node, 7, direction) if gates == 4 else []
    parts = [sliced(b, all_gates, 0, at * hidden, hidden) for all_gates in peepholes for at in range(3)]
    return Cell(hidden, kernel, recurrent, bias, recurrent_bias, functions, node.real("clip", 0.0), flag, parts)


def _part(b: Builder, node: Node, index: int, direction: int) -> list[Tensor]:
    """What the input ``index`` (direction, ...) holds for one direction; [] when it is left out."""
    if not node.has_input(index):
        return []
    view = node.floats(index)
    return [b.reshape(sliced(b, store(b, view), 0, direction, 1), view.shape[1:])]


def _initial_state(b: Builder, node: Node, index: int, direction: int, row: Shape) -> Tensor:
    if not node.has_input(index):
        return zeros(b, row)
    axis = node.integer("layout", 0)  # (direction, batch, hidden), or batch first
    x = sliced(b, store(b, node.floats(index)), axis, direction, 1)
    batch = x.shape[1 - axis]
    return b.reshape(x, tuple(batch if dim < 0 else dim for dim in row))


def _lengths(b: Builder, node: Node, sequence: _Sequence) -> Tensor | None:
    """The lengths of the sequences in the batch, shaped to be compared with a time step; None: all are full."""
    if not node.has_input(4):
        return None
    view = node.view(4)
    if view.const is not None and sequence.length >= 0 and np.all(view.const == sequence.length):
        return None
    batch = view.shape[0]
    return b.reshape(b.cast(view.tensor, np.int32), (1, batch, 1) if sequence.axis == 0 else (batch, 1, 1))


# -- outputs ---------------------------------------------------------------------------------------------------------


def _all_steps(b: Builder, node: Node, outputs: list[Tensor], sequence: _Sequence) -> View:
    """Y: stored with the directions side by side, which is where its readers want them."""
    joined = b.concat(outputs, 2)
    first, second = sequence.tensor.shape[:2]
    tensor = b.reshape(joined, (first, second, len(outputs), joined.shape[2] // len(outputs)))
    time, batch, direction = (1, 0, 2) if node.integer("layout", 0) else (0, 2, 1)
    return View(tensor, (time, batch, direction, 3) if sequence.axis == 0 else (batch, time, direction, 3))


def _last_step(b: Builder, node: Node, states: list[Tensor]) -> View:
    """Y_h or Y_c from the final states of the directions."""
    axis = node.integer("layout", 0)
    rows = []
    for state in states:
        batch = state.shape[0] if state.shape[1] == 1 else state.shape[1]
        rows.append(b.reshape(state, (batch, 1, state.shape[2]) if axis else (1, batch, state.shape[2])))
    return View.of(b.concat(rows, axis))


def _select(b: Builder, mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return b.emit("SELECT_V2", [mask, yes, no], b.broadcast([mask, yes, no]), yes.dtype)


def _arithmetic(b: Builder, kind: str, x: Tensor, y: Tensor) -> Tensor:
    """The sum or product, now if both are constants."""
    if x.data is None or y.data is None:
        return b.binary(kind, x, y)
    return b.const(x.data + y.data if kind == "ADD" else x.data * y.data)
