"""Exits on any backbone: named cut points, heads of bounded cost, running logits.

    network = MultiExit(backbone, exits=suggest_exits(backbone, image, count=4), classes=10, recipe=ExitRecipe())

The backbone stays as it is: a head hangs on the output of each named submodule, and the backbone's own logits are the
last exit. With ``carry`` t the logits of exit n are h_n + t * F_(n-1), the running sum of BoostNet (Yu et al., AAAI
2023, arXiv 2211.16726, section 3); with 0 every exit stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from edgekit.errors import BadRecipe, UnknownName

__all__ = ["CutPoint", "ExitRecipe", "MultiExit", "cut_points", "suggest_exits"]


@dataclass(frozen=True, kw_only=True)
class ExitRecipe:
    """How heads look and what flows between them.

    ``head_width``: channels of the convolution in front of the classifier of a head, None for none.
    ``head_convs``: how many 3x3 convolutions of stride 2 it is (as MSDNet's classifiers, Huang et al., ICLR 2018: early
    features are too local for a linear classifier); 0 for a single 1x1. Tokens always get a linear layer.
    ``carry``: t of the running logits, 0 to 1. ``rescale``: the trunk gets the mean of the gradients of the exits
    behind a point instead of their sum (gradient rescaling of IMTA, Li et al., ICCV 2019).
    """

    head_width: int | None = None
    head_convs: int = 0
    carry: float = 0.0
    rescale: bool = False


class CutPoint(NamedTuple):
    """A submodule whose output can feed an exit, and the share of the network's multiply-adds done by then."""

    name: str
    share: float


