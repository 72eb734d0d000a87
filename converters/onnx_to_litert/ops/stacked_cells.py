"""A step of two stacked LSTM layers, in which the second runs one step behind the first.

``passes/stack_lstm`` makes one layer of two: its joint matrix holds zeros where the first layer would see the second.
A step is bound by reading that matrix, so here the quarter that is zero, and the zeros in the kernel, are left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.ops.cells import Cell, Step, linear, split
from edgekit.converters.onnx_to_litert.ops.over_time import sliced

__all__ = ["stacked_lstm"]

_GATES = 4
#: of both layers together: below it the ops that a step has more cost as much as the zeros. CPU time on x86 (one
#: thread, 50 steps) over the joint matrix: 1.06 at 32, 1.00 at 48, 0.96 at 64, 0.91 at 96, 0.90 at 128, 0.78 at 192
_SMALLEST_HIDDEN = 64


def stacked_lstm(b: Builder, cell: Cell) -> tuple[Cell, Step] | None:
    """The first layer's cell, whose kernel projects the input, and the step of both layers; None if it is not two.

    The step takes the output of both layers as (batch, 1, hidden) and their memory as (batch, 2, hidden / 2). The cell
    must have the usual activations, no clipping, no peepholes and gates of their own.
    """
    weights = [part.data for part in (cell.kernel, cell.recurrent, cell.bias)]
    if cell.hidden < _SMALLEST_HIDDEN or cell.hidden % 2 or any(data is None for data in weights):
        return None
    half = cell.hidden // 2
    # gate, layer, unit of the layer, column
    kernel, recurrent, bias = (np.reshape(data, (_GATES, 2, half, -1)) for data in weights if data is not None)
    if np.any(kernel[:, 1]) or np.any(recurrent[:, 0, :, half:]) or not np.any(recurrent[:, 1]):
        return None
    # tanh(x) = 2 * sigmoid(2 x) - 1: with the 2 in the weights of the last gate, one op serves all gates
    doubled = np.array([1, 1, 1, 2], np.float32)[:, None, None]

    def matrix(part: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
        return b.const(np.ascontiguousarray(part * doubled).reshape(_GATES * half, -1))

    first, second = matrix(recurrent[:, 0, :, :half]), matrix(recurrent[:, 1])
    biases = [b.reshape(matrix(bias[:, layer]), (_GATES * half,)) for layer in (0, 1)]
    none = b.const(np.zeros(_GATES * half, np.float32))

    def step(b: Builder, projected: Tensor, states: list[Tensor]) -> list[Tensor]:
        h, c = states
        below = b.binary("ADD", projected, linear(b, sliced(b, h, 2, 0, half), first, none))
        gates = b.unary("LOGISTIC", b.concat([below, linear(b, h, second, biases[1])], 1))
        i, o, f, new = split(b, gates, _GATES)
        new = b.binary("SUB", b.binary("MUL", new, b.scalar(2.0, new)), b.scalar(1.0, new))
        memory = b.binary("ADD", b.binary("MUL", f, c), b.binary("MUL", i, new))
        return [b.reshape(b.binary("MUL", o, b.unary("TANH", memory)), h.shape), memory]

    return replace(cell, kernel=matrix(kernel[:, 0]), bias=biases[0]), step
