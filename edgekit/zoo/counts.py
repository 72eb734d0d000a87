"""Multiply-adds and parameters of a network of the zoo, without computing anything: on torch's meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from edgekit.train.multi_exit import CutPoint, cut_points
from edgekit.zoo.registry import build, find

__all__ = ["Counts", "counts", "exit_shares", "on_meta"]


class Counts(NamedTuple):
    """``macs``: of convolutions and matrix products for one image. ``parameters``: all that are trained."""

    macs: int
    parameters: int


class _NoInit(TorchFunctionMode):
    """Leaves out torch.nn.init, which is slow on the meta device and does nothing there."""

    def __torch_function__(self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def on_meta(name: str, **size: float) -> nn.Module:
    """Network ``name`` in eval mode with shapes and no numbers; ``size`` as of ``edgekit.zoo.build``."""
    with torch.device("meta"), _NoInit():
        return build(name, **size).eval()  # type: ignore[arg-type]


def counts(name: str, **size: float) -> Counts:
    """Of network ``name``; ``size`` as of ``edgekit.zoo.build``. BatchNorm, which engines fold, counts no MACs."""
    network = on_meta(name, **size)
    resolution = int(size.get("resolution", find(name).resolution))
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.forward = _same  # type: ignore[method-assign, assignment]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, resolution, resolution, device="meta"))
    return Counts(counter.get_total_flops() // 2, sum(each.numel() for each in network.parameters()))


def exit_shares(name: str, **size: float) -> tuple[CutPoint, ...]:
    """The exits of network ``name`` with the share of the multiply-adds that is done by then."""
    entry = find(name)
    resolution = int(size.get("resolution", entry.resolution))
    points = cut_points(on_meta(name, **size), torch.empty(1, 3, resolution, resolution, device="meta"))
    return tuple(point for point in points if point.name in entry.exits)


def _same(x: Tensor) -> Tensor:
    return x
