"""MobileNetV3 (Howard et al., arXiv 1905.02244): searched inverted residuals with hard-swish and gates."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from edgekit.zoo.blocks import InvertedResidual, Scale, StagedNet, conv_bn, initialise, pooled_head, rounded, stretched
from edgekit.zoo.names import NameMap, timm_inverted, torchvision_block

__all__ = ["mobilenet_v3_large", "mobilenet_v3_small"]

# Per stage its stride, and per block: kernel, channels in between, channels out, whether it has a gate, and whether it
# has hard-swish rather than ReLU; tables 1 and 2 of the paper. At another width the channels in between keep their
# ratio to those that come in, and the hidden layer of the head keeps its size.
_Block = tuple[int, int, int, bool, bool]
_SMALL: tuple[tuple[int, Sequence[_Block]], ...] = (
    (2, [(3, 16, 16, True, False)]),
    (2, [(3, 72, 24, False, False), (3, 88, 24, False, False)]),
    (2, [(5, 96, 40, True, True), (5, 240, 40, True, True), (5, 240, 40, True, True)]),
    (1, [(5, 120, 48, True, True), (5, 144, 48, True, True)]),
    (2, [(5, 288, 96, True, True), (5, 576, 96, True, True), (5, 576, 96, True, True)]),
)
_LARGE: tuple[tuple[int, Sequence[_Block]], ...] = (
    (1, [(3, 16, 16, False, False)]),
    (2, [(3, 64, 24, False, False), (3, 72, 24, False, False)]),
    (2, [(5, 72, 40, True, False), (5, 120, 40, True, False), (5, 120, 40, True, False)]),
    (2, [(3, 240, 80, False, True), (3, 200, 80, False, True), (3, 184, 80, False, True), (3, 184, 80, False, True)]),
    (1, [(3, 480, 112, True, True), (3, 672, 112, True, True)]),
    (2, [(5, 672, 160, True, True), (5, 960, 160, True, True), (5, 960, 160, True, True)]),
)


def mobilenet_v3_small(scale: Scale) -> StagedNet:
    """MobileNetV3-small."""
    return _mobilenet_v3(_SMALL, 1024, scale)


def mobilenet_v3_large(scale: Scale) -> StagedNet:
    """MobileNetV3-large."""
    return _mobilenet_v3(_LARGE, 1280, scale)


def _mobilenet_v3(plan: tuple[tuple[int, Sequence[_Block]], ...], hidden: int, scale: Scale) -> StagedNet:
    first = channels = rounded(16 * scale.width)
    stages, base = [], 16
    for stage_stride, stage in plan:
        blocks = []
        for index, (kernel, between, out, gate, swish) in enumerate(stretched(stage, scale.depth)):
            wide = rounded(between / base * channels)
            widths, stride = (channels, wide, rounded(out * scale.width)), stage_stride if index == 0 else 1
            blocks.append(InvertedResidual(widths, kernel, stride, rounded(wide / 4) if gate else 0,
                                           nn.Hardswish if swish else nn.ReLU))
            base, channels = out, widths[2]
        stages.append(nn.Sequential(*blocks))
    last = 6 * channels
    head = pooled_head(last, scale.classes, conv=conv_bn(channels, last, act=nn.Hardswish), hidden=hidden,
                       act=nn.Hardswish, dropout=0.2)
    names = _names(len(plan), 1 + sum(len(stage) for stage in stages))
    return initialise(StagedNet(conv_bn(3, first, 3, 2, act=nn.Hardswish), stages, head, names))


def _names(stages: int, last: int) -> dict[str, NameMap]:
    timm = NameMap((
        (r"conv_stem\.", "stem.0."), (r"bn1\.", "stem.1."), (r"conv_head\.", "head.hidden."),
        (r"classifier\.", "head.classifier."),
        (rf"blocks\.{stages}\.0\.conv\.", "head.conv.0."), (rf"blocks\.{stages}\.0\.bn1\.", "head.conv.1."),
        (r"blocks\.(\d+)\.(\d+)\.(conv_pwl|conv_pw|conv_dw|bn\d|se\.conv_reduce|se\.conv_expand)\.", timm_inverted),
    ))
    torchvision = NameMap((
        (r"features\.0\.", "stem."), (rf"features\.{last}\.", "head.conv."),
        (r"classifier\.0\.", "head.hidden."), (r"classifier\.3\.", "head.classifier."),
        (r"features\.(\d+)\.block\.(\d+)\.(0|1|fc1|fc2)\.", torchvision_block),
    ), epsilon=1e-3)
    return {"timm": timm, "torchvision": torchvision}
