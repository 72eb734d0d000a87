"""How many values a sparse .tflite constant must hold. The engine expands it without a look at the bounds."""

from __future__ import annotations

import itertools

from edgekit.graph.tflite_reader import Table

__all__ = ["sparse_values"]

_DENSE, _CSR = 0, 1
_VECTORS = {1: "Int32Vector", 2: "Uint16Vector", 3: "Uint8Vector"}
_MAX_VALUES = 1 << 40


def sparse_values(sparsity: Table, shape: tuple[int, ...]) -> int:
    """The number of stored values of a constant of ``shape``.

    Raises ValueError, with what is wrong in words, when an index leaves the shape, when the levels do not fit one
    another, and for blocks and other orders of the axes, which EdgeKit does not write.
    """
    if tuple(sparsity.numbers("TraversalOrder") or ()) != tuple(range(len(shape))) or sparsity.numbers("BlockMap"):
        raise ValueError("is stored in blocks or in another order of axes, which is not supported")
    levels = list(sparsity.tables("DimMetadata"))
    if len(levels) != len(shape):
        raise ValueError(f"has {len(levels)} levels for {len(shape)} axes")
    count = 1
    for level, size in zip(levels, shape, strict=True):
        form = level.number("Format")
        if form == _DENSE:
            if level.number("DenseSize") != size:
                raise ValueError(f"has a level of {level.number('DenseSize')} for an axis of {size}")
            count *= size
        elif form == _CSR:
            count = _compressed(level, count, size)
        else:
            raise ValueError(f"has a level of the unknown form {form}")
        if count > _MAX_VALUES:
            raise ValueError("holds more values than a file can")
    return count


def _compressed(level: Table, rows: int, size: int) -> int:
    """Values of a CSR level with ``rows`` rows over an axis of ``size``."""
    segments, indices = _vector(level, "ArraySegments"), _vector(level, "ArrayIndices")
    if len(segments) != rows + 1 or segments[0] != 0 or segments[-1] != len(indices):
        raise ValueError(f"has {len(segments)} row starts for {rows} rows and {len(indices)} indices")
    if any(end < start for start, end in itertools.pairwise(segments)):
        raise ValueError("has rows that end before they start")
    if indices and not 0 <= min(indices) <= max(indices) < size:
        raise ValueError(f"has an index outside its axis of {size}")
    return len(indices)


def _vector(level: Table, name: str) -> tuple[int, ...]:
    kind = level.number(f"{name}Type")
    table = level.union(name, _VECTORS[kind]) if kind in _VECTORS else None
    values = None if table is None else table.numbers("Values")
    if values is None:
        raise ValueError(f"has no {name}")
    return values
