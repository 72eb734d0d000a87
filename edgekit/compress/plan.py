"""Collaborative compression of a network: sites scored and removed step by step, one multiplier for the target."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.compress.allocate import Fit, fit_curve, rates
from edgekit.compress.couplings import Product
from edgekit.compress.recipe import CompressRecipe
from edgekit.compress.resize import Removal, merged, shrink, split, splittable, tensor_of
from edgekit.compress.structure import Key, Structure, structure
from edgekit.compress.units import Job, Reader, Remover, State, rounded
from edgekit.errors import BadRecipe

__all__ = ["Compressor", "Plan", "mean_gradients"]

_STEPS = 60
_MULTIPLIERS = (-80.0, 80.0)
Pays = Callable[[Product, int, int, int], bool]
"""Whether a layer is better as two: the layer, its channels in and out, the channels between."""


@dataclass(frozen=True)
class Plan:
    """``states``: for each job the state to take. ``kept``: positions left; ``ranks``: of the layers that become two.

    ``macs``: of one sample, by the formula; the network that ``Compressor.apply`` makes has exactly these.
    """

    states: tuple[int, ...]
    kept: Mapping[Key, int]
    ranks: Mapping[str, int]
    macs: int
    loss: float


def mean_gradients(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]],
                   loss: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """The mean gradient of ``loss(network, inputs, targets)`` by parameter, over ``batches``, in eval mode."""
    training = network.training
    network.eval()
    total: dict[str, Tensor] = {}
    count = 0
    for inputs, targets in batches:
        network.zero_grad(set_to_none=True)
        loss(network, inputs, targets).backward()  # type: ignore[no-untyped-call]
        count += len(targets)
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                total[name] = total.get(name, 0.0) + parameter.grad.detach().double() * len(targets)
    network.zero_grad(set_to_none=True)
    network.train(training)
    if not count:
        raise BadRecipe("There are no batches to take gradients on.", "Give data.")
    return {name: value / count for name, value in total.items()}


@dataclass
class Compressor:
    """Everything about ``network`` that does not depend on the target: sites, losses, the order of removal.

    ``gradients``: as ``mean_gradients`` gives them. Raises BadModel where the network cannot be traced, BadRecipe where
    nothing of it can be removed.
    """

    network: nn.Module
    example: Tensor
    gradients: Mapping[str, Tensor]
    recipe: CompressRecipe = field(default_factory=CompressRecipe)
    pays: Pays | None = None

    def __post_init__(self) -> None:
        self.structure: Structure = structure(self.network, self.example)
        self.jobs = [job for job in _jobs(self.network, self.structure, self.gradients)
                     if job.movable or self.recipe.units != "channels"]
        if not self.jobs:
            raise BadRecipe("Nothing of this network can be removed.", "It has no convolution or linear layer.")
        self.fits: list[Fit] = [fit_curve(*Remover(job, self.recipe).curve(), job.whole) for job in self.jobs]
        self._states: list[list[State]] = [Remover(job, self.recipe).states() for job in self.jobs]

    def plan(self, target_macs: int) -> Plan:
        """The plan with the lowest multiplier whose network takes at most ``target_macs`` multiply-adds a sample.

        Raises BadRecipe where even ``highest_rate`` everywhere takes more, naming what it takes.
        """
        low, high = _MULTIPLIERS
        best = self.smallest()
        if best.macs > target_macs:
            raise BadRecipe(f"The network cannot be brought to {target_macs:,} multiply-adds: {best.macs:,} are left "
                            f"when {self.recipe.highest_rate:.0%} of every site is gone.",
                            "Allow more, or choose another network.")
        for _ in range(_STEPS):
            middle = (low + high) / 2
            found = self.at(middle)
            if found.macs <= target_macs:
                best, high = found, middle
            else:
                low = middle
        return self._filled(best, target_macs)

    def smallest(self) -> Plan:
        """The plan that takes ``highest_rate`` of every site."""
        return self.at(_MULTIPLIERS[1])

    def at(self, multiplier: float) -> Plan:
        """The plan for ln(lambda) = ``multiplier``."""
        wanted = rates(self.fits, multiplier, self.recipe.allocation, self.recipe.highest_rate)
        return self._of([
            next((number for number, state in enumerate(states) if state.rate >= rate), len(states) - 1)
            for states, rate in zip(self._states, wanted, strict=True)])

    def _filled(self, plan: Plan, target_macs: int) -> Plan:
        """``plan`` with what rounding took too much given back: a step of one job at a time, the most loss a
        multiply-add first.
        """
        while True:
            better = []
            for job in range(len(self.jobs)):
                for index in range(plan.states[job] - 1, -1, -1):
                    other = self._of([*plan.states[:job], index, *plan.states[job + 1:]])
                    if other.macs > target_macs:
                        break
                    if other.macs > plan.macs:
                        better.append(((plan.loss - other.loss) / (other.macs - plan.macs), other))
                        break
            if not better:
                return plan
            plan = max(better, key=lambda each: each[0])[1]

    def _of(self, chosen: Sequence[int]) -> Plan:
        kept, ranks, loss = dict[Key, int](), dict[str, int](), 0.0
        for job, states, index in zip(self.jobs, self._states, chosen, strict=True):
            state = states[index]
            loss += state.loss
            if job.site is not None and state.kept < job.channels:
                left = rounded(state.kept, job.channels, self.recipe.multiple)
                for key, places in self.structure.sites[job.site].positions.items():
                    shape = self.structure.shapes[key[0]][key[1]]
                    kept[key] = kept.get(key, shape) - (job.channels - left) * places.shape[1]
            for reader, rank in zip(job.readers, state.ranks, strict=True):
                if rank is not None:
                    ranks[reader.name] = rounded(rank, reader.cout, self.recipe.multiple)
        ranks = {name: rank for name, rank in ranks.items() if self._splits(name, rank, kept)}
        return Plan(tuple(chosen), kept, ranks, self.structure.macs_of(kept, ranks), loss)

    def _splits(self, name: str, rank: int, kept: Mapping[Key, int]) -> bool:
        product = next(each for each in self.structure.products if each.weight == name)
        cin, cout = self.structure.sizes(product, kept)
        saves = rank * (cin * product.kernel + cout) <= (1 - self.recipe.split_gain) * cin * product.kernel * cout
        return saves and (self.pays is None or self.pays(product, cin, cout, rank))

    def apply(self, plan: Plan) -> nn.Module:
        """A copy of the network, physically smaller; its layers' weights are the old ones or their projections."""
        smaller = copy.deepcopy(self.network)
        removals: list[Removal] = []
        for job, states, index in zip(self.jobs, self._states, plan.states, strict=True):
            state = states[index]
            remover = Remover(job, self.recipe)
            for _ in range(index):
                remover.step()
            left = rounded(state.kept, job.channels, self.recipe.multiple)
            remover.settle(left, [plan.ranks.get(reader.name) for reader in job.readers])
            if job.site is not None:
                removals.append(self.structure.sites[job.site].removal(np.flatnonzero(~remover.kept).tolist()))
            for reader, basis in zip(job.readers, remover.bases, strict=True):
                if reader.name in plan.ranks:
                    assert basis is not None
                    split(smaller, reader.name.rpartition(".")[0], basis)
        shrink(smaller, _renamed(merged(removals), plan.ranks))
        return smaller


