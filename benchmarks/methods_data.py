"""What the comparisons of training methods share: canvases of digits in memory, small blocks, rows that are kept.

A digit is in one split only. Training canvases are drawn once, for a number of epochs after which they come round
again; every arm of a seed sees the same ones in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.demo_digits import Split, draw_canvases

__all__ = ["EPOCH", "SIDE", "TESTED", "VALIDATED", "Conv", "Epochs", "Images", "Residual", "Rows", "backbone",
           "canvases", "prepared"]

SIDE, EPOCH, BATCH = 32, 1024, 64
VALIDATED, TESTED = 2000, 4000
_POOL = 40  # epochs of training canvases that are drawn
_MEAN, _STD = 80.0, 60.0


class Images(NamedTuple):
    """``pixels``: uint8 (N, side, side), grey; ``labels``: int64 (N,); ``sides``: of the digits, pixels."""

    pixels: Any
    labels: Any
    sides: Any


def canvases(folder: Path, split: Split, count: int) -> Images:
    """``count`` canvases of ``split``, kept in ``folder``."""
    path = folder / f"{split}-{count}.npz"
    if not path.is_file():
        drawn = draw_canvases(split, count, side=SIDE)
        np.savez(path, pixels=drawn.images[..., 0], labels=drawn.labels, sides=drawn.sides)
    with np.load(path) as found:
        return Images(found["pixels"], found["labels"], found["sides"])


def prepared(pixels: Any) -> Tensor:
    """uint8 (N, side, side) -> float32 (N, 1, side, side) as the networks take it."""
    values = (pixels.astype(np.float32) - np.float32(_MEAN)) / np.float32(_STD)
    return torch.from_numpy(values)[:, None]


class Epochs:
    """The batches of an epoch, by its number and the seed of the run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._images = canvases(folder, "train", _POOL * EPOCH)
        self._seed = seed

    def __call__(self, number: int) -> _Epoch:
        """Epoch ``number`` from 0."""
        order = np.random.default_rng((self._seed, number // _POOL)).permutation(_POOL * EPOCH)
        return _Epoch(self._images, order[number % _POOL * EPOCH:][:EPOCH])


class _Epoch:
    def __init__(self, images: Images, rows: Any) -> None:
        self._images, self._rows = images, rows

    def __len__(self) -> int:
        return EPOCH // BATCH

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(len(self)):
            rows = self._rows[step * BATCH:(step + 1) * BATCH]
            yield prepared(self._images.pixels[rows]), torch.from_numpy(self._images.labels[rows])


class Conv(nn.Sequential):
    """A 3x3 convolution, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
                         nn.ReLU(inplace=True))


class Residual(nn.Module):
    """A ``Conv`` with a shortcut past it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        found: Tensor = x + self.conv(x)
        return found


def backbone(seed: int) -> nn.Sequential:
    """Untrained, float32 (N, 1, side, side) -> (N, 10); 0.8 million multiply-adds at 32 pixels."""
    torch.manual_seed(seed)
    a, b, c = 8, 16, 32
    return nn.Sequential(
        Conv(1, a, 2), Conv(a, b, 2), Residual(b), Residual(b), nn.Sequential(Conv(b, c, 2), Residual(c)), Residual(c),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


class Rows:
    """Results, one JSON object a line, each with a key; what is there is not done again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.is_file() else []
        self.by_key: dict[str, dict[str, Any]] = {row["key"]: row for row in map(json.loads, lines)}

    def add(self, key: str, **row: Any) -> None:
        """Write a row down."""
        self.by_key[key] = {"key": key, **row}
        with self._path.open("a") as file:
            file.write(json.dumps(self.by_key[key]) + "\n")
