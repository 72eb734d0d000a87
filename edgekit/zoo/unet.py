"""U-Net (Ronneberger et al., arXiv 1505.04597), with padding and BatchNorm: an image to a mask of the same size."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.zoo.blocks import Scale, conv_bn, initialise, rounded, stretched
from edgekit.zoo.names import NameMap

__all__ = ["UNet", "unet"]

_FIRST, _LEVELS = 32, 4


class UNet(nn.Module):
    """float32 (N, 3, H, W) -> logits (N, classes, H, W); height and width are multiples of 2 ** levels (16).

    It gives no logits of shape (N, classes), so exits cannot be attached.
    """

    def __init__(self, first: int, levels: int, classes: int) -> None:
        super().__init__()
        widths = [first << level for level in range(levels + 1)]
        self.sources: Mapping[str, NameMap] = {}
        self.down = nn.ModuleList(_double(cin, cout) for cin, cout in zip([3, *widths], widths[:-1], strict=False))
        self.bottom = _double(widths[-2], widths[-1])
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(cin, cout, 2, 2) for cin, cout in pairs)
        self.merge = nn.ModuleList(_double(cin, cout) for cin, cout in pairs)
        self.classifier = nn.Conv2d(first, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x, skips = image, []
        for stage in self.down:
            skips.append(stage(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))
        mask: Tensor = self.classifier(x)
        return mask


def _double(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(conv_bn(cin, cout, 3), conv_bn(cout, cout, 3))


def unet(scale: Scale) -> UNet:
    """The U-Net with 32 channels at full size (the paper has 64: width 2); depth scales the 4 halvings."""
    levels = len(stretched(range(_LEVELS), scale.depth))
    return initialise(UNet(rounded(_FIRST * scale.width), levels, scale.classes))
