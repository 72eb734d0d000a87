"""A predictor that chooses the resolution for each image: DRNet (Zhu et al., NeurIPS 2021, arXiv 2106.02898).

    dynamic = DynamicResolution(network, Predictor(3, len(sides)), sides, image)
    fit(dynamic, batches, every_resolution(), schedule)                # or a pretrained network, frozen
    fit(dynamic, batches, predictor_loss(recipe), schedule)
    require_choice(mix_of(dynamic.choose(images), len(sides)))

The predictor looks at the smallest resolution. Left to itself it likes to answer the same for every image, which keeps
a budget of the mean cost too. Against that: all resolutions are trained alike first, the predictor learns slowly, its
FLOPs loss is small, a floor holds the use of each resolution, and ``require_choice`` looks before anybody judges the
accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.errors import BadInput, BadModel, BadRecipe
from edgekit.train.loop import Loss
from edgekit.train.private_norms import make_norms_private, use_norms

__all__ = ["DynamicResolution", "Predictor", "ResolutionRecipe", "choice_loss", "every_resolution", "mix_of",
           "multiply_adds", "predictor_loss", "require_choice", "resized"]

_LARGEST_SHARE = 0.03


@dataclass(frozen=True, kw_only=True)
class ResolutionRecipe:
    """How the predictor learns. Impossible values raise BadRecipe.

    ``target``: alpha, the wanted mean cost as a share of the dearest resolution's. ``eta``: weight of the FLOPs loss.
    ``method``: "gumbel", the paper's straight-through choice (eq. 9 to 11) at ``temperature``; or "expected", the
    expected cross-entropy of each image over the predictor's probabilities, whose gradient weighs all resolutions of
    the image. ``price``: nats that an image may lose for the cost of a whole pass, which makes the aim of each image
    cost-aware by itself. ``least_use``: the mean probability below which a resolution is held up, with weight
    ``floor``. ``rate``: of the predictor against the schedule's learning rate (by its gradient: with SGD the same).
    ``together``: the network is trained too, on what the predictor chose.
    """

    target: float = 0.55
    eta: float = 0.2
    method: Literal["gumbel", "expected"] = "gumbel"
    temperature: float = 1.0
    price: float = 0.0
    least_use: float = 0.1
    floor: float = 1.0
    rate: float = 0.1
    together: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.target <= 1 or self.temperature <= 0 or self.rate <= 0:
            raise BadRecipe(f"The target is {self.target}, the temperature {self.temperature}, the rate {self.rate}.",
                            "The target lies in (0, 1], the others are above 0.")
        if min(self.eta, self.price, self.floor) < 0 or not 0 <= self.least_use < 0.5:
            raise BadRecipe(f"eta {self.eta}, price {self.price}, floor {self.floor}, least_use {self.least_use}.",
                            "None is negative, and least_use is below 0.5.")


class Predictor(nn.Sequential):
    """float (N, channels, h, w) -> (N, options): two convolutions of stride 2, the mean, a linear layer."""

    def __init__(self, channels: int, options: int, width: int = 8) -> None:
        layers: list[nn.Module] = []
        for before, after in ((channels, width), (width, 2 * width)):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, options))


class DynamicResolution(nn.Module):
    """``network`` at the resolutions ``sides`` (height and width, pixels, growing), and who chooses among them.

    ``network`` takes float (N, C, H, W) and returns logits (N, classes), or a tuple of them (the last counts). It gets
    private norms unless ``private`` is False. Weights that need no gradient stay as they are, statistics of norms too.
    ``example``: an image (1, C, H, W), of which ``costs`` are taken: multiply-adds by resolution, as shares of the
    largest, with the predictor's share ``predictor_cost`` not in them.

    ``forward``: float (N, C, H, W), at least the largest size -> (N, classes), each image at its own resolution.
    Raises BadRecipe for fewer than two sides, for sides out of order, and for a predictor above 3 % of the network.
    """

    def __init__(self, network: nn.Module, predictor: nn.Module, sides: Sequence[int], example: Tensor,
                 private: bool = True) -> None:
        super().__init__()
        if len(sides) < 2 or sorted(set(sides)) != list(sides):
            raise BadRecipe(f"The sides are {list(sides)}.", "Give two or more, each once, from small to large.")
        self.network, self.predictor, self.sides = network, predictor, tuple(sides)
        self.frozen = not any(each.requires_grad for each in network.parameters())
        works = [multiply_adds(network, resized(example, side)) for side in sides]
        self.costs = tuple(work / works[-1] for work in works)
        self.predictor_cost = multiply_adds(predictor, resized(example, sides[0])) / works[-1]
        if self.predictor_cost > _LARGEST_SHARE:
            raise BadRecipe(f"The predictor costs {100 * self.predictor_cost:.1f} % of the network.",
                            f"Make it narrower: {100 * _LARGEST_SHARE:.0f} % at most.")
        if private:
            make_norms_private(network, len(sides))

    def train(self, mode: bool = True) -> DynamicResolution:
        super().train(mode)
        if self.frozen:
            self.network.eval()  # statistics of a frozen network stay
        return self

    def at(self, images: Tensor, option: int) -> Tensor:
        """The logits of ``images`` at resolution number ``option``."""
        use_norms(self.network, option)
        found = self.network(resized(images, self.sides[option]))
        logits: Tensor = found[-1] if isinstance(found, tuple) else found
        return logits

    def scores(self, images: Tensor) -> Tensor:
        """What the predictor says of each resolution, (N, options), before any softmax."""
        found: Tensor = self.predictor(resized(images, self.sides[0]))
        return found

    def choose(self, images: Tensor) -> Tensor:
        """The number of the chosen resolution of each image, int64 (N,)."""
        with torch.no_grad():
            return self.scores(images).argmax(dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self._each_at(images, self.choose(images))

    def _each_at(self, images: Tensor, options: Tensor) -> Tensor:
        """Sub-batches one after another, so that a norm sees no image of another resolution (section 3.3)."""
        parts, places = [], []
        for option in range(len(self.sides)):
            rows = (options == option).nonzero()[:, 0]
            if len(rows):
                parts.append(self.at(images[rows], option))
                places.append(rows)
        return torch.cat(parts)[torch.cat(places).argsort()]

    def all_logits(self, images: Tensor) -> Tensor:
        """Of every resolution, (options, N, classes), without gradients and with the norms' statistics as they are."""
        training = self.network.training
        self.network.eval()
        with torch.no_grad():
            found = torch.stack([self.at(images, option) for option in range(len(self.sides))])
        self.network.train(training)
        return found