class MultiExit(nn.Module):
    """``backbone`` with an exit after each of the submodules ``exits`` and its own logits as the last one.

    ``forward``: what the backbone takes -> a tuple of float (N, classes), one for each exit, in order of depth. In
    training with ``carry`` above 0 the carried part is detached, so that each head learns what the earlier ones left.
    ``features`` holds the tensors that the heads saw in the last call in training, for losses that compare them.
    Raises UnknownName for a submodule that is not there, BadRecipe for exits out of order or a carry out of range.
    """

    def __init__(self, backbone: nn.Module, exits: Sequence[str], example: Tensor, recipe: ExitRecipe) -> None:
        super().__init__()
        if not 0 <= recipe.carry <= 1:
            raise BadRecipe(f"The carry is {recipe.carry}.", "It must be from 0 to 1.")
        self.backbone = backbone
        self.exits = tuple(exits)
        self.recipe = recipe
        self.features: list[Tensor] = []
        modules = dict(backbone.named_modules())
        if recipe.head_convs < 0 or (recipe.head_convs and recipe.head_width is None):
            raise BadRecipe(f"Heads of {recipe.head_convs} convolutions and the width {recipe.head_width}.",
                            "Give head_width with head_convs, which is at least 0.")
        for name in exits:
            if name not in modules:
                raise UnknownName.of("submodule", name, [key for key in modules if key][:60])
        shapes, classes = _trace_shapes(backbone, exits, example)
        if list(shapes) != list(exits):
            raise BadRecipe(f"The exits {list(exits)} are met in the order {list(shapes)}.", "Give them in this order.")
        self.heads = nn.ModuleList(_head(shape, classes, recipe) for shape in shapes.values())
        for index, name in enumerate(exits):
            modules[name].register_forward_hook(self._tap(index))

    def train(self, mode: bool = True) -> MultiExit:
        """As every module's; the norms of a backbone without anything to train keep their statistics."""
        super().train(mode)
        if not any(each.requires_grad for each in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.features = []
        last = self.backbone(*inputs)
        own = [*(head(feature) for head, feature in zip(self.heads, self.features, strict=True)), last]
        if not self.training:
            self.features = []  # an export would take them for state
        if self.recipe.carry == 0:
            return tuple(own)
        running = [own[0]]
        for logits in own[1:]:
            before = running[-1].detach() if self.training else running[-1]
            running.append(logits + self.recipe.carry * before)
        return tuple(running)

    def _tap(self, index: int) -> Any:
        count = len(self.exits) + 1 - index  # exits from here on, this one included

        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
            if not self.recipe.rescale or not self.training:
                self.features.append(output)
                return None
            self.features.append(_ScaleGradient.apply(output, 1 / count))  # type: ignore[no-untyped-call]
            return _ScaleGradient.apply(output, (count - 1) / count)  # type: ignore[no-untyped-call, no-any-return]

        return hook


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by ``factor``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


class _Head(nn.Sequential):
    """Convolutions if wanted, the mean over space (or tokens), a linear classifier."""

    def __init__(self, shape: torch.Size, classes: int, recipe: ExitRecipe) -> None:
        channels, width = shape[1] if len(shape) == 4 else shape[-1], recipe.head_width
        layers: list[nn.Module] = []
        if len(shape) == 4:
            if width is not None:
                for number in range(max(recipe.head_convs, 1)):
                    size, stride = (3, 2) if recipe.head_convs else (1, 1)
                    layers += [nn.Conv2d(width if number else channels, width, size, stride, size // 2, bias=False),
                               nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        else:
            layers += [nn.LayerNorm(channels), _TokenMean()]
            if width is not None:
                layers += [nn.Linear(channels, width), nn.GELU()]
        super().__init__(*layers, nn.Linear(width or channels, classes))


class _TokenMean(nn.Module):
    """(N, tokens, channels) -> (N, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def _head(shape: torch.Size, classes: int, recipe: ExitRecipe) -> nn.Module:
    if len(shape) not in (3, 4):
        raise BadRecipe(f"An exit sees a tensor of shape {list(shape)}.",
                        "It must be (N, channels, height, width) or (N, tokens, channels).")
    return _Head(shape, classes, recipe)


def cut_points(backbone: nn.Module, example: Tensor) -> tuple[CutPoint, ...]:
    """Submodules that make one tensor of rank 3 or 4, in the order in which they end, with the share of work done.

    Multiply-adds are torch's own count (``torch.utils.flop_counter``) for the input ``example``.
    """
    from torch.utils.flop_counter import FlopCounterMode

    met: list[tuple[str, int]] = []
    with FlopCounterMode(display=False) as counter:

        def note(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.dim() in (3, 4):
                    met.append((name, counter.get_total_flops()))

            return hook

        with _evaluating(backbone), _hooks(backbone, note):
            backbone(example)
        total = counter.get_total_flops()
    return tuple(CutPoint(name, done / total if total else 0.0) for name, done in met)


def suggest_exits(backbone: nn.Module, example: Tensor, count: int, first: float = 0.15) -> tuple[str, ...]:
    """``count`` submodules that divide the network's work evenly from the share ``first`` on to its end.

    Of several near the wanted share the one closest is taken, and the outermost of those that end at the same point.
    Raises BadRecipe where the network has fewer places.
    """
    points = [point for point in cut_points(backbone, example) if 0 < point.share < 1]
    chosen: list[str] = []
    for index in range(count):
        wanted = first + (1 - first) * index / count
        free = [point for point in points if point.name not in chosen]
        if not free:
            raise BadRecipe(f"The network has {len(points)} places for exits, {count} are wanted.", "Ask for fewer.")
        best = min(free, key=lambda point: (round(abs(point.share - wanted), 3), point.name.count(".")))
        chosen.append(best.name)
        points = [point for point in points if point.share > best.share]
    return tuple(chosen)


def _trace_shapes(backbone: nn.Module, names: Sequence[str], example: Tensor) -> tuple[dict[str, torch.Size], int]:
    """The shapes of the outputs of the submodules ``names``, in the order of the run, and the number of classes."""
    shapes: dict[str, torch.Size] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if name in names:
                if not isinstance(output, Tensor):
                    raise BadRecipe(f"The submodule '{name}' returns {type(output).__name__}, not a tensor.",
                                    "Put the exit after another one.")
                if name in shapes:
                    raise BadRecipe(f"The submodule '{name}' runs more than once.", "Put the exit after another one.")
                shapes[name] = output.shape

        return hook

    with _evaluating(backbone), _hooks(backbone, note):
        logits = backbone(example)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise BadRecipe("The network does not return logits of shape (N, classes).", "Wrap it so that it does.")
    return shapes, logits.shape[1]


@contextmanager
def _hooks(backbone: nn.Module, make: Any) -> Iterator[None]:
    handles = [module.register_forward_hook(make(name)) for name, module in backbone.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode, without gradients; BatchNorm's statistics stay as they are."""
    was = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was)
