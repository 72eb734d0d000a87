"""Losses over the exits of a network, from cheap to dear.

``joint``: the weighted sum of cross-entropies (MSDNet, Huang et al., ICLR 2018). ``boosted`` is the same sum over
running logits whose carried part is detached (BoostNet, arXiv 2211.16726, eq. 4): ``MultiExit`` with a carry does that.
``self_distilled``: Be Your Own Teacher (Zhang et al., ICCV 2019, eq. 4-6): the last exit teaches the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.errors import BadInput

__all__ = ["Distillation", "joint", "self_distilled"]


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """``alpha``: the share of the teacher's part; ``temperature`` softens both sides (the gradient is scaled back)."""

    alpha: float = 0.3
    temperature: float = 3.0


def joint(logits: Sequence[Tensor], target: Tensor, weights: Sequence[float] | None = None,
          smoothing: float = 0.0) -> Tensor:
    """The mean over exits of weighted cross-entropies: ``logits`` (N, classes) each, ``target`` (N,) class numbers."""
    weights = _weights(weights, len(logits))
    losses = [functional.cross_entropy(each, target, label_smoothing=smoothing) * weight
              for each, weight in zip(logits, weights, strict=True)]
    return torch.stack(losses).sum() / sum(weights)


def self_distilled(logits: Sequence[Tensor], target: Tensor, recipe: Distillation = Distillation(),
                   smoothing: float = 0.0) -> Tensor:
    """Every exit learns from the labels and, but for the last, with share ``recipe.alpha`` from the last one's output.

    The teacher is detached: it is not drawn towards its pupils.
    """
    *pupils, teacher = logits
    losses = [functional.cross_entropy(teacher, target, label_smoothing=smoothing)]
    soft = functional.log_softmax(teacher.detach() / recipe.temperature, dim=1)
    for pupil in pupils:
        hard = functional.cross_entropy(pupil, target, label_smoothing=smoothing)
        log_own = functional.log_softmax(pupil / recipe.temperature, dim=1)
        near = functional.kl_div(log_own, soft, reduction="batchmean", log_target=True) * recipe.temperature**2
        losses.append((1 - recipe.alpha) * hard + recipe.alpha * near)
    return torch.stack(losses).mean()


def _weights(weights: Sequence[float] | None, count: int) -> Sequence[float]:
    if weights is None:
        return [1.0] * count
    if len(weights) != count or min(weights) < 0 or sum(weights) <= 0:
        raise BadInput(f"There are {count} exits and the weights {list(weights)}.", "Give one weight >= 0 for each.")
    return weights
