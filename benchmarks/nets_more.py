"""Networks of other families for the comparisons: attention, layer normalisation, channel shuffle, recurrence.

Small members of each family; 100 classes unless said otherwise. ``benchmarks.nets`` makes, seeds and fits them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.net_blocks import Classifier, InvertedResidual, conv_bn

__all__ = ["DYNAMIC_NETS", "MORE_NETS", "MORE_SHAPES"]

_CLASSES = 100


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and a GELU perceptron, each with a shortcut: (N, tokens, width) -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.project(self._attend(self.queries_keys_values(self.norm_attention(x))))
        y: Tensor = x + self.mlp(self.norm_mlp(x))
        return y

    def _attend(self, stacked: Tensor) -> Tensor:
        batch, tokens, width = stacked.shape[0], stacked.shape[1], stacked.shape[2] // 3
        heads = stacked.reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind(0)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        return mixed.transpose(1, 2).reshape(batch, tokens, width)


class VisionTransformer(nn.Module):
    """A tiny ViT (Dosovitskiy et al., 2020) with a convolutional stem: 224 x 224 -> 14 x 14 tokens of width 128."""

    def __init__(self, width: int = 128, heads: int = 4, depth: int = 4) -> None:
        super().__init__()
        stem = [conv_bn(cin, cout, 3, 2, act=nn.Hardswish) for cin, cout in ((3, 32), (32, 64), (64, 128))]
        self.stem = nn.Sequential(*stem, nn.Conv2d(128, width, 3, 2, 1))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 14 * 14, width))
        self.encoder = nn.Sequential(*[EncoderBlock(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, _CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.stem(image).flatten(2).transpose(1, 2) + self.positions
        scores: Tensor = self.head(self.norm(self.encoder(tokens)).mean(1))
        return scores


class LayerNormOverChannels(nn.LayerNorm):
    """Layer normalisation of every pixel of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7, then a perceptron over the channels of each pixel, scaled, with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, 1, 3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        change: Tensor = self.scale * self.narrow(functional.gelu(self.widen(pixels)))
        return x + change.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """A tiny ConvNeXt (Liu et al., 2022) on 128 x 128 images."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256), depths: tuple[int, ...] = (1, 1, 2, 1)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), LayerNormOverChannels(widths[0])]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if stage:
                layers += [LayerNormOverChannels(widths[stage - 1]), nn.Conv2d(widths[stage - 1], width, 2, 2)]
            layers += [ConvNeXtBlock(width) for _ in range(depth)]
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], _CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.head(self.norm(self.features(image).mean((2, 3))))
        return scores


class ShuffleUnit(nn.Module):
    """Half of the channels (all, where it strides) through a branch, joined with the rest and interleaved."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        half = cout // 2
        self.splits = stride == 1
        self.side: nn.Module = nn.Identity()
        if not self.splits:
            self.side = nn.Sequential(conv_bn(cin, cin, 3, stride, cin, None), conv_bn(cin, half))
        branch_in = half if self.splits else cin
        self.branch = nn.Sequential(conv_bn(branch_in, half), conv_bn(half, half, 3, stride, half, None),
                                    conv_bn(half, half))

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1) if self.splits else (x, x)
        joined = torch.cat([self.side(kept), self.branch(changed)], dim=1)
        batch, channels, height, width = joined.shape
        pairs = joined.view(batch, 2, channels // 2, height, width)
        return pairs.transpose(1, 2).reshape(batch, channels, height, width)


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 1.0 (Ma et al., 2018) on 224 x 224 images."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_bn(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
        channels = 24
        for out, repeats in ((116, 4), (232, 8), (464, 4)):
            for i in range(repeats):
                layers.append(ShuffleUnit(channels, out, 1 if i else 2))
                channels = out
        self.features = nn.Sequential(*layers, conv_bn(channels, 1024))
        self.head = nn.Linear(1024, _CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(image).mean((2, 3)))
        return scores


class LastStep(nn.Module):
    """Two LSTM layers and a linear one on the last step: (N, 32, 16) -> (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(16, 64, num_layers=2, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, steps: Tensor) -> Tensor:
        states, _ = self.recurrent(steps)
        scores: Tensor = self.head(states[:, -1])
        return scores


def dynamic_convnet() -> nn.Module:
    """MobileNetV3 blocks without a fixed size anywhere, exported with dynamic N, H and W; 10 classes."""
    return Classifier(nn.Sequential(
        conv_bn(3, 16, 3, 2, act=nn.Hardswish),
        InvertedResidual((16, 48, 24), stride=2, squeezed=12, act=nn.Hardswish),
        InvertedResidual((24, 72, 24), act=nn.ReLU),
        InvertedResidual((24, 96, 40), kernel=5, stride=2, squeezed=24, act=nn.Hardswish),
    ), 40, classes=10)


MORE_NETS: dict[str, Callable[[], nn.Module]] = {
    "vit_tiny": VisionTransformer,
    "convnext_tiny": ConvNeXt,
    "shufflenet_v2": ShuffleNetV2,
    "lstm": LastStep,
    "dynamic_convnet": dynamic_convnet,
}
MORE_SHAPES = {"convnext_tiny": (3, 128, 128), "lstm": (32, 16), "dynamic_convnet": (3, 96, 96)}
# those that are exported with dynamic N, H and W
DYNAMIC_NETS = {"dynamic_convnet"}
