"""Validation data for planning: images with or without labels, from a .npz file or a folder."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array
from edgekit.errors import BadInput, UnknownName

__all__ = ["ValidationData", "open_validation"]

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


@dataclass(frozen=True)
class ValidationData:
    """``images`` yields uint8 (H, W, 3) arrays, anew at each call; ``labels``: (count,) class numbers, or None."""

    images: Callable[[], Iterator[Array]]
    count: int
    labels: npt.NDArray[np.int64] | None


def open_validation(path: Path, names: Sequence[str] = (), limit: int | None = None) -> ValidationData:
    """What is in ``path``: a .npz file with ``images``, uint8 (N, H, W, 3) in the order red, green, blue, and
    ``labels``, integers (N,), which may be missing; or a folder of images, whose subfolders, if it has any, are named
    by the class: its number, or one of ``names``.

    ``limit``: so many of them, drawn without regard to their order (the same ones every time). Raises BadInput for
    what is neither or does not fit together, UnknownName for a folder that is no class.
    """
    if path.is_dir():
        found = _folder(path, names)
    elif path.is_file():
        found = _arrays(path)
    else:
        raise BadInput(f"There is no file or folder '{path}'.", "Check the path.")
    if found.count == 0:
        raise BadInput(f"'{path}' holds no images.")
    return found if limit is None or limit >= found.count else _some(found, limit)


def _some(data: ValidationData, limit: int) -> ValidationData:
    kept = np.zeros(data.count, np.bool_)
    kept[np.random.default_rng(0).permutation(data.count)[:limit]] = True

    def images() -> Iterator[Array]:
        return (image for image, wanted in zip(data.images(), kept, strict=True) if wanted)

    return ValidationData(images, limit, None if data.labels is None else data.labels[kept])


def _arrays(path: Path) -> ValidationData:
    try:
        with zipfile.ZipFile(path):
            pass  # numpy.load would take other kinds of files as well
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in ("images", "labels")}
            known = list(file.files)
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"'{path}' cannot be read as a .npz file: {error}.", "Write it with numpy.savez.") from error
    images = arrays.get("images")
    if images is None:
        raise BadInput(f"'{path}' has no array 'images'; it has: {', '.join(known) or 'none'}.",
                       "Wanted: images, uint8 (N, H, W, 3), and labels, integers (N,).")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise BadInput(f"The images of '{path}' are {images.dtype} of shape {list(images.shape)}.",
                       "Wanted: uint8 (N, H, W, 3) in the order red, green, blue.")
    labels = arrays.get("labels")
    if labels is None:
        return ValidationData(lambda: iter(images), len(images), None)
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise BadInput(f"The labels of '{path}' are {labels.dtype} of shape {list(labels.shape)}.",
                       f"Wanted: {len(images)} integers.")
    return ValidationData(lambda: iter(images), len(images), labels.astype(np.int64))


def _folder(path: Path, names: Sequence[str]) -> ValidationData:
    classes = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not classes:
        files = _files(path)
        return ValidationData(lambda: _decoded(files), len(files), None)
    labels: list[int] = []
    files = []
    for folder in classes:
        own = _files(folder)
        files += own
        labels += [_class_number(folder, names)] * len(own)
    return ValidationData(lambda: _decoded(files), len(files), np.array(labels, np.int64))


def _class_number(folder: Path, names: Sequence[str]) -> int:
    if folder.name in names:
        return list(names).index(folder.name)
    if folder.name.isdecimal():
        return int(folder.name)
    raise UnknownName.of(f"class (subfolder of '{folder.parent}')", folder.name,
                         [*names[:20], "..."] if len(names) > 20 else names or ("0", "1", "2", "..."))


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix.lower() in _SUFFIXES)


def _decoded(files: Sequence[Path]) -> Iterator[Array]:
    from edgekit.runtime.image import decode_image

    return (decode_image(file) for file in files)
