"""Task-aware dynamic masking of single weights (SparCL, arXiv 2209.09476, section 3.2).

A masked weight is zero and stays so. This makes files that compress and deltas that are small; it does not make dense
engines faster. ``channels`` has the same with whole channels, which does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.train.continual.recipe import MaskRecipe

__all__ = ["Dense", "Importance", "WeightMasks", "drop_least", "grow_random", "live_count", "target_density"]

#: from a network to the importance of each of its parameters, by name
Importance = Callable[[nn.Module], dict[str, Tensor]]


class Dense:
    """No mask at all. The other kinds have the same methods."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    @property
    def alive(self) -> Mapping[str, Tensor]:
        """The masks (bool) of the tensors that are masked, by name."""
        return {}

    def begin_epoch(self, task: int, epoch: int, importance: Importance) -> bool:  # noqa: ARG002 - the others' signature
        """Change the masks where it is time; returns whether they changed."""
        return False

    def after_step(self) -> None:
        """Keep what is masked at zero."""

    def whole(self) -> dict[str, Tensor]:
        """The state dict of the network at its full width."""
        return self.network.state_dict()

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {"network": self.network.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """What ``state`` gave."""
        self.network.load_state_dict(state["network"])


class WeightMasks(Dense):
    """A mask for each of the tensors ``names`` of ``network``, which is changed in place."""

    def __init__(self, network: nn.Module, names: tuple[str, ...], recipe: MaskRecipe, epochs: int,
                 random: torch.Generator) -> None:
        super().__init__(network)
        self._recipe = recipe
        self._epochs = epochs
        self._random = random
        self._masks = {name: self._start(network.get_parameter(name)) for name in names}
        self._factors = {name: mask.float() for name, mask in self._masks.items()}

    def _start(self, weight: Tensor) -> Tensor:
        recipe = self._recipe
        score = weight.detach().abs() if recipe.start == "magnitude" else torch.rand(
            weight.shape, generator=self._random)
        mask = drop_least(torch.ones_like(weight, dtype=torch.bool), score, live_count(weight, 1 - recipe.sparsity))
        with torch.no_grad():
            norm = weight.norm()
            weight.mul_(mask)
            if recipe.rescale:
                weight.mul_(norm / weight.norm().clamp_min(1e-12))
        return mask

    @property
    def alive(self) -> Mapping[str, Tensor]:
        """The masks (bool) by name."""
        return self._masks

    def begin_epoch(self, task: int, epoch: int, importance: Importance) -> bool:
        """Shrink and expand, as ``target_density`` says for this moment."""
        target = target_density(self._recipe, task, epoch, self._epochs)
        if target is None:
            return False
        shrink, expand = target
        scores = importance(self.network) if shrink is not None else {}
        for name, mask in self._masks.items():
            if shrink is not None:
                mask = drop_least(mask, scores[name], live_count(mask, shrink))  # noqa: PLW2901 - the mask's next form
            self._masks[name] = grow_random(mask, live_count(mask, expand), self._random)
            self._factors[name] = self._masks[name].float()
        # what is dropped becomes 0, so what is grown later starts from 0
        self.after_step()
        return True

    def after_step(self) -> None:
        """Weights times masks; momentum and weight decay move dead weights, too."""
        with torch.no_grad():
            for name, factor in self._factors.items():
                self.network.get_parameter(name).mul_(factor)

    def state(self) -> dict[str, Any]:
        """The network and the masks."""
        return {**super().state(), "masks": self._masks}

    def load(self, state: dict[str, Any]) -> None:
        """What ``state`` gave."""
        super().load(state)
        self._masks = state["masks"]
        self._factors = {name: mask.float() for name, mask in self._masks.items()}


def target_density(recipe: MaskRecipe, task: int, epoch: int, epochs: int) -> tuple[float | None, float] | None:
    """What happens to the density before ``epoch`` (from 0) of ``task``: shrink to the first, then grow to the second.

    None: nothing happens. None as the first: only growth (a later task begins with p_inter more).
    """
    density = 1 - recipe.sparsity
    if not recipe.dynamic:
        return None
    if epoch == 0:
        return (None, density + recipe.p_inter) if task and epochs > 1 else None
    # what a task began with must be gone before it ends, whatever the schedule
    last_chance = task > 0 and epoch == min(recipe.every, epochs - 1)
    if epoch > recipe.until * epochs:
        return (density, density) if last_chance else None
    return (density - recipe.p_intra, density) if last_chance or epoch % recipe.every == 0 else None


def drop_least(mask: Tensor, score: Tensor, count: int) -> Tensor:
    """The ``count`` live places of bool ``mask`` with the largest ``score`` (all, where fewer are alive)."""
    flat = torch.where(mask.flatten(), score.flatten().float(), -torch.inf)
    kept = torch.zeros(flat.shape, dtype=torch.bool)
    kept[torch.topk(flat, min(count, int(mask.sum()))).indices] = True
    return kept.view_as(mask)


def grow_random(mask: Tensor, count: int, random: torch.Generator) -> Tensor:
    """The bool ``mask`` with random dead places brought to life until ``count`` are."""
    dead = torch.nonzero(~mask.flatten()).flatten()
    more = max(0, count - int(mask.sum()))
    grown = mask.flatten().clone()
    grown[dead[torch.randperm(len(dead), generator=random)[:more]]] = True
    return grown.view_as(mask)


def live_count(tensor: Tensor, density: float) -> int:
    """How many places of ``tensor``, of its weight or its mask, are alive at ``density``: 1 at least."""
    return max(1, round(density * tensor.numel()))
