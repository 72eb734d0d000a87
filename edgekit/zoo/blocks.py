"""What several networks of the zoo are made of: convolutions with BatchNorm, gates, heads, the frame of a network."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.errors import BadRecipe
from edgekit.zoo.names import NameMap

__all__ = [
    "Activation", "ChannelNorm", "DropPath", "InvertedResidual", "NormHead", "Scale", "SqueezeExcite", "StagedNet",
    "conv_bn", "initialise", "mlp", "pooled_head", "rounded", "stretched",
]

Activation = Callable[[], nn.Module]
T = TypeVar("T")
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of a network: factors of its channels and of its blocks per stage, pixels of its square input, classes.

    Impossible values raise BadRecipe.
    """

    width: float = 1.0
    depth: float = 1.0
    resolution: int = 224
    classes: int = 1000

    def __post_init__(self) -> None:
        if not (0 < self.width <= 16 and 0 < self.depth <= 16) or self.resolution < 1 or self.classes < 1:
            raise BadRecipe(f"The width is {self.width}, the depth {self.depth}, the resolution {self.resolution} with "
                            f"{self.classes} classes.",
                            "Width and depth lie above 0 and up to 16; the others are at least 1.")


def rounded(channels: float, divisor: int = 8) -> int:
    """``channels`` as a multiple of ``divisor``, at most a tenth below (the rule of MobileNetV2's authors)."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def stretched(plan: Sequence[T], depth: float) -> list[T]:
    """The blocks of a stage, ``depth`` times as many (rounded up): the last is repeated, or the last ones left out."""
    return [plan[min(index, len(plan) - 1)] for index in range(max(1, math.ceil(len(plan) * depth - 1e-9)))]


def conv_bn(cin: int, cout: int, kernel: int = 1, stride: int = 1, *, groups: int = 1,
            act: Activation | None = nn.ReLU) -> nn.Sequential:
    """Convolution with padding kernel // 2, BatchNorm, activation: (N, cin, H, W) -> (N, cout, H/stride, W/stride)."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), *([act()] if act else []))


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate computed from the means: (N, C, H, W) -> the same (Hu et al., arXiv 1709.01507).

    The gate is relu6(x + 3) / 6, as in MobileNetV3 (arXiv 1905.02244, section 5.3).
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(functional.relu(self.reduce(functional.adaptive_avg_pool2d(x, 1))))
        return x * functional.hardsigmoid(gate)


class InvertedResidual(nn.Sequential):
    """Expand, depthwise, squeeze-and-excite, project; plus the input where the shape stays (arXiv 1801.04381).

    ``widths``: channels in, in between, out. ``expand`` is left out where it would not widen, ``excite`` where
    ``squeezed`` is 0.
    """

    def __init__(self, widths: tuple[int, int, int], kernel: int = 3, stride: int = 1, squeezed: int = 0,
                 act: Activation = nn.ReLU6) -> None:
        cin, hidden, cout = widths
        parts: list[tuple[str, nn.Module]] = []
        if hidden != cin:
            parts.append(("expand", conv_bn(cin, hidden, act=act)))
        parts.append(("depthwise", conv_bn(hidden, hidden, kernel, stride, groups=hidden, act=act)))
        if squeezed:
            parts.append(("excite", SqueezeExcite(hidden, squeezed)))
        parts.append(("project", conv_bn(hidden, cout, act=None)))
        super().__init__(OrderedDict(parts))
        self.shortcut = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + y if self.shortcut else y


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of every pixel over its channels: (N, C, H, W) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """In training, replaces a sample's whole branch by zeros with ``probability`` (arXiv 1603.09382)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        kept = torch.rand(len(x), *(1 for _ in x.shape[1:]), device=x.device) >= self.probability
        return x * kept / (1 - self.probability)


def mlp(width: int, hidden: int) -> nn.Sequential:
    """Linear, GELU, linear over the last axis, which has ``width`` channels."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


def pooled_head(channels: int, classes: int, *, conv: nn.Module | None = None, hidden: int = 0,
                act: Activation = nn.ReLU, dropout: float = 0.0) -> nn.Sequential:
    """From (N, C, H, W) to logits (N, classes): a convolution to ``channels``, the mean, a hidden layer, dropout."""
    parts: list[tuple[str, nn.Module]] = [("conv", conv)] if conv is not None else []
    parts += [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]
    if hidden:
        parts += [("hidden", nn.Linear(channels, hidden)), ("act", act())]
    if dropout:
        parts.append(("dropout", nn.Dropout(dropout)))
    return nn.Sequential(OrderedDict([*parts, ("classifier", nn.Linear(hidden or channels, classes))]))


class NormHead(nn.Module):
    """``pick`` makes (N, width) of the features; then layer normalisation and a linear layer: logits (N, classes)."""

    def __init__(self, width: int, classes: int, epsilon: float, pick: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, epsilon)
        self.classifier = nn.Linear(width, classes)
        self.pick = pick

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.norm(self.pick(x)))
        return logits


class StagedNet(nn.Module):
    """``stem``, ``stages`` and ``head`` in turn: float32 (N, 3, H, W) -> logits (N, classes).

    Exits can be attached at ``stages.0``, ``stages.1`` and so on. ``sources``: how other projects name its tensors.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], head: nn.Module,
                 sources: Mapping[str, NameMap]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.head = head
        self.sources = dict(sources)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(self.stem(image)))
        return logits


def initialise(network: N, linear_std: float = 0.01) -> N:
    """``network`` with new weights: He's normal for convolutions (arXiv 1502.01852), normal for linear layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=linear_std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network
