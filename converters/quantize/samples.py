"""Calibration data: any source of samples, one at a time, checked, in the layout that the model stores.

Whatever the source, memory holds one sample: arrays in files are read piece by piece, an iterator that can be walked
only once is written to a temporary folder on the way.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifacts import Array, TensorSpec
from edgekit.converters.quantize.array_files import ArrayFile, array_files
from edgekit.errors import BadInput, BadRecipe, UnknownName
from edgekit.recipe import Preprocess
from edgekit.sample_inputs import random_inputs

__all__ = ["Feeds", "Samples", "open_samples"]

Feeds = dict[str, Array]
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
_RANDOM_COUNT = 32
_LABELS = "labels"
#: one sample of so many is held out, where there are at least so many
_EVERY, _FEWEST = 4, 8


class Samples:
    """Samples that can be walked any number of times; each is a dictionary of arrays by input name, as stored.

    ``labels`` holds the class of each sample, or of each of the ``rows`` entries that a sample of a model with a fixed
    batch consists of; or it is None. ``random``: the values were drawn, not observed.
    """

    def __init__(self, walk: Callable[[], Iterator[Feeds]], labels: Array | None = None, random: bool = False,
                 rows: int = 1) -> None:
        self._walk = walk
        self.labels = labels
        self.random = random
        self.rows = rows

    def __iter__(self) -> Iterator[Feeds]:
        """Raises BadInput for a sample that does not fit the model, holds NaN or infinity, and when there is none."""
        number = 0
        for number, feeds in enumerate(self._walk(), 1):
            for name, array in feeds.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise BadInput(f"Sample {number - 1} of the calibration data holds NaN or infinity in '{name}'.",
                                   "Every value must be a finite number.")
            yield feeds
        if number == 0:
            raise BadInput("The calibration data holds no sample.", "Give at least one; 32 to 256 are customary.")
        if self.labels is not None and len(self.labels) not in (number, number * self.rows):
            each = f" of {self.rows} entries" if self.rows > 1 else ""
            raise BadInput(f"There are {len(self.labels)} labels for {number} samples{each}.",
                           "Give one for each entry of the first axis.")


    def held_out(self, index: int) -> bool:
        """Whether sample ``index`` is kept from calibration, to judge what was found on the others."""
        return self.can_hold_out and index % _EVERY == _EVERY - 1

    @cached_property
    def can_hold_out(self) -> bool:
        """Whether there are enough samples to keep some from calibration."""
        return sum(1 for _ in islice(self._walk(), _FEWEST)) == _FEWEST

    @property
    def fit(self) -> Samples:
        """The samples to calibrate on: three of four; all, where there are fewer than 8. Without labels."""
        return Samples(lambda: (feeds for index, feeds in enumerate(self) if not self.held_out(index)),
                       random=self.random, rows=self.rows)


def open_samples(
    source: object, inputs: Sequence[TensorSpec], preprocess: Preprocess | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Samples:
    """The samples in ``source`` for a model with ``inputs``.

    ``source``: a folder of images (made ready by ``preprocess``), a .npz file (an array for each input by name, the
    first axis counts samples; ``labels`` may be among them) or .npy file (for the only input), a dictionary of such
    arrays or one array, any iterable of samples (dictionaries by input name, or arrays for the only input; their batch
    axis may be left out), or "random". Image axes are in the order of the ONNX graph, or in the stored one where only
    that fits. ``shapes`` gives dynamic dimensions, in stored order, for images and random values.

    Raises BadInput for what does not fit, BadRecipe for a source that is none of these, MissingExtra without Pillow.
    """
    shapes = shapes or {}
    if isinstance(source, str) and source == "random":
        return _random(inputs, shapes)
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            return Samples(_image_walk(path, inputs, preprocess, shapes))
        return _from_arrays(array_files(path, [spec.name for spec in inputs]), inputs, str(path))
    if isinstance(source, np.ndarray):
        return _from_arrays({_only(inputs): source}, inputs, "The array")
    if isinstance(source, Mapping):
        return _from_arrays(source, inputs, "The dictionary")
    if isinstance(source, Iterable):
        walk = _spooled(source) if iter(source) is source else lambda: iter(source)
        return Samples(lambda: (_as_feeds(sample, inputs) for sample in walk()))
    raise BadRecipe(f"A {type(source).__name__} is not calibration data.",
                    "Give a folder of images, a .npz or .npy file, arrays, or an iterable of samples.")


def _only(inputs: Sequence[TensorSpec]) -> str:
    if len(inputs) != 1:
        raise BadInput(f"The model has {len(inputs)} inputs, and one array was given.",
                       f"Give arrays by name: {', '.join(spec.name for spec in inputs)}.")
    return inputs[0].name


def _from_arrays(arrays: Mapping[str, Array | ArrayFile], inputs: Sequence[TensorSpec], subject: str) -> Samples:
    names = [spec.name for spec in inputs]
    for name in arrays:
        if name not in (*names, _LABELS):
            raise UnknownName.of(f"array of {subject}", name, (*names, _LABELS))
    missing = [name for name in names if name not in arrays]
    if missing:
        raise BadInput(f"{subject} has no array '{missing[0]}'.", f"Wanted: {', '.join(names)}.")
    counts = {spec.name: _count(arrays[spec.name], spec) for spec in inputs}
    if len(set(counts.values())) > 1:
        raise BadInput(f"{subject} holds different numbers of samples: {counts}.", "Give as many for every input.")

    def walk() -> Iterator[Feeds]:
        streams = [_pieces(arrays[spec.name], spec) for spec in inputs]
        for pieces in zip(*streams, strict=True):
            yield _as_feeds(dict(zip(names, pieces, strict=True)), inputs)

    labels = arrays.get(_LABELS) if _LABELS not in names else None
    rows = max(max(spec.shape[0], 1) if spec.shape else 1 for spec in inputs) if inputs else 1
    if labels is None:
        return Samples(walk, rows=rows)
    count, entries = min(counts.values(), default=0), max(int(arrays[name].shape[0]) for name in names)
    found = _labels(labels)
    # entries that are left over since they do not fill a batch take their labels with them
    return Samples(walk, found[:count * rows] if len(found) == entries else found, rows=rows)


def _labels(found: Array | ArrayFile) -> Array:
    if not found.shape or math.prod(found.shape[1:]) != 1 or found.dtype.kind not in "iu":
        raise BadInput(f"The labels have shape {list(found.shape)} and dtype {found.dtype}.",
                       "Wanted: one integer for each sample, counted from 0 (of scores, their argmax).")
    parts = list(found.rows(1 << 16)) if isinstance(found, ArrayFile) else [np.asarray(found)]
    return np.concatenate([np.zeros(0, np.int64), *(part.reshape(-1).astype(np.int64) for part in parts)])


def _batch(spec: TensorSpec, array: Array | ArrayFile) -> int:
    """How many entries of the array's first axis make one sample; 0 when that axis is not the batch axis."""
    if len(array.shape) == len(spec.shape) + 1:
        return 0
    return max(spec.shape[0], 1) if spec.shape else 0


