"""LeViT (Graham et al., arXiv 2104.01136): attention on small maps, BatchNorm everywhere, shrinking between stages.

Call ``eval()`` before use: the table of attention biases is then gathered once and kept. ``edgekit.zoo.fuse`` folds the
BatchNorms.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from edgekit.errors import BadRecipe
from edgekit.zoo.blocks import DropPath, Scale, StagedNet, conv_bn, initialise, rounded, stretched
from edgekit.zoo.names import NameMap, digits

__all__ = ["levit_128", "levit_128s", "levit_192", "levit_256", "levit_384"]

_PART = r"(stages\.\d+\.[\w.]*)"
_TIMM = NameMap((
    (r"stem\.conv(\d)\.", digits("stem.{0}.")),
    (r"stages\.(\d)\.downsample\.attn_downsample\.", r"stages.\1.shrink.attention."),
    (r"stages\.(\d)\.downsample\.mlp\.", r"stages.\1.shrink.mlp."),
    (r"stages\.(\d)\.blocks\.(\d+)\.attn\.", r"stages.\1.blocks.\2.attention."),
    (rf"{_PART}attention_biases", r"\1biases"),
    (rf"{_PART}mlp\.ln1\.", r"\1mlp.0."), (rf"{_PART}mlp\.ln2\.", r"\1mlp.2."),
    (rf"{_PART}q\.ln\.", r"\1q."), (rf"{_PART}proj\.ln\.", r"\1proj.1."),
    (r"head\.(bn|linear)\.", r"head.classifier.\1."), (r"head_dist\.(bn|linear)\.", r"head.distilled_classifier.\1."),
    (r"(.*\.)bn\.", r"\1norm."),
    (r"(stem\.\d\.)linear\.", r"\g<1>0."), (r"(stem\.\d\.)norm\.", r"\g<1>1."),
))


class TokenNorm(nn.BatchNorm1d):
    """BatchNorm over the channels of all tokens: (N, tokens, C) or (N, C) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).reshape(x.shape)


def _linear_bn(cin: int, cout: int, gain: float = 1.0) -> nn.Sequential:
    norm = TokenNorm(cout)
    nn.init.constant_(norm.weight, gain)
    return nn.Sequential(OrderedDict(linear=nn.Linear(cin, cout, bias=False), norm=norm))


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """An attention: channels in and out, heads, width of a key, width of a value over it, side of the map, stride."""

    cin: int
    cout: int
    heads: int
    key: int
    ratio: int
    side: int
    stride: int = 1

    @property
    def value(self) -> int:
        return self.key * self.ratio

    @property
    def out_side(self) -> int:
        return (self.side - 1) // self.stride + 1


class Attention(nn.Module):
    """softmax(Q K' / sqrt(D) + B) V with a bias for each head and distance |dx|, |dy|, section 4.2 of the paper.

    (N, side^2, cin) -> (N, (side / stride)^2, cout). With a stride the queries are every ``stride``-th token.
    """

    offsets: Tensor
    table: Tensor

    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        self.shape = shape
        heads = shape.heads
        if shape.stride == 1:
            self.qkv = _linear_bn(shape.cin, heads * (2 * shape.key + shape.value))
        else:
            self.q = _linear_bn(shape.cin, heads * shape.key)
            self.kv = _linear_bn(shape.cin, heads * (shape.key + shape.value))
        gain = 0.0 if shape.stride == 1 else 1.0  # a residual branch starts as nothing
        self.proj = nn.Sequential(nn.Hardswish(), _linear_bn(heads * shape.value, shape.cout, gain))
        self.biases = nn.Parameter(torch.zeros(heads, shape.side**2))
        self.register_buffer("offsets", _offsets(shape), persistent=False)
        self.register_buffer("table", torch.empty(0), persistent=False)
        self.register_load_state_dict_post_hook(_gather_again)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> Attention:
        """Leaving training gathers the table of biases: (heads, queries, keys)."""
        super().train(mode)
        self.table = torch.empty(0, device=self.biases.device) if mode else self.biases.detach()[:, self.offsets]
        return self

    def forward(self, x: Tensor) -> Tensor:
        shape, batch = self.shape, x.shape[0]
        if shape.stride == 1:
            parts = self.qkv(x).reshape(batch, shape.side**2, shape.heads, 2 * shape.key + shape.value)
            queries, keys, values = parts.transpose(1, 2).split([shape.key, shape.key, shape.value], dim=3)
        else:
            parts = self.kv(x).reshape(batch, shape.side**2, shape.heads, shape.key + shape.value)
            keys, values = parts.transpose(1, 2).split([shape.key, shape.value], dim=3)
            grid = x.reshape(batch, shape.side, shape.side, shape.cin)[:, ::shape.stride, ::shape.stride]
            queries = self.q(grid.reshape(batch, shape.out_side**2, shape.cin))
            queries = queries.reshape(batch, shape.out_side**2, shape.heads, shape.key).transpose(1, 2)
        biases = self.biases[:, self.offsets] if self.training else self.table
        scores = queries @ keys.transpose(2, 3) * shape.key**-0.5 + biases
        mixed = scores.softmax(dim=-1) @ values
        y: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, shape.out_side**2, shape.heads * shape.value))
        return y


