"""Typed access to a .tflite flatbuffer that ``tflite_check`` has found sound. It must not be used on any other."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edgekit.graph.tflite_schema import Field, load_schema

__all__ = ["Table", "root"]

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")


class Table:
    """One table of the schema. Field names are those of the schema module (``OpcodeIndex``, ``BuiltinCode``)."""

    __slots__ = ("_at", "_data", "_fields", "_vtable", "_vtable_bytes")

    def __init__(self, data: bytes, at: int, name: str) -> None:
        self._data = data
        self._at = at
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
        return self._data[at + 4:at + 4 + count].decode(errors="replace")

    def tables(self, name: str) -> Iterator[Table]:
        """The tables of a vector."""
        field = self._fields[name]
        start = self._target(field)
        if start:
            for at in range(start + 4, start + 4 + 4 * self.length(name), 4):
                yield Table(self._data, at + _U32.unpack_from(self._data, at)[0], field.item)

    def table(self, name: str) -> Table | None:
        """A single table; None where it is absent."""
        field = self._fields[name]
        at = self._target(field)
        return Table(self._data, at, field.item) if at else None

    def _position(self, field: Field) -> int:
        if field.slot >= self._vtable_bytes:
            return 0
        offset = _U16.unpack_from(self._data, self._vtable + field.slot)[0]
        return self._at + offset if offset else 0

    def _target(self, field: Field) -> int:
        at = self._position(field)
        return int(at + _U32.unpack_from(self._data, at)[0]) if at else 0


def root(data: bytes) -> Table:
    """The Model table of a checked file."""
    return Table(data, _U32.unpack_from(data, 0)[0], "Model")
