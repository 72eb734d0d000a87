"""DeiT (Touvron et al., arXiv 2012.12877): the vision transformer (arXiv 2010.11929), small; not the distilled ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgekit.errors import BadRecipe
from edgekit.zoo.blocks import NormHead, Scale, StagedNet, initialise, mlp, stretched
from edgekit.zoo.names import NameMap

__all__ = ["deit_small", "deit_tiny"]

_EPSILON = 1e-6
_PATCH, _DEPTH, _HEAD_WIDTH = 16, 12, 64
_TIMM = NameMap((
    (r"cls_token", "stem.class_token"), (r"pos_embed", "stem.positions"), (r"patch_embed\.proj\.", "stem.patches."),
    (r"norm\.", "head.norm."), (r"head\.(weight|bias)", r"head.classifier.\1"),
    # three stages of a third of the blocks each
    (r"blocks\.(\d+)\.", lambda net, match: f"stages.{_place(net, int(match[1]))}."),
    (r"(stages\.\d+\.\d+\.)attn\.", r"\1attention."),
    (r"(stages\.\d+\.\d+\.)mlp\.fc1\.", r"\1mlp.0."), (r"(stages\.\d+\.\d+\.)mlp\.fc2\.", r"\1mlp.2."),
))


def _place(net: StagedNet, flat: int) -> str:
    size = len(net.stages[0])  # type: ignore[arg-type]
    return f"{flat // size}.{flat % size}"


class Attention(nn.Module):
    """Self-attention over tokens: (N, tokens, width) -> the same (arXiv 2010.11929, equations 5 to 8)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts.unbind(0)
        scores = (queries * (width // self.heads) ** -0.5) @ keys.transpose(2, 3)
        mixed = scores.softmax(dim=-1) @ values
        y: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return y


class EncoderBlock(nn.Module):
    """Normalised attention and a normalised perceptron, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, _EPSILON)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, _EPSILON)
        self.mlp = mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Tokens(nn.Module):
    """(N, 3, R, R) -> (N, 1 + (R / 16)^2, width): a class token, then the patches, all with their positions."""

    def __init__(self, width: int, resolution: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, _PATCH, _PATCH)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (resolution // _PATCH) ** 2, width))

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        return tokens + self.positions


def _class_token(x: Tensor) -> Tensor:
    return x[:, 0]


def _deit(heads: int) -> Callable[[Scale], StagedNet]:
    def build(scale: Scale) -> StagedNet:
        """A DeiT of this variant; its resolution is a multiple of 16."""
        if scale.resolution % _PATCH:
            raise BadRecipe(f"The resolution is {scale.resolution}.", f"It must be a multiple of {_PATCH}.")
        count = max(1, round(heads * scale.width))
        width = count * _HEAD_WIDTH
        depth = len(stretched(range(_DEPTH // 3), scale.depth))
        stages = [nn.Sequential(*(EncoderBlock(width, count) for _ in range(depth))) for _ in range(3)]
        head = NormHead(width, scale.classes, _EPSILON, _class_token)
        return initialise(StagedNet(Tokens(width, scale.resolution), stages, head, {"timm": _TIMM}), linear_std=0.02)

    return build


deit_tiny = _deit(3)
deit_small = _deit(6)
