"""A network made small for a target, and trained again: ``compress``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.compress.latency import plan_for_latency, predicted, split_pays
from edgekit.compress.plan import Compressor, mean_gradients
from edgekit.compress.recipe import CompressRecipe
from edgekit.compress.structure import count_macs
from edgekit.device_profiles import DeviceProfile
from edgekit.errors import BadInput, BadRecipe
from edgekit.profile.predict import LatencyPrediction
from edgekit.train.distill import DistillRecipe, distilled
from edgekit.train.loop import TrainRecipe, fit

__all__ = ["FINE_TUNE", "Compressed", "Data", "Size", "Target", "compress"]

_RECIPE, _SCHEDULE = CompressRecipe(), TrainRecipe(epochs=5, learning_rate=0.03)
#: the uncompressed network teaches the compressed one; labels count as much
FINE_TUNE = DistillRecipe(hard=0.5, mix=None)
_BATCH, _HELD_OUT, _FEWEST = 64, 5, 20


@dataclass(frozen=True)
class Data:
    """``images``: float32 as the network takes them, axis 0 counts; ``labels``: int64 (N,). One of five is held out.

    Raises BadInput for fewer than 20, or other numbers of images and labels.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels) or len(self.images) < _FEWEST:
            raise BadInput(f"There are {len(self.images)} images and {len(self.labels)} labels.",
                           f"Give as many of both, at least {_FEWEST}.")

    def part(self, held_out: bool) -> tuple[Tensor, Tensor]:
        """What is held out to judge by, or the rest."""
        mask = torch.arange(len(self.labels)) % _HELD_OUT == _HELD_OUT - 1
        return (self.images[mask], self.labels[mask]) if held_out else (self.images[~mask], self.labels[~mask])


@dataclass(frozen=True, kw_only=True)
class Target:
    """Either ``macs``, a part of the network's (0 to 1) or a count above 1, or ``latency_ms`` by ``profile``.

    ``profile`` beside ``macs``: latencies are predicted, and a layer becomes two only where that is faster there.
    """

    macs: float | None = None
    latency_ms: float | None = None
    profile: DeviceProfile | None = None

    def __post_init__(self) -> None:
        if (self.macs is None) == (self.latency_ms is None):
            raise BadRecipe("The target is either multiply-adds or a latency.", "Give one of the two.")
        if self.latency_ms is not None and self.profile is None:
            raise BadRecipe("A latency is of a device.", "Give its profile: edgekit devices list")
        if not 0 < (self.macs or self.latency_ms or 0) < float("inf"):
            raise BadRecipe(f"The target is {self.macs or self.latency_ms}.", "Give a value above 0.")


@dataclass(frozen=True)
class Size:
    """Of one sample: multiply-adds, parameters, and the predicted latency where a profile is given."""

    macs: int
    parameters: int
    latency: LatencyPrediction | None


@dataclass(frozen=True)
class Compressed:
    """``splits``: layers that are two now, and the channels between. ``accuracy``: percent of the held-out images, of
    the original, the compressed and the fine-tuned network. ``fits``: how well the exponential describes the losses
    (R2), for each site.
    """

    network: nn.Module
    splits: dict[str, int]
    before: Size
    after: Size
    accuracy: tuple[float, float, float]
    fits: tuple[float, ...]


def compress(network: nn.Module, data: Data, target: Target, recipe: CompressRecipe = _RECIPE,
             schedule: TrainRecipe | None = _SCHEDULE,
             on_step: Callable[[str], None] = lambda _: None) -> Compressed:
    """A smaller copy of ``network``, a trained classifier (N, ...) -> logits (N, classes), for ``target``.

    Gradients and fine-tuning by ``schedule`` (None for none) use four fifths of ``data``, accuracies the rest. Raises
    BadModel, BadInput, BadRecipe, and BudgetImpossible for a latency out of reach.
    """
    images, labels = data.part(held_out=False)
    network.eval()
    on_step("gradients")
    gradients = mean_gradients(network, _batches(images, labels), _cross_entropy)
    on_step("scoring channels and ranks")
    pays = None if target.profile is None else split_pays(target.profile)
    compressor = Compressor(network, images[:2], gradients, recipe, pays)
    on_step("looking for the target")
    if target.latency_ms is None:
        assert target.macs is not None
        plan = compressor.plan(int(target.macs * compressor.structure.macs if target.macs <= 1 else target.macs))
    else:
        plan = plan_for_latency(compressor, target.latency_ms, lambda each: _latency(each, images, target.profile))
    smaller = compressor.apply(plan)
    accuracies = [_accuracy(each, data) for each in (network, smaller)]
    if schedule is not None:
        fit(smaller, lambda epoch: _Epoch(images, labels, (schedule.seed, epoch)), distilled(network, FINE_TUNE),
            schedule, on_epoch=lambda progress: on_step(f"fine-tuning, epoch {progress.epoch} of {schedule.epochs}"))
    accuracies.append(_accuracy(smaller, data))
    splits = {name.rpartition(".")[0]: rank for name, rank in plan.ranks.items()}
    return Compressed(smaller, splits, _size(network, images, target.profile), _size(smaller, images, target.profile),
                      (accuracies[0], accuracies[1], accuracies[2]), tuple(each.r2 for each in compressor.fits))


class _Epoch:
    def __init__(self, images: Tensor, labels: Tensor, seed: tuple[int, int]) -> None:
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))
        self._images, self._labels, self._order = images, labels, order

    def __len__(self) -> int:
        return max(1, len(self._labels) // _BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in self._order.tensor_split(len(self)):
            yield self._images[rows], self._labels[rows]


def _batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True)


def _cross_entropy(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    logits = network(images)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or int(labels.max()) >= logits.shape[1]:
        raise BadInput("The network does not return logits (N, classes) for all the labels.",
                       "Give a classifier, and labels from 0 to classes - 1.")
    return functional.cross_entropy(logits, labels)


def _accuracy(network: nn.Module, data: Data) -> float:
    network.eval()
    right, count = 0, 0
    with torch.no_grad():
        for images, labels in _batches(*data.part(held_out=True)):
            right, count = right + int((network(images).argmax(1) == labels).sum()), count + len(labels)
    return 100 * right / count


def _latency(network: nn.Module, images: Tensor, profile: DeviceProfile | None) -> float:
    assert profile is not None
    return predicted(network, images, profile).latency_ms


def _size(network: nn.Module, images: Tensor, profile: DeviceProfile | None) -> Size:
    latency = None if profile is None else predicted(network, images, profile)
    return Size(count_macs(network, images), sum(each.numel() for each in network.parameters()), latency)
