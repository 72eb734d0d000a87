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
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.cell_functions import Function, cell_functions
from edgekit.converters.onnx_to_litert.subgraphs import while_loop
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["gru", "lstm", "rnn"]

#: (builder, one time step of the projected input, states) -> new states, the first of which is the output
Step = Callable[[Builder, Tensor, list[Tensor]], list[Tensor]]
#: zeros up to this size are a constant, larger ones are filled in at run time instead of making the file larger
_LARGEST_ZEROS_BYTES = 4096


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
    """One pass over time, forward or ``reverse``: the projected input, the initial states, and what a step does."""

    reverse: bool
    rows: Tensor
    states: list[Tensor]
    step: Step


@dataclass(frozen=True, slots=True)
class _Cell:
    """The weights of one direction; ``gates`` rows of ``hidden`` each. Parts of the bias that only the recurrent
    product has (GRU) are in ``recurrent_bias``."""

    hidden: int
    kernel: Tensor
    recurrent: Tensor
    bias: Tensor
    recurrent_bias: Tensor
    functions: list[Function]
    clip: float

    def squash(self, b: Builder, which: int, x: Tensor) -> Tensor:
        """The activation ``which`` of the clipped ``x``."""
        if self.clip > 0:
            x = b.binary("MINIMUM", b.binary("MAXIMUM", x, b.scalar(-self.clip, x)), b.scalar(self.clip, x))
        return self.functions[which](b, x)


def lstm(b: Builder, node: Node) -> list[View]:
    """LSTM: gates i, o, f, c; peepholes and coupled input and forget gates included."""
    return _recurrent(b, node, ("Sigmoid", "Tanh", "Tanh"), 4, _lstm_step)


def gru(b: Builder, node: Node) -> list[View]:
    """GRU: gates z, r, h; the reset gate before or after the recurrent product."""
    return _recurrent(b, node, ("Sigmoid", "Tanh"), 3, _gru_step)


def rnn(b: Builder, node: Node) -> list[View]:
    """RNN: one gate."""
    return _recurrent(b, node, ("Tanh",), 1, _rnn_step)


def _lstm_step(b: Builder, node: Node, cell: _Cell, direction: int) -> Step:
    peepholes = [_rows(b, p, cell.hidden, at) for p in _part(b, node, 7, direction) for at in range(3)]
    coupled = bool(node.integer("input_forget", 0))

    def gate(b: Builder, which: int, x: Tensor, peephole: int, memory: Tensor) -> Tensor:
        if peepholes:
            x = b.binary("ADD", x, b.binary("MUL", memory, peepholes[peephole]))
        return cell.squash(b, which, x)

    def step(b: Builder, projected: Tensor, states: list[Tensor]) -> list[Tensor]:
        h, c = states
        total = b.binary("ADD", projected, _linear(b, h, cell.recurrent, cell.recurrent_bias))
        i, o, f, new = _split(b, total, 4)
        i = gate(b, 0, i, 0, c)
        f = b.binary("SUB", b.scalar(1.0, i), i) if coupled else gate(b, 0, f, 2, c)
        memory = b.binary("ADD", b.binary("MUL", f, c), b.binary("MUL", i, cell.squash(b, 1, new)))
        return [b.binary("MUL", gate(b, 0, o, 1, memory), cell.functions[2](b, memory)), memory]

    return step


def _gru_step(b: Builder, node: Node, cell: _Cell, direction: int) -> Step:
    late_reset = bool(node.integer("linear_before_reset", 0))
    if not late_reset:
        both = b.concat([_rows(b, cell.recurrent, cell.hidden, at) for at in (0, 1)], 0)
        last, no_bias = _rows(b, cell.recurrent, cell.hidden, 2), b.const(np.zeros(cell.hidden, np.float32))

    def step(b: Builder, projected: Tensor, states: list[Tensor]) -> list[Tensor]:
        h = states[0]
        xz, xr, xh = _split(b, projected, 3)
        if late_reset:
            hz, hr, hh = _split(b, _linear(b, h, cell.recurrent, cell.recurrent_bias), 3)
        else:
            hz, hr = _split(b, _linear(b, h, both, b.const(np.zeros(2 * cell.hidden, np.float32))), 2)
        z = cell.squash(b, 0, b.binary("ADD", xz, hz))
        r = cell.squash(b, 0, b.binary("ADD", xr, hr))
        product = b.binary("MUL", r, hh) if late_reset else _linear(b, b.binary("MUL", r, h), last, no_bias)
        new = cell.squash(b, 1, b.binary("ADD", xh, product))
        return [b.binary("ADD", new, b.binary("MUL", z, b.binary("SUB", h, new)))]

    return step


