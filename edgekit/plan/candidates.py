"""Which chains are worth a try, and how each does at each setting under cross-validation."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgekit.bundle.adaptive import Confidence
from edgekit.plan.hull import Hull, hull_of
from edgekit.plan.observations import PlanRecipe, Points
from edgekit.plan.thresholds import Setting, apply, fit_thresholds, settings_for
from edgekit.plan.workbench import Workbench

__all__ = ["Trials", "fixed_hull", "try_all", "try_chain"]

Floats = npt.NDArray[np.float64]

_MOST_POINTS = 18
_GATED = 20  # pairs that the learned gate is tried on
_MOST_LONGER = {3: 60, 4: 30}


@dataclass(frozen=True)
class Trials:
    """One chain with one measure at several settings.

    ``right`` and ``ms``: sums over the samples of each block, (settings, blocks); ``stops``: the part of the samples
    that stops at each step, (settings, steps). ``fixed``: whether the settings never look at the input.
    """

    chain: Points
    measure: Confidence
    settings: tuple[Setting, ...]
    right: Floats
    ms: Floats
    stops: Floats
    costs: tuple[float, ...]
    samples: int
    fixed: bool


def try_all(bench: Workbench, recipe: PlanRecipe) -> list[Trials]:
    """Single points first, then pairs, then longer chains made of pairs that did well."""
    trials = [_single(bench, (point,)) for point in bench.points]
    accuracy = {each.chain[0]: float(each.right.sum()) for each in trials}
    if recipe.max_steps == 1:
        return trials
    used = _promising(bench, trials)
    pairs = [pair for pair in itertools.combinations(used, 2) if accuracy[pair[1]] > accuracy[pair[0]]]
    plain: list[Confidence] = [measure for measure in recipe.measures if measure != "gate"]
    plain = plain or ["gate"]
    price = _price(trials)
    paired = [try_chain(bench, pair, measure, settings_for(2, price)) for pair in pairs for measure in plain]
    trials += _ensembles(bench, used, plain[0])
    hull = fixed_hull(trials)
    gains = _gains(paired, hull)
    if "gate" in recipe.measures and "gate" not in plain:
        best = sorted(gains, key=lambda pair: -gains[pair])[:_GATED]
        paired += [try_chain(bench, pair, "gate", settings_for(2, price)) for pair in best]
    measures = _best_measures(paired, hull)
    chains = [chain for steps in range(3, recipe.max_steps + 1) for chain in _longer(bench.points, gains, steps)]
    return trials + paired + [try_chain(bench, chain, measure, settings_for(len(chain), price))
                              for chain in chains for measure in measures]


def try_chain(bench: Workbench, chain: Points, measure: Confidence, settings: tuple[Setting, ...]) -> Trials:
    """Thresholds are fitted on all folds but one and applied to that one, for each fold and setting."""
    sure = bench.sure(chain, measure)
    right = np.stack([bench.view(chain[:step + 1]).right for step in range(len(chain))], axis=1)
    costs = np.array(bench.observations.cost_ms(chain))
    where = np.empty((len(settings), len(right)), np.intp)
    for fold in np.unique(bench.folds):
        train = bench.folds != fold
        thresholds = fit_thresholds(sure[train], right[train], costs, settings)
        where[:, ~train] = apply(sure[~train], thresholds)
    # sums over blocks as products of matrices, a step at a time: picking right[sample, step] takes three times as long
    member = _membership(bench).astype(np.float32)
    took = [np.asarray(where == step, np.float32) for step in range(len(chain))]
    return Trials(
        chain, measure, settings,
        np.asarray(sum(each @ (member * right[:, step, None]) for step, each in enumerate(took)), np.float64),
        np.asarray(sum((each @ member) * costs[step] for step, each in enumerate(took)), np.float64),
        np.stack([each.mean(axis=1, dtype=np.float64) for each in took], axis=1),
        tuple(float(cost) for cost in costs), len(right), fixed=False,
    )


def fixed_hull(trials: list[Trials]) -> Hull:
    """The hull of everything that is fixed, by the sums of all blocks."""
    fixed = [each for each in trials if each.fixed]
    return hull_of([float(each.ms.sum()) / each.samples for each in fixed],
                   [float(each.right.sum()) / each.samples for each in fixed])


def _single(bench: Workbench, chain: Points) -> Trials:
    costs = bench.observations.cost_ms(chain)
    member = _membership(bench)
    right = bench.right(chain[0]).astype(np.float64) @ member
    return Trials(chain, "margin", settings_for(1, 0.0), right[None], (costs[0] * member.sum(axis=0))[None],
                  np.ones((1, 1)), costs, bench.observations.samples, fixed=True)


def _ensembles(bench: Workbench, used: Points, measure: Confidence) -> list[Trials]:
    """Neighbouring late exits of a ladder, two or three, whose logits come for nothing on the way to the last."""
    found = []
    for last in used:
        row = sorted(point for point in used if point.ladder == last.ladder and point.stage <= last.stage)
        for size in range(2, min(3, len(row)) + 1):
            trials = try_chain(bench, tuple(row[-size:]), measure, settings_for(1, 0.0))
            found.append(replace(trials, fixed=True))
    return found


def _membership(bench: Workbench) -> Floats:
    return np.asarray(bench.blocks[:, None] == np.arange(bench.blocks.max() + 1), np.float64)


def _price(singles: list[Trials]) -> float:
    """What a millisecond buys on average between the cheapest point and the most accurate one."""
    accuracy = [float(each.right.sum()) / each.samples for each in singles]
    best = int(np.argmax(accuracy))
    rise, run = accuracy[best] - accuracy[0], singles[best].costs[0] - singles[0].costs[0]
    return rise / run if rise > 0 and run > 0 else 1 / (100 * singles[-1].costs[0])


def _promising(bench: Workbench, singles: list[Trials]) -> Points:
    """The points that are least below the hull of all, in the order of cost."""
    hull = fixed_hull(singles)
    samples = bench.observations.samples
    below = [float(hull.accuracy_at(each.costs[0])) - float(each.right.sum()) / samples for each in singles]
    kept = sorted(np.argsort(below, kind="stable")[:_MOST_POINTS])
    return tuple(bench.points[index] for index in kept)


def _gain(each: Trials, hull: Hull) -> float:
    """By how much the best setting lies above the hull."""
    above = each.right.sum(axis=1) / each.samples - hull.accuracy_at(each.ms.sum(axis=1) / each.samples)
    return float(above.max())


def _gains(paired: list[Trials], hull: Hull) -> dict[Points, float]:
    gains: dict[Points, float] = {}
    for each in paired:
        gains[each.chain] = max(gains.get(each.chain, -np.inf), _gain(each, hull))
    return gains


def _best_measures(paired: list[Trials], hull: Hull) -> list[Confidence]:
    """The two measures whose best pairs are the furthest above the hull."""
    best: dict[Confidence, list[float]] = {}
    for each in paired:
        best.setdefault(each.measure, []).append(_gain(each, hull))
    mean = {measure: float(np.mean(sorted(gains)[-5:])) for measure, gains in best.items()}
    return sorted(mean, key=lambda measure: -mean[measure])[:2]


def _longer(points: Points, gains: dict[Points, float], steps: int) -> list[Points]:
    """The chains of ``steps`` points whose pairs did best, all pairs of a chain taken together."""
    used = {point for pair in gains for point in pair}
    scored = []
    for chain in itertools.combinations([point for point in points if point in used], steps):
        pairs = list(itertools.combinations(chain, 2))
        if all(pair in gains for pair in pairs):
            scored.append((-sum(gains[pair] for pair in pairs), chain))
    return [chain for _, chain in sorted(scored)[:_MOST_LONGER[steps]]]
