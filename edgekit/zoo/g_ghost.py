"""G-Ghost-RegNet (Han et al., arXiv 2201.03297): ghost stages, for GPUs, on RegNet-X (arXiv 2003.13678).

In a stage, the first block makes all channels; the middle ones work on a part of them, and the rest comes from the
first block by a 1x1 convolution, with a shift computed from the means of all middle results; the last block sees both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.zoo.blocks import Scale, StagedNet, conv_bn, initialise, pooled_head, stretched

__all__ = ["g_ghost_regnet_032", "g_ghost_regnet_040", "g_ghost_regnet_080", "g_ghost_regnet_160"]

_CHEAP_SHARE = 0.5  # lambda of the paper


class RegNetBlock(nn.Module):
    """1x1, grouped 3x3, 1x1, with a shortcut, without a wide middle (a RegNet-X block of bottleneck ratio 1)."""

    def __init__(self, cin: int, cout: int, stride: int, group_width: int) -> None:
        super().__init__()
        groups = cout // min(cout, group_width)
        self.body = nn.Sequential(conv_bn(cin, cout), conv_bn(cout, cout, 3, stride, groups=groups),
                                  conv_bn(cout, cout, act=None))
        same = stride == 1 and cin == cout
        self.shortcut = nn.Identity() if same else conv_bn(cin, cout, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class GhostStage(nn.Module):
    """A stage of ``depth`` blocks, at least 3, whose middle ones see only a part of the channels (section 4).

    The groups of the middle blocks are three quarters as wide, and the part is a multiple of that.
    """

    def __init__(self, cin: int, cout: int, depth: int, group_width: int) -> None:
        super().__init__()
        narrow = max(1, group_width * 3 // 4)
        self.intrinsic = max(1, int(cout * (1 - _CHEAP_SHARE) / narrow)) * narrow
        cheap = cout - self.intrinsic
        self.first = RegNetBlock(cin, cout, 2, group_width)
        self.middle = nn.ModuleList(
            RegNetBlock(self.intrinsic, self.intrinsic, 1, narrow) for _ in range(depth - 2))
        self.cheap = conv_bn(cheap, cheap, act=None)
        self.mix = nn.Sequential(conv_bn(cout + self.intrinsic * (depth - 2), cheap), conv_bn(cheap, cheap, act=None))
        self.last = RegNetBlock(cout, cout, 1, group_width)

    def forward(self, x: Tensor) -> Tensor:
        start = self.first(x)
        part = start[:, :self.intrinsic]
        means = [functional.adaptive_avg_pool2d(start, 1)]
        for block in self.middle:
            part = block(part)
            means.append(functional.adaptive_avg_pool2d(part, 1))
        cheap = functional.relu(self.cheap(start[:, self.intrinsic:]) + self.mix(torch.cat(means, dim=1)))
        y: Tensor = self.last(torch.cat([part, cheap], dim=1))
        return y


def _regnet(depths: tuple[int, ...], widths: tuple[int, ...], group_width: int) -> Callable[[Scale], StagedNet]:
    def build(scale: Scale) -> StagedNet:
        """A G-Ghost-RegNet of this variant."""
        channels, stages = 32, list[nn.Module]()
        for number, (count, base) in enumerate(zip(depths, widths, strict=True)):
            out = max(1, round(base * scale.width / group_width)) * group_width if scale.width != 1 else base
            depth = len(stretched(range(count), scale.depth))
            if number and depth > 2:
                stages.append(GhostStage(channels, out, depth, group_width))
            else:
                stages.append(nn.Sequential(*(
                    RegNetBlock(out if index else channels, out, 1 if index else 2, group_width)
                    for index in range(depth))))
            channels = out
        head = pooled_head(channels, scale.classes, dropout=0.2)
        return initialise(StagedNet(conv_bn(3, 32, 3, 2), stages, head, {}))

    return build


#: depths, channels and group widths of RegNet-X at 3.2, 4.0, 8.0 and 16 GF
g_ghost_regnet_032 = _regnet((2, 6, 15, 2), (96, 192, 432, 1008), 48)
g_ghost_regnet_040 = _regnet((2, 5, 14, 2), (80, 240, 560, 1360), 40)
g_ghost_regnet_080 = _regnet((2, 5, 15, 1), (80, 240, 720, 1920), 120)
g_ghost_regnet_160 = _regnet((2, 6, 13, 1), (256, 512, 896, 2048), 128)
