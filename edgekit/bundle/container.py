"""The ZIP container of an .edge file: one byte layout, and a reader that accepts nothing else.

Layout of each entry, one after the other from offset 0, in the order manifest.json, manifest.sig (if signed), then
ascending by name::

    local header (30) | name | extra: 0xD935, length, 16384, zeros ... | data, at a multiple of 16 KiB

then the central directory (46 + name each, nothing else) and the end record (22, no comment). Everything is stored
(method 0), dated 1980-01-01, without zip64. Since each byte follows from names, sizes and CRCs, the reader computes
what must be there and compares: a gap, an overlap, a lying length or hidden data cannot pass.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from edgekit.errors import BadBundle

__all__ = [
    "ALIGNMENT", "MANIFEST", "MAX_ENTRIES", "MAX_FILE_BYTES", "SIGNATURE",
    "Span", "check_name", "pack", "read_directory",
]

ALIGNMENT = 16384
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
MAX_ENTRIES = 4096
MAX_FILE_BYTES = 0xFFFF_FFFE  # 0xFFFFFFFF announces zip64
_MAX_NAME = 255

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_EXTRA = struct.Struct("<3H")
_EXTRA_ID = 0xD935  # the id that Android's zipalign uses for alignment padding
_VERSION = 20
_DATE = 0x0021  # 1980-01-01, the earliest that ZIP can express

_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?<!\.)", re.ASCII)

Reader = Callable[[int, int], bytes]
"""(offset, size) -> exactly that many bytes, or BadBundle."""


class Span(NamedTuple):
    """Where the data of one entry lies in the file."""

    offset: int
    size_bytes: int
    crc32: int


def check_name(name: str) -> str | None:
    """What is wrong with ``name`` as the name of an entry; None when nothing is.

    Allowed: segments of ASCII letters, digits, ``._-`` joined by single slashes; a segment starts with none of ``.``
    and ends with none; at most 255 characters.
    """
    if len(name) > _MAX_NAME:
        return f"is longer than {_MAX_NAME} characters"
    if not all(_SEGMENT.fullmatch(segment) for segment in name.split("/")):
        return "is not a plain relative path of ASCII letters, digits, '.', '_', '-' and '/'"
    return None


def pack(entries: Mapping[str, bytes]) -> Iterator[bytes]:
    """The chunks of the file with ``entries``, in the order of the mapping (which the caller makes the canonical one).

    Raises BadBundle for an unsafe or clashing name, too many entries, or a file of 4 GiB or more; nothing is yielded
    then.
    """
    _check_names(list(entries))
    _check_total(entries)
    return _chunks(entries)


def _chunks(entries: Mapping[str, bytes]) -> Iterator[bytes]:
    spans: dict[str, Span] = {}
    at = 0
    for name, data in entries.items():
        header, span = _local_header(at, name, len(data), zlib.crc32(data))
        yield header
        yield data
        spans[name] = span
        at = span.offset + span.size_bytes
    directory = _directory(spans)
    yield directory
    yield _END.pack(b"PK\5\6", 0, 0, len(spans), len(spans), len(directory), at, 0)


def _check_total(entries: Mapping[str, bytes]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise BadBundle(f"The bundle has {len(entries)} entries.", f"At most {MAX_ENTRIES} are allowed.")
    at = 0
    for name, data in entries.items():
        at = _data_offset(at, name) + len(data)
    total = at + sum(_CENTRAL.size + len(name) for name in entries) + _END.size
    if total > MAX_FILE_BYTES:
        raise BadBundle(f"The bundle would take {total} bytes.",
                        "The format ends below 4 GiB: leave variants out or compress the weights.")


def _data_offset(header_offset: int, name: str) -> int:
    end = header_offset + _LOCAL.size + len(name) + _EXTRA.size
    return (end + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def _local_header(offset: int, name: str, size: int, crc: int) -> tuple[bytes, Span]:
    data_offset = _data_offset(offset, name)
    extra = data_offset - offset - _LOCAL.size - len(name)
    head = _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, 0, _DATE, crc, size, size, len(name), extra)
    padding = _EXTRA.pack(_EXTRA_ID, extra - 4, ALIGNMENT) + bytes(extra - _EXTRA.size)
    return head + name.encode("ascii") + padding, Span(data_offset, size, crc)


def _directory(spans: Mapping[str, Span]) -> bytes:
    parts: list[bytes] = []
    at = 0
    for name, span in spans.items():
        parts.append(_CENTRAL.pack(b"PK\1\2", _VERSION, _VERSION, 0, 0, 0, _DATE, span.crc32, span.size_bytes,
                                   span.size_bytes, len(name), 0, 0, 0, 0, 0, at))
        parts.append(name.encode("ascii"))
        at = span.offset + span.size_bytes
    return b"".join(parts)


def read_directory(read: Reader, file_size: int) -> dict[str, Span]:
    """The entries of the file, in its order, after checking every byte that is not data of an entry.

    Raises BadBundle for anything but the one layout. Neither opens nor hashes the data.
    """
    if file_size < _LOCAL.size or read(0, 4) != b"PK\3\4":
        raise BadBundle("It is not an .edge bundle: the ZIP header is missing.")
    if file_size > MAX_FILE_BYTES:
        raise BadBundle(f"It takes {file_size} bytes; a bundle ends below 4 GiB.")
    directory_offset, directory, count = _read_end(read, file_size)
    declared = _parse_directory(directory, count)
    _check_names([name for name, _, _ in declared])
    at = 0
    spans: dict[str, Span] = {}
    for name, size, crc in declared:
        header, span = _local_header(at, name, size, crc)
        if span.offset + size > directory_offset:
            raise BadBundle(f"Entry '{name}' reaches past the data: its length lies.")
        found = read(at, len(header))
        if found != header:
            raise BadBundle(f"The local header of entry '{name}' {_difference(found, header)}.")
        spans[name] = span
        at = span.offset + size
    if at != directory_offset:
        raise BadBundle(f"There are {directory_offset - at} bytes between the last entry and the directory.")
    if _directory(spans) != directory:
        raise BadBundle("The directory is not in the canonical form (flags, date, version, attributes or offsets).")
    return spans


def _read_end(read: Reader, file_size: int) -> tuple[int, bytes, int]:
    """Offset and bytes of the central directory, and how many entries it claims to have."""
    magic, disk, start_disk, count_here, count, size, offset, comment = _END.unpack(
        read(file_size - _END.size, _END.size))
    if magic != b"PK\5\6":
        raise BadBundle("It does not end with a ZIP directory: it is truncated, or something was appended.")
    if disk or start_disk or count_here != count or comment:
        raise BadBundle("Its ZIP end record is not in the canonical form (several disks or a comment).")
    if not 1 <= count <= MAX_ENTRIES:
        raise BadBundle(f"Its directory claims {count} entries; between 1 and {MAX_ENTRIES} are allowed.")
    if offset + size != file_size - _END.size or size > count * (_CENTRAL.size + _MAX_NAME):
        raise BadBundle("Its ZIP directory is not where the end record says, or has an impossible size.")
    return offset, read(offset, size), count


def _parse_directory(directory: bytes, count: int) -> list[tuple[str, int, int]]:
    """(name, size, CRC) of each record; ``read_directory`` compares all the other fields afterwards."""
    found: list[tuple[str, int, int]] = []
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(directory):
            raise BadBundle("Its ZIP directory ends in the middle of a record.")
        (magic, _, _, flags, method, _, _, crc, packed, size, name_length, extra, comment,
         _, _, _, _) = _CENTRAL.unpack_from(directory, at)
        at += _CENTRAL.size
        name = directory[at:at + name_length].decode("ascii", errors="backslashreplace")
        at += name_length
        if magic != b"PK\1\2" or at > len(directory) or extra or comment:
            raise BadBundle("Its ZIP directory holds a damaged record, or one with extra fields.")
        if flags & 1:
            raise BadBundle(f"Entry '{name}' is encrypted.")
        if method != 0:
            raise BadBundle(f"Entry '{name}' is compressed (method {method}); bundles store every entry as it is.")
        if packed != size:
            raise BadBundle(f"The directory gives entry '{name}' two sizes: {packed} and {size}.")
        found.append((name, size, crc))
    if at != len(directory):
        raise BadBundle("Its ZIP directory holds more than its records.")
    return found


def _check_names(names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        problem = check_name(name)
        if problem:
            raise BadBundle(f"The entry name {name[:100]!r} {problem}.")
        # Two names that differ in case only are one file on Windows and macOS.
        if name.lower() in seen:
            raise BadBundle(f"The name '{name}' occurs twice (or in two spellings that differ in case only).")
        seen.add(name.lower())
    for name in seen:
        parts = name.split("/")
        if any("/".join(parts[:end]) in seen for end in range(1, len(parts))):
            raise BadBundle(f"A folder of the entry '{name}' has the name of another entry.")


def _difference(found: bytes, wanted: bytes) -> str:
    """How a local header departs from the one that the directory asks for."""
    fields = ("signature", "version", "flags", "method", "time", "date", "CRC", "packed size", "size", "name length",
              "length of the extra field")
    pairs = zip(fields, _LOCAL.unpack_from(found), _LOCAL.unpack_from(wanted), strict=True)
    for field, is_value, wanted_value in pairs:
        if is_value != wanted_value:
            return f"differs from the directory or the one form in its {field}: {is_value!r}, not {wanted_value!r}"
    return "has another name than the directory, or padding that is not zero"
