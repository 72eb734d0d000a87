"""The file of a delta (.edgedelta): a line, a header in JSON, the packed parts, and a SHA-256 of all that."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Annotated

import msgspec

from edgekit.bundle.container import MAX_ENTRIES, MAX_FILE_BYTES
from edgekit.bundle.decode import unique_keys
from edgekit.bundle.delta_residual import WORDS, Mode
from edgekit.errors import BadBundle

__all__ = ["DeltaHeader", "DeltaPart", "pack_delta", "read_delta"]

_LINE = b"edgedelta 1\n"
_SIZE = struct.Struct("<I")
_MAX_HEADER = 4 * 1024 * 1024
_MAX_STRETCHES = 100_000
_DAMAGED = "Obtain it anew, or the whole bundle."

_Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]
_Offset = Annotated[int, msgspec.Meta(ge=-1, le=MAX_FILE_BYTES)]
_Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Name = Annotated[str, msgspec.Meta(max_length=255)]


class DeltaPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one entry of the result is made, in the order of the result's file.

    ``source``: the entry of the base that ``stretches`` (length, offset; -1 for zeros) copy from, None where all is
    new. ``packed_bytes``: of the packed departure, 0 where there is none.
    """

    name: _Name
    source: _Name | None
    stretches: tuple[tuple[_Size, _Offset], ...]
    word: int
    mode: Mode
    packed_bytes: _Size

    @property
    def size_bytes(self) -> int:
        """Of the entry in the result."""
        return sum(length for length, _ in self.stretches)


class DeltaHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which file becomes which."""

    base_sha256: _Hash
    base_bytes: _Size
    result_sha256: _Hash
    result_bytes: _Size
    parts: tuple[DeltaPart, ...]


def pack_delta(header: DeltaHeader, packed: list[bytes]) -> bytes:
    """The bytes of the file; ``packed`` are the departures of the parts that have one, in their order."""
    head = msgspec.json.encode(header)
    body = b"".join([_LINE, _SIZE.pack(len(head)), head, *packed])
    return body + hashlib.sha256(body).digest()


def read_delta(path: Path) -> tuple[DeltaHeader, list[bytes]]:
    """The header and, for each part, its packed departure (empty where it has none), checked but not unpacked.

    Raises BadBundle for whatever ``pack_delta`` does not write.
    """
    try:
        return _parsed(_content(path))
    except BadBundle as error:
        raise BadBundle(f"'{path}' cannot be used as a delta. {error.message}", error.remedy or _DAMAGED) from error


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise BadBundle("It is not a regular file.")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadBundle(f"It is larger than {MAX_FILE_BYTES} bytes.")
        return path.read_bytes()
    except OSError as error:
        raise BadBundle(f"It cannot be read: {error.strerror}.", "Check the path.") from error


def _parsed(data: bytes) -> tuple[DeltaHeader, list[bytes]]:
    if not re.match(rb"edgedelta \d", data):
        raise BadBundle("It does not start with the line of a delta.")
    start = len(_LINE) + _SIZE.size
    if not data.startswith(_LINE):
        raise BadBundle("It is a delta of another version.", "Use the EdgeKit that made it, or a later one.")
    if len(data) < start + 32 or hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise BadBundle("It is truncated or damaged: its hash is wrong.")
    (size,) = _SIZE.unpack_from(data, len(_LINE))
    if size > min(_MAX_HEADER, len(data) - start - 32):
        raise BadBundle(f"Its header claims {size} bytes.")
    header = _header(data[start:start + size])
    at = start + size
    packed = []
    for part in header.parts:
        packed.append(data[at:at + part.packed_bytes])
        at += part.packed_bytes
    if at != len(data) - 32:
        raise BadBundle("Its parts do not fill it exactly.")
    return header, packed


def _header(data: bytes) -> DeltaHeader:
    try:
        json.loads(data, object_pairs_hook=unique_keys)
        header = msgspec.json.decode(data, type=DeltaHeader)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadBundle(f"Its header is not valid: {error}.") from error
    if len(header.parts) > MAX_ENTRIES or sum(len(part.stretches) for part in header.parts) > _MAX_STRETCHES:
        raise BadBundle(f"Its header has {len(header.parts)} parts, which is too many or in too many pieces.")
    for part in header.parts:
        if part.word not in WORDS:
            raise BadBundle(f"The part '{part.name[:100]}' has words of {part.word} bytes.", "Known: 1, 2, 4.")
        if part.source is None and any(offset >= 0 for _, offset in part.stretches):
            raise BadBundle(f"The part '{part.name[:100]}' copies from no entry.")
    if sum(part.size_bytes for part in header.parts) > header.result_bytes:
        raise BadBundle("Its parts are larger than its result.")
    return header
