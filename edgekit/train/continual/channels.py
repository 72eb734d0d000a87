"""Task-aware dynamic masking of whole channels: the network that is trained, and deployed, is physically smaller.

What TDM does to weights is done to the channels of a ``Resizable`` network, by the same importance, summed over a
channel's weights. Between two changes of the masks the masked channels do not exist: the network is built at the widths
of what is alive. What leaves is stored, and comes back with its stored weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgekit.errors import UnknownName
from edgekit.train.continual.masks import Dense, Importance, drop_least, grow_random, target_density
from edgekit.train.continual.nets import Axis, Resizable
from edgekit.train.continual.recipe import MaskRecipe

__all__ = ["ChannelMasks", "carve", "cut_out", "put_back"]


def cut_out(state: Mapping[str, Tensor], axes: Mapping[str, tuple[Axis, ...]], alive: Mapping[str, Tensor],
            ) -> dict[str, Tensor]:
    """The tensors of ``state`` with the channels only that are ``alive`` (bool of each group), copied."""
    return {name: _picked(value, axes.get(name, ()), alive).clone() for name, value in state.items()}


def put_back(state: dict[str, Tensor], axes: Mapping[str, tuple[Axis, ...]], alive: Mapping[str, Tensor],
             small: Mapping[str, Tensor]) -> None:
    """Write the tensors of the ``small`` network to the places of ``state`` that they were cut out of."""
    for name, value in state.items():
        index = torch.arange(value.numel()).view(value.shape)
        value.view(-1)[_picked(index, axes.get(name, ()), alive).flatten()] = small[name].flatten()


def carve(network: Resizable, state: Mapping[str, Tensor], alive: Mapping[str, Tensor]) -> Resizable:
    """``network``'s architecture with the channels that are ``alive``, with their part of the full-width ``state``."""
    small = network.rebuilt({name: int(mask.sum()) for name, mask in alive.items()})
    small.load_state_dict(cut_out(state, network.axes, alive))
    return small


def _picked(value: Tensor, axes: tuple[Axis, ...], alive: Mapping[str, Tensor]) -> Tensor:
    for axis in axes:
        channels = alive[axis.group].repeat_interleave(axis.block)
        value = value.index_select(axis.dim, torch.nonzero(channels).flatten())
    return value


class ChannelMasks(Dense):
    """A mask for the channels of each group of ``network``; ``self.network`` is the small one that is trained.

    Raises UnknownName where the recipe leaves a group whole that the network does not have.
    """

    def __init__(self, network: Resizable, recipe: MaskRecipe, epochs: int, random: torch.Generator) -> None:
        if unknown := [name for name in recipe.whole if name not in network.widths]:
            raise UnknownName.of("group of channels", unknown[0], list(network.widths))
        self._full = network
        self._store = {name: value.detach().clone(memory_format=torch.contiguous_format)
                       for name, value in network.state_dict().items()}
        self._recipe = recipe
        self._epochs = epochs
        self._random = random
        self._alive = self._start()
        super().__init__(carve(network, self._store, self._alive))

    def _start(self) -> dict[str, Tensor]:
        """By the norm of a channel's incoming weights, or at random; consumers are scaled up for fewer inputs."""
        recipe = self._recipe
        magnitudes = {name: value.abs() for name, value in self._store.items() if value.dtype.is_floating_point}
        alive = {}
        for group, width in self._full.widths.items():
            score = torch.rand(width, generator=self._random)
            if recipe.start == "magnitude":
                score = self._scores(magnitudes, {name: torch.ones(size, dtype=torch.bool)
                                                  for name, size in self._full.widths.items()})[group]
            everything = torch.ones(width, dtype=torch.bool)
            alive[group] = drop_least(everything, score, self._count(group))
        if recipe.rescale:
            for name, axes in self._full.axes.items():
                for axis in axes:
                    if axis.dim == 1:
                        self._store[name] *= (self._full.widths[axis.group] / int(alive[axis.group].sum())) ** 0.5
        return alive

    def _count(self, group: str, more: float = 0.0) -> int:
        """Channels that are alive in ``group``, and the part ``more`` of all of its channels above that (or below)."""
        width, multiple = self._full.widths[group], self._recipe.multiple
        if group in self._recipe.whole:
            return width
        alive = round((1 - self._recipe.sparsity) * width)
        aligned = alive // multiple * multiple or min(multiple, width)
        return max(1, aligned + round(more * width))

    def _scores(self, values: Mapping[str, Tensor], alive: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of each group, the mean of ``values`` (laid out as ``alive``) over the weights that make each channel."""
        found = {group: torch.zeros(width) for group, width in self._full.widths.items()}
        for name, axes in self._full.axes.items():
            made = axes[0]
            if name in values and values[name].dim() > 1 and made.dim == 0:
                place = torch.nonzero(alive[made.group]).flatten()
                found[made.group][place] += values[name].flatten(1).mean(1)
        return found

    def begin_epoch(self, task: int, epoch: int, importance: Importance) -> bool:
        """Shrink and expand, as ``target_density`` says for this moment, and build the network anew."""
        target = target_density(self._recipe, task, epoch, self._epochs)
        if target is None:
            return False
        density = 1 - self._recipe.sparsity
        shrink, expand = target
        assert isinstance(self.network, Resizable)
        scores = self._scores(importance(self.network), self._alive) if shrink is not None else {}
        put_back(self._store, self._full.axes, self._alive, self.network.state_dict())
        for group, mask in self._alive.items():
            if shrink is not None:
                mask = drop_least(mask, scores[group], self._count(group, shrink - density))  # noqa: PLW2901 - its next form
            self._alive[group] = grow_random(mask, self._count(group, expand - density), self._random)
        self.network = carve(self._full, self._store, self._alive)
        return True

    def whole(self) -> dict[str, Tensor]:
        """The state dict at full width: what is masked has its stored weights."""
        put_back(self._store, self._full.axes, self._alive, self.network.state_dict())
        return self._store

    def state(self) -> dict[str, Any]:
        """The store, the masks and the small network."""
        return {**super().state(), "store": self._store, "alive": self._alive}

    def load(self, state: dict[str, Any]) -> None:
        """What ``state`` gave."""
        self._store, self._alive = state["store"], state["alive"]
        self.network = carve(self._full, self._store, self._alive)
        super().load(state)
