"""MobileNetV2 (Sandler et al., arXiv 1801.04381): inverted residuals with linear bottlenecks."""

from __future__ import annotations

from torch import nn

from edgekit.zoo.blocks import InvertedResidual, Scale, StagedNet, conv_bn, initialise, pooled_head, rounded, stretched
from edgekit.zoo.names import NameMap, timm_inverted, torchvision_block

__all__ = ["TIMM_INVERTED", "inverted_stages", "mobilenet_v2"]

#: expansion, channels, blocks, stride of the first block, kernel: table 2 of the paper
_PLAN = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
         (6, 320, 1, 1, 3))
TIMM_INVERTED = NameMap((
    (r"conv_stem\.", "stem.0."), (r"bn1\.", "stem.1."), (r"conv_head\.", "head.conv.0."), (r"bn2\.", "head.conv.1."),
    (r"classifier\.", "head.classifier."),
    (r"blocks\.(\d+)\.(\d+)\.(conv_pwl|conv_pw|conv_dw|bn\d)\.", timm_inverted),
))
_TORCHVISION = NameMap((
    (r"features\.0\.", "stem."), (r"features\.18\.", "head.conv."), (r"classifier\.1\.", "head.classifier."),
    (r"features\.(\d+)\.conv\.(\d+)\.(?:(\d)\.)?", torchvision_block),
))


def inverted_stages(plan: tuple[tuple[int, int, int, int, int], ...], channels: int, scale: Scale,
                    fixed: tuple[int, ...] = ()) -> tuple[list[nn.Sequential], int]:
    """Stages of inverted residuals with ReLU6, and the channels that the last one gives.

    ``fixed``: numbers of stages whose depth is not scaled.
    """
    stages = []
    for number, (expansion, base, count, first_stride, kernel) in enumerate(plan):
        out, blocks = rounded(base * scale.width), []
        for index, _ in enumerate(stretched(range(count), 1.0 if number in fixed else scale.depth)):
            widths = (channels, channels * expansion, out)
            blocks.append(InvertedResidual(widths, kernel, first_stride if index == 0 else 1))
            channels = out
        stages.append(nn.Sequential(*blocks))
    return stages, channels


def mobilenet_v2(scale: Scale) -> StagedNet:
    """MobileNetV2; the last convolution keeps 1280 channels where the width is below 1."""
    first = rounded(32 * scale.width)
    stages, channels = inverted_stages(_PLAN, first, scale)
    last = rounded(1280 * max(1.0, scale.width))
    head = pooled_head(last, scale.classes, conv=conv_bn(channels, last, act=nn.ReLU6), dropout=0.2)
    net = StagedNet(conv_bn(3, first, 3, 2, act=nn.ReLU6), stages, head,
                    {"timm": TIMM_INVERTED, "torchvision": _TORCHVISION})
    return initialise(net)
