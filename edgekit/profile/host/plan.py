"""Which small networks are measured: single kernels in chains for the fit, mixtures of them to check it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from edgekit.profile.host.nets import Micro, Step

__all__ = ["plan"]

_CHANNELS = (8, 12, 16, 20, 24, 32, 40, 48, 58, 64, 72, 80, 96, 112, 116, 120, 128, 144, 160, 184, 192, 232, 240, 256,
             320, 384, 464, 480, 512, 576, 672, 768, 960, 1024, 1280, 2048)
_SIDES = (4, 5, 7, 7, 8, 10, 12, 14, 14, 16, 20, 24, 28, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 224)
_ACTS = ("", "Relu", "Relu", "relu6")
_MAX_ELEMENTS = 1_300_000
_MAX_MACS = 130e6  # of one op
_MAX_WEIGHTS = 5_000_000  # of one op
_MAX_STEPS = 8
_WORK = 6e6  # about how many multiply-adds a network should have at least


class _Draw:
    """Seeded choices."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def one(self, *values: object) -> str:
        """One of ``values``, as text."""
        return str(values[int(self.random.integers(len(values)))])

    def channels(self, most: int = 2048) -> int:
        """A number of channels."""
        allowed = [value for value in _CHANNELS if value <= most]
        return int(self.random.choice(allowed))

    def side(self, channels: int, least: int = 4) -> int:
        """Height and width of an image that is not too large with so many channels."""
        allowed = [side for side in _SIDES if least <= side and side * side * channels <= _MAX_ELEMENTS]
        return int(self.random.choice(allowed or [least]))

    def act(self) -> str:
        """An activation that engines compute inside a convolution, or none."""
        return self.one(*_ACTS)


def _repeats(work: float) -> int:
    return int(np.clip(math.ceil(_WORK / max(work, 1.0)), 2, _MAX_STEPS))


def _convolutions(draw: _Draw, kernels: tuple[int, ...], strides: tuple[int, ...] = (1,)) -> Micro:
    while True:
        kernel, stride = int(draw.one(*kernels)), int(draw.one(*strides))
        first, second = draw.channels(), draw.channels()
        side = draw.side(max(first, second), 4 * stride)
        macs = first * second * kernel**2 * (side / stride) ** 2
        if macs <= _MAX_MACS and first * second * kernel**2 <= _MAX_WEIGHTS and macs >= 2e4:
            break
    act = draw.act()
    if stride > 1:
        steps = [Step("conv", second, kernel, stride, act)]
        if side >= 16:
            steps += [Step("conv", first, kernel, stride, act)]
    else:
        steps = [Step("conv", second if i % 2 == 0 else first, kernel, 1, act) for i in range(_repeats(macs))]
    return Micro(f"conv{kernel}s{stride}-{first}-{second}-{side}", (first, side, side), tuple(steps))


def _pointwise(draw: _Draw) -> Micro:
    return _convolutions(draw, (1,))


def _dense(draw: _Draw) -> Micro:
    return _convolutions(draw, (3, 3, 3, 5), (1, 1, 2))


def _first(draw: _Draw) -> Micro:
    side, stride = int(draw.one(96, 128, 160, 192, 224)), int(draw.one(2, 2, 1, 4))
    kernel = 4 if stride == 4 else int(draw.one(3, 3, 5, 7))
    cout = draw.channels(64 if stride > 1 else 24)
    return Micro(f"first{kernel}s{stride}-{cout}-{side}", (3, side, side),
                 (Step("conv", cout, kernel | 1 if stride == 4 else kernel, stride, draw.act()),))


def _depthwise(draw: _Draw) -> Micro:
    kernel, stride = int(draw.one(3, 3, 5, 7)), int(draw.one(1, 1, 2))
    channels = draw.channels(1280)
    side = draw.side(channels, 7)
    if stride == 2:
        steps = (Step("depthwise", 0, kernel, 2, draw.act()),) * (2 if side >= 16 else 1)
    else:
        steps = (Step("depthwise", 0, kernel, 1, draw.act()),) * _repeats(channels * side**2 * kernel**2 * 4)
    return Micro(f"depthwise{kernel}s{stride}-{channels}-{side}", (channels, side, side), steps)