def _rnn_step(b: Builder, node: Node, cell: _Cell, direction: int) -> Step:
    def step(b: Builder, projected: Tensor, states: list[Tensor]) -> list[Tensor]:
        return [cell.squash(b, 0, b.binary("ADD", projected, _linear(b, states[0], cell.recurrent, cell.recurrent_bias)))]

    return step


def _recurrent(
    b: Builder,
    node: Node,
    activations: Sequence[str],
    gates: int,
    make_step: Callable[[Builder, Node, _Cell, int], Step],
) -> list[View]:
    """The outputs Y, Y_h and, of an LSTM, Y_c."""
    sequence = _sequence(b, node)
    reverse = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[node.text("direction", "forward")]
    functions = cell_functions(node, activations, len(reverse))
    directions = []
    for index, backward in enumerate(reverse):
        cell = _cell(b, node, index, gates, functions[index])
        rows = _linear(b, sequence.tensor, cell.kernel, cell.bias)
        states = [_initial_state(b, node, at, index, sequence.row(cell.hidden)) for at in ((5, 6) if gates == 4 else (5,))]
        directions.append(_Direction(backward, rows, states, make_step(b, node, cell, index)))
    states, outputs = _run(b, sequence, directions, _lengths(b, node, sequence), node.has_output(0))
    views = [_all_steps(b, node, outputs, sequence)] if outputs else [View.of(directions[0].rows)]
    for kind in range(len(directions[0].states)):
        views.append(_last_step(b, node, [state[kind] for state in states]))
    return views


# -- inputs and outputs ----------------------------------------------------------------------------------------------


def _sequence(b: Builder, node: Node) -> _Sequence:
    """The input, in whichever order of time and batch it lies."""
    x = node.floats(0)
    time = node.integer("layout", 0)
    if x.order[-1] != 2:
        x = View(store(b, x, (time, 1 - time, 2)), (time, 1 - time, 2))
    return _Sequence(x.tensor, x.order.index(time))


def _cell(b: Builder, node: Node, direction: int, gates: int, functions: list[Function]) -> _Cell:
    (kernel,), (recurrent,) = _part(b, node, 1, direction), _part(b, node, 2, direction)
    hidden = recurrent.shape[1]
    bias = recurrent_bias = b.const(np.zeros(gates * hidden, np.float32))
    for both in _part(b, node, 3, direction):
        bias, recurrent_bias = _rows(b, both, gates * hidden, 0), _rows(b, both, gates * hidden, 1)
        apart = np.zeros(gates * hidden, np.float32)
        if gates == 3 and node.integer("linear_before_reset", 0):
            apart[2 * hidden :] = 1
        bias = _arithmetic(b, "ADD", bias, _arithmetic(b, "MUL", recurrent_bias, b.const(1 - apart)))
        recurrent_bias = _arithmetic(b, "MUL", recurrent_bias, b.const(apart))
    return _Cell(hidden, kernel, recurrent, bias, recurrent_bias, functions, node.real("clip", 0.0))


def _part(b: Builder, node: Node, index: int, direction: int) -> list[Tensor]:
    """What the input ``index`` (direction, ...) holds for one direction; [] when it is left out."""
    if not node.has_input(index):
        return []
    view = node.floats(index)
    return [b.reshape(_rows(b, store(b, view), 1, direction), view.shape[1:])]


def _rows(b: Builder, x: Tensor, count: int, block: int) -> Tensor:
    """``count`` rows of the first axis, from row ``count * block`` on."""
    begin, end = count * block, count * (block + 1)
    if x.data is not None:
        return b.const(np.ascontiguousarray(x.data[begin:end]), x.name)
    rest = x.rank - 1
    return b.strided_slice(x, [begin, *[0] * rest], [end, *x.shape[1:]], [1] * x.rank)


def _initial_state(b: Builder, node: Node, index: int, direction: int, row: Shape) -> Tensor:
    if not node.has_input(index):
        return _zeros(b, row)
    x = store(b, node.floats(index))  # (direction, batch, hidden), batch first where the layout says so
    axis = node.integer("layout", 0)
    begin, end = [0] * 3, [2**31 - 1] * 3
    begin[axis], end[axis] = direction, direction + 1
    if x.data is not None:
        x = b.const(np.ascontiguousarray(x.data[:, direction : direction + 1] if axis else x.data[direction : direction + 1]))
    elif x.shape[axis] != 1:
        x = b.strided_slice(x, begin, end, [1] * 3)
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


