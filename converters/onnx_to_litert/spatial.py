"""Padding and sizes of sliding windows, shared by convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused

__all__ = ["Window", "conv_size", "fit_padding", "read_window", "same_pads"]

Pads = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window over the spatial axes. ``pads`` are (before, after) for each.

    ``same_upper``: the padding is SAME with the odd element behind, whatever the size (``pads`` then hold for known
    sizes only); ``ceil``: the last window may reach past the padding.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    ceil: bool = False
    same_upper: bool = False

    @property
    def extent(self) -> tuple[int, ...]:
        """The kernel's reach with dilation."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def same_pads(size: int, extent: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding (before, after) of an axis of ``size``."""
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def read_window(node: Node, kernel: Sequence[int], spatial: Shape) -> Window:
    """The window that ``node``'s attributes describe; ``spatial`` is the input's size."""
    rank = len(spatial)
    strides = node.integers("strides", (1,) * rank)
    dilations = node.integers("dilations", (1,) * rank)
    if min(*strides, *dilations, *kernel, 1) < 1:
        raise Refused("its kernel, strides and dilations must be at least 1")
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    auto_pad = node.text("auto_pad", "NOTSET")
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        pads: Pads = []
        for size, reach, stride in zip(spatial, extent, strides, strict=True):
            if size < 0 and stride != 1 and auto_pad == "SAME_LOWER":
                raise Refused(f"auto_pad={auto_pad} on a dynamic size depends on that size", "Fix it with --shape.")
            before, after = same_pads(max(size, reach), reach, stride) if size < 0 else same_pads(size, reach, stride)
            pads.append((before, after) if auto_pad == "SAME_UPPER" else (after, before))
    else:
        flat = node.integers("pads", (0,) * (2 * rank)) if auto_pad == "NOTSET" else (0,) * (2 * rank)
        pads = list(zip(flat[:rank], flat[rank:], strict=True))
    ceil, same_upper = bool(node.integer("ceil_mode", 0)), auto_pad == "SAME_UPPER"
    return Window(tuple(kernel), strides, dilations, tuple(pads), ceil, same_upper)


def conv_size(builder: Builder, size: int, window: Window, axis: int) -> int:
    """The output size of a window along spatial ``axis`` of a (possibly unknown) ``size``."""
    extent, stride, pads = window.extent[axis], window.strides[axis], window.pads[axis]
    if size < 0:
        if stride == 1 and (sum(pads) == extent - 1 or window.same_upper):
            return size
        if window.same_upper:
            return builder.new_dim(("same", size, stride))
        return builder.new_dim(("window", size, extent, stride, sum(pads), window.ceil))
    room = size + sum(pads) - extent
    if room < 0:
        raise Refused(f"its window of {extent} is larger than the padded input of {size + sum(pads)}")
    steps = -(-room // stride) if window.ceil else room // stride
    # a window that would start in the padding behind the input does not count
    if window.ceil and steps * stride >= size + pads[0]:
        steps -= 1
    return steps + 1


def fit_padding(builder: Builder, x: Tensor, window: Window, value: float = 0.0) -> tuple[Tensor, str]:
    """``x`` (N, H, W, C) made ready for a LiteRT window op: possibly padded with ``value``, and "SAME" or "VALID"."""
    if window.same_upper:
        return x, "SAME"
    if all(pad == (0, 0) for pad in window.pads):
        return x, "VALID"
    if all(_is_same(x.shape[1 + axis], window, axis) for axis in range(len(window.kernel))):
        return x, "SAME"
    return builder.pad(x, [(0, 0), *window.pads, (0, 0)], value), "VALID"


def _is_same(size: int, window: Window, axis: int) -> bool:
    extent, stride, pads = window.extent[axis], window.strides[axis], window.pads[axis]
    if size < 0:
        return stride == 1 and pads == ((extent - 1) // 2, extent - 1 - (extent - 1) // 2)
    return pads == same_pads(size, extent, stride)
