"""BatchNorm with statistics and an affine of its own for each resolution, all else shared (DRNet, section 3.3).

A network sees other statistics at another resolution, and one set for all of them costs accuracy. Folded into the
convolution before it, a norm multiplies each output channel by a number. So in int8 with a scale for each channel the
integers of all resolutions are the same, and only scales and biases differ. Two things would spoil that, and are taken
care of here: a factor of another sign (signs are fixed when the norms are made), and weights that fall on different
sides of a rounding step (``deployed`` moves weights onto the int8 grid before anything is folded).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.errors import BadRecipe

__all__ = ["PrivateNorm", "deployed", "make_norms_private", "norms_of", "use_norms"]

_LEAST = 1e-3  # a factor of 0 has no sign, and no gradient by its size
_STEPS = 127


class PrivateNorm(nn.Module):
    """``count`` BatchNorms like ``norm``, of which number ``at`` is in use. float (N, C, H, W) -> the same shape.

    The sign of each channel's factor is that of ``norm`` for ever.
    """

    sign: Tensor
    means: Tensor
    variances: Tensor

    def __init__(self, norm: nn.BatchNorm2d, count: int) -> None:
        super().__init__()
        if norm.running_mean is None or not norm.affine:
            raise BadRecipe("A BatchNorm has no statistics or no affine.", "Make it with both, as torch does.")
        self.at = 0
        self.eps, self.momentum = norm.eps, 0.1 if norm.momentum is None else norm.momentum
        factor = norm.weight.detach()
        self.register_buffer("sign", torch.where(factor < 0, -1.0, 1.0))
        self.factors = nn.ParameterList(nn.Parameter(factor.abs().clamp_min(_LEAST)) for _ in range(count))
        self.shifts = nn.ParameterList(nn.Parameter(norm.bias.detach().clone()) for _ in range(count))
        self.register_buffer("means", norm.running_mean.repeat(count, 1))
        self.register_buffer("variances", norm.running_var.repeat(count, 1))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        at = self.at
        factor = self.sign * self.factors[at].abs().clamp_min(_LEAST / 10)
        return functional.batch_norm(x, self.means[at], self.variances[at], factor, self.shifts[at], self.training,
                                     self.momentum, self.eps)


def make_norms_private(network: nn.Module, count: int) -> int:
    """Put a ``PrivateNorm`` in the place of every BatchNorm2d inside ``network``; returns how many there were.

    Raises BadRecipe where there is none: such a network needs nothing of the kind.
    """
    places = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()
              if isinstance(child, nn.BatchNorm2d)]
    if not places:
        raise BadRecipe("The network has no BatchNorm2d.", "Use it at every resolution as it is.")
    for parent, name, child in places:
        made = PrivateNorm(child, count)
        made.train(child.training)
        for parameter in made.parameters():
            parameter.requires_grad_(child.weight.requires_grad)
        setattr(parent, name, made)
    return len(places)


def norms_of(network: nn.Module) -> list[PrivateNorm]:
    """The private norms inside."""
    return [module for module in network.modules() if isinstance(module, PrivateNorm)]


def use_norms(network: nn.Module, at: int) -> None:
    """From now on ``network`` is that of resolution number ``at``."""
    for norm in norms_of(network):
        norm.at = at


@contextmanager
def deployed(network: nn.Module, at: int, grid: bool = True) -> Iterator[nn.Module]:
    """``network`` in eval mode as it is to be exported for resolution number ``at``; afterwards it is as before.

    ``grid``: weights of convolutions are on the int8 grid of their output channels, so that quantizing what becomes of
    them after folding gives the same integers at every resolution. Leave it out for fp32.
    """
    before, training = {norm: norm.at for norm in norms_of(network)}, network.training
    kept = {module: module.weight.detach().clone() for module in network.modules() if isinstance(module, nn.Conv2d)}
    use_norms(network.eval(), at)
    try:
        if grid:
            for module in kept:
                module.weight.data = _on_grid(module.weight.detach())
        yield network
    finally:
        for module, weight in kept.items():
            module.weight.data = weight
        for norm, number in before.items():
            norm.at = number
        network.train(training)


def _on_grid(weight: Tensor) -> Tensor:
    step = weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12) / _STEPS
    return torch.round(weight / step) * step
