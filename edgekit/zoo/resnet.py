"""ResNet (He et al., arXiv 1512.03385) for ImageNet and CIFAR, and CIFAR's with ghost modules (arXiv 1911.11907)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.zoo.blocks import Scale, StagedNet, conv_bn, initialise, pooled_head, rounded, stretched
from edgekit.zoo.ghostnet import GhostModule
from edgekit.zoo.names import NameMap, digits

__all__ = [
    "c_ghost_resnet56", "resnet18", "resnet20_cifar", "resnet32_cifar", "resnet34", "resnet50", "resnet56_cifar",
]

#: timm and torchvision agree
_NAMES = NameMap((
    (r"conv1\.", "stem.0."), (r"bn1\.", "stem.1."), (r"fc\.", "head.classifier."),
    (r"layer(\d)\.(\d+)\.downsample\.", digits("stages.{0}.{1}.shortcut.")),
    (r"layer(\d)\.(\d+)\.conv(\d)\.", digits("stages.{0}.{1}.body.{2}.0.", less=(1, 0, 1))),
    (r"layer(\d)\.(\d+)\.bn(\d)\.", digits("stages.{0}.{1}.body.{2}.1.", less=(1, 0, 1))),
))


class Residual(nn.Module):
    """``body(x)`` plus the input, which ``shortcut`` brings to its shape, then ReLU."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class PadShortcut(nn.Module):
    """Every ``stride``-th pixel, and zeros for the new channels on both sides: option A of the paper, no weights.

    Both are done by one 1x1 convolution with fixed ones and zeros: XNNPACK leaves out a slice with a step and pooling
    windows of 1 x 1, which would cut its partition in two.
    """

    picks: Tensor

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        picks = functional.pad(torch.eye(cin), (0, 0, (cout - cin) // 2, (cout - cin + 1) // 2))
        self.register_buffer("picks", picks[:, :, None, None])  # saved, so that a pruned one can be read back

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.picks, stride=self.stride)


def _plain_body(cin: int, cout: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv_bn(cin, cout, 3, stride), conv_bn(cout, cout, 3, act=None))


def _bottleneck_body(cin: int, cout: int, stride: int) -> nn.Sequential:
    narrow = cout // 4
    return nn.Sequential(conv_bn(cin, narrow), conv_bn(narrow, narrow, 3, stride), conv_bn(narrow, cout, act=None))


def _ghost_body(cin: int, cout: int, stride: int) -> nn.Sequential:
    return nn.Sequential(GhostModule(cin, cout, 3, stride), GhostModule(cout, cout, 3, relu=False))


def _project(cin: int, cout: int, stride: int) -> nn.Module:
    return conv_bn(cin, cout, 1, stride, act=None)


_Part = Callable[[int, int, int], nn.Module]


def _stages(channels: int, plan: list[tuple[int, int, int]], body: _Part, shortcut: _Part) -> list[nn.Sequential]:
    """From (channels, blocks, stride) of each stage."""
    stages = []
    for out, depth, first_stride in plan:
        blocks = []
        for index in range(depth):
            stride = first_stride if index == 0 else 1
            same = stride == 1 and channels == out
            blocks.append(Residual(body(channels, out, stride),
                                   nn.Identity() if same else shortcut(channels, out, stride)))
            channels = out
        stages.append(nn.Sequential(*blocks))
    return stages


def _resnet(depths: tuple[int, ...], body: _Part, expansion: int) -> Callable[[Scale], StagedNet]:
    def build(scale: Scale) -> StagedNet:
        """A ResNet of this variant, for images of 224 pixels or so."""
        first = rounded(64 * scale.width)
        plan = [((first << number) * expansion, len(stretched(range(depth), scale.depth)), 2 if number else 1)
                for number, depth in enumerate(depths)]
        stem = nn.Sequential(*conv_bn(3, first, 7, 2), nn.MaxPool2d(3, 2, 1))
        return initialise(StagedNet(stem, _stages(first, plan, body, _project), pooled_head(plan[-1][0], scale.classes),
                                    {"timm": _NAMES, "torchvision": _NAMES}))

    return build


def _cifar(blocks: int, body: _Part) -> Callable[[Scale], StagedNet]:
    def build(scale: Scale) -> StagedNet:
        """A ResNet of this variant, for images of 32 pixels or so."""
        first = rounded(16 * scale.width, 4)
        depth = len(stretched(range(blocks), scale.depth))
        plan = [(first << number, depth, 2 if number else 1) for number in range(3)]
        stages = _stages(first, plan, body, PadShortcut)
        return initialise(StagedNet(conv_bn(3, first, 3), stages, pooled_head(plan[-1][0], scale.classes), {}))

    return build


resnet18 = _resnet((2, 2, 2, 2), _plain_body, 1)
resnet34 = _resnet((3, 4, 6, 3), _plain_body, 1)
resnet50 = _resnet((3, 4, 6, 3), _bottleneck_body, 4)
#: 6n + 2 layers in three stages of n blocks, section 4.2 of the paper
resnet20_cifar = _cifar(3, _plain_body)
resnet32_cifar = _cifar(5, _plain_body)
resnet56_cifar = _cifar(9, _plain_body)
#: ResNet-56 whose convolutions are ghost modules
c_ghost_resnet56 = _cifar(9, _ghost_body)
