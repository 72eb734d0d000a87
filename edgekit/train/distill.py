"""Training a small network from a large one, or by itself: what the student sees, the teacher sees.

The default is function matching (Beyer et al., CVPR 2022, arXiv 2106.05237): student and teacher get the very same
picture, mixed with another one, and the student has to match the teacher's probabilities; labels are not used. It needs
a long schedule. ``supervised`` is the same training without a teacher: labels, smoothed, on the same mixtures.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.errors import BadRecipe
from edgekit.train.loop import Batches, Loss, Progress, TrainRecipe, fit

__all__ = ["LONG", "DistillRecipe", "MixRecipe", "Mixed", "born_again", "distill", "distilled", "mixed", "supervised"]

#: a schedule for function matching: long, half a cosine, averaged weights
LONG = TrainRecipe(epochs=60, learning_rate=0.1, warmup_epochs=2.0, weight_decay=1e-4, average=0.998, clip=1.0)


@dataclass(frozen=True, kw_only=True)
class MixRecipe:
    """How pictures of a batch are mixed with each other. Impossible values raise BadRecipe.

    ``probability``: of a batch to be mixed. ``alpha``: the share of the other picture is drawn from Beta(alpha, alpha);
    1, any share alike, is what function matching asks for. ``cut``: the part of the mixed batches in which a rectangle
    is replaced (CutMix, arXiv 1905.04899) instead of the pictures being added (mixup, arXiv 1710.09412).
    """

    probability: float = 1.0
    alpha: float = 1.0
    cut: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.probability <= 1 and self.alpha > 0 and 0 <= self.cut <= 1):
            raise BadRecipe(f"The probability of mixing is {self.probability}, alpha {self.alpha}, cut {self.cut}.",
                            "Probability and cut lie in [0, 1], alpha is above 0.")


@dataclass(frozen=True, kw_only=True)
class DistillRecipe:
    """``temperature`` softens both sides, and the loss is scaled back by its square (Hinton et al., arXiv 1503.02531).

    ``hard``: the share of the labels' cross-entropy, 0 for the teacher alone; ``smoothing``: of these labels.
    ``bfloat16``: networks run in bfloat16 where autocast allows it; losses are float32.
    """

    temperature: float = 1.0
    hard: float = 0.0
    smoothing: float = 0.0
    mix: MixRecipe | None = MixRecipe()
    bfloat16: bool = False

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 <= self.hard <= 1 or not 0 <= self.smoothing < 1:
            raise BadRecipe(f"The temperature is {self.temperature}, hard {self.hard}, smoothing {self.smoothing}.",
                            "The temperature is above 0, the others lie between 0 and 1.")


class Mixed(NamedTuple):
    """``images`` (N, C, H, W); the label of picture i counts ``share``, that of picture ``order[i]`` the rest."""

    images: Tensor
    order: Tensor
    share: float


def mixed(images: Tensor, recipe: MixRecipe | None) -> Mixed:
    """``images`` (N, C, H, W) mixed among themselves, with torch's random numbers. None, or chance, leaves them."""
    if recipe is None or float(torch.rand(())) >= recipe.probability:
        return Mixed(images, torch.arange(len(images)), 1.0)
    order = torch.randperm(len(images))
    share = float(torch.distributions.Beta(recipe.alpha, recipe.alpha).sample())
    if float(torch.rand(())) >= recipe.cut:
        return Mixed(images.lerp(images[order], 1 - share), order, share)
    height, width = images.shape[-2:]
    tall, wide = round(height * (1 - share) ** 0.5), round(width * (1 - share) ** 0.5)
    top, left = (int(torch.randint(0, size + 1, ())) for size in (height - tall, width - wide))
    cut = images.clone()
    cut[..., top:top + tall, left:left + wide] = images[order][..., top:top + tall, left:left + wide]
    return Mixed(cut, order, 1 - tall * wide / (height * width))


def distilled(teacher: nn.Module, recipe: DistillRecipe = DistillRecipe()) -> Loss:
    """The loss of a student by ``teacher``, which is set to eval mode and is not trained.

    Both return logits (N, classes). The value is KL(teacher || student) at ``temperature``, in nats, and
    cross-entropy with the share ``hard``.
    """
    teacher.eval()

    def loss(student: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        what = mixed(images, recipe.mix)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            with torch.no_grad():
                wanted = teacher(what.images)
            own = student(what.images)
        own, heat = own.float(), recipe.temperature
        soft, aim = (functional.log_softmax(each / heat, dim=1) for each in (own, wanted.float()))
        near = functional.kl_div(soft, aim, reduction="batchmean", log_target=True) * heat**2
        if recipe.hard == 0:
            return near
        return (1 - recipe.hard) * near + recipe.hard * _labelled(own, labels, what, recipe.smoothing)

    return loss


def supervised(recipe: DistillRecipe = DistillRecipe()) -> Loss:
    """The same without a teacher: cross-entropy with the labels of both pictures by their shares, smoothed."""

    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        what = mixed(images, recipe.mix)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            own = network(what.images)
        return _labelled(own.float(), labels, what, recipe.smoothing)

    return loss


def distill(student: nn.Module, teacher: nn.Module, batches: Batches, recipe: DistillRecipe = DistillRecipe(),
            schedule: TrainRecipe = LONG, checkpoint: Path | None = None) -> list[Progress]:
    """Train ``student`` in place to do what ``teacher`` does on ``batches``; returns what each epoch came to.

    ``batches``, ``checkpoint`` and errors are those of ``edgekit.train.loop.fit``.
    """
    found: list[Progress] = []
    fit(student, batches, distilled(teacher, recipe), schedule, checkpoint, found.append)
    return found


def born_again(first: nn.Module, fresh: Callable[[], nn.Module], batches: Batches, generations: int = 1,
               recipe: DistillRecipe = DistillRecipe(hard=0.5), schedule: TrainRecipe = LONG) -> nn.Module:
    """Self-distillation (Furlanello et al., ICML 2018, arXiv 1805.04770): each generation learns from the one before.

    ``first``: a trained network; ``fresh`` makes an untrained one of the same architecture. Returns the last one.
    """
    teacher = first
    for _ in range(generations):
        student = fresh()
        distill(student, copy.deepcopy(teacher), batches, recipe, schedule)
        teacher = student
    return teacher


def _labelled(logits: Tensor, labels: Tensor, what: Mixed, smoothing: float) -> Tensor:
    own = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    if what.share == 1:
        return own
    other = functional.cross_entropy(logits, labels[what.order], label_smoothing=smoothing)
    return what.share * own + (1 - what.share) * other
