"""Removing the units of one site, input channels and singular values together (CC, section 3).

W of a reader is cout x (channels * n). Its units are the channels and the singular values of what is left of it. The
loss of a set of removals is sum (G * (W' - W))^2 with the mean gradient G: a first-order Taylor term, squared element
by element. After each step the rest is scored anew: loss + gamma * (loss expected after one more random removal).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekit.compress.recipe import CompressRecipe

__all__ = ["Job", "Reader", "Remover", "State", "rounded"]

Kept = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Reader:
    """A layer that reads the channels of a site.

    ``weight``: float64 (cout, channels, n), n summands of an output for each channel; ``squares``: G^2 in the same
    shape. ``pixels``: how often it is applied. ``splits``: singular values are units too.
    """

    name: str
    weight: Tensor
    squares: Tensor
    pixels: int
    splits: bool

    @property
    def cout(self) -> int:
        """Outputs."""
        return int(self.weight.shape[0])

    @property
    def per_channel(self) -> int:
        """N."""
        return int(self.weight.shape[2])


@dataclass(frozen=True)
class Job:
    """A site and its readers. ``movable``: whether channels can go; ``passing``: multiply-adds of depthwise layers for
    each channel.
    """

    site: int | None
    readers: tuple[Reader, ...]
    movable: bool
    passing: int = 0

    @property
    def channels(self) -> int:
        """Of the site."""
        return int(self.readers[0].weight.shape[1])

    def macs(self, channels: int, ranks: Sequence[int | None]) -> int:
        """Of the site with ``channels`` left and readers split to ``ranks``, outputs as they are (CC's accounting)."""
        total = self.passing * channels
        for reader, rank in zip(self.readers, ranks, strict=True):
            fan_in = channels * reader.per_channel
            cost = fan_in * reader.cout if rank is None else rank * (fan_in + reader.cout)
            total += reader.pixels * cost
        return total

    @property
    def whole(self) -> int:
        """Multiply-adds before anything is removed."""
        return self.macs(self.channels, [None] * len(self.readers))


@dataclass(frozen=True)
class State:
    """After some steps: channels left, ranks (None where no singular value is gone), the loss, and the saved share."""

    kept: int
    ranks: tuple[int | None, ...]
    loss: float
    rate: float


def rounded(count: int, whole: int, multiple: int) -> int:
    """``count`` as the nearest multiple, at least one and at most ``whole``; ``whole`` stays what it is."""
    if count >= whole or multiple <= 1:
        return min(count, whole)
    return min(whole, max(multiple, (2 * count + multiple) // (2 * multiple) * multiple))


class Remover:
    """The units of ``job`` that are left. ``bases``: for each reader the orthonormal columns that span its outputs."""

    def __init__(self, job: Job, recipe: CompressRecipe) -> None:
        self.job = job
        self._recipe = recipe
        self._channels = job.movable and recipe.units != "ranks"
        self._splits = [reader.splits and recipe.units != "channels" for reader in job.readers]
        self.kept: Kept = np.ones(job.channels, dtype=bool)
        self.order: list[int] = []  # channels in the order in which they went
        self.bases: list[Tensor | None] = [None] * len(job.readers)
        self._vectors: dict[int, Tensor] = {}  # of the readers when they were scored last
        self._gone: dict[int, set[int]] = {}  # which of those went since
        self._step = max(1, int(recipe.step_share * self._count()))

    def step(self) -> bool:
        """Remove the units that score lowest; False where nothing is left to remove."""
        scores, units = self._scores(self._recipe.gamma)
        return self._remove([units[index] for index in np.argsort(scores, kind="stable")[:self._step].tolist()])

    def states(self) -> list[State]:
        """From the whole site to ``highest_rate``, or until nothing is left to remove."""
        found = [self.state()]
        while found[-1].rate < self._recipe.highest_rate and self.step():
            found.append(self.state())
        return found

    def curve(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Rates and losses when the units go in the order of what each alone would lose (CC, section 3.2), first to
        last. The singular vectors are those of the whole layer. Points that save nothing are left out.
        """
        scores, units = self._scores(0.0)
        order = [units[index] for index in np.argsort(scores, kind="stable").tolist()]
        points = []
        for first in range(0, len(order), self._step):
            if not self._remove(order[first:first + self._step]):
                break
            state = self.state()
            ranks = state.ranks
            points.append((1 - self.job.macs(state.kept, ranks) / self.job.whole, state.loss))
        rates, losses = np.array(points).reshape(-1, 2).T
        inside = np.argsort(rates, kind="stable")
        inside = inside[rates[inside] > 0]
        return rates[inside], losses[inside]

    def state(self) -> State:
        """What is left now; a reader whose two halves would cost more than the whole layer counts as whole."""
        kept, loss, cost = int(self.kept.sum()), 0.0, self.job.passing * int(self.kept.sum())
        ranks = []
        for reader, basis in zip(self.job.readers, self.bases, strict=True):
            now = self._now(reader, basis)
            loss += float((reader.squares * (now - reader.weight) ** 2).sum())
            rank = None if basis is None else int(basis.shape[1])
            fan_in = kept * reader.per_channel
            whole = fan_in * reader.cout
            cost += reader.pixels * (whole if rank is None else min(whole, rank * (fan_in + reader.cout)))
            ranks.append(rank)
        return State(kept, tuple(ranks), loss, 1 - cost / self.job.whole)

    def settle(self, channels: int, ranks: Sequence[int | None]) -> None:
        """Bring what is left to these counts: the cheapest channels go or the last ones come back, ranks likewise."""
        while int(self.kept.sum()) > channels:
            scores, units = self._scores(self._recipe.gamma)
            self._remove([units[index] for index in np.argsort(scores, kind="stable").tolist()
                          if units[index][0] < 0][:1])
        while int(self.kept.sum()) < channels:
            self.kept[self.order.pop()] = True
        for index, (reader, rank) in enumerate(zip(self.job.readers, ranks, strict=True)):
            basis = self.bases[index]
            if rank is not None and basis is not None:
                self.bases[index] = self._resettled(reader, basis, rank)

    def _resettled(self, reader: Reader, basis: Tensor, rank: int) -> Tensor:
        """The strongest ``rank`` directions of ``basis``, or it and the strongest of what it misses."""
        left = reader.weight[:, torch.from_numpy(self.kept)].flatten(1)
        inner = basis.T @ left
        if rank <= basis.shape[1]:
            turned: Tensor = basis @ torch.linalg.eigh(inner @ inner.T).eigenvectors.flip(1)[:, :rank]
            return turned
        missed = left - basis @ inner
        more = torch.linalg.eigh(missed @ missed.T).eigenvectors.flip(1)[:, :rank - basis.shape[1]]
        whole: Tensor = torch.linalg.qr(torch.cat([basis, more], dim=1)).Q
        return whole

    def _count(self) -> int:
        units = int(self.kept.sum()) if self._channels else 0
        for reader, basis, splits in zip(self.job.readers, self.bases, self._splits, strict=True):
            if splits:
                units += min(reader.cout, int(self.kept.sum()) * reader.per_channel) if basis is None else \
                    int(basis.shape[1])
        return units

    def _now(self, reader: Reader, basis: Tensor | None) -> Tensor:
        """(cout, channels, n) as it is left: removed channels are 0, the rest projected on the basis."""
        left = reader.weight * torch.from_numpy(self.kept)[None, :, None]
        return left if basis is None else (basis @ (basis.T @ left.flatten(1))).reshape(left.shape)

    def _scores(self, gamma: float) -> tuple[npt.NDArray[np.float64], list[tuple[int, int]]]:
        """What removing each unit adds; units are (-1, channel) or (reader, column of its basis).

        Sums over a unit u of W, with A = G^2 and D = W - W0: the loss after it is sum A (D - u)^2, and the expected
        loss after one more of the other n - 1 is that - (4 sum A (D - u)(W - u) - sum A (W - u)^2 - q) / (n - 1),
        where q sums A times the squares of the singular terms. Constants are left out.
        """
        others = max(self._count() - 1, 1)
        self._gone = {}
        channels = torch.zeros(self.job.channels, dtype=torch.float64)
        scores, units = [], []
        for index, reader in enumerate(self.job.readers):
            now, a = self._now(reader, self.bases[index]), reader.squares
            d = now - reader.weight
            own, drift = (a * now * now).sum((0, 2)), (a * d * now).sum((0, 2))
            lost, more = own - 2 * drift, 4 * drift - own
            if self._splits[index]:
                basis = self._basis(index, now)
                flat, weights = now.flatten(1), a.flatten(1)
                inner = basis.T @ flat
                apart = ((weights * d.flatten(1)) @ inner.T * basis).sum(0)
                along = ((weights * flat) @ inner.T * basis).sum(0)
                alone = (weights @ (inner**2).T * basis**2).sum(0)
                more = more - ((basis**2).T @ weights * inner**2).sum(0).reshape(now.shape[1:]).sum(1)
                removed = alone - 2 * apart
                expected = removed + (4 * (apart + along - alone) - 2 * along) / others
                if basis.shape[1] > 1:
                    scores.append((removed + gamma * expected).numpy())
                    units += [(index, column) for column in range(basis.shape[1])]
            channels += lost + gamma * (lost + more / others)
        if self._channels and int(self.kept.sum()) > 1:
            left = np.flatnonzero(self.kept)
            scores.append(channels.numpy()[left])
            units += [(-1, int(channel)) for channel in left]
        return (np.concatenate(scores) if scores else np.zeros(0)), units

    def _basis(self, index: int, now: Tensor) -> Tensor:
        """The left singular vectors of what is left of a reader, those with something in them; weakest first."""
        flat = now.flatten(1)
        values, vectors = torch.linalg.eigh(flat @ flat.T)
        basis = self.bases[index]
        most = int(self.kept.sum()) * self.job.readers[index].per_channel
        rank = min(len(values) if basis is None else int(basis.shape[1]), most)
        full = int((values > 1e-14 * values[-1].clamp_min(1e-300)).sum())
        self._vectors[index] = vectors[:, len(values) - max(1, min(rank, full)):]
        return self._vectors[index]

    def _remove(self, units: Sequence[tuple[int, int]]) -> bool:
        """Whether any of ``units`` could go: the last channel and the last singular value of a layer stay."""
        done = False
        for index, unit in units:
            if index >= 0:
                gone = self._gone.setdefault(index, set())
                if len(gone) + 1 < self._vectors[index].shape[1]:
                    gone.add(unit)
                    done = True
            elif int(self.kept.sum()) > 1:
                self.kept[unit] = False
                self.order.append(unit)
                done = True
        for index, gone in self._gone.items():
            if gone:
                vectors = self._vectors[index]
                self.bases[index] = vectors[:, [each for each in range(vectors.shape[1]) if each not in gone]]
        return done
