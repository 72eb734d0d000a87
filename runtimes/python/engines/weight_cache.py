"""The files in which XNNPACK keeps weights that it has rearranged for this machine.

XNNPACK checks the frame of such a file but not its content: a flipped bit among the weights gives wrong answers without
a word (measured), and a full disk while it writes one ends the process. So a file is used only while it is the very one
that was found good: a record beside it holds its size, times and inode, and its SHA-256 for when those differ (a copy,
a restored backup). A new file is built under a name of its own and renamed when it is complete, so that processes that
start together do not meet half a file; the last one to finish wins, and the content is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from edgekit.errors import BadRecipe, WriteFailed

__all__ = ["WeightCache"]

_SPARE_BYTES = 8 << 20


@dataclass(frozen=True)
class _Record:
    """What identifies a cache file that was found good."""

    sha256: str
    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int


class WeightCache:
    """The cache file for one model under one engine version, CPU and number of threads, in a folder of this user."""

    def __init__(self, folder: Path, model_sha256: str, engine_version: str, threads: int) -> None:
        """Make the folder if need be. Raises WriteFailed, and BadRecipe for a folder that others can write to."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
        except OSError as error:
            raise WriteFailed(f"The cache folder '{folder}' cannot be made: {error.strerror}.",
                              "Choose another cache_dir, or none.") from error
        if os.name == "posix" and (status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            raise BadRecipe(f"Others can write to the cache folder '{folder}', and so change what networks answer.",
                            "Choose a folder that only you can write to (chmod 700).")
        parts = (model_sha256, engine_version, str(threads), _cpu())
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        self._folder = folder
        self.path = folder / f"{model_sha256[:16]}-{key}.xnnpack"
        self._record = self.path.with_suffix(".json")

    def is_good(self) -> bool:
        """Whether the file is there and unchanged since it was built."""
        try:
            record = _Record(**json.loads(self._record.read_bytes()))
            if _identity(self.path, record.sha256) == record:
                return True
            if _sha256(self.path) != record.sha256:
                return False
            self._write_record(record.sha256)
        except (OSError, ValueError, TypeError):
            return False  # absent, unreadable or not a record: it is built anew
        return True

    def has_room(self, model_bytes: int) -> bool:
        """Whether the disk holds a file for a model of this size, with some to spare."""
        return shutil.disk_usage(self._folder).free > 2 * model_bytes + _SPARE_BYTES

    @contextlib.contextmanager
    def building(self) -> Iterator[Path]:
        """A path for XNNPACK to write to; what is there at the end becomes the cache file. Raises WriteFailed."""
        draft = self._folder / f".{self.path.name}.{secrets.token_hex(8)}"
        try:
            yield draft
            if draft.exists():  # XNNPACK writes none for a network without anything to rearrange
                digest = _sha256(draft)
                draft.replace(self.path)
                self._write_record(digest)
        except OSError as error:
            raise WriteFailed(f"The weight cache in '{self._folder}' could not be written: {error.strerror}.",
                              "Choose another cache_dir, or none.") from error
        finally:
            draft.unlink(missing_ok=True)

    def _write_record(self, digest: str) -> None:
        draft = self._folder / f".{self._record.name}.{secrets.token_hex(8)}"
        try:
            draft.write_text(json.dumps(asdict(_identity(self.path, digest))), encoding="ascii")
            draft.replace(self._record)
        finally:
            draft.unlink(missing_ok=True)


def _identity(path: Path, digest: str) -> _Record:
    status = path.stat()
    return _Record(digest, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cpu() -> str:
    """What the arrangement of weights depends on, for a folder that several machines share."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return platform.machine() + "".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
