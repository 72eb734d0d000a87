"""What one time step of LSTM, GRU and RNN does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.ops.cell_functions import Function
from edgekit.converters.onnx_to_litert.ops.over_time import sliced

__all__ = ["Cell", "Step", "gru_step", "linear", "lstm_step", "rnn_step", "split"]

#: (builder, one time step of the projected input, states) -> new states, the first of which is the output
Step = Callable[[Builder, Tensor, list[Tensor]], list[Tensor]]


@dataclass(frozen=True, slots=True)
class Cell:
    """The weights of one direction: a matrix for the input, (gates * hidden, in), and one for the state.

    ``recurrent_bias`` is the part of the bias that belongs to the product with the state (GRU), else zeros. ``flag``:
    linear_before_reset of a GRU, input_forget of an LSTM. ``peepholes``: for the gates i, o, f of an LSTM, or [].
    """

    hidden: int
    kernel: Tensor
    recurrent: Tensor
    bias: Tensor
    recurrent_bias: Tensor
    functions: list[Function]
    clip: float
    flag: bool
    peepholes: list[Tensor]

    def squash(self, b: Builder, which: int, x: Tensor) -> Tensor:
        """The activation ``which`` of the clipped ``x``."""
        if self.clip > 0:
            x = b.binary("MINIMUM", b.binary("MAXIMUM", x, b.scalar(-self.clip, x)), b.scalar(self.clip, x))
        return self.functions[which](b, x)

    def product(self, b: Builder, h: Tensor) -> Tensor:
        """The state by its matrix."""
        return linear(b, h, self.recurrent, self.recurrent_bias)


def lstm_step(b: Builder, cell: Cell) -> Step:
    """LSTM: gates i, o, f, c."""

    def gate(b: Builder, x: Tensor, peephole: int, memory: Tensor) -> Tensor:
        if cell.peepholes:
            x = b.binary("ADD", x, b.binary("MUL", memory, cell.peepholes[peephole]))
        return cell.squash(b, 0, x)

    def step(b: Builder, projected: Tensor, states: list[Tensor]) -> list[Tensor]:
        h, c = states
        i, o, f, new = split(b, b.binary("ADD", projected, cell.product(b, h)), 4)
        i = gate(b, i, 0, c)
        f = b.binary("SUB", b.scalar(1.0, i), i) if cell.flag else gate(b, f, 2, c)
        memory = b.binary("ADD", b.binary("MUL", f, c), b.binary("MUL", i, cell.squash(b, 1, new)))
        return [b.binary("MUL", gate(b, o, 1, memory), cell.functions[2](b, memory)), memory]

    return step


def gru_step(b: Builder, cell: Cell) -> Step:
    """GRU: gates z, r, h; with the flag, r multiplies the product with the state, else the state."""
    if cell.flag:
        return lambda b, projected, states: _gru_late_reset(b, cell, projected, states[0])
    gates = sliced(b, cell.recurrent, 0, 0, 2 * cell.hidden)
    last = sliced(b, cell.recurrent, 0, 2 * cell.hidden, cell.hidden)
    none = [b.const(np.zeros(matrix.shape[0], np.float32)) for matrix in (gates, last)]

    def step(b: Builder, projected: Tensor, states: list[Tensor]) -> list[Tensor]:
        h = states[0]
        xz, xr, xh = split(b, projected, 3)
        hz, hr = split(b, linear(b, h, gates, none[0]), 2)
        r = cell.squash(b, 0, b.binary("ADD", xr, hr))
        return _gru_state(b, cell, b.binary("ADD", xz, hz), xh, linear(b, b.binary("MUL", r, h), last, none[1]), h)

    return step


def _gru_late_reset(b: Builder, cell: Cell, projected: Tensor, h: Tensor) -> list[Tensor]:
    xz, xr, xh = split(b, projected, 3)
    hz, hr, hh = split(b, cell.product(b, h), 3)
    r = cell.squash(b, 0, b.binary("ADD", xr, hr))
    return _gru_state(b, cell, b.binary("ADD", xz, hz), xh, b.binary("MUL", r, hh), h)


def _gru_state(b: Builder, cell: Cell, z: Tensor, xh: Tensor, hh: Tensor, h: Tensor) -> list[Tensor]:
    """(1 - z) * new + z * h, with one multiplication."""
    new = cell.squash(b, 1, b.binary("ADD", xh, hh))
    return [b.binary("ADD", new, b.binary("MUL", cell.squash(b, 0, z), b.binary("SUB", h, new)))]


def rnn_step(b: Builder, cell: Cell) -> Step:
    """RNN: one gate."""
    return lambda b, projected, states: [cell.squash(b, 0, b.binary("ADD", projected, cell.product(b, states[0])))]


def linear(b: Builder, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """``x`` (..., in) by ``kernel`` (out, in), plus ``bias`` (out,)."""
    shape = (*x.shape[:-1], kernel.shape[0])
    return b.emit("FULLY_CONNECTED", [x, kernel, bias], shape, x.dtype, keepNumDims=True)


def split(b: Builder, x: Tensor, parts: int) -> list[Tensor]:
    """Equal parts of the last axis."""
    shape = (*x.shape[:-1], x.shape[-1] // parts)
    axis = b.const(np.array(x.rank - 1, np.int32))
    return b.emit_many("SPLIT", [axis, x], [(shape, x.dtype)] * parts, numSplits=parts)
