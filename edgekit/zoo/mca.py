"""A transformer-like network whose attention is gated convolutions of several kernel sizes.

After ConvFormer's MCA (arXiv 2209.07738): "captures different patterns of input images by multiple kernel sizes and
enables input-adaptive weights with a gating mechanism", in a network of four stages. The widths, the kernels and the
place of the gate are this zoo's own reading of the abstract, so no published counts apply. It is not the ConvFormer of
MetaFormer Baselines (arXiv 2210.13452, timm's ``convformer_s18``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekit.zoo.blocks import Scale, StagedNet, conv_bn, initialise, pooled_head, rounded, stretched

__all__ = ["mca_tiny"]

_KERNELS = (3, 5, 7, 9)
_FIRST, _DEPTHS = 32, (2, 2, 6, 2)


class MultiKernelAttention(nn.Module):
    """(N, C, H, W) -> the same: a quarter of the channels to each kernel size, times a gate from the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        part = width // len(_KERNELS)
        self.value = conv_bn(width, width, act=nn.Hardswish)
        self.gate = nn.Sequential(conv_bn(width, width, act=None), nn.Hardsigmoid())
        self.kernels = nn.ModuleList(conv_bn(part, part, kernel, groups=part, act=None) for kernel in _KERNELS)
        self.project = conv_bn(width, width, act=None)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.value(x).chunk(len(_KERNELS), dim=1)
        mixed = torch.cat([kernel(part) for kernel, part in zip(self.kernels, parts, strict=True)], dim=1)
        y: Tensor = self.project(mixed * self.gate(x))
        return y


class Block(nn.Module):
    """The attention and a perceptron over channels, each added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = MultiKernelAttention(width)
        self.mlp = nn.Sequential(conv_bn(width, 4 * width, act=nn.Hardswish), conv_bn(4 * width, width, act=None))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        y: Tensor = x + self.mlp(x)
        return y


def mca_tiny(scale: Scale) -> StagedNet:
    """The network with 32, 64, 128 and 256 channels and 2, 2, 6 and 2 blocks."""
    first, stages = rounded(_FIRST * scale.width, 16), []
    for number, count in enumerate(_DEPTHS):
        width = first << number
        down = [] if number == 0 else [conv_bn(width // 2, width, 3, 2, act=None)]
        stages.append(nn.Sequential(*down, *(Block(width) for _ in stretched(range(count), scale.depth))))
    stem = nn.Sequential(conv_bn(3, first // 2, 3, 2, act=nn.Hardswish), conv_bn(first // 2, first, 3, 2, act=None))
    return initialise(StagedNet(stem, stages, pooled_head(first << 3, scale.classes), {}))
