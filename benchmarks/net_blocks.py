"""Building blocks that several networks of the benchmarks share. Needs torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Activation", "Classifier", "InvertedResidual", "SqueezeExcite", "conv_bn"]

Activation = Callable[[], nn.Module]


def conv_bn(cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1,
            act: Activation | None = nn.ReLU) -> nn.Sequential:
    """Convolution with "same" padding, BatchNorm, activation: (N, cin, H, W) -> (N, cout, H/stride, W/stride)."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), *([act()] if act else []))


class Classifier(nn.Module):
    """Features, global average, dropout (a no-op here) and one linear layer."""

    def __init__(self, features: nn.Module, channels: int, classes: int = 1000) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, classes))

    def forward(self, image: Tensor) -> Tensor:
        """Scores (N, classes) of images (N, 3, H, W)."""
        scores: Tensor = self.head(torch.flatten(self.pool(self.features(image)), 1))
        return scores


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate computed from the channel means."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        gate = self.expand(functional.relu(self.reduce(functional.adaptive_avg_pool2d(x, 1))))
        return x * functional.hardsigmoid(gate)


class InvertedResidual(nn.Module):
    """Expand, depthwise, optional squeeze-and-excite, project; with a shortcut where shapes allow it."""

    def __init__(self, widths: tuple[int, int, int], kernel: int = 3, stride: int = 1,
                 squeezed: int = 0, act: Activation = nn.ReLU6) -> None:
        super().__init__()
        cin, hidden, cout = widths
        layers: list[nn.Module] = [] if hidden == cin else [conv_bn(cin, hidden, act=act)]
        layers.append(conv_bn(hidden, hidden, kernel, stride, hidden, act))
        if squeezed:
            layers.append(SqueezeExcite(hidden, squeezed))
        self.body = nn.Sequential(*layers, conv_bn(hidden, cout, act=None))
        self.shortcut = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H/stride, W/stride)."""
        y: Tensor = self.body(x)
        return x + y if self.shortcut else y
