"""The terms that a latency is made of: for each op, how much it asks of the kernels and memory of a CPU.

A latency is the sum over terms of a device's cost of the term times its amount. Amounts are never negative and grow
with every size of the op, so predictions do as well. A few shape parameters, the same for all devices, say how badly
narrow or small ops use a kernel; ``Shape`` holds their logarithms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edgekit.graph.costs import OP_CLASSES, OpClass, OpCost

__all__ = ["SHAPE_NAMES", "SHAPE_PRIOR", "TERMS", "TERM_GUESS_MS", "OpTable", "term_amounts"]

Floats = npt.NDArray[np.float64]
_Put = Callable[[str, npt.NDArray[np.bool_], Floats], None]

#: term -> (unit, guess of the milliseconds for one unit on a small in-order core, relative to the others)
_TERMS: dict[str, tuple[float, float]] = {
    "pointwise": (1e8, 10.0),  # multiply-adds of 1x1 convolutions
    "winograd": (1e8, 12.0),  # multiplications after Winograd's transform of 3x3 convolutions with stride 1
    "kxk": (1e8, 13.0),  # multiply-adds of other dense convolutions
    "first": (1e8, 18.0),  # ... of those with at most 4 input channels
    "groups": (1e2, 0.5),  # calls for each group of a grouped convolution
    "depthwise": (1e7, 3.0),
    "depthwise_strided": (1e7, 4.0),
    "depthwise_large": (1e7, 10.0),  # kernels of 7 and more, for which engines have no special code
    "matmul": (1e8, 14.0),
    "fc_weights": (1e6, 1.2),  # elements: a vector-matrix product is bound by reading the matrix
    "conv_weights": (1e6, 0.6),
    "winograd_tiles": (1e6, 0.8),  # elements of the transformed input and output
    "im2col": (1e7, 3.0),  # elements of the unfolded input
    "elementwise": (1e6, 0.8),
    "transcendental": (1e6, 4.0),
    "copy": (1e6, 1.0),
    "channels": (1e6, 0.5),
    "pool": (1e6, 0.7),
    "norm": (1e6, 3.0),
    "lrn": (1e6, 8.0),
    "detection": (1e5, 2.0),  # elements read and written
    "ops": (1e2, 0.5),
    "activations": (1e6, 0.5),  # elements in and out that miss the near caches
    "large_activations": (1e6, 0.6),  # elements beyond the first million of an op
}
TERMS = tuple(_TERMS)
_INDEX = {name: index for index, name in enumerate(TERMS)}
_UNITS = np.array([unit for unit, _ in _TERMS.values()])
TERM_GUESS_MS: Floats = np.array([guess for _, guess in _TERMS.values()])

SHAPE_NAMES = ("input_channels", "output_channels", "pixels", "near_cache_elements", "depthwise_kernel",
               "tiles", "first_kernel", "group_channels")
#: narrowness is felt below about 8 channels and 16 pixels; 200,000 elements leave the near caches
SHAPE_PRIOR: Floats = np.log([8.0, 8.0, 16.0, 2e5, 0.3, 1.0, 0.3, 2.0])

_FEW_CHANNELS = 4
_WINOGRAD_MIN_CHANNELS = 16
_LARGE_KERNEL = 7
_FAR_ELEMENTS = 1e6
_CLASS = {name: index for index, name in enumerate(OP_CLASSES)}


class OpTable:
    """The ops of one or several graphs as columns; ``starts`` are the rows at which graphs begin."""

    def __init__(self, graphs: Sequence[Sequence[OpCost]]) -> None:
        ops = [op for graph in graphs for op in graph]
        self.starts = np.cumsum([0, *(len(graph) for graph in graphs)])[:-1]
        if any(not graph for graph in graphs):
            raise ValueError("a graph without ops has no latency to predict")
        self.classes = np.array([_CLASS[op.op_class] for op in ops])

        def column(name: str) -> Floats:
            return np.array([getattr(op, name) for op in ops], np.float64)

        self.macs, self.weights = column("macs"), column("weight_elements")
        self.read, self.written = column("in_elements"), column("out_elements")
        self.cin, self.cout = np.maximum(column("cin"), 1), np.maximum(column("cout"), 1)
        self.out_h, self.out_w = np.maximum(column("out_h"), 1), np.maximum(column("out_w"), 1)
        self.area = np.maximum(column("kernel_h") * column("kernel_w"), 1)
        self.kernel = np.sqrt(self.area)
        self.stride, self.groups = column("stride"), np.maximum(column("groups"), 1)

    def of(self, *classes: OpClass) -> npt.NDArray[np.bool_]:
        """Which rows are of one of ``classes``."""
        return np.isin(self.classes, [_CLASS[name] for name in classes])

    def per_graph(self, amounts: Floats) -> Floats:
        """(ops, terms) summed to (graphs, terms)."""
        return np.asarray(np.add.reduceat(amounts, self.starts, axis=0))


def term_amounts(table: OpTable, shape: Floats = SHAPE_PRIOR) -> Floats:
    """(ops, terms): what each op contributes to each term, in the term's unit. ``shape`` as ``SHAPE_PRIOR``."""
    found = np.zeros((len(table.macs), len(TERMS)))

    def put(term: str, rows: npt.NDArray[np.bool_], amounts: Floats) -> None:
        found[rows, _INDEX[term]] = amounts[rows]

    _convolutions(table, np.exp(shape), put)
    _memory(table, float(np.exp(shape[3])), put)
    return np.asarray(found / _UNITS)


