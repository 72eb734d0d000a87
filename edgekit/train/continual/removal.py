"""Dynamic data removal (SparCL, section 3.3): a task's easiest samples leave it, so later epochs are shorter.

As in the authors' code, what counts is forgetting: how often a sample went from right to wrong since the last removal.
Samples that were never right count as the hardest.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgekit.train.continual.recipe import RemovalRecipe

__all__ = ["DataRemoval"]


class DataRemoval:
    """Which of ``count`` samples of a task are left, and what was observed of each."""

    def __init__(self, count: int, recipe: RemovalRecipe | None) -> None:
        self._recipe = recipe
        self._count = count
        self.kept = torch.arange(count)
        self._reset()

    def _reset(self) -> None:
        self._right_before = torch.zeros(self._count, dtype=torch.bool)
        self._ever_right = torch.zeros(self._count, dtype=torch.bool)
        self._events = torch.zeros(self._count, dtype=torch.int64)

    def observe(self, samples: Tensor, right: Tensor) -> None:
        """``samples``: int64 numbers within the task, ``right``: bool, whether each was classified correctly."""
        self._events[samples] += self._right_before[samples] & ~right
        self._right_before[samples] = right
        self._ever_right[samples] |= right

    def events(self) -> Tensor:
        """int64 for each sample: forgetting events, the largest number of all for those never right."""
        return torch.where(self._ever_right, self._events, torch.iinfo(torch.int64).max)

    def end_epoch(self, epoch: int) -> int:
        """After ``epoch`` (from 0): how many samples leave, the easiest first, the earlier among equals."""
        recipe = self._recipe
        if recipe is None or (epoch + 1) % recipe.every or (epoch + 1) // recipe.every > recipe.rounds:
            return 0
        count = round(recipe.share * self._count / recipe.rounds)
        order = torch.argsort(self.events()[self.kept], stable=True)
        self.kept = self.kept[order[count:]].sort().values
        self._reset()
        return count

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {"kept": self.kept, "right": self._right_before, "ever": self._ever_right, "events": self._events}

    def load(self, state: dict[str, Any]) -> None:
        """What ``state`` gave."""
        self.kept, self._right_before = state["kept"], state["right"]
        self._ever_right, self._events = state["ever"], state["events"]
