"""GhostNet (Han et al., arXiv 1911.11907), which arXiv 2201.03297 calls C-GhostNet: ghost modules for CPUs.

A ghost module computes half of its channels by a convolution and the other half from those by a depthwise one. The
G-Ghost networks of the second paper, for GPUs, are in ``edgekit.zoo.g_ghost``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgekit.zoo.blocks import Scale, SqueezeExcite, StagedNet, conv_bn, initialise, pooled_head, rounded, stretched
from edgekit.zoo.names import NameMap

__all__ = ["GhostModule", "ghostnet"]

# Per stage its stride, and per block: kernel of the striding convolution, channels in between, channels out, gate;
# table 1 of the paper.
_Block = tuple[int, int, int, bool]
_PLAN: tuple[tuple[int, Sequence[_Block]], ...] = (
    (1, [(3, 16, 16, False)]),
    (2, [(3, 48, 24, False)]), (1, [(3, 72, 24, False)]),
    (2, [(5, 72, 40, True)]), (1, [(5, 120, 40, True)]),
    (2, [(3, 240, 80, False)]),
    (1, [(3, 200, 80, False), (3, 184, 80, False), (3, 184, 80, False), (3, 480, 112, True), (3, 672, 112, True)]),
    (2, [(5, 672, 160, True)]),
    (1, [(5, 960, 160, False), (5, 960, 160, True), (5, 960, 160, False), (5, 960, 160, True)]),
)
_TIMM = NameMap((
    (r"conv_stem\.", "stem.0."), (r"bn1\.", "stem.1."), (r"conv_head\.", "head.hidden."),
    (r"classifier\.", "head.classifier."), (r"blocks\.9\.0\.conv\.", "head.conv.0."),
    (r"blocks\.9\.0\.bn1\.", "head.conv.1."), (r"blocks\.(\d+)\.(\d+)\.", r"stages.\1.\2."),
    (r"(stages\.\d+\.\d+\.)ghost1\.", r"\1body.expand."), (r"(stages\.\d+\.\d+\.)ghost2\.", r"\1body.project."),
    (r"(.*)primary_conv\.", r"\1primary."), (r"(.*)cheap_operation\.", r"\1cheap."),
    (r"(stages\.\d+\.\d+\.)conv_dw\.", r"\1body.stride.0."), (r"(stages\.\d+\.\d+\.)bn_dw\.", r"\1body.stride.1."),
    (r"(stages\.\d+\.\d+\.)se\.conv_", r"\1body.excite."),
    (r"(stages\.\d+\.\d+\.shortcut\.)(\d)\.",
     lambda _, match: f"{match[1]}{int(match[2]) // 2}.{int(match[2]) % 2}."),
))


class GhostModule(nn.Module):
    """(N, cin, H, W) -> (N, cout, H/stride, W/stride): ceil(cout / ratio) channels by a convolution, the rest by
    depthwise ones of ``cheap_kernel`` on those (equations 2 and 3 of the paper), both with BatchNorm and maybe ReLU.

    It takes about 1 / ratio of the multiply-adds of the convolution alone.
    """

    def __init__(self, cin: int, cout: int, kernel: int = 1, stride: int = 1, *, relu: bool = True,
                 ratio: int = 2) -> None:
        super().__init__()
        primary, act = math.ceil(cout / ratio), nn.ReLU if relu else None
        self.cout = cout
        self.primary = conv_bn(cin, primary, kernel, stride, act=act)
        self.cheap: nn.Module | None = None
        if ratio > 1:
            cheap = nn.Conv2d(primary, primary * (ratio - 1), 3, 1, 1, groups=primary, bias=False)
            self.cheap = nn.Sequential(cheap, nn.BatchNorm2d(cheap.out_channels), *([act()] if act else []))

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.primary(x)
        if self.cheap is None:
            return first
        joined = torch.cat([first, self.cheap(first)], dim=1)
        return joined if joined.shape[1] == self.cout else joined[:, :self.cout]


class GhostBottleneck(nn.Module):
    """A wide ghost module, a striding depthwise convolution, a gate, a narrow ghost module; plus the input.

    ``widths``: channels in, in between, out.
    """

    def __init__(self, widths: tuple[int, int, int], kernel: int, stride: int, gate: bool) -> None:
        super().__init__()
        cin, between, cout = widths
        parts: list[tuple[str, nn.Module]] = [("expand", GhostModule(cin, between))]
        if stride > 1:
            parts.append(("stride", conv_bn(between, between, kernel, stride, groups=between, act=None)))
        if gate:
            parts.append(("excite", SqueezeExcite(between, rounded(between / 4, 4))))
        self.body = nn.Sequential(OrderedDict([*parts, ("project", GhostModule(between, cout, relu=False))]))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or cin != cout:
            self.shortcut = nn.Sequential(conv_bn(cin, cin, kernel, stride, groups=cin, act=None),
                                          conv_bn(cin, cout, act=None))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


def ghostnet(scale: Scale) -> StagedNet:
    """GhostNet; channels are multiples of 4."""
    first = channels = rounded(16 * scale.width, 4)
    stages, between = [], channels
    for stage_stride, stage in _PLAN:
        blocks = []
        for index, (kernel, base, out, gate) in enumerate(stretched(stage, scale.depth)):
            between = rounded(base * scale.width, 4)
            widths = (channels, between, rounded(out * scale.width, 4))
            blocks.append(GhostBottleneck(widths, kernel, stage_stride if index == 0 else 1, gate))
            channels = widths[2]
        stages.append(nn.Sequential(*blocks))
    head = pooled_head(between, scale.classes, conv=conv_bn(channels, between), hidden=1280, dropout=0.2)
    return initialise(StagedNet(conv_bn(3, first, 3, 2), stages, head, {"timm": _TIMM}))
