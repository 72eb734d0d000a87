"""Typed access to a .tflite flatbuffer that ``tflite_check`` has found sound. It must not be used on any other.

Sound tables may still refer to one another so often that reading all of them takes for ever (a million subgraphs that
share a million tensors). So every read draws on a budget in proportion to the size of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edgekit.graph.tflite_schema import Field, load_schema

__all__ = ["Budget", "Exhausted", "Table", "root"]

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_TABLE_COST = 64  # reading a table takes about as long as this many numbers or characters


class Exhausted(Exception):
    """The file asks for more reading than one of its size can need."""


class Budget:
    """How much may still be read; a file of an honest writer needs a small part of it."""

    def __init__(self, file_size: int) -> None:
        self._left = 8 * file_size + (1 << 24)

    def spend(self, amount: int) -> None:
        """Raise Exhausted when there is less than ``amount`` left."""
        self._left -= amount
        if self._left < 0:
            raise Exhausted("its parts refer to one another more often than makes sense")

    def spend_tables(self, count: int) -> None:
        """The same, for ``count`` tables."""
        self.spend(_TABLE_COST * count)


class Table:
    """One table of the schema. Field names are those of the schema module (``OpcodeIndex``, ``BuiltinCode``).

    Every method raises Exhausted when the budget of the file is used up.
    """

    __slots__ = ("_at", "_budget", "_data", "_fields", "_vtable", "_vtable_bytes")

    def __init__(self, data: bytes, at: int, name: str, budget: Budget) -> None:
        self._data = data
        self._at = at
        self._budget = budget
        self._fields = load_schema().tables[name]
        self._vtable = at - _I32.unpack_from(data, at)[0]
        self._vtable_bytes = _U16.unpack_from(data, self._vtable)[0]

    def number(self, name: str, default: int = 0) -> int:
        """A scalar field, or ``default`` (the schema's) where it is absent."""
        field = self._fields[name]
        at = self._position(field)
        return int(struct.unpack_from("<" + field.item, self._data, at)[0]) if at else default

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """A vector of integers; None where it is absent."""
        field = self._fields[name]
        at = self._target(field)
        if not at:
            return None
        count = _U32.unpack_from(self._data, at)[0]
        self._budget.spend(count)
        return struct.unpack_from(f"<{count}{field.item}", self._data, at + 4)

    def length(self, name: str) -> int:
        """How many elements a vector or string has; 0 where it is absent."""
        at = self._target(self._fields[name])
        return int(_U32.unpack_from(self._data, at)[0]) if at else 0

    def text(self, name: str) -> str:
        """A string, with bytes that are not UTF-8 replaced; "" where it is absent."""
        at = self._target(self._fields[name])
        if not at:
            return ""
        count = _U32.unpack_from(self._data, at)[0]
        self._budget.spend(count)
        return self._data[at + 4:at + 4 + count].decode(errors="replace")

    def tables(self, name: str) -> Iterator[Table]:
        """The tables of a vector."""
        field = self._fields[name]
        start = self._target(field)
        if start:
            count = self.length(name)
            self._budget.spend_tables(count)
            for at in range(start + 4, start + 4 + 4 * count, 4):
                yield Table(self._data, at + _U32.unpack_from(self._data, at)[0], field.item, self._budget)

    def table(self, name: str) -> Table | None:
        """A single table; None where it is absent."""
        field = self._fields[name]
        at = self._target(field)
        return Table(self._data, at, field.item, self._budget) if at else None

    def union(self, name: str, table: str) -> Table | None:
        """The table of a union whose type says that it is a ``table``; None where it is absent."""
        at = self._target(self._fields[name])
        return Table(self._data, at, table, self._budget) if at else None

    def _position(self, field: Field) -> int:
        if field.slot >= self._vtable_bytes:
            return 0
        offset = _U16.unpack_from(self._data, self._vtable + field.slot)[0]
        return self._at + offset if offset else 0

    def _target(self, field: Field) -> int:
        at = self._position(field)
        return int(at + _U32.unpack_from(self._data, at)[0]) if at else 0


def root(data: bytes) -> Table:
    """The Model table of a checked file, with a budget of its own."""
    return Table(data, _U32.unpack_from(data, 0)[0], "Model", Budget(len(data)))
