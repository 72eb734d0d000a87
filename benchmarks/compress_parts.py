"""What benchmarks.compress is made of: canvases, small networks, training, rows that are kept."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.atomic import write_atomically
from edgekit.demo_digits import Split, draw_canvases
from edgekit.train.distill import DistillRecipe, supervised
from edgekit.train.loop import Loss, TrainRecipe, fit
from edgekit.zoo.ghostnet import GhostModule

__all__ = ["COUNT", "SIDE", "Epoch", "Row", "Rows", "accuracy", "canvases", "conv", "ghost_net", "plain_net", "train",
           "vgg"]

SIDE, COUNT = 48, 2500
_BATCH, _POOL, _MEAN, _STD = 100, 7500, 80.0, 60.0
Row = dict[str, Any]


@functools.cache
def canvases(split: Split, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """float32 (count, 1, 48, 48), normalised, and the labels; no digit is in two splits."""
    drawn = draw_canvases(split, count, seed, SIDE)
    images = (drawn.images[..., 0].astype(np.float32) - np.float32(_MEAN)) / np.float32(_STD)
    return torch.from_numpy(images)[:, None], torch.from_numpy(drawn.labels)


class Epoch:
    """2,500 of 7,500 training canvases, others in every epoch; the same for the same ``number`` and ``seed``."""

    def __init__(self, number: int, seed: int) -> None:
        self._rows = torch.from_numpy(np.random.default_rng((seed, number)).permutation(_POOL)[:COUNT])

    def __len__(self) -> int:
        return COUNT // _BATCH

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = canvases("train", _POOL)
        for rows in torch.split(self._rows, _BATCH):
            yield images[rows], labels[rows]


def train(network: nn.Module, schedule: TrainRecipe, loss: Loss | None = None) -> float:
    """Trains in place; the accuracy on 2,000 validation canvases, percent."""
    loss = loss or supervised(DistillRecipe(mix=None, smoothing=0.05, bfloat16=True))
    fit(network, lambda number: Epoch(number, schedule.seed), loss, schedule)
    return accuracy(network, "validation")


def accuracy(network: nn.Module, split: Split) -> float:
    """Percent of 2,000 canvases (of 4,000 test canvases)."""
    images, labels = canvases(split, 4000 if split == "test" else 2000)
    network.eval()
    pairs = zip(torch.split(images, 500), torch.split(labels, 500), strict=True)
    with torch.no_grad():
        right = [network(part).argmax(1) == own for part, own in pairs]
    return round(100 * float(torch.cat(right).float().mean()), 2)


def conv(cin: int, cout: int, stride: int = 1) -> list[nn.Module]:
    """3x3, BatchNorm, ReLU."""
    return [nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


def vgg(seed: int, widths: tuple[int, int, int, int] = (12, 16, 24, 48)) -> nn.Sequential:
    """Six 3x3 convolutions and a classifier; with the default widths 3.2 million multiply-adds."""
    torch.manual_seed(seed)
    a, b, c, d = widths
    return nn.Sequential(*conv(1, a, 2), *conv(a, b), nn.MaxPool2d(2), *conv(b, c), *conv(c, c), nn.MaxPool2d(2),
                         *conv(c, d), *conv(d, d), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(d, 10))


def plain_net(seed: int, widths: tuple[int, ...] = (12, 20, 28, 36)) -> nn.Sequential:
    """A stem and six 3x3 convolutions, three of stride 2."""
    return _staged(seed, widths, conv)


def ghost_net(seed: int, widths: tuple[int, ...]) -> nn.Sequential:
    """The same with ghost modules of 3x3 convolutions, wider, so that it takes as many multiply-adds."""
    return _staged(seed, widths, lambda cin, cout, stride: [GhostModule(cin, cout, 3, stride)])


def _staged(seed: int, widths: tuple[int, ...], block: Callable[[int, int, int], list[nn.Module]]) -> nn.Sequential:
    torch.manual_seed(seed)
    layers, last = conv(1, widths[0], 2), widths[0]
    for width in widths[1:]:
        layers += [*block(last, width, 2), *block(width, width, 1)]
        last = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 10))


class Rows:
    """Results that are written as they come, one for each part, arm and seed; what is there is not done again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []

    def of(self, part: str, arm: str) -> list[Row]:
        """The rows of an arm, by seed."""
        return sorted((row for row in self.rows if (row["part"], row["arm"]) == (part, arm)),
                      key=lambda row: int(row["seed"]))

    def find(self, part: str, arm: str, seed: int) -> Row | None:
        """One of them."""
        return next((row for row in self.of(part, arm) if row["seed"] == seed), None)

    def add(self, row: Row) -> None:
        """Keep ``row``, and say so."""
        self.rows.append(row)
        write_atomically(self._path, json.dumps(self.rows, indent=1).encode())
        print(json.dumps(row), flush=True)