def resized(images: Tensor, side: int) -> Tensor:
    """Images, float (N, C, H, W), at ``side`` x ``side`` pixels, each the weighted mean of what it covers."""
    if images.shape[-2:] == (side, side):
        return images
    return functional.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)


def every_resolution() -> Loss:
    """The warm-up: a batch is dealt evenly to all resolutions; the mean cross-entropy. The predictor is not trained."""

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(model, DynamicResolution)
        count = len(model.sides)
        dealt = (torch.arange(len(images)) % count)[torch.randperm(len(images))]
        return functional.cross_entropy(model._each_at(images, dealt).float(), labels)

    return loss


def predictor_loss(recipe: ResolutionRecipe = ResolutionRecipe()) -> Loss:
    """The loss of a whole ``DynamicResolution``: ``choice_loss``, and with ``together`` that of the chosen ones.

    The network's logits are taken at every resolution without gradients; what trains the network is its cross-entropy
    on images at the resolution that was drawn for them. Raises BadRecipe for ``together`` with a frozen network.
    """

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(model, DynamicResolution)
        if recipe.together and model.frozen:
            raise BadRecipe("A frozen network cannot be trained together with the predictor.", "Set together=False.")
        scores = model.scores(images)
        value = choice_loss(scores, model.all_logits(images), labels, model.costs, recipe)
        if recipe.together:
            drawn = functional.gumbel_softmax(scores.detach(), dim=1).argmax(dim=1)
            value = value + functional.cross_entropy(model._each_at(images, drawn).float(), labels)
        return value

    return loss


def choice_loss(scores: Tensor, logits: Tensor, labels: Tensor, costs: Sequence[float],
                recipe: ResolutionRecipe) -> Tensor:
    """What a choice costs: ``scores`` (N, options) of the predictor, ``logits`` (options, N, classes) of the network.

    Cross-entropy, plus eta * max(0, (E[F] - alpha) / (Cmax - Cmin)) with the mean over the batch (eq. 7, 8), plus the
    price of the images' costs and the floor under the use of each resolution. Raises BadInput for other shapes.
    """
    if logits.shape[:2] != (scores.shape[1], scores.shape[0]) or len(costs) != len(logits):
        raise BadInput(f"scores {list(scores.shape)}, logits {list(logits.shape)} and {len(costs)} costs do not fit.",
                       "Wanted: (N, options), (options, N, classes) and a cost for each option.")
    scores = recipe.rate * scores + (1 - recipe.rate) * scores.detach()
    chances = scores.softmax(dim=1)
    price = torch.tensor(costs, dtype=scores.dtype)
    if recipe.method == "gumbel":
        use = functional.gumbel_softmax(scores, recipe.temperature, hard=True)
        wrong = functional.cross_entropy(torch.einsum("no,onc->nc", use, logits.detach()), labels)
    else:
        use = chances
        each = [functional.cross_entropy(option, labels, reduction="none") for option in logits.detach()]
        wrong = (torch.stack(each, dim=1) * use).sum(dim=1).mean()
    spent = (use * price).sum(dim=1).mean()
    over = (spent - recipe.target) / (max(costs) - min(costs))
    short = (recipe.least_use - chances.mean(dim=0)).clamp_min(0).sum()
    return wrong + recipe.eta * over.clamp_min(0) + recipe.price * spent + recipe.floor * short


def mix_of(chosen: Tensor, options: int) -> tuple[float, ...]:
    """The share of images that each resolution gets."""
    return tuple((torch.bincount(chosen, minlength=options) / len(chosen)).tolist())


def require_choice(mix: Sequence[float], least: float = 0.3) -> float:
    """The entropy of ``mix`` as a share of ln(options). Raises BadModel below ``least``: a collapse."""
    share = -sum(part * math.log(part) for part in mix if part > 0) / math.log(len(mix))
    if share < least:
        raise BadModel(f"The predictor chooses {', '.join(f'{100 * part:.1f} %' for part in mix)}: next to no choice.",
                       "Raise least_use or price, lower eta, or take the fixed resolution that it likes.")
    return share


def multiply_adds(network: nn.Module, example: Tensor) -> int:
    """Those of one call in eval mode, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    training = [(part, part.training) for part in network.modules()]
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(example)
    for part, was in training:
        part.training = was
    return int(counter.get_total_flops()) // 2
