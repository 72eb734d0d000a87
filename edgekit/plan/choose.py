"""Which routes a plan holds and which is its default, by what cross-validation says of each candidate.

Choosing the best of many candidates flatters it. How much is measured: the same choice is made on one half of the data
and looked up on the other, many times; the mean loss is the *slack* that is taken off every promise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.errors import BudgetImpossible
from edgekit.plan.candidates import Trials
from edgekit.plan.hull import hull_of
from edgekit.plan.observations import PlanRecipe

__all__ = ["Saving", "Table", "choose_default", "choose_routes", "measure_saving", "measure_slack", "table_of"]

Floats = npt.NDArray[np.float64]

_SPLITS = 40  # each is used both ways round
_DROPS = (0.0, 0.5, 1.0, 2.0, 4.0)
_STEP = 0.0025  # a route is worth its place when it gains so much over the one before


@dataclass(frozen=True)
class Table:
    """All candidates, one a row. ``right``, ``ms``: sums over the samples of each block, (rows, blocks);
    ``counts``: samples of each block; ``place``: (trial, setting) of each row.
    """

    right: Floats
    ms: Floats
    p95_ms: Floats
    fixed: npt.NDArray[np.bool_]
    counts: Floats
    place: tuple[tuple[int, int], ...]

    def means(self, blocks: Floats) -> tuple[Floats, Floats]:
        """Accuracy and mean milliseconds of each row over the blocks whose weight is 1."""
        samples = float(self.counts @ blocks)
        return self.right @ blocks / samples, self.ms @ blocks / samples

    @property
    def whole(self) -> tuple[Floats, Floats]:
        """The same over all blocks."""
        return self.means(np.ones(len(self.counts)))


@dataclass(frozen=True)
class Saving:
    """The part of the hull's time that is saved at equal accuracy on data that the choice did not see.

    ``low`` and ``high`` are the 10 % and 90 % quantiles over blind halves, which overlap: a spread, no interval.
    ``gain``, ``gain_low``: the accuracy above the hull's in equal time, its mean and 10 % quantile. ``slack``: what was
    taken off the accuracy of adaptive routes, a fraction.
    """

    mean: float
    low: float
    high: float
    gain: float
    gain_low: float
    slack: float

    @property
    def sure(self) -> bool:
        """Whether the mean gain is above 0 by half its distance from the 10 % quantile, 0.6 standard deviations.

        Accuracy decides and not time: where the curve is flat a little luck in accuracy is worth much time.
        """
        return self.gain > (self.gain - self.gain_low) / 2


def table_of(trials: list[Trials], counts: Floats) -> Table:
    """The settings of all trials as rows."""
    return Table(
        np.concatenate([each.right for each in trials]), np.concatenate([each.ms for each in trials]),
        np.concatenate([_p95(each) for each in trials]),
        np.concatenate([np.full(len(each.settings), each.fixed) for each in trials]), counts,
        tuple((index, setting) for index, each in enumerate(trials) for setting in range(len(each.settings))),
    )


def _p95(trials: Trials) -> Floats:
    """As the runtime counts it: the time of the step by which 95 % of the inputs have stopped."""
    last = (np.cumsum(trials.stops, axis=1) < 0.95 - 1e-12).sum(axis=1).clip(max=len(trials.costs) - 1)
    return np.asarray(np.array(trials.costs)[last], np.float64)


def choose_default(table: Table, recipe: PlanRecipe, saving: Saving) -> int:
    """The row for the objective, on all the data; ``saving``: of ``measure_saving``.

    A fixed row wins where an adaptive one is not better after its slack. Without a budget to fill it also wins where
    what adaptive rows save against the hull on blind halves may be chance: what is cheaper than one fixed point may
    still be dearer than two mixed at random. Raises BudgetImpossible.
    """
    accuracy, ms = table.whole
    if recipe.budget_ms is None and not saving.sure:
        steady = _pick(table, np.where(table.fixed, accuracy, -np.inf), ms, recipe)
        assert steady is not None  # the most accurate fixed row loses nothing against itself
        return steady
    found = _pick(table, accuracy - saving.slack * ~table.fixed, ms, recipe)
    if found is None:
        times = ms if recipe.budget_on == "mean" else table.p95_ms
        assert recipe.budget_ms is not None
        raise BudgetImpossible(
            f"No route keeps a {recipe.budget_on} of {recipe.budget_ms:g} ms: the cheapest takes {times.min():.4g} ms, "
            f"with an accuracy of {100 * float(accuracy[times.argmin()]):.1f} %.",
            "Raise the budget, or build the bundle with a smaller resolution or an earlier exit.")
    return found


def _pick(table: Table, value: Floats, ms: Floats, recipe: PlanRecipe, drop: float | None = None) -> int | None:
    if recipe.budget_ms is not None and drop is None:
        allowed = (ms if recipe.budget_on == "mean" else table.p95_ms) <= recipe.budget_ms
        order = np.lexsort((~table.fixed, ms, -value))
    else:
        points = drop if drop is not None else (recipe.max_drop or 0.0)
        allowed = value >= value[table.fixed].max() - points / 100 - 1e-12
        order = np.lexsort((-value, ~table.fixed, ms))
    picked = order[allowed[order]]
    return int(picked[0]) if len(picked) else None


def measure_slack(table: Table, recipe: PlanRecipe) -> float:
    """By how much the chosen adaptive row does worse on the blind half than on the half that chose it; at least 0.

    Each split is used both ways round, and seen from a row that no half chose, so that one half being the easier one
    cancels out. On the whole data chance weighs less than on a half, by the root of 2. A fraction.
    """
    if table.fixed.all():
        return 0.0
    drops: tuple[float | None, ...] = (recipe.max_drop,) if recipe.max_drop else _DROPS
    if recipe.budget_ms is not None:
        drops = (None,)
    steady = int(np.where(table.fixed, table.whole[0], -np.inf).argmax())
    lost = []
    for (accuracy, ms), (unseen, _) in _halves(table, recipe.seed):
        best = int(np.where(table.fixed, accuracy, -np.inf).argmax())
        adaptive = np.where(table.fixed, -np.inf, accuracy)
        adaptive[best] = accuracy[best]  # what a drop is counted from
        for drop in drops:
            row = _pick(table, adaptive, ms, recipe, drop)
            if row is not None and not table.fixed[row]:
                lost.append((accuracy[row] - accuracy[steady]) - (unseen[row] - unseen[steady]))
    return max(0.0, float(np.mean(lost)) / math.sqrt(2)) if lost else 0.0


def measure_saving(table: Table, recipe: PlanRecipe, slack: float) -> Saving:
    """What the objective's choice saves, on blind halves, against the hull of the fixed rows.

    Both choose on the same half: a hull of the best points of the blind half would know its answers, which on a few
    hundred samples is worth 10 to 30 % of its time where the curve is flat.
    """
    saved, gained = [], []
    for (accuracy, ms), (unseen, unseen_ms) in _halves(table, recipe.seed + 1):
        row = _pick(table, accuracy - slack * math.sqrt(2) * ~table.fixed, ms, recipe)
        if row is None:
            continue
        fixed = np.flatnonzero(table.fixed)
        corners = fixed[list(hull_of(ms[fixed], accuracy[fixed]).members)]
        hull = hull_of(unseen_ms[corners], unseen[corners])
        wanted = min(float(unseen[row]), float(hull.accuracy[-1]))
        saved.append(1 - float(unseen_ms[row]) / float(hull.ms_for(wanted)))
        gained.append(float(unseen[row]) - float(hull.accuracy_at(max(unseen_ms[row], hull.ms[0]))))
    values, gains = np.array(saved or [0.0]), np.array(gained or [0.0])
    low, high = np.quantile(values, (0.1, 0.9))
    return Saving(float(values.mean()), float(low), float(high), float(gains.mean()), float(np.quantile(gains, 0.1)),
                  slack)


def _halves(table: Table, seed: int) -> Iterator[tuple[tuple[Floats, Floats], tuple[Floats, Floats]]]:
    """Accuracy and mean milliseconds of each row on a random half of the blocks, and on the other; both ways round."""
    random = np.random.default_rng(seed)
    blocks = len(table.counts)
    chosen = np.zeros((blocks, _SPLITS))
    for split in range(_SPLITS):
        chosen[random.permutation(blocks)[:blocks // 2], split] = 1
    # one product for all halves: a product for each is bound by memory and takes longer than everything else here
    (right, ms), (others_right, others_ms) = (
        [np.ascontiguousarray((values @ half).T) / (table.counts @ half)[:, None] for values in (table.right, table.ms)]
        for half in (chosen, 1 - chosen))
    for split in range(_SPLITS):
        first, second = (right[split], ms[split]), (others_right[split], others_ms[split])
        yield first, second
        yield second, first


def choose_routes(table: Table, default: int, slack: float, count: int) -> list[int]:
    """Up to ``count`` rows from cheap to dear: ``default``, the cheapest, the most accurate, and others between them.

    Promised accuracy, mean time and 95th percentile all grow from one to the next, as the runtime's controller takes
    a dearer route only where its percentile fits the budget. Each further row is the one that gains most accuracy for
    budgets of any size (the area below the steps of the curve, over the logarithm of time).
    """
    accuracy, ms = table.whole
    value = accuracy - slack * ~table.fixed
    cheapest = int(np.lexsort((-value, ms))[0])
    dearer = (ms > ms[default]) & (value > value[default] + _STEP) & (table.p95_ms >= table.p95_ms[default])
    routes = [default]
    if count > 1 and value[cheapest] < value[default]:
        routes = [cheapest, *routes]
    if count > len(routes) and dearer.any():
        rows = np.flatnonzero(dearer)
        routes.append(int(rows[np.lexsort((ms[rows], -value[rows]))[0]]))
    while len(routes) < count:
        found = [_between(table, value, ms, low, high) for low, high in itertools.pairwise(routes)]
        gain, row = max(found, default=(0.0, -1))
        if gain <= 0:
            break
        routes.insert(found.index((gain, row)) + 1, row)
    return routes


def _between(table: Table, value: Floats, ms: Floats, low: int, high: int) -> tuple[float, int]:
    """What the best row between two gains, and which it is; (0, -1) when there is none."""
    p95 = table.p95_ms
    allowed = ((ms > ms[low]) & (ms < ms[high]) & (value > value[low] + _STEP) & (value < value[high])
               & (p95 >= p95[low]) & (p95 <= p95[high]))
    rows = np.flatnonzero(allowed)
    if not len(rows):
        return 0.0, -1
    gains = (value[rows] - value[low]) * np.log(ms[high] / ms[rows])
    best = int(gains.argmax())
    return float(gains[best]), int(rows[best])