def _separable(draw: _Draw) -> Micro:
    narrow = draw.channels(192)
    wide = narrow * int(draw.one(2, 3, 4, 6))
    side, kernel = draw.side(wide, 7), int(draw.one(3, 3, 5))
    block = (Step("conv", wide, 1, 1, draw.act()), Step("depthwise", 0, kernel, 1, draw.act()), Step("conv", narrow))
    return Micro(f"separable{kernel}-{narrow}-{wide}-{side}", (narrow, side, side), block * 2)


_SIMPLE = ("add", "mul", "sub", "scale", "shift", "relu", "sigmoid", "gelu", "hard_swish", "tanh", "add", "hard_swish",
           "leaky_relu", "exp")


def _elementwise(draw: _Draw) -> Micro:
    kind = draw.one(*_SIMPLE)
    channels = draw.channels(1280)
    side = draw.side(channels)
    steps = (Step(kind),) * _repeats(channels * side**2 * 40)
    return Micro(f"{kind}-{channels}-{side}", (channels, side, side), steps)


def _on_images(draw: _Draw) -> Micro:
    kind = draw.one("pooled", "gate", "concat", "shuffle", "halves", "nearest", "bilinear", "max_pool", "max_pool",
                    "average_pool", "transposed", "pixel_norm", "gate")
    channels = draw.channels(576)
    side = draw.side(channels * (4 if kind in ("nearest", "bilinear", "transposed") else 1))
    count = 1 if kind in ("nearest", "bilinear", "transposed") else 2
    middle = max(channels // 4, 8) if kind == "gate" else channels if kind == "concat" else 0
    if channels * channels * side * side > _MAX_MACS and kind == "transposed":
        side = 7
    kernel = int(draw.one(2, 3, 3)) if kind.endswith("pool") else int(draw.one(1, 1, 2)) if kind == "gate" else 1
    if kind.endswith("pool") and kernel == 2:
        kernel = 3
    stride = 2 if kind.endswith("pool") and side >= 8 else 1
    return Micro(f"{kind}-{channels}-{side}", (channels, side, side), (Step(kind, middle, kernel, stride),) * count)


def _vectors(draw: _Draw) -> Micro:
    first, second = draw.channels(), draw.channels()
    act = draw.one("", "Relu")
    steps = tuple(Step("linear", second if i % 2 == 0 else first, act=act) for i in range(4))
    return Micro(f"fc-{first}-{second}", (first,), steps)


def _head(draw: _Draw) -> Micro:
    channels, side = draw.channels(1280), int(draw.one(4, 5, 7, 7, 8, 10))
    classes = int(draw.one(10, 100, 1000, 1000))
    return Micro(f"head-{channels}-{side}-{classes}", (channels, side, side),
                 (Step(draw.one("flatten", "older_flatten")), Step("linear", classes)))


def _tokens(draw: _Draw) -> Micro:
    tokens, width = int(draw.one(16, 49, 64, 128, 196, 196, 256, 400)), int(draw.one(32, 64, 96, 128, 192, 256, 384))
    kind = draw.one("linear", "linear", "layer_norm", "attention", "gelu", "softmax", "block")
    steps: tuple[Step, ...]
    if kind == "linear":
        other = int(draw.one(width, 3 * width, 4 * width))
        steps = (Step("linear", other), Step("linear", width)) * 2
    elif kind == "attention":
        steps = (Step("attention", kernel=int(draw.one(1, 2, 4))),) * 2
    elif kind == "block":
        steps = (Step("layer_norm"), Step("linear", 4 * width), Step("gelu"), Step("linear", width), Step("add"))
    else:
        steps = (Step(kind),) * 3
    return Micro(f"{kind}-{tokens}-{width}", (tokens, width), steps)


def _heavy(draw: _Draw) -> Micro:
    """Weights beyond the caches."""
    channels, side = int(draw.one(320, 512, 512, 640, 768, 1024)), int(draw.one(4, 5, 7, 7, 10))
    kernel = int(draw.one(1, 3, 3)) if channels <= 512 else 1
    return Micro(f"heavy{kernel}-{channels}-{side}", (channels, side, side),
                 (Step("conv", channels, kernel, 1, "Relu"),) * int(draw.one(4, 8, 12)))


def _blocks(draw: _Draw) -> Micro:
    """A short network as people build them: a stem, stages of blocks at falling resolution, a classifier."""
    side, channels = int(draw.one(48, 64, 96, 112, 128, 160, 192)), int(draw.one(16, 16, 24, 32))
    act = draw.one("Relu", "relu6", "HardSwish")
    family = draw.one("separable", "separable", "gated", "residual", "unit", "ghost", "next", "hourglass")
    steps = [Step("conv", channels, 3, 2, act)]
    if family == "hourglass":
        steps += _hourglass(draw, channels)
        return Micro(f"blocks-{family}-{channels}-{side}", (3, side // 16 * 16, side // 16 * 16), tuple(steps))
    for _ in range(int(draw.one(2, 3, 4))):
        wider = int(channels * float(draw.one(1, 1.5, 2))) // 8 * 8
        if family == "unit":  # widths of which a half is seldom a multiple of 16
            wider = int(draw.one(48, 96, 104, 116, 152, 176, 232, 352, 464))
        steps.append(Step("conv", wider, int(draw.one(1, 3)), 2, act))
        channels = wider
        for _ in range(int(draw.one(1, 2, 3))):
            steps += _block(draw, family, channels, act)
    steps += [Step(draw.one("flatten", "flatten", "older_flatten")), Step("linear", int(draw.one(10, 100, 1000)))]
    return Micro(f"blocks-{family}-{channels}-{side}", (3, side, side), tuple(steps))


def _block(draw: _Draw, family: str, channels: int, act: str) -> list[Step]:
    if family in ("residual", "unit", "next"):
        return [Step(family, kernel=7 if family == "next" else int(draw.one(1, 3, 3)))]
    wide = channels * int(draw.one(2, 4, 6))
    inner = [Step("conv", wide, 1, 1, act), Step("depthwise", 0, int(draw.one(3, 5)), 1, act)]
    if family == "ghost":
        inner = [Step("conv", wide // 2, 1, 1, "Relu"), Step("concat")]
    gate = [Step("gate", max(wide // 4, 8), int(draw.one(1, 1, 2)))] if family == "gated" else []
    return [*inner, *gate, Step("conv", channels)]


def _hourglass(draw: _Draw, channels: int) -> list[Step]:
    """Down and up again, as for segmentation."""
    up = draw.one("transposed", "nearest", "bilinear")
    pair = (Step("conv", 0, 3, 1, "Relu"),) * 2
    down = [Step("max_pool", 0, 3, 2), Step("conv", 2 * channels, 3, 1, "Relu"), *pair]
    return [*pair, *down, Step(up, 0 if up != "transposed" else channels), Step("conv", channels, 3, 1, "Relu"), *pair,
            Step("conv", 8)]


def _encoder(draw: _Draw) -> Micro:
    """Blocks of a small transformer."""
    tokens, width = int(draw.one(16, 49, 64, 128, 196, 196)), int(draw.one(64, 96, 128, 192))
    block = (Step("layer_norm"), Step("attention", kernel=int(draw.one(2, 4))), Step("add"), Step("layer_norm"),
             Step("linear", 4 * width, act="Gelu"), Step("linear", width), Step("add"))
    return Micro(f"blocks-encoder-{tokens}-{width}", (tokens, width), block * int(draw.one(1, 2)))


_KINDS: tuple[tuple[Callable[[_Draw], Micro], int], ...] = (
    (_pointwise, 22), (_dense, 14), (_first, 5), (_depthwise, 14), (_separable, 6), (_elementwise, 12),
    (_on_images, 18), (_vectors, 5), (_head, 4), (_tokens, 12), (_heavy, 5), (_blocks, 30), (_encoder, 5),
)  # fmt: skip


def plan(count: int, seed: int = 0) -> Iterator[Micro]:
    """``count`` networks in an order in which every beginning is a mixture of all kinds."""
    draw = _Draw(seed)
    makers = [maker for maker, _ in _KINDS]
    weights = np.array([weight for _, weight in _KINDS], np.float64)
    given = np.zeros(len(makers))
    for number in range(count):
        behind = weights / weights.sum() * (number + 1) - given
        chosen = int(behind.argmax())
        given[chosen] += 1
        micro = makers[chosen](draw)
        yield Micro(f"{number}-{micro.name}", micro.shape, micro.steps)