def _count(array: Array | ArrayFile, spec: TensorSpec) -> int:
    if len(array.shape) not in (len(spec.shape), len(spec.shape) + 1) or not array.shape:
        raise BadInput(f"The array for '{spec.name}' has shape {list(array.shape)}.",
                       f"Its first axis counts samples; the input is {list(spec.shape)} as stored.")
    entries, batch = int(array.shape[0]), max(_batch(spec, array), 1)
    if 0 < entries < batch:
        raise BadInput(f"The array for '{spec.name}' holds {entries} entries, and the model takes {batch} at a time.",
                       f"Give {batch} or more, or a model with a smaller batch.")
    return entries // batch


def _pieces(array: Array | ArrayFile, spec: TensorSpec) -> Iterator[Array]:
    batch = _batch(spec, array)
    rows = array.rows(max(batch, 1)) if isinstance(array, ArrayFile) else (
        array[start:start + max(batch, 1)] for start in range(0, len(array), max(batch, 1)))
    for piece in rows:
        if len(piece) == max(batch, 1):  # what is left over at the end does not fill a batch
            yield piece if batch else piece[0]


def _as_feeds(sample: object, inputs: Sequence[TensorSpec]) -> Feeds:
    """One sample, checked, by name, as stored."""
    if not isinstance(sample, Mapping):
        sample = {_only(inputs): sample}
    names = [spec.name for spec in inputs]
    for name in sample:
        if name not in names:
            raise UnknownName.of("input", str(name), names)
    missing = [name for name in names if name not in sample]
    if missing:
        raise BadInput(f"A sample has no '{missing[0]}'.", f"Wanted: {', '.join(names)}.")
    return {spec.name: _stored(np.asarray(sample[spec.name]), spec) for spec in inputs}


