"""ShuffleNetV2 (Ma et al., arXiv 1807.11164): half of the channels pass through a block, then all are shuffled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekit.zoo.blocks import Scale, StagedNet, conv_bn, initialise, pooled_head, stretched
from edgekit.zoo.names import NameMap, digits

__all__ = ["shufflenet_v2"]

#: channels of the three stages and of the last convolution, table 5 of the paper; other widths scale the second row
_CHANNELS = {0.5: (48, 96, 192, 1024), 1.0: (116, 232, 464, 1024), 1.5: (176, 352, 704, 1024),
             2.0: (244, 488, 976, 2048)}
_DEPTHS = (4, 8, 4)
_TORCHVISION = NameMap((
    (r"conv1\.", "stem."), (r"conv5\.", "head.conv."), (r"fc\.", "head.classifier."),
    (r"stage(\d)\.(\d+)\.", digits("stages.{0}.{1}.", less=(2,))),
    *((rf"(stages\.\d+\.\d+\.)branch1\.{flat}\.", rf"\1side.{conv}.") for flat, conv in
      ((0, "0.0"), (1, "0.1"), (2, "1.0"), (3, "1.1"))),
    *((rf"(stages\.\d+\.\d+\.)branch2\.{flat}\.", rf"\1branch.{conv}.") for flat, conv in
      ((0, "0.0"), (1, "0.1"), (3, "1.0"), (4, "1.1"), (5, "2.0"), (6, "2.1"))),
))


class ShuffleUnit(nn.Module):
    """(N, cin, H, W) -> (N, cout, H/stride, W/stride), figure 3 (c) and (d) of the paper.

    The shuffle picks channels 0, C/2, 1, C/2 + 1 and so on by number, which does not depend on height and width.
    """

    order: Tensor

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        half = cout // 2
        self.splits = stride == 1
        self.side: nn.Module = nn.Identity()
        if not self.splits:
            self.side = nn.Sequential(conv_bn(cin, cin, 3, stride, groups=cin, act=None), conv_bn(cin, half))
        self.branch = nn.Sequential(
            conv_bn(half if self.splits else cin, half), conv_bn(half, half, 3, stride, groups=half, act=None),
            conv_bn(half, half))
        self.register_buffer("order", torch.arange(2 * half).reshape(2, half).t().flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1) if self.splits else (x, x)
        joined = torch.cat([self.side(kept), self.branch(changed)], dim=1)
        return joined.index_select(1, self.order)


def shufflenet_v2(scale: Scale) -> StagedNet:
    """ShuffleNetV2; the widths 0.5, 1, 1.5 and 2 are those of the paper."""
    base = max(4, round(116 * scale.width / 4) * 4)
    *widths, last = _CHANNELS.get(scale.width, (base, 2 * base, 4 * base, 1024))
    channels, stages = 24, []
    for out, count in zip(widths, _DEPTHS, strict=True):
        blocks = []
        for index, _ in enumerate(stretched(range(count), scale.depth)):
            blocks.append(ShuffleUnit(channels, out, 1 if index else 2))
            channels = out
        stages.append(nn.Sequential(*blocks))
    stem = nn.Sequential(*conv_bn(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1))
    head = pooled_head(last, scale.classes, conv=conv_bn(channels, last))
    return initialise(StagedNet(stem, stages, head, {"torchvision": _TORCHVISION}))
