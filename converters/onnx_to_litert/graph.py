"""The LiteRT graph while it is built: tensors, ops, subgraphs. Plain data; ``writer`` turns it into a flatbuffer.

A dimension is an int >= 0, or negative when it is known only at run time. Two equal dimensions at or below
``FIRST_SYMBOL`` are the same unknown (a symbol); -1 is an unknown of which nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from edgekit.artifacts import Array

__all__ = ["ANONYMOUS", "DTYPES", "FIRST_SYMBOL", "Graph", "Op", "Quantization", "Shape", "StoredConstant", "Tensor",
           "is_static"]

Shape = tuple[int, ...]
ANONYMOUS = -1

#: element types that a LiteRT tensor can have and that we write
DTYPES = frozenset({
    "float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool",
})  # fmt: skip

#: symbols count down from here, far from any number that a model would hold
FIRST_SYMBOL = -(2**40)


def is_static(shape: Shape) -> bool:
    """Whether every dimension is known."""
    return all(dim >= 0 for dim in shape)


@dataclass(frozen=True, slots=True, eq=False)
class Quantization:
    """real = scale * (stored - zero_point): one scale for the tensor, or one for each index along storage ``axis``."""

    scales: Array
    zero_points: Array
    axis: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StoredConstant:
    """The integers that a float constant was dequantized from, in the same shape and order of axes."""

    data: Array
    quantization: Quantization

    def transposed(self, perm: Shape) -> StoredConstant:
        """Axis j of the result is axis ``perm[j]`` of this one."""
        old = self.quantization
        axis = perm.index(old.axis) if old.scales.size > 1 else old.axis
        return StoredConstant(
            np.ascontiguousarray(self.data.transpose(perm)), Quantization(old.scales, old.zero_points, axis)
        )

    def reshaped(self, shape: Shape) -> StoredConstant | None:
        """The same in another shape; None if that tears the quantized axis apart."""
        old = self.quantization
        axis = old.axis
        if old.scales.size > 1:
            before = int(np.prod(self.data.shape[:axis]))
            places = [at for at in range(len(shape)) if int(np.prod(shape[:at])) == before]
            axis = next((at for at in places if shape[at] == old.scales.size), -1)
        if axis < 0:
            return None
        return StoredConstant(self.data.reshape(shape), Quantization(old.scales, old.zero_points, axis))


@dataclass(slots=True, eq=False)
class Tensor:
    """A value of the LiteRT graph; ``data`` makes it a constant.

    ``elements``: what is known of the values of an integer vector or scalar (a shape, usually), flattened; each one an
    int >= 0 or a symbol as in ``shape``. None when nothing is known. ``stored``: where a float constant came from.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: Shape
    data: Array | None = None
    elements: Shape | None = None
    quantization: Quantization | None = None
    stored: StoredConstant | None = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass(slots=True, eq=False)
class Op:
    """One LiteRT op. ``kind`` is the schema's BuiltinOperator name, ``options`` the fields of its options table.

    ``source`` names the ONNX node it came from. An option whose value is a Graph is written as that subgraph's index.
    """

    kind: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: dict[str, object] = field(default_factory=dict)
    source: str = ""

    def subgraphs(self) -> list[Graph]:
        """The graphs that the op runs: the branches of IF, the condition and body of WHILE."""
        return [value for value in self.options.values() if isinstance(value, Graph)]


@dataclass(slots=True, eq=False)
class Graph:
    """A subgraph: the ops are in an order in which they can run.

    ``sizes``: the number to write into the file for a symbol; the runtime resizes before it matters.
    """

    name: str
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)

    def consumers(self) -> dict[int, list[Op]]:
        """id(tensor) -> the ops that read it, each as often as it does."""
        readers: dict[int, list[Op]] = {}
        for op in self.ops:
            for tensor in op.inputs:
                if tensor is not None:
                    readers.setdefault(id(tensor), []).append(op)
        return readers


def walk(graphs: Iterable[Graph]) -> Iterator[Graph]:
    """The graphs and those that their ops run, at any depth, each once."""
    seen: set[int] = set()
    front = list(graphs)
    while front:
        graph = front.pop(0)
        if id(graph) not in seen:
            seen.add(id(graph))
            yield graph
            front.extend(inner for op in graph.ops for inner in op.subgraphs())