def _all_steps(b: Builder, node: Node, outputs: list[Tensor], sequence: _Sequence) -> View:
    """Y: the directions side by side, which is where every reader wants them."""
    joined = b.concat(outputs, 2)
    first, second = sequence.tensor.shape[:2]
    tensor = b.reshape(joined, (first, second, len(outputs), joined.shape[2] // len(outputs)))
    time, batch, direction = (1, 0, 2) if node.integer("layout", 0) else (0, 2, 1)
    return View(tensor, (time, batch, direction, 3) if sequence.axis == 0 else (batch, time, direction, 3))


def _last_step(b: Builder, node: Node, states: list[Tensor]) -> View:
    """Y_h or Y_c from the final states of the directions."""
    axis = node.integer("layout", 0)
    rows = [b.reshape(state, _batch_at(state, 1 - axis)) for state in states]
    return View.of(b.concat(rows, axis))


def _batch_at(row: Tensor, axis: int) -> Shape:
    """The shape of a time step with its batch on ``axis``, its 1 on the other of the first two."""
    batch = row.shape[0] if row.shape[1] == 1 else row.shape[1]
    return (1, batch, row.shape[2]) if axis else (batch, 1, row.shape[2])


# -- the loop --------------------------------------------------------------------------------------------------------


def _run(
    b: Builder, sequence: _Sequence, directions: list[_Direction], lengths: Tensor | None, want_all: bool
) -> tuple[list[list[Tensor]], list[Tensor]]:
    """The final states of each direction and, if wanted, the outputs of all steps (else [])."""

    def one_step(b: Builder, one: _Direction, index: Tensor, states: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The states after the step at time ``index``, and the row of Y."""
        row = one.rows
        if sequence.length != 1:
            row = b.emit("GATHER", [row, index], sequence.row(row.shape[2]), row.dtype, axis=sequence.axis)
        new = one.step(b, row, states)
        if lengths is None:
            return new, new[0]
        alive = b.binary("LESS", index, lengths, np.bool_)
        kept = [_select(b, alive, after, before) for after, before in zip(new, states, strict=True)]
        return kept, _select(b, alive, new[0], b.scalar(0.0, new[0])) if want_all else new[0]

    count = len(directions[0].states)
    if sequence.length == 1:
        now = b.const(np.zeros(1, np.int32))
        done = [one_step(b, one, now, one.states) for one in directions]
        return [states for states, _ in done], [row for _, row in done] if want_all else []
    limit = b.dims((sequence.length,))
    newest = b.binary("SUB", limit, b.const(np.ones(1, np.int32))) if any(one.reverse for one in directions) else limit

    def body(inner: Builder, values: list[Tensor]) -> list[Tensor]:
        time, results, written = values[0], [], []
        for place, one in enumerate(directions):
            index = inner.binary("SUB", newest, time) if one.reverse else time
            states, row = one_step(inner, one, index, values[1 + place * count : 1 + (place + 1) * count])
            results += states
            if want_all:
                start = inner.binary("MUL", index, inner.const(np.eye(3, dtype=np.int32)[sequence.axis]))
                into = values[1 + len(directions) * count + place]
                written.append(inner.emit("DYNAMIC_UPDATE_SLICE", [into, row, start], into.shape, into.dtype))
        return [inner.binary("ADD", time, inner.const(np.ones(1, np.int32))), *results, *written]

    initial = [b.const(np.zeros(1, np.int32)), *(state for one in directions for state in one.states)]
    if want_all:
        hidden = directions[0].states[0].shape[2]
        initial += [_zeros(b, (*sequence.tensor.shape[:2], hidden)) for _ in directions]
    final = while_loop(b, initial, lambda inner, values: [inner.binary("LESS", values[0], limit, np.bool_)], body)
    states = [final[1 + place * count : 1 + (place + 1) * count] for place in range(len(directions))]
    return states, final[1 + len(directions) * count :]


def _linear(b: Builder, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """``x`` (..., in) by ``kernel`` (out, in), plus ``bias`` (out,)."""
    shape = (*x.shape[:-1], kernel.shape[0])
    return b.emit("FULLY_CONNECTED", [x, kernel, bias], shape, x.dtype, keepNumDims=True)


def _split(b: Builder, x: Tensor, parts: int) -> list[Tensor]:
    """Equal parts of the last axis."""
    shape = (*x.shape[:-1], x.shape[-1] // parts)
    axis = b.const(np.array(x.rank - 1, np.int32))
    return b.emit_many("SPLIT", [axis, x], [(shape, x.dtype)] * parts, numSplits=parts)


def _select(b: Builder, mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return b.emit("SELECT_V2", [mask, yes, no], b.broadcast([mask, yes, no]), yes.dtype)


def _arithmetic(b: Builder, kind: str, x: Tensor, y: Tensor) -> Tensor:
    """The sum or product, now if both are constants."""
    if x.data is None or y.data is None:
        return b.binary(kind, x, y)
    return b.const(x.data + y.data if kind == "ADD" else x.data * y.data)


def _zeros(b: Builder, shape: Shape) -> Tensor:
    if min(shape) >= 0 and int(np.prod(shape)) * 4 <= _LARGEST_ZEROS_BYTES:
        return b.const(np.zeros(shape, np.float32))
    return b.emit("FILL", [b.dims(shape), b.const(np.zeros((), np.float32))], shape, np.float32)
