"""A ZIP writer that can lie. It knows the layout of runtimes/SPEC.md on its own, not through EdgeKit's code."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace

__all__ = ["Item", "Quirks", "build"]

ALIGNMENT = 16384


@dataclass(frozen=True)
class Item:
    """One entry. What is None follows from the data; what is set is written as it is, true or not."""

    name: bytes
    data: bytes
    central_name: bytes | None = None
    method: int = 0
    flags: int = 0
    time: int = 0
    crc: int | None = None
    local_size: int | None = None
    central_size: int | None = None
    offset: int | None = None
    padding: bytes | None = None
    gap: bytes = b""
    shift: int = 0
    central_extra: bytes = b""

    def but(self, **changes: object) -> Item:
        """The same entry with ``changes``."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Quirks:
    """Deviations of the file as a whole. ``count`` and ``disk`` go to the end record."""

    prefix: bytes = b""
    before_directory: bytes = b""
    between: bytes = b""
    comment: bytes = b""
    suffix: bytes = b""
    count: int | None = None
    disk: int = 0
    directory_offset: int | None = None
    hidden: tuple[Item, ...] = field(default=())


def build(items: list[Item], quirks: Quirks = Quirks()) -> bytes:
    """The file with ``items`` in their order; without quirks it is the canonical bundle."""
    out = bytearray(quirks.prefix)
    records: list[bytes] = []
    for item in items:
        records.append(_record(item, len(out)))
        out += _local(item, len(out))
    for item in quirks.hidden:
        out += _local(item, len(out))
    out += quirks.before_directory
    start = len(out) if quirks.directory_offset is None else quirks.directory_offset
    directory = b"".join(records)
    out += directory + quirks.between
    count = len(items) if quirks.count is None else quirks.count
    out += struct.pack("<4s4H2IH", b"PK\5\6", quirks.disk, quirks.disk, count, count, len(directory), start,
                       len(quirks.comment))
    return bytes(out + quirks.comment + quirks.suffix)


def _crc(item: Item) -> int:
    return zlib.crc32(item.data) if item.crc is None else item.crc


def _local(item: Item, at: int) -> bytes:
    end = at + 30 + len(item.name) + 6
    padding = bytes(-end % ALIGNMENT + item.shift) if item.padding is None else item.padding
    size = len(item.data) if item.local_size is None else item.local_size
    extra = struct.pack("<3H", 0xD935, len(padding) + 2, ALIGNMENT) + padding
    head = struct.pack("<4s5H3I2H", b"PK\3\4", 20, item.flags, item.method, item.time, 0x21, _crc(item), size, size,
                       len(item.name), len(extra))
    return head + item.name + extra + item.data + item.gap


def _record(item: Item, at: int) -> bytes:
    name = item.name if item.central_name is None else item.central_name
    size = len(item.data) if item.central_size is None else item.central_size
    offset = at if item.offset is None else item.offset
    head = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, item.flags, item.method, item.time, 0x21, _crc(item), size,
                       size, len(name), len(item.central_extra), 0, 0, 0, 0, offset)
    return head + name + item.central_extra
