"""What a run will cost, before it is run: the meter's counts follow from the recipe and the size of the data."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from edgekit.errors import BadRecipe
from edgekit.train.continual.flops import FlopsMeter, count_macs
from edgekit.train.continual.masks import live_count, target_density
from edgekit.train.continual.nets import prunable_weights
from edgekit.train.continual.recipe import ContinualRecipe
from edgekit.train.continual.removal import DataRemoval

__all__ = ["planned_flops"]


def planned_flops(network: nn.Module, image: tuple[int, ...], recipe: ContinualRecipe,
                  tasks: Sequence[int]) -> FlopsMeter:
    """The meter after ``network`` has learned tasks with so many training samples each.

    Raises BadRecipe for masked channels, whose counts depend on which of them live.
    """
    masks = recipe.masks
    if masks is not None and masks.unit == "channels":
        raise BadRecipe("The cost of masked channels is known only when they are chosen.", "Run it, or mask weights.")
    plan = _Plan(network, image, recipe)
    for number, samples in enumerate(tasks):
        removal = DataRemoval(samples, recipe.removal)
        for epoch in range(recipe.task_epochs(samples)):
            left = len(removal.kept)
            target = None if masks is None else target_density(masks, number, epoch, recipe.epochs)
            if target is not None:
                plan.change(target[0] is not None, target[1], left)
            for step in range(recipe.epoch_steps(samples, epoch, left)):
                plan.step(min(recipe.batch, left - step * recipe.batch), replay=number > 0)
            removal.end_epoch(epoch)
    return plan.meter


class _Plan:
    def __init__(self, network: nn.Module, image: tuple[int, ...], recipe: ContinualRecipe) -> None:
        self._layers = count_macs(network, image)
        self._weights = {name: network.get_parameter(name) for name in prunable_weights(network)}
        self._recipe = recipe
        self._seen = self._steps = 0
        self.meter = FlopsMeter()
        self._set(1.0 if recipe.masks is None else 1 - recipe.masks.sparsity)

    def _set(self, density: float) -> None:
        gradients = self._recipe.gradients
        densities = {name: live_count(weight, density) / weight.numel() for name, weight in self._weights.items()}
        self.meter.set_network(self._layers, densities, 1.0 if gradients is None else gradients.keep)
        self._steps = 0

    def _replayed(self, wanted: int) -> int:
        return min(wanted, self._seen, self._recipe.buffer)

    def change(self, scored: bool, density: float, left: int) -> None:
        masks = self._recipe.masks
        assert masks is not None
        if scored:
            self.meter.importance(min(masks.samples, left) + self._replayed(masks.samples))
        self._set(density)

    def step(self, samples: int, replay: bool) -> None:
        recipe = self._recipe
        selecting = recipe.gradients is not None and self._steps % recipe.gradients.refresh_steps == 0
        replayed = recipe.replays * self._replayed(recipe.replay_batch) if replay else 0
        self.meter.step(samples, replayed, selecting)
        self._steps += 1
        if recipe.replays:
            self._seen += samples
