"""EfficientNet-Lite (Tan and Le, arXiv 1905.11946, without squeeze-and-excite and with ReLU6, as Google released it).

Stem and last convolution, and the depth of the first and last stage, do not scale. Paddings are symmetric, as in timm's
``efficientnet_lite0``; the original TensorFlow weights (timm's ``tf_efficientnet_lite0``) were trained with asymmetric
ones and lose accuracy here.
"""

from __future__ import annotations

from torch import nn

from edgekit.zoo.blocks import Scale, StagedNet, conv_bn, initialise, pooled_head
from edgekit.zoo.mobilenet_v2 import TIMM_INVERTED, inverted_stages

__all__ = ["efficientnet_lite"]

#: expansion, channels, blocks, stride of the first block, kernel: table 1 of the paper
_PLAN = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
         (6, 320, 1, 1, 3))


def efficientnet_lite(scale: Scale) -> StagedNet:
    """EfficientNet-Lite; Lite0 to Lite2 have the widths 1, 1, 1.1, the depths 1, 1.1, 1.2, and 224, 240, 260 pixels."""
    stages, channels = inverted_stages(_PLAN, 32, scale, fixed=(0, len(_PLAN) - 1))
    head = pooled_head(1280, scale.classes, conv=conv_bn(channels, 1280, act=nn.ReLU6), dropout=0.2)
    return initialise(StagedNet(conv_bn(3, 32, 3, 2, act=nn.ReLU6), stages, head, {"timm": TIMM_INVERTED}))
