"""Open a bundle: check the container, the signature and the manifest; hash an entry when it is read."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import stat
import threading
import zlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from edgekit.bundle.adaptive import Plan
from edgekit.bundle.container import MANIFEST, SIGNATURE, Span, read_directory
from edgekit.bundle.decode import MAX_MANIFEST_BYTES, decode_manifest
from edgekit.bundle.manifest import Entry, Manifest
from edgekit.bundle.plan import decode_plan
from edgekit.bundle.sign import SIGNATURE_BYTES, check_signature, load_public_key
from edgekit.errors import BadBundle, BadKey, SignatureMismatch, UnknownName

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Bundle"]

_PublicKey: TypeAlias = "Ed25519PublicKey | Path | str | bytes"
_READ_LIMIT = 1 << 30  # Linux reads less than 2 GiB at a time
_DAMAGED = "Obtain it anew; do not run it."


class Bundle:
    """An open .edge file; close it, or use it as a context manager.

    ``manifest`` is checked and of this build's schema, ``manifest_bytes`` is what the file holds. ``signature``
    holds the 64 bytes of one that is present (``signed``), ``signature_checked`` says that it was found right with the
    public key that was given. Several threads may read at once.
    """

    def __init__(self, file: _File, spans: dict[str, Span], manifest: Manifest,
                 signed: tuple[bytes, bytes | None], signature_checked: bool) -> None:
        self.path = file.path
        self.manifest = manifest
        self.manifest_bytes, self.signature = signed
        self.signed = self.signature is not None
        self.signature_checked = signature_checked
        self._file = file
        self._spans = spans
        self._entries = {entry.name: entry for entry in manifest.entries}

    @classmethod
    def open(cls, path: Path | str, *, public_key: _PublicKey | None = None, require_signature: bool = False) -> Bundle:
        """Check everything but the content of the entries, which is neither read nor hashed before it is asked for.

        In this order: the container, byte for byte; with ``public_key`` (a key, its PEM bytes or the path of its PEM
        file) the signature; the manifest; that the two agree. A key asks for a signature: an unsigned bundle is
        refused then. ``require_signature`` makes it an error to have given no key.

        Raises BadBundle (damaged, hostile, missing or not a bundle), SchemaTooNew, SignatureMismatch, BadKey.
        """
        if require_signature and public_key is None:
            raise BadKey(f"A signature is required for '{path}', but there is no public key to check it with.",
                         "Give the public key of the bundle's author (public_key, or --public-key FILE).")
        key = load_public_key(public_key) if isinstance(public_key, Path | str | bytes) else public_key
        file = _File(Path(path))
        try:
            return cls._open(file, key)
        except BadBundle as error:
            file.close()
            raise type(error)(f"'{path}' cannot be used as a bundle. {error.message}",
                              error.remedy or _DAMAGED) from error
        except BaseException:
            file.close()
            raise

    @classmethod
    def _open(cls, file: _File, key: Ed25519PublicKey | None) -> Bundle:
        spans = read_directory(file.read_at, file.size_bytes)
        _check_order(list(spans))
        if spans[MANIFEST].size_bytes > MAX_MANIFEST_BYTES:
            raise BadBundle(f"Its manifest is larger than {MAX_MANIFEST_BYTES} bytes.")
        manifest_bytes = _read_plain(file, MANIFEST, spans)
        if SIGNATURE in spans and spans[SIGNATURE].size_bytes != SIGNATURE_BYTES:
            raise BadBundle(f"Its signature has {spans[SIGNATURE].size_bytes} bytes, not {SIGNATURE_BYTES}.")
        signature = _read_plain(file, SIGNATURE, spans) if SIGNATURE in spans else None
        # Before the manifest is parsed: what does not come from the author reaches no parser.
        if key is not None:
            if signature is None:
                raise SignatureMismatch("It is not signed, but a public key was given to check it with.",
                                        "Ask its author to sign it (edgekit sign), or give no key.")
            check_signature(manifest_bytes, signature, key)
        manifest = decode_manifest(manifest_bytes)
        _check_agreement(manifest.entries, spans)
        return cls(file, spans, manifest, (manifest_bytes, signature), key is not None)

    def read(self, entry: str) -> bytes:
        """The content of ``entry`` in one new bytes object, which is the very one that was hashed.

        Safe against a file that changes after opening: what differs from the manifest is refused, and a later change
        cannot reach the returned bytes. Each call reads and hashes again. Raises BadBundle, UnknownName.
        """
        known = self._entry(entry)
        span = self._spans[entry]
        data = self._file.read_at(span.offset, span.size_bytes)
        self._check_hash(known, data)
        return data

    def map(self, entry: str) -> memoryview:
        """The content of ``entry`` as a read-only view of the file's pages: checked like ``read``, without a copy.

        The view stays valid after ``close``. Safe only while nobody writes into the file: a change made in place shows
        through after the check, and shortening the file kills the process (SIGBUS). Replacing the file by renaming, as
        EdgeKit itself does, is harmless. Raises BadBundle, UnknownName.
        """
        known = self._entry(entry)
        view = self._file.map_at(self._spans[entry].offset, known.size_bytes)
        self._check_hash(known, view)
        return view

    def span(self, entry: str) -> tuple[int, int]:
        """(offset, size) of ``entry`` in bytes, for an engine that maps a part of a file by itself.

        The content is not checked. Raises UnknownName.
        """
        self._entry(entry)
        return self._spans[entry].offset, self._spans[entry].size_bytes

    def plan(self) -> Plan | None:
        """The plan that the bundle holds, read and checked against its ladders; None when it holds none.

        Raises BadBundle.
        """
        entry = self.manifest.plan_entry
        if entry is None:
            return None
        try:
            return decode_plan(self.read(entry), self.manifest)
        except BadBundle as error:
            if str(self.path) in error.message:
                raise
            raise BadBundle(f"'{self.path}' cannot be used as a bundle. {error.message}",
                            error.remedy or _DAMAGED) from error

    def verify_all(self) -> None:
        """Hash every entry, check the CRCs that other ZIP tools look at, and the plan. Raises BadBundle."""
        for name in self._entries:
            if zlib.crc32(self.read(name)) != self._spans[name].crc32:
                raise BadBundle(f"The CRC of entry '{name}' in '{self.path}' is wrong.", _DAMAGED)
        self.plan()

    def close(self) -> None:
        """Close the file. Doing so twice is harmless."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise UnknownName.of(f"entry of the bundle '{self.path}'", name, self._entries)
        return self._entries[name]

    def _check_hash(self, entry: Entry, data: bytes | memoryview) -> None:
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BadBundle(f"The entry '{entry.name}' of '{self.path}' does not have the hash that the manifest says.",
                            _DAMAGED)