def _gather_again(module: nn.Module, _: object) -> None:
    """New weights have come: a table that was gathered from the old ones is out of date."""
    module.train(module.training)


def _offsets(shape: _Shape) -> Tensor:
    """int64 (queries, keys): |dy| * side + |dx| of a query, in the grid of the keys, and a key."""
    along = torch.arange(shape.side)
    distance = (torch.arange(shape.out_side)[:, None] * shape.stride - along[None]).abs()  # (queries, keys) on one axis
    both = distance[:, None, :, None] * shape.side + distance[None, :, None, :]
    return both.reshape(shape.out_side**2, shape.side**2)


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(_linear_bn(width, 2 * width), nn.Hardswish(), _linear_bn(2 * width, width, 0.0))


class Block(nn.Module):
    """Attention and perceptron, each added to its input; a shrinking attention has none to be added to."""

    def __init__(self, shape: _Shape, drop: float) -> None:
        super().__init__()
        self.residual = shape.stride == 1
        self.attention = Attention(shape)
        self.mlp = _mlp(shape.cout)
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        changed = self.attention(x)
        x = x + self.drop(changed) if self.residual else changed
        y: Tensor = x + self.drop(self.mlp(x))
        return y


class _Flat(nn.Module):
    """(N, C, H, W) -> (N, H * W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class _Head(nn.Module):
    """The mean over tokens, then two classifiers, of labels and of a teacher, whose logits are averaged (section 5)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classifier = self._classifier(width, classes)
        self.distilled_classifier = self._classifier(width, classes)

    @staticmethod
    def _classifier(width: int, classes: int) -> nn.Sequential:
        return nn.Sequential(OrderedDict(norm=nn.BatchNorm1d(width), linear=nn.Linear(width, classes)))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1)
        logits: Tensor = (self.classifier(mean) + self.distilled_classifier(mean)) / 2
        return logits


@dataclass(frozen=True, kw_only=True)
class _Variant:
    """Channels, heads and blocks of the three stages, and the width of a key (table 1 of the paper)."""

    widths: tuple[int, int, int]
    heads: tuple[int, int, int]
    depths: tuple[int, int, int]
    key: int
    drop: float = 0.0


def _levit(plan: _Variant) -> Callable[[Scale], StagedNet]:
    def build(scale: Scale) -> StagedNet:
        """A LeViT of this variant; its resolution is a multiple of 16."""
        if scale.resolution % 16:
            raise BadRecipe(f"The resolution is {scale.resolution}.", "It must be a multiple of 16.")
        widths = [rounded(width * scale.width, 32) for width in plan.widths]
        side, before, stages = scale.resolution // 16, widths[0], list[nn.Module]()
        for width, heads, count in zip(widths, plan.heads, plan.depths, strict=True):
            parts: list[tuple[str, nn.Module]] = []
            if stages:
                # as many heads as bring the keys together to the width before
                shrink = _Shape(cin=before, cout=width, heads=max(1, before // plan.key), key=plan.key, ratio=4,
                                side=side, stride=2)
                parts.append(("shrink", Block(shrink, plan.drop)))
                side = shrink.out_side
            shape = _Shape(cin=width, cout=width, heads=heads, key=plan.key, ratio=2, side=side)
            blocks = [Block(shape, plan.drop) for _ in stretched(range(count), scale.depth)]
            stages.append(nn.Sequential(OrderedDict([*parts, ("blocks", nn.Sequential(*blocks))])))
            before = width
        steps = [3, widths[0] // 8, widths[0] // 4, widths[0] // 2, widths[0]]
        stem = [conv_bn(cin, cout, 3, 2, act=nn.Hardswish if index < 3 else None)
                for index, (cin, cout) in enumerate(pairwise(steps))]
        return initialise(StagedNet(nn.Sequential(*stem, _Flat()), stages, _Head(widths[-1], scale.classes),
                                    {"timm": _TIMM}), linear_std=0.02)

    return build


levit_128s = _levit(_Variant(widths=(128, 256, 384), heads=(4, 6, 8), depths=(2, 3, 4), key=16))
levit_128 = _levit(_Variant(widths=(128, 256, 384), heads=(4, 8, 12), depths=(4, 4, 4), key=16))
levit_192 = _levit(_Variant(widths=(192, 288, 384), heads=(3, 5, 6), depths=(4, 4, 4), key=32))
levit_256 = _levit(_Variant(widths=(256, 384, 512), heads=(4, 6, 8), depths=(4, 4, 4), key=32))
levit_384 = _levit(_Variant(widths=(384, 512, 768), heads=(6, 9, 12), depths=(4, 4, 4), key=32, drop=0.1))