def _stored(array: Array, spec: TensorSpec) -> Array:
    candidates = [array] if array.ndim == len(spec.shape) else []
    if array.ndim == len(spec.shape) - 1:
        candidates.append(array[None])
    for candidate in candidates:
        if spec.layout == "nhwc":
            turned = candidate.transpose(0, 2, 3, 1)
            if _fits(turned.shape, spec.shape):
                return _typed(turned, spec)
        if _fits(candidate.shape, spec.shape):
            return _typed(candidate, spec)
    dims = ", ".join("any" if dim < 0 else str(dim) for dim in spec.shape)
    order = " (or in the order N, C, H, W)" if spec.layout == "nhwc" else ""
    raise BadInput(f"The calibration data for '{spec.name}' has the shape {list(array.shape)}.",
                   f"Wanted: {spec.dtype} of shape [{dims}]{order}.")


def _typed(array: Array, spec: TensorSpec) -> Array:
    dtype = np.dtype(spec.dtype)
    if array.dtype.kind in "fiub" and (dtype.kind == "f" or array.dtype.kind != "f"):
        if dtype.kind == "f" and array.dtype == np.uint8:
            raise BadInput(f"The calibration data for '{spec.name}' is uint8, and the input is {spec.dtype}.",
                           "Give values as the network sees them, after preprocessing; where it takes 0 to 255 as they "
                           f"are, convert them: array.astype('{spec.dtype}').")
        if dtype.kind in "iu" and array.dtype.kind in "iu" and array.size:
            limits = np.iinfo(dtype)
            if int(array.min()) < limits.min or int(array.max()) > limits.max:
                raise BadInput(f"The calibration data for '{spec.name}' has values from {array.min()} to "
                               f"{array.max()}, which {spec.dtype} cannot hold.",
                               f"Wanted: {limits.min} to {limits.max}.")
        with np.errstate(over="ignore"):  # what becomes infinite is an error of its own
            return np.ascontiguousarray(array, dtype)
    raise BadInput(f"The calibration data for '{spec.name}' is {array.dtype}.", f"Wanted: {spec.dtype}.")


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(
        have > 0 and want in (-1, have) for have, want in zip(shape, wanted, strict=True))


def _random(inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> Samples:
    fixed = {spec.name: shapes.get(spec.name) or _fixed(spec) for spec in inputs}
    return Samples(lambda: (random_inputs(inputs, fixed, seed) for seed in range(_RANDOM_COUNT)), random=True)


def _fixed(spec: TensorSpec) -> tuple[int, ...]:
    shape = (1, *spec.shape[1:]) if spec.shape[:1] == (-1,) else spec.shape
    if -1 in shape:
        raise BadInput(f"The input '{spec.name}' has dynamic dimensions: {list(spec.shape)}.",
                       f"Give its shape, such as --shape {spec.name}=1,3,224,224, or calibration data.")
    return shape


def _image_walk(
    folder: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None, shapes: Mapping[str, tuple[int, ...]]
) -> Callable[[], Iterator[Feeds]]:
    from edgekit.runtime.image import decode_image
    from edgekit.runtime.preprocess import ImageInput

    spec = next(each for each in inputs if each.name == _only(inputs))
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGES)
    if len(spec.shape) != 4:
        raise BadInput(f"The input '{spec.name}' has {len(spec.shape)} axes and is not an image.", "Give a .npz file.")
    shape = shapes.get(spec.name) or _fixed(spec)
    resolution = (shape[1], shape[2]) if shape[3] in (1, 3) and shape[1] not in (1, 3) else (shape[2], shape[3])
    prepare = ImageInput(spec, preprocess or Preprocess(), resolution)
    return lambda: ({spec.name: np.ascontiguousarray(prepare(decode_image(path)))} for path in files)


def _spooled(source: Iterable[object]) -> Callable[[], Iterator[Any]]:
    """Walks ``source`` once, keeping its samples on disk for later walks."""
    folder = tempfile.TemporaryDirectory(prefix="edgekit-")
    kept: list[Path] = []

    def walk() -> Iterator[Any]:
        for path in kept:
            with np.load(path, allow_pickle=False) as arrays:
                yield arrays[""] if arrays.files == [""] else {name: arrays[name] for name in arrays.files}
        for sample in source:
            named = sample if isinstance(sample, Mapping) else {"": sample}
            path = Path(folder.name) / f"{len(kept)}.npz"
            with path.open("wb") as file:
                values: dict[str, Any] = {str(name): np.asarray(array) for name, array in named.items()}
                np.savez(file, **values)
            kept.append(path)
            yield sample

    return walk
