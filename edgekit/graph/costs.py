"""What a network costs before anything is timed: for each op its class, multiply-adds, bytes and weights.

The ops are those that an engine runs: constants are folded, BatchNorm and activations that every engine computes inside
the convolution before them are part of it, and ops that only rename axes cost nothing. Counts of several ops are plain
sums. A multiply-add counts once; biases, activations and comparisons are not counted as multiply-adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

__all__ = ["OP_CLASSES", "GraphCosts", "OpClass", "OpCost", "totals"]

OpClass = Literal[
    "conv",  # dense convolution, transposed ones included
    "depthwise",  # one filter for each channel
    "grouped",  # several channels for each group
    "fc",  # vector times constant matrix
    "matmul",  # matrix times matrix, constant or not, attention included
    "pool",  # windows and global reductions
    "elementwise",  # cheap arithmetic on each element
    "transcendental",  # exp, tanh, sigmoid and what is made of them
    "softmax",
    "norm",  # normalisation with statistics of the input
    "lrn",  # local response normalisation
    "channels",  # slices and shuffles of channels
    "copy",  # concatenation, transposition, padding, resizing
    "detection",  # prior boxes, non-maximum suppression
    "free",  # only names or axes change
    "unknown",
]
OP_CLASSES: tuple[OpClass, ...] = OpClass.__args__  # type: ignore[attr-defined]


class OpCost(msgspec.Struct, frozen=True, kw_only=True):
    """One op that the engine runs.

    ``kind``: the engine's or the file format's name for it. ``out_h``, ``out_w``: the output's height and width, 1
    where it has none. ``cin``, ``cout``: channels of input and output; for a matrix product the summed and the last
    axis. Elements count every tensor that the op reads (constants apart) or writes; ``weight_elements`` its constants.
    ``bits``: of one element of the activations; ``weight_bits``: of one weight.
    """

    name: str
    kind: str
    op_class: OpClass
    macs: int = 0
    in_elements: int = 0
    out_elements: int = 0
    weight_elements: int = 0
    cin: int = 1
    cout: int = 1
    out_h: int = 1
    out_w: int = 1
    kernel_h: int = 1
    kernel_w: int = 1
    stride: int = 1
    groups: int = 1
    bits: int = 32
    weight_bits: int = 32

    @property
    def bytes_moved(self) -> int:
        """What the op reads and writes at least once: activations and weights, in bytes."""
        moved = (self.in_elements + self.out_elements) * self.bits + self.weight_elements * self.weight_bits
        return moved // 8


class GraphCosts(msgspec.Struct, frozen=True):
    """``ops`` in the order of execution. ``parameters``: elements of the constants, each stored array counted once.

    ``peak_activation_bytes``: what the activations need at once when memory is reused as LiteRT's planner does it
    (greedy by size); ``live_bytes``: those that are in use while each op runs. None where shapes are unknown.
    ``io_elements``: elements of the inputs and outputs together.
    """

    ops: tuple[OpCost, ...]
    parameters: int
    weight_bytes: int
    peak_activation_bytes: int | None = None
    live_bytes: tuple[int, ...] | None = None
    io_elements: int = 0

    @property
    def macs(self) -> int:
        """Multiply-adds of one inference."""
        return sum(op.macs for op in self.ops)

    @property
    def bytes_moved(self) -> int:
        """Bytes that the ops read and write, each tensor once for each op that uses it."""
        return sum(op.bytes_moved for op in self.ops)


def totals(costs: GraphCosts) -> Mapping[OpClass, int]:
    """Multiply-adds by op class, classes without any left out."""
    found: dict[OpClass, int] = {}
    for op in costs.ops:
        if op.macs:
            found[op.op_class] = found.get(op.op_class, 0) + op.macs
    return found
