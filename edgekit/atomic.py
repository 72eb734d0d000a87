"""Files that are either the old one or the whole new one, never a part of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from edgekit.errors import WriteFailed

__all__ = ["write_atomically"]

# A file system that cannot flush a folder answers with one of these; the rename itself has succeeded by then.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}


def write_atomically(
    path: Path, data: bytes | Iterable[bytes], check: Callable[[Path], None] | None = None
) -> None:
    """Write ``data`` (bytes, or chunks of bytes) to ``path``, replacing what is there in one step.

    ``check`` is given the complete temporary file and raises what keeps it from taking the place.

    The bytes go to a temporary file in the same folder, are flushed to the disk and renamed over ``path``. Several
    processes may write the same path at once: the last rename wins with its whole content. A symbolic link is
    followed. A device or pipe (/dev/null, /dev/stdout) cannot be replaced and is written to directly.

    Raises WriteFailed when the system refuses (disk full, no permission, no such folder, a folder in the way); then
    ``path`` is what it was and no temporary file is left. An exception of the chunk iterator or of ``check`` passes
    through, with the same guarantee.
    """
    try:
        if _is_special(path):
            if check is not None:
                raise WriteFailed(f"'{path}' is a device or a pipe, where nothing can be checked before it is there.",
                                  "Give the name of a file.")
            _write_through(path, data)
        else:
            _replace(Path(os.path.realpath(path)), data, check)
    except OSError as error:
        raise WriteFailed(f"Could not write '{path}': {error.strerror or error}.", _remedy(path, error)) from error


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return not stat.S_ISREG(mode)


def _write_through(path: Path, data: bytes | Iterable[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes | Iterable[bytes], check: Callable[[Path], None] | None) -> None:
    temporary = path.parent / f".edgekit-{os.urandom(8).hex()}.tmp"
    # Created with the permissions of any new file (the umask applies), unlike tempfile's 0600.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if check is not None:
            check(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _write_all(descriptor: int, data: bytes | Iterable[bytes]) -> None:
    for chunk in (data,) if isinstance(data, bytes) else data:
        rest = memoryview(chunk)
        while rest:
            # The system may take a part only (2 GiB is the most Linux takes at once).
            rest = rest[os.write(descriptor, rest):]


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; Windows has no such call and does it on its own."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # a folder may be writable without being readable; the file is in place
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def _remedy(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"Create the folder '{path.parent}' first."
    if error.errno == errno.EISDIR:
        return "It is a folder; give the name of a file."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Free some space or choose another disk; nothing was left behind."
    return "Choose a place that can be written to; nothing was left behind."
