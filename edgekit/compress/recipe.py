"""What collaborative compression may do, as a frozen recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.errors import BadRecipe

__all__ = ["CompressRecipe"]


@dataclass(frozen=True, kw_only=True)
class CompressRecipe:
    """How to remove channels and ranks (CC, Li et al., CVPR 2021, arXiv 2105.11228). Impossible values raise BadRecipe.

    ``units``: what may go: input channels, singular values, or both. ``allocation``: how much goes where. "exact"
    minimises the summed loss under the budget of multiply-adds, "released" is the rule of the authors' code (equal
    marginal loss, each layer's loss as a part of its largest), "uniform" takes the same rate everywhere. ``gamma``:
    weight of the loss that the next removal is expected to bring; ``step_share``: units that go before the rest is
    scored again. ``highest_rate``: the largest part of a site's multiply-adds that goes. ``multiple``: channels and
    ranks that stay are multiples of it. ``split_gain``: a layer becomes two only where this part of its multiply-adds
    is saved.
    """

    units: Literal["both", "channels", "ranks"] = "both"
    allocation: Literal["exact", "released", "uniform"] = "exact"
    gamma: float = 0.9
    step_share: float = 0.01
    highest_rate: float = 0.95
    multiple: int = 8
    split_gain: float = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.step_share <= 1 and 0 < self.highest_rate < 1 and self.multiple >= 1):
            raise BadRecipe(f"Steps of {self.step_share}, the highest rate {self.highest_rate}, multiples of "
                            f"{self.multiple}.", "The first two lie between 0 and 1; the third is at least 1.")
        if not (0 <= self.split_gain < 1 and self.gamma >= 0):
            raise BadRecipe(f"The gain of a split is {self.split_gain}, gamma {self.gamma}.",
                            "The gain lies in [0, 1), gamma is at least 0.")
