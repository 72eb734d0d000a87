"""Dynamic gradient masking (SparCL, section 3.4): only the live weights with the largest gradients are updated."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgekit.train.continual.recipe import GradientRecipe

__all__ = ["GradientMask"]


class GradientMask:
    """Masks gradients of the tensors ``names`` between ``backward`` and the optimizer's step."""

    def __init__(self, recipe: GradientRecipe | None, names: tuple[str, ...]) -> None:
        self._recipe = recipe
        self._names = names if recipe is not None else ()
        self._masks: dict[str, Tensor] = {}
        self._steps = 0

    @property
    def keep(self) -> float:
        """The part of the live weights that is updated."""
        return 1.0 if self._recipe is None else self._recipe.keep

    def restart(self) -> None:
        """Choose anew in the next step: the weights that are alive have changed."""
        self._masks, self._steps = {}, 0

    def apply(self, network: nn.Module, alive: Mapping[str, Tensor]) -> bool:
        """Zero what is not to be updated; ``alive``: bool masks by name, all where a name is missing.

        Returns whether the choice was made anew, which takes the gradients of all live weights.
        """
        if self._recipe is None:
            return False
        fresh = self._steps % self._recipe.refresh_steps == 0
        self._steps += 1
        for name in self._names:
            gradient = network.get_parameter(name).grad
            assert gradient is not None
            if fresh:
                self._masks[name] = _largest(gradient, alive.get(name), self._recipe.keep)
            gradient.mul_(self._masks[name])
        return fresh

    def state(self) -> dict[str, object]:
        """The masks and the position between two choices."""
        return {"masks": self._masks, "steps": self._steps}

    def load(self, state: dict[str, object]) -> None:
        """What ``state`` gave."""
        self._masks, self._steps = state["masks"], state["steps"]  # type: ignore[assignment]


def _largest(gradient: Tensor, alive: Tensor | None, keep: float) -> Tensor:
    """float32, 1 for the ``keep`` largest of the live ones (ties to the earlier)."""
    size = gradient.abs().flatten()
    count = len(size) if alive is None else int(alive.sum())
    if alive is not None:
        size = torch.where(alive.flatten(), size, -1.0)
    mask = torch.zeros_like(size)
    mask[torch.topk(size, max(1, round(keep * count))).indices] = 1
    return mask.view_as(gradient)