def _check_order(names: list[str]) -> None:
    if names[0] != MANIFEST:
        raise BadBundle(f"Its first entry is '{names[0]}', not {MANIFEST}.")
    rest = names[2:] if SIGNATURE in names[1:2] else names[1:]
    if rest != sorted(rest) or SIGNATURE in rest:
        raise BadBundle(f"Its entries are not in the canonical order: {MANIFEST}, {SIGNATURE}, then ascending by name.")


def _read_plain(file: _File, name: str, spans: dict[str, Span]) -> bytes:
    """An entry that no hash covers: the manifest and its signature."""
    data = file.read_at(spans[name].offset, spans[name].size_bytes)
    if zlib.crc32(data) != spans[name].crc32:
        raise BadBundle(f"The CRC of {name} is wrong.")
    return data


def _check_agreement(entries: tuple[Entry, ...], spans: dict[str, Span]) -> None:
    listed = {entry.name for entry in entries}
    present = spans.keys() - {MANIFEST, SIGNATURE}
    if present - listed:
        raise BadBundle(f"Its manifest does not name these entries: {', '.join(sorted(present - listed)[:20])}.")
    if listed - present:
        raise BadBundle(f"Entries that its manifest names are missing: {', '.join(sorted(listed - present)[:20])}.")
    for entry in entries:
        if spans[entry.name].size_bytes != entry.size_bytes:
            raise BadBundle(f"The entry '{entry.name}' has {spans[entry.name].size_bytes} bytes, but the manifest says "
                            f"{entry.size_bytes}.")


class _File:
    """A regular file opened for reading at any offset; every failure is a BadBundle."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            # A FileIO, so that a forgotten close is reported (ResourceWarning) and made up for.
            self._file = io.FileIO(path, "rb", opener=_open_at_once)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BadBundle(f"Could not open the bundle '{path}': {reason}.", "Check the path.") from error
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise BadBundle(f"'{path}' is not a regular file.", "Give the path of an .edge file.")
        self.size_bytes = status.st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes, in a single object without a copy of it (up to 1 GiB)."""
        self._check_range(offset, size)
        try:
            if size <= _READ_LIMIT:
                data = self._pread(size, offset)
                if len(data) == size:
                    return data
                parts = [data]
            else:
                parts = []
            while (have := sum(map(len, parts))) < size:
                parts.append(self._pread(min(size - have, _READ_LIMIT), offset + have))
                if not parts[-1]:
                    raise BadBundle(f"'{self.path}' became shorter while it was read.", _DAMAGED)
        except OSError as error:
            raise BadBundle(f"Could not read '{self.path}': {error.strerror}.", "Check the disk.") from error
        return b"".join(parts)

    def map_at(self, offset: int, size: int) -> memoryview:
        """A read-only view of the pages; a copy where the system cannot map from such an offset (Windows)."""
        self._check_range(offset, size)
        if size == 0 or offset % mmap.ALLOCATIONGRANULARITY:
            return memoryview(self.read_at(offset, size))
        try:
            return memoryview(mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ, offset=offset))
        except (OSError, ValueError) as error:
            raise BadBundle(f"Could not map '{self.path}' into memory: {error}.", _DAMAGED) from error

    def close(self) -> None:
        self._file.close()

    def _check_range(self, offset: int, size: int) -> None:
        if self._file.closed:
            raise BadBundle(f"The bundle '{self.path}' was closed.", "Read from it before closing it.")
        if offset < 0 or size < 0 or offset + size > self.size_bytes:
            raise BadBundle(f"'{self.path}' ends before {offset + size} bytes: it is truncated.", _DAMAGED)

    def _pread(self, size: int, offset: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


def _open_at_once(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe would wait for its writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
