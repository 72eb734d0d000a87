"""LSTM, GRU and RNN as a loop over time.

One FULLY_CONNECTED projects the input of all time steps before the loop. The body of the WHILE takes one row of that,
multiplies the state, applies the gates and writes one row of Y; both directions share it. A sequence of length 1 needs
no loop. LiteRT's own sequence ops are of no use here: their states live on from one run to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.cell_functions import Function, cell_functions
from edgekit.converters.onnx_to_litert.subgraphs import Loop, Variable
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["gru", "lstm", "rnn"]

#: (builder, one time step of the projected input, states) -> new states, the first of which is the output
Step = Callable[[Builder, Tensor, list[Tensor]], list[Tensor]]
#: zeros up to this size are a constant, larger ones are filled in at run time instead of making the file larger
_LARGEST_ZEROS_BYTES = 4096
#: a Y larger than this is written by two nested loops
_LARGEST_COPY_BYTES = 32 * 1024


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
        bias, added = _rows(b, both, gates * hidden, 0), _rows(b, both, gates * hidden, 1)
        if gates == 3 and node.integer("linear_before_reset", 0):  # the last gate's goes into the product with r
            apart = np.repeat(np.array([0, 0, 1], np.float32), hidden)
            recurrent_bias = _arithmetic(b, "MUL", added, b.const(apart))
            added = _arithmetic(b, "MUL", added, b.const(1 - apart))
        bias = _arithmetic(b, "ADD", bias, added)
    return _Cell(hidden, kernel, recurrent, bias, recurrent_bias, functions, node.real("clip", 0.0))


def _part(b: Builder, node: Node, index: int, direction: int) -> list[Tensor]:
    """What the input ``index`` (direction, ...) holds for one direction; [] when it is left out."""
    if not node.has_input(index):
        return []
    view = node.floats(index)
    return [b.reshape(_rows(b, store(b, view), 1, direction), view.shape[1:])]


def _rows(b: Builder, x: Tensor, count: int, block: int) -> Tensor:
    """``count`` rows of the first axis, from row ``count * block`` on."""
    if x.data is not None:
        return b.const(np.ascontiguousarray(x.data[count * block : count * (block + 1)]), x.name)
    return _slice(b, x, 0, count * block, count)


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

    def steps(b: Builder, number: Tensor, rows: list[Tensor], states: list[list[Tensor]]) -> _Made:
        """One step of every direction, the ``number``-th."""
        made = [one.step(b, row, before) for one, row, before in zip(directions, rows, states, strict=True)]
        if lengths is None:
            return made, [after[0] for after in made]
        outputs = []
        for one, after, before in zip(directions, made, states, strict=True):
            time = b.binary("SUB", newest, number) if one.reverse else number
            alive = b.binary("LESS", time, lengths, np.bool_)
            outputs.append(_select(b, alive, after[0], b.scalar(0.0, after[0])))
            after[:] = [_select(b, alive, new, old) for new, old in zip(after, before, strict=True)]
        return made, outputs

    rows, states = [one.rows for one in directions], [one.states for one in directions]
    limit = b.dims((sequence.length,))
    newest = b.binary("SUB", limit, b.const(np.ones(1, np.int32))) if lengths is not None else limit
    if sequence.length == 1:
        states, outputs = steps(b, b.const(np.zeros(1, np.int32)), rows, states)
        return states, outputs if want_all else []
    over = _Over(sequence.axis, [one.reverse for one in directions], want_all)
    block = _block_length(sequence, sum(one.states[0].shape[2] for one in directions))
    if block and want_all and lengths is None:
        return over.blocks(b, rows, states, block, steps)
    return over.run(b, rows, states, limit, steps)


_Made = tuple[list[list[Tensor]], list[Tensor]]
_Steps = Callable[[Builder, Tensor, list[Tensor], list[list[Tensor]]], _Made]


def _block_length(sequence: _Sequence, hidden: int) -> int:
    """How many steps to take in an inner loop, 0 for no inner loop.

    The engine copies Y, a variable of the loop, in every step: with T steps in a loop that is T * T rows. Two loops of
    about sqrt(T) steps copy 2 * T * sqrt(T) rows.
    """
    batch = sequence.tensor.shape[1 - sequence.axis]
    if min(sequence.length, batch) < 0 or sequence.length * batch * hidden * 4 < _LARGEST_COPY_BYTES:
        return 0
    root = isqrt(sequence.length)
    return next((size for size in range(root, 2 * root) if sequence.length % size == 0), root)


@dataclass(frozen=True, slots=True)
class _Over:
    """A loop over ``axis`` of some tensors, backwards where ``reverse`` says so, which collects outputs if wanted."""

    axis: int
    reverse: list[bool]
    want_all: bool

    def run(
        self, b: Builder, rows: list[Tensor], states: list[list[Tensor]], limit: Tensor, steps: _Steps
    ) -> _Made:
        """The states after ``limit`` steps, and what they put out: tensors as long as ``rows``."""
        loop = Loop(b)
        counter = loop.counter()
        variables = [[loop.variable(state) for state in group] for group in states]
        length = b.dims((rows[0].shape[self.axis],))
        newest = _arithmetic(b, "ADD", length, b.const(-np.ones(1, np.int32))) if any(self.reverse) else length
        places = [loop.body.binary("SUB", newest, counter.now) if back else counter.now for back in self.reverse]
        taken = [self._take(loop.body, x, place) for x, place in zip(rows, places, strict=True)]
        now = [[variable.now for variable in group] for group in variables]
        after, outputs = steps(loop.body, counter.now, taken, now)
        for group, results in zip(variables, after, strict=True):
            for variable, result in zip(group, results, strict=True):
                variable.next = result
        collected = []
        for output, place in zip(outputs, places, strict=True):
            if self.want_all:
                collected.append(self._collect(loop, output, place, rows[0].shape[self.axis]))
        final = loop.run(loop.test.binary("LESS", counter.tested, limit, np.bool_))
        return [[final[variable] for variable in group] for group in variables], [final[into] for into in collected]

    def _take(self, b: Builder, x: Tensor, place: Tensor) -> Tensor:
        shape = (*x.shape[: self.axis], 1, *x.shape[self.axis + 1 :])
        return b.emit("GATHER", [x, place], shape, x.dtype, axis=self.axis)

    def _collect(self, loop: Loop, row: Tensor, place: Tensor, length: int) -> Variable:
        shape = (*row.shape[: self.axis], length, *row.shape[self.axis + 1 :])
        into = loop.variable(_zeros(loop.outer, shape))
        along = np.eye(row.rank, dtype=np.int32)[self.axis]
        start = loop.body.binary("MUL", place, loop.body.const(along))
        into.next = loop.body.emit("DYNAMIC_UPDATE_SLICE", [into.now, row, start], shape, row.dtype)
        return into

    def blocks(
        self, b: Builder, rows: list[Tensor], states: list[list[Tensor]], size: int, steps: _Steps
    ) -> _Made:
        """As ``run`` over all steps, in an outer loop over blocks of ``size`` steps and an inner one over a block."""
        length = rows[0].shape[self.axis]
        count = -(-length // size)
        missing = count * size - length  # in the last block that is run, at the far end of its steps
        full = b.const(np.array([size], np.int32))

        def block(b: Builder, number: Tensor, rows: list[Tensor], states: list[list[Tensor]]) -> _Made:
            done = b.binary("MUL", number, full) if missing else full
            left = b.binary("SUB", b.const(np.array([length], np.int32)), done)
            limit = b.binary("MINIMUM", full, left) if missing else full
            flat = [b.reshape(x, self._merged(x.shape)) for x in rows]
            after, outputs = self.run(b, flat, states, limit, steps)
            return after, [b.reshape(x, self._parted(x.shape, 1)) for x in outputs]

        ends = [(missing, 0) if back else (0, missing) for back in self.reverse]
        parted = []
        for x, end in zip(rows, ends, strict=True):
            padded = b.pad(x, [end if axis == self.axis else (0, 0) for axis in range(x.rank)])
            parted.append(b.reshape(padded, self._parted(padded.shape, count)))
        after, outputs = self.run(b, parted, states, b.const(np.array([count], np.int32)), block)
        whole = [b.reshape(x, self._merged(x.shape)) for x in outputs]
        return after, [_slice(b, x, self.axis, end[0], length) for x, end in zip(whole, ends, strict=True)]

    def _parted(self, shape: Shape, count: int) -> Shape:
        """``shape`` with its time axis as ``count`` blocks."""
        return (*shape[: self.axis], count, shape[self.axis] // count, *shape[self.axis + 1 :])

    def _merged(self, shape: Shape) -> Shape:
        """``shape`` with blocks and the steps in them as one axis."""
        return (*shape[: self.axis], shape[self.axis] * shape[self.axis + 1], *shape[self.axis + 2 :])


def _slice(b: Builder, x: Tensor, axis: int, start: int, count: int) -> Tensor:
    """``count`` places from ``start`` on, along one axis."""
    begin, end = [0] * x.rank, list(x.shape)
    begin[axis], end[axis] = start, start + count
    return b.strided_slice(x, begin, end, [1] * x.rank)


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
