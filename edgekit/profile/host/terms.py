"""What an op asks of a kernel of an engine on a CPU: amounts that its time is a sum of, and where it lies among others.

Unlike the terms of ``edgekit.profile.terms``, which many boards share, these are split by kernel: each kind of kernel
of the engine at hand has costs of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgekit.graph.costs import GraphCosts, OpCost

__all__ = ["COORDINATES", "amounts", "graph_amounts", "kernel_of", "place"]

Floats = npt.NDArray[np.float64]

_TILES = ((7, 16), (1, 32))  # rows and columns that kernels of matrix products compute at once, on several processors
_CACHES_MB = (1, 5, 24)  # about what the cache next to a core holds, and a part, or all, of the one that cores share
_NEAR_ACTIVATIONS = 2**19
_FEW_CHANNELS = 4
_LANES = 16
_LARGE_AREA = 25  # engines have special code for depthwise windows up to this
COORDINATES = 7
_PRODUCTS = frozenset({"conv", "grouped", "fc", "matmul"})


def kernel_of(op: OpCost) -> str:
    """The kind of kernel that computes ``op``, with the bits of its result; ops of one kind share costs."""
    return f"{_kernel(op)}.{op.bits}"


def _kernel(op: OpCost) -> str:
    if "TRANSPOSE_CONV" in op.kind or op.kind == "ConvTranspose":
        return "transposed"
    if op.op_class == "conv":
        area = op.kernel_h * op.kernel_w
        return "pointwise" if area == 1 else "first" if op.cin <= _FEW_CHANNELS else "dense"
    if op.op_class == "depthwise" and op.kernel_h * op.kernel_w > _LARGE_AREA:
        return "depthwise_large"
    if op.op_class == "depthwise":
        return "depthwise" if op.stride == 1 else "depthwise_strided"
    if op.op_class == "matmul":
        return "matmul" if op.weight_elements else "attention"
    return op.op_class if op.op_class in ("grouped", "fc") else op.kind


def _up(value: float, step: int) -> float:
    return math.ceil(value / step) * step


def amounts(op: OpCost) -> dict[str, float]:
    """Term -> amount (millions of multiply-adds or elements, or a count). None is negative."""
    kernel = kernel_of(op)
    found = {"call": 1.0, "read": op.in_elements / 1e6, "written": op.out_elements / 1e6}
    area = op.kernel_h * op.kernel_w
    if op.op_class in _PRODUCTS:
        groups = max(op.groups, 1)
        summed = op.cin * (area if op.op_class in ("conv", "grouped") else 1) / groups
        rows = op.macs / max(summed * op.cout, 1)
        found["macs"] = op.macs / 1e6
        for height, width in _TILES:
            found[f"macs_{height}x{width}"] = _up(rows, height) * _up(op.cout / groups, width) * groups * summed / 1e6
        height, width = _TILES[0]
        found["tiles"] = math.ceil(rows / height) * math.ceil(op.cout / width) / 1e4
        if area > 1:
            found["unfolded"] = rows * summed / 1e6
    elif op.op_class == "depthwise":
        found["macs"] = op.macs / 1e6
        found["macs_lanes"] = op.macs / 1e6 * _up(op.cout, _LANES) / max(op.cout, 1)
        found["row"] = op.out_h * area / 1e4
    elif area > 1:
        found["window"] = op.out_elements * area / 1e6
    return {f"{kernel}/{term}": amount for term, amount in found.items()}


def graph_amounts(costs: GraphCosts, other_bytes: int = 0) -> tuple[list[dict[str, float]], dict[str, float]]:
    """For each op its terms, memory included, and the terms of the network as a whole.

    ``other_bytes``: of other memory that is read between two runs. Together with the network's own weights they say how
    far away a weight has moved before it is read again.
    """
    between_mb = (costs.weight_bytes + other_bytes) / 2**20
    missed = {f"memory/weights_{size}": (between_mb / (between_mb + size)) ** 2 for size in _CACHES_MB}
    per_op = []
    for op in costs.ops:
        constant = op.weight_elements * op.weight_bits / 8e6
        moved = (op.in_elements + op.out_elements) * op.bits / 8
        per_op.append({
            **amounts(op), **{term: constant * part for term, part in missed.items()},
            "memory/activations": max(moved - _NEAR_ACTIVATIONS, 0) / 1e6,
        })
    whole = {"network/run": 1.0, "network/ends": costs.io_elements / 1e6}
    if other_bytes:  # the other memory drives out activations as well, which no run of a network by itself sees
        state, arena = other_bytes >> 20, (costs.peak_activation_bytes or 0) / 1e6
        whole |= {f"network/cold_{state}": 1.0, f"network/arena_{state}": arena}
    return per_op, whole


def place(op: OpCost) -> Floats:
    """Where an op lies among those of its kind, (COORDINATES,): logarithms of its sizes."""
    ragged = _up(op.cout, _LANES) / max(op.cout, 1)
    sizes: Mapping[str, float] = {
        "cin": op.cin, "cout": op.cout, "pixels": op.out_h * op.out_w,
        "kernel": op.kernel_h * op.kernel_w, "read": op.in_elements, "written": op.out_elements,
    }
    return np.array([*(math.log(max(size, 1)) for size in sizes.values()), 3 * math.log(ragged)])