def _convolutions(table: OpTable, shape: Floats, put: _Put) -> None:
    few_in, few_out, few_pixels, _, kernel_power, few_tiles, first_power, few_in_group = shape
    pixels = table.out_h * table.out_w
    # Engines compute each group as a convolution of its own, so what counts is how narrow the groups are.
    cin, cout = table.cin / table.groups, table.cout / table.groups
    channels = np.where(table.groups > 1, (1 + few_in_group / cin) * (1 + few_in_group / cout),
                        (1 + few_in / cin) * (1 + few_out / cout))
    macs = table.macs * channels * (1 + few_pixels / pixels)
    conv = table.of("conv", "grouped")
    first = conv & (table.cin <= _FEW_CHANNELS) & (table.area > 1)
    pointwise = conv & ~first & (table.area == 1)
    wide = (cin >= _WINOGRAD_MIN_CHANNELS) & (cout >= _WINOGRAD_MIN_CHANNELS)
    winograd = conv & (table.area == 9) & (table.stride == 1) & wide
    unfolded = conv & ~first & ~pointwise & ~winograd
    put("first", first, table.macs * (9 / table.area) ** first_power)
    put("pointwise", pointwise, macs)
    tiles = _winograd_tiles(table)
    put("winograd", winograd, tiles * table.cin * cout * channels * (1 + 36 * few_tiles / tiles))
    put("winograd_tiles", winograd, tiles * (table.cin + table.cout))
    put("kxk", unfolded, macs)
    put("im2col", unfolded & wide, table.area * table.cin * pixels)
    put("conv_weights", conv, table.weights)
    put("groups", table.of("grouped"), table.groups)
    depthwise = table.of("depthwise")
    large = depthwise & (table.kernel >= _LARGE_KERNEL)
    small = depthwise & ~large
    # Larger kernels reuse what they have loaded, so a multiply-add costs less.
    dense = table.macs * (9 / table.area) ** kernel_power * (1 + 0.5 * few_pixels / pixels)
    put("depthwise_large", large, table.macs)
    put("depthwise", small & (table.stride < 2), dense)
    put("depthwise_strided", small & (table.stride >= 2), dense)
    put("matmul", table.of("matmul"), table.macs)
    put("fc_weights", table.of("fc"), table.weights)


def _winograd_tiles(table: OpTable) -> Floats:
    """Multiplications for one pair of channels, with the tile size (2, 4 or 6) that needs fewest."""
    sizes = [np.ceil(table.out_h / n) * np.ceil(table.out_w / n) * (n + 2) ** 2 for n in (2, 4, 6)]
    return np.asarray(np.minimum.reduce(sizes))


def _memory(table: OpTable, near_elements: float, put: _Put) -> None:
    moved = table.read + table.written
    put("elementwise", table.of("elementwise"), moved)
    put("transcendental", table.of("transcendental", "softmax"), table.written)
    put("copy", table.of("copy", "unknown"), moved)
    put("channels", table.of("channels"), moved)
    put("norm", table.of("norm"), table.written)
    put("lrn", table.of("lrn"), table.written)
    put("pool", table.of("pool"), table.read + table.written * np.minimum(table.area, 64))
    live = ~table.of("free")
    put("ops", live, np.ones_like(moved))
    detection = table.of("detection")
    put("detection", detection, moved)
    put("activations", live & ~detection, moved * moved / (moved + near_elements))
    put("large_activations", live & ~detection, np.maximum(moved - _FAR_ELEMENTS, 0))
