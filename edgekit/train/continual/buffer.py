"""A reservoir of what was seen: after n samples each of them is in it with the same chance."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from edgekit.errors import BadInput

__all__ = ["Replay", "Reservoir"]


class Replay(NamedTuple):
    """``images`` uint8 (N, C, H, W), ``labels`` int64 (N,), ``logits`` float32 (N, classes) as at insertion."""

    images: Tensor
    labels: Tensor
    logits: Tensor


class Reservoir:
    """At most ``size`` samples by reservoir sampling (Vitter's algorithm R): image before augmentation, label, logits.

    All random numbers come from ``random``.
    """

    def __init__(self, size: int, image: tuple[int, ...], classes: int, random: torch.Generator) -> None:
        self._images = torch.zeros((size, *image), dtype=torch.uint8)
        self._labels = torch.zeros(size, dtype=torch.int64)
        self._logits = torch.zeros((size, classes))
        self._random = random
        self.seen = 0

    def __len__(self) -> int:
        return min(self.seen, len(self._labels))

    def add(self, images: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Offer a batch: sample n goes to place n while there is room, then to a random one of n if that exists."""
        size = len(self._labels)
        draws = torch.rand(len(labels), generator=self._random, dtype=torch.float64)
        for index in range(len(labels)):
            number = self.seen
            self.seen += 1
            place = number if number < size else int(draws[index] * (number + 1))
            if place < size:
                self._images[place], self._labels[place] = images[index], labels[index]
                self._logits[place] = logits[index]

    def draw(self, count: int) -> Replay:
        """``count`` samples without repetition, or all where there are fewer. Raises BadInput where there is none."""
        if not len(self):
            raise BadInput("Nothing can be drawn from an empty buffer.", "Add a batch first.")
        chosen = torch.randperm(len(self), generator=self._random)[:count]
        return Replay(self._images[chosen], self._labels[chosen], self._logits[chosen])

    def state(self) -> dict[str, Any]:
        """All but the random numbers."""
        return {"images": self._images, "labels": self._labels, "logits": self._logits, "seen": self.seen}

    def load(self, state: dict[str, Any]) -> None:
        """What ``state`` gave."""
        self._images, self._labels, self._logits = state["images"], state["labels"], state["logits"]
        self.seen = int(state["seen"])
