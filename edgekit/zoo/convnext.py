"""ConvNeXt (Liu et al., arXiv 2201.03545): 7x7 depthwise convolutions and perceptrons over the channels of a pixel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgekit.zoo.blocks import ChannelNorm, DropPath, NormHead, Scale, StagedNet, initialise, mlp, rounded, stretched
from edgekit.zoo.names import NameMap

__all__ = ["convnext_atto", "convnext_femto", "convnext_nano", "convnext_pico", "convnext_tiny"]

_EPSILON = 1e-6
_TIMM = NameMap((
    (r"stages\.(\d)\.downsample\.", r"stages.\1.0."),
    (r"stages\.(\d)\.blocks\.(\d+)\.", r"stages.\1.1.\2."),
    (r"(stages\.\d\.1\.\d+\.)gamma", r"\1scale"), (r"(stages\.\d\.1\.\d+\.)conv_dw\.", r"\1depthwise."),
    (r"(stages\.\d\.1\.\d+\.)mlp\.fc1\.", r"\1mlp.0."), (r"(stages\.\d\.1\.\d+\.)mlp\.fc2\.", r"\1mlp.2."),
    (r"head\.fc\.", "head.classifier."),
))
_TORCHVISION = NameMap((
    (r"features\.0\.", "stem."), (r"classifier\.0\.", "head.norm."), (r"classifier\.2\.", "head.classifier."),
    *((rf"features\.{2 * stage + 1}\.", f"stages.{stage}.1.") for stage in range(4)),
    *((rf"features\.{2 * stage}\.", f"stages.{stage}.0.") for stage in (1, 2, 3)),
    (r"(stages\.\d\.1\.\d+\.)layer_scale", r"\1scale"),
    *((rf"(stages\.\d\.1\.\d+\.)block\.{flat}\.", rf"\1{name}.") for flat, name in
      ((0, "depthwise"), (2, "norm"), (3, "mlp.0"), (5, "mlp.2"))),
))


class ConvNeXtBlock(nn.Module):
    """(N, C, H, W) -> the same: figure 4 of the paper. ``scale`` is the layer scale, 1e-6 at the start."""

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, 1, 3, groups=width)
        self.norm = nn.LayerNorm(width, _EPSILON)
        self.mlp = mlp(width, 4 * width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        change = self.scale * self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))
        y: Tensor = x + self.drop(change.permute(0, 3, 1, 2))
        return y


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def _convnext(first: int, depths: tuple[int, int, int, int], drop: float) -> Callable[[Scale], StagedNet]:
    """``drop``: the probability that the last block is left out in training; those before it less often."""

    def build(scale: Scale) -> StagedNet:
        """A ConvNeXt of this variant."""
        width, counts = rounded(first * scale.width), [len(stretched(range(count), scale.depth)) for count in depths]
        stages, done = [], 0
        for number, count in enumerate(counts):
            out = width << number
            down = nn.Identity() if number == 0 else nn.Sequential(
                ChannelNorm(out // 2, _EPSILON), nn.Conv2d(out // 2, out, 2, 2))
            blocks = [ConvNeXtBlock(out, drop * (done + index) / max(sum(counts) - 1, 1)) for index in range(count)]
            stages.append(nn.Sequential(down, nn.Sequential(*blocks)))
            done += count
        stem = nn.Sequential(nn.Conv2d(3, width, 4, 4), ChannelNorm(width, _EPSILON))
        head = NormHead(width << 3, scale.classes, _EPSILON, _mean)
        return initialise(StagedNet(stem, stages, head, {"timm": _TIMM, "torchvision": _TORCHVISION}), linear_std=0.02)

    return build


convnext_atto = _convnext(40, (2, 2, 6, 2), 0.0)
convnext_femto = _convnext(48, (2, 2, 6, 2), 0.0)
convnext_pico = _convnext(64, (2, 2, 6, 2), 0.0)
convnext_nano = _convnext(80, (2, 2, 8, 2), 0.0)
convnext_tiny = _convnext(96, (3, 3, 9, 3), 0.1)
