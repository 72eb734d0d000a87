"""Arrays in .npy and .npz files, read row by row."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from edgekit.artifacts import Array
from edgekit.errors import BadInput

__all__ = ["ArrayFile", "array_files"]

_REMEDY = "Give a file that numpy.save or numpy.savez wrote, without Python objects in it."


class ArrayFile:
    """One array on disk: ``shape`` and ``dtype`` are known at once, ``rows`` are read as they are walked."""

    def __init__(self, path: Path, member: str | None) -> None:
        """``member`` of the .npz file ``path``, or the .npy file itself. Raises BadInput."""
        self._path = path
        self._member = member
        with self._opened() as (_, shape, _, dtype):
            self.shape, self.dtype = shape, dtype

    def rows(self, count: int) -> Iterator[Array]:
        """``count`` entries of the first axis at a time; at the end what is left. Raises BadInput."""
        with self._opened() as (file, shape, fortran, dtype):
            if fortran and len(shape) > 1:
                raise BadInput(f"{self._subject()} is in Fortran order.", "Save it after numpy.ascontiguousarray.")
            row_bytes = math.prod(shape[1:]) * dtype.itemsize
            for start in range(0, shape[0], count):
                wanted = min(count, shape[0] - start)
                data = file.read(wanted * row_bytes)
                if len(data) != wanted * row_bytes:
                    raise BadInput(f"{self._subject()} ends too early.", _REMEDY)
                yield np.frombuffer(data, dtype).reshape(wanted, *shape[1:])

    def _subject(self) -> str:
        return f"'{self._path}'" if self._member is None else f"The array '{self._member}' of '{self._path}'"

    def _opened(self) -> _Opened:
        return _Opened(self._path, self._member, self._subject())


Header = tuple[IO[bytes], tuple[int, ...], bool, np.dtype[np.generic]]


class _Opened:
    """A context: the stream behind the header, and what the header says."""

    def __init__(self, path: Path, member: str | None, subject: str) -> None:
        self._path, self._member, self._subject = path, member, subject
        self._files: list[IO[bytes] | zipfile.ZipFile] = []

    def __enter__(self) -> Header:
        try:
            if self._member is None:
                file: IO[bytes] = self._path.open("rb")
            else:
                archive = zipfile.ZipFile(self._path)
                self._files.append(archive)
                file = archive.open(f"{self._member}.npy")
            self._files.append(file)
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            self.__exit__()
            raise BadInput(f"{self._subject} cannot be read: {error}.", _REMEDY) from error
        if dtype.hasobject:
            self.__exit__()
            raise BadInput(f"{self._subject} holds Python objects.", _REMEDY)
        return file, shape, fortran, dtype

    def __exit__(self, *_: object) -> None:
        for file in reversed(self._files):
            file.close()


def array_files(path: Path, names: Sequence[str]) -> dict[str, ArrayFile]:
    """The arrays in a .npz file by name, or the one of a .npy file under the only name of ``names``.

    Raises BadInput when the file cannot be read or is of another kind.
    """
    if not path.exists():
        raise BadInput(f"There is no file or folder '{path}'.", "Check the path.")
    if path.suffix.lower() == ".npy":
        if len(names) != 1:
            raise BadInput(f"'{path}' holds one array, and the model has {len(names)} inputs.",
                           f"Give a .npz file with arrays by name: {', '.join(names)}.")
        return {names[0]: ArrayFile(path, None)}
    if path.suffix.lower() != ".npz":
        raise BadInput(f"'{path}' is neither a folder nor a .npz or .npy file.", _REMEDY)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"'{path}' cannot be read: {error}.", _REMEDY) from error
    return {member: ArrayFile(path, member) for member in members}
