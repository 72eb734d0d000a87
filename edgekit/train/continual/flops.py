"""FLOPs of training, counted as SparCL's paper does and counted in full.

For a layer with C multiply-adds per sample, of whose weights the part d is alive and g is updated, a sample costs
2C d forward, 2C d back to the input and 2C min(d, g) back to the weights; 6C where it is dense. The paper charges each
sample that is replayed one forward pass, a third of that (its ratio 3 : 4 : 5 of no replay, ER and DER++ shows it); in
full it costs as much as any other. The full count also has the samples on which importance is found, and the steps
that take the gradients of all live weights to choose which to update. It leaves out the gradient of the first layer's
input, which nobody computes; the paper's formula has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["FlopsMeter", "LayerMacs", "count_macs"]


class LayerMacs(NamedTuple):
    """``weight``: the name of a layer's weight; ``macs``: its multiply-adds for one sample."""

    weight: str
    macs: int


def count_macs(network: nn.Module, image: tuple[int, ...]) -> tuple[LayerMacs, ...]:
    """Of each convolution and linear layer of ``network`` for an input (C, H, W), in the order of execution."""
    found: list[LayerMacs] = []
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            def note(layer: nn.Module, _: tuple[Tensor, ...], result: Tensor, name: str = name) -> None:
                weight = layer.weight
                assert isinstance(weight, Tensor)
                places = result[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1
                found.append(LayerMacs(f"{name}.weight", weight.numel() * places))

            handles.append(module.register_forward_hook(note))
    training = network.training
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, *image))
    network.train(training)
    for handle in handles:
        handle.remove()
    return tuple(found)


class FlopsMeter:
    """Adds up a run. ``paper`` and ``full`` are FLOPs, two for each multiply-add."""

    def __init__(self) -> None:
        self.paper = 0.0
        self.full = 0.0
        self._forward = self._to_inputs = self._to_weights = 0.0

    def set_network(self, layers: tuple[LayerMacs, ...], densities: Mapping[str, float], keep: float) -> None:
        """From now on: ``densities`` of the weights that are masked (1 for others), ``keep`` of the live are updated.

        ``keep`` concerns the weights in ``densities`` only.
        """
        costs = [2 * macs * densities.get(name, 1.0) for name, macs in layers]
        self._forward = sum(costs)
        self._to_inputs = self._forward - costs[0]
        self._to_weights = sum(cost * (keep if name in densities else 1.0)
                               for cost, (name, _) in zip(costs, layers, strict=True))

    def step(self, samples: int, replayed: int, selecting: bool = False) -> None:
        """One step on ``samples`` new samples and ``replayed`` of the buffer.

        ``selecting``: gradients of all live weights were taken.
        """
        self.paper += (2 * self._forward + self._to_weights) * (samples + replayed / 3)
        weights = self._forward if selecting else self._to_weights
        self.full += (self._forward + self._to_inputs + weights) * (samples + replayed)

    def importance(self, samples: int) -> None:
        """Importance was found on ``samples`` samples."""
        self.full += (2 * self._forward + self._to_inputs) * samples