def _renamed(removal: Removal, ranks: Mapping[str, int]) -> Removal:
    """The same for layers that are two by now: inputs belong to the first half, outputs to the second."""
    found = {}
    for (name, axis), gone in removal.items():
        folder, _, own = name.rpartition(".")
        halved = f"{folder}.weight" in ranks
        found[f"{folder}.{0 if own == 'weight' and axis == 1 else 1}.{own}" if halved else name, axis] = gone
    return found


def _jobs(network: nn.Module, found: Structure, gradients: Mapping[str, Tensor]) -> list[Job]:
    """One for each site, and one for each layer whose inputs all stay but which can be split."""
    pixels: dict[str, int] = {}
    for product in found.products:
        pixels[product.weight] = pixels.get(product.weight, 0) + product.pixels
    products = {product.weight: product for product in found.products}
    jobs, whole = [], set()
    for number, site in enumerate(found.sites):
        readers = []
        for name, axis in site.readers:
            places = torch.from_numpy(site.positions[name, axis])
            complete = places.numel() == found.shapes[name][axis] and name not in whole
            readers.append(_reader(network, products[name], gradients, places, complete, pixels[name]))
            if complete:
                whole.add(name)
        passing = sum(product.pixels * product.kernel * site.positions[product.weight, 0].shape[1]
                      for product in found.products
                      if product.kind == "depthwise" and (product.weight, 0) in site.positions)
        jobs.append(Job(number, tuple(readers), True, passing))
    for name, product in products.items():
        if name not in whole and product.kind in ("conv", "linear"):
            places = torch.arange(found.shapes[name][1])[:, None]
            reader = _reader(network, product, gradients, places, True, pixels[name])
            if reader.splits:
                jobs.append(Job(None, (reader,), False))
    return [job for job in jobs if job.movable or any(reader.splits for reader in job.readers)]


def _reader(network: nn.Module, product: Product, gradients: Mapping[str, Tensor], places: Tensor, complete: bool,
            pixels: int) -> Reader:
    """``places``: (channels, n) input positions of the layer."""
    weight = tensor_of(network, product.weight).detach().double()
    gradient = gradients.get(product.weight, torch.zeros_like(weight)).double()
    shaped = []
    for tensor in (weight, gradient**2):
        picked = tensor.movedim((product.out_axis, product.in_axis), (0, 1)).flatten(2) if tensor.dim() > 2 else \
            tensor[:, :, None]
        shaped.append(picked[:, places.reshape(-1)].reshape(len(picked), len(places), -1))
    module = network.get_submodule(product.weight.rpartition(".")[0])
    splits = complete and product.weight.endswith(".weight") and splittable(module)
    return Reader(product.weight, shaped[0], shaped[1], pixels, splits)
