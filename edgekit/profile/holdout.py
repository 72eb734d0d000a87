"""Judging predictions on what the fit has not seen: whole architecture families, and whole boards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.graph.costs import OpCost
from edgekit.profile.domain import NOVELTY_POWER, domain_limit, half_widths, novelty, spreads, term_shares
from edgekit.profile.population import ONE_CORE, Board, Cells, Population, Priors, fit_population, log_latency
from edgekit.profile.tables import BoardRun
from edgekit.profile.terms import OpTable, term_amounts

__all__ = ["Bands", "HeldOut", "Study", "bands", "leave_families_out"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Study(msgspec.Struct, frozen=True):
    """Boards that measured networks: ``family[m]`` is the architecture family of ``models[m]``."""

    models: tuple[str, ...]
    family: tuple[str, ...]
    graphs: tuple[tuple[OpCost, ...], ...]
    runs: tuple[BoardRun, ...]

    @classmethod
    def of(cls, graphs: Mapping[str, Sequence[OpCost]], family: Mapping[str, str], runs: Sequence[BoardRun]) -> Study:
        """From the tables; networks that no board measured are left out."""
        measured = {model for run in runs for model in run.latency_ms}
        models = tuple(model for model in family if model in graphs and model in measured)
        return cls(
            models, tuple(family[model] for model in models), tuple(tuple(graphs[m]) for m in models), tuple(runs)
        )

    def without(self, family: str) -> Study:
        """The same boards without the networks of ``family``."""
        kept = [index for index, name in enumerate(self.family) if name != family]
        return Study(
            tuple(self.models[i] for i in kept),
            tuple(self.family[i] for i in kept),
            tuple(self.graphs[i] for i in kept),
            self.runs,
        )

    def cells(self) -> Cells:
        """Every measurement of a network of the study."""
        index = {model: column for column, model in enumerate(self.models)}
        rows = [
            (board, index[model], np.log(ms))
            for board, run in enumerate(self.runs)
            for model, ms in run.latency_ms.items()
            if model in index
        ]
        table = np.array(rows, np.float64)
        return Cells(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2])

    def amounts(self, shape: Floats) -> Floats:
        """(models, terms)."""
        table = OpTable(self.graphs)
        return table.per_graph(term_amounts(table, shape))

    def fit(self, priors: Priors = ONE_CORE) -> tuple[Population, list[Board]]:
        """The population of the study's boards. A board whose networks are all missing would have no scale."""
        return fit_population(self.graphs, self.cells(), priors, half=np.array([run.half for run in self.runs]))


class HeldOut(msgspec.Struct, frozen=True):
    """A prediction for every cell, by a fit that knew no network of its family; ``family`` indexes ``families``."""

    cells: Cells
    families: tuple[str, ...]
    family: Ints
    predicted: Floats
    novelty: Floats

    @property
    def log_ratio(self) -> Floats:
        """Measured over predicted, in logarithms."""
        return np.asarray(self.cells.log_ms - self.predicted)

    @property
    def ape(self) -> Floats:
        """Absolute error as a part of the measured time."""
        return np.asarray(np.abs(np.exp(-self.log_ratio) - 1))


def leave_families_out(study: Study, priors: Priors = ONE_CORE) -> HeldOut:
    """Fit once for each family, without it on any board, and predict it."""
    cells = study.cells()
    families = tuple(dict.fromkeys(study.family))
    of_model = np.array([families.index(name) for name in study.family])
    predicted, new = np.empty(len(cells.log_ms)), np.empty(len(cells.log_ms))
    for index, family in enumerate(families):
        population, boards = study.without(family).fit(priors)
        amounts = study.amounts(population.shape)
        shares = term_shares(population.log_cost, amounts)
        novelties = novelty(shares, shares[of_model != index])
        for row in np.flatnonzero(of_model[cells.model] == index):
            model = cells.model[row]
            predicted[row] = log_latency(boards[cells.board[row]], amounts[model : model + 1])[0]
            new[row] = novelties[model]
    return HeldOut(cells, families, of_model[cells.model], predicted, new)


class Bands(msgspec.Struct, frozen=True):
    """For each cell, by what the other families say: ``inside`` the calibrated domain, ``covered`` by the 90 % band."""

    inside: npt.NDArray[np.bool_]
    covered: npt.NDArray[np.bool_]
    half_width: Floats


def bands(held_out: HeldOut) -> Bands:
    """Domain and band for the cells of each family, set on the held-out residuals of the other families."""
    count = len(held_out.predicted)
    inside, covered = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    widths = np.empty(count)
    for index in range(len(held_out.families)):
        own = held_out.family == index
        other = ~own
        limit = domain_limit(_by_model(held_out, other))
        usable = other & (held_out.novelty <= limit)
        board = held_out.cells.board[usable]
        family = np.unique(held_out.family[usable], return_inverse=True)[1]
        spread = np.full(int(held_out.cells.board.max()) + 1, np.nan)
        found = spreads(held_out.log_ratio[usable], held_out.novelty[usable], board, family)
        spread[: len(found)] = found
        spread[np.isnan(spread)] = np.nanmedian(spread)
        widths[own] = half_widths(spread[held_out.cells.board[own]], held_out.novelty[own], NOVELTY_POWER)
        inside[own] = held_out.novelty[own] <= limit
        covered[own] = np.abs(held_out.log_ratio[own]) <= widths[own]
    return Bands(inside, covered, widths)


def _by_model(held_out: HeldOut, rows: npt.NDArray[np.bool_]) -> Floats:
    """One novelty for each network."""
    models, first = np.unique(held_out.cells.model[rows], return_index=True)
    assert len(models)
    return np.asarray(held_out.novelty[rows][first])
