"""From observations to a plan: everything is decided by cross-validation, then fitted once more on all the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.bundle.adaptive import Gate, Plan, Promise, Route, Step
from edgekit.errors import BadRecipe
from edgekit.plan.candidates import Trials, fixed_hull, try_all
from edgekit.plan.choose import (
    Saving,
    Table,
    choose_default,
    choose_routes,
    measure_saving,
    measure_slack,
    table_of,
)
from edgekit.plan.ensemble import fit_gate, gate_scores
from edgekit.plan.observations import Observations, PlanRecipe, Points
from edgekit.plan.thresholds import fit_thresholds
from edgekit.plan.workbench import Fitted, Workbench

__all__ = ["FixedPoint", "Planned", "make_plan", "plan_with_points", "plans_with_points"]

Floats = npt.NDArray[np.float64]

_DRAWS = 4000


@dataclass(frozen=True)
class FixedPoint:
    """One exit for every input, or an ensemble of exits of one ladder: ``chain`` are (ladder, stage).

    ``on_hull``: whether it is a corner of the hull that adaptive routes are measured against.
    """

    chain: Points
    accuracy: float
    interval: tuple[float, float]
    mean_ms: float
    on_hull: bool


@dataclass(frozen=True)
class Planned:
    """The plan, what it was compared with, and the slack in percentage points that its promises hold."""

    plan: Plan
    fixed: tuple[FixedPoint, ...]
    slack: float


def make_plan(observations: Observations, recipe: PlanRecipe = PlanRecipe()) -> Plan:
    """The routes on the front of accuracy and time, and the one for the objective.

    Never worse than the best fixed point on the validation data: where an adaptive route does not promise more, the
    plan's default is the fixed point, and the notes say so. Raises BudgetImpossible when no route keeps the budget.
    """
    return plan_with_points(observations, recipe).plan


def plan_with_points(observations: Observations, recipe: PlanRecipe = PlanRecipe()) -> Planned:
    """``make_plan`` with what the plan was compared with, for tables and pictures."""
    return plans_with_points(observations, (recipe,))[0]


def plans_with_points(observations: Observations, recipes: Sequence[PlanRecipe]) -> tuple[Planned, ...]:
    """A plan for each recipe; they may differ in what is wanted and its slack, since all choose from the same trials.

    Raises BadRecipe for recipes that differ in anything else, and as ``make_plan``.
    """
    first = recipes[0]
    if any(msgspec.structs.replace(each, **_wishes(first)) != first for each in recipes):
        raise BadRecipe("The recipes differ in what is tried, not only in what is wanted.", "Plan for each by itself.")
    bench = Workbench(observations, first)
    trials = try_all(bench, first)
    table = table_of(trials, np.bincount(bench.blocks).astype(np.float64))
    return tuple(_planned(bench, trials, table, recipe) for recipe in recipes)


def _wishes(recipe: PlanRecipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in ("budget_ms", "max_drop", "budget_on", "slack", "max_routes")}


def _planned(bench: Workbench, trials: list[Trials], table: Table, recipe: PlanRecipe) -> Planned:
    observations = bench.observations
    slack = measure_slack(table, recipe) if recipe.slack is None else recipe.slack / 100
    saving = measure_saving(table, recipe, slack)
    default = choose_default(table, recipe, saving)
    rows = choose_routes(table, default, slack, recipe.max_routes)
    random = np.random.default_rng(recipe.seed)
    routes = tuple(_route(bench, table, trials, row, slack, random) for row in rows)
    plan = Plan(
        device=observations.device, engine=observations.engine, source=observations.source,
        stage_ms=observations.stage_ms, overhead_ms=observations.overhead_ms, routes=routes,
        default=rows.index(default), objective=recipe.objective,
        notes=_notes(observations, recipe, trials, table, default, saving),
        ladders_sha256=observations.ladders_sha256,
    )
    return Planned(plan, _fixed_points(trials, random), 100 * slack)


def _route(
    bench: Workbench, table: Table, trials: list[Trials], row: int, slack: float, random: np.random.Generator
) -> Route:
    trial, setting = table.place[row]
    chosen = trials[trial]
    parts = bench.fitted(chosen.chain)
    sure, gates = _confidences(parts, chosen)
    right = np.stack([part.right for part in parts], axis=1)
    thresholds = fit_thresholds(sure, right, np.array(chosen.costs), (chosen.settings[setting],))[0]
    steps = []
    for index, (point, part) in enumerate(zip(chosen.chain, parts, strict=True)):
        last = index + 1 == len(parts)
        gate = None if last or not gates else Gate(tuple(gates[index][:5].tolist()), float(gates[index][5]))
        steps.append(Step(point.ladder, point.stage, part.weights, "margin" if last else chosen.measure,
                          None if last else float(thresholds[index]), gate))
    return Route(tuple(steps), _promise(table, chosen, row, slack, random))


def _confidences(parts: tuple[Fitted, ...], chosen: Trials) -> tuple[Floats, list[Floats]]:
    """Of every step but the last, (samples, steps - 1), and the gates that gave them, if they are gates."""
    if chosen.measure != "gate":
        column = 0 if chosen.measure == "margin" else 1
        return np.stack([part.features[:, column] for part in parts], axis=1)[:, :-1].astype(np.float64), []
    gates = [fit_gate(part.features, part.right) for part in parts[:-1]]
    scores = [gate_scores(part.features, gate) for part, gate in zip(parts, gates, strict=False)]
    return np.stack(scores, axis=1), gates


def _promise(table: Table, chosen: Trials, row: int, slack: float, random: np.random.Generator) -> Promise:
    setting = table.place[row][1]
    less = 0.0 if chosen.fixed else slack
    accuracy = float(chosen.right[setting].sum()) / chosen.samples
    low, high = _interval(accuracy, chosen.samples, random)
    return Promise(
        accuracy=max(accuracy - less, 0.0), interval=(max(low - less, 0.0), max(high - less, 0.0)),
        mean_ms=float(chosen.ms[setting].sum()) / chosen.samples, p95_ms=float(table.p95_ms[row]),
        stops=tuple(float(share) for share in chosen.stops[setting]), samples=chosen.samples,
    )


def _interval(accuracy: float, samples: int, random: np.random.Generator) -> tuple[float, float]:
    """The 95 % bootstrap interval: a resampled mean of zeros and ones is binomial, so it is drawn as such."""
    low, high = np.quantile(random.binomial(samples, min(max(accuracy, 0.0), 1.0), _DRAWS) / samples, (0.025, 0.975))
    return float(low), float(high)


def _fixed_points(trials: list[Trials], random: np.random.Generator) -> tuple[FixedPoint, ...]:
    fixed = [each for each in trials if each.fixed]
    corners = fixed_hull(trials).members
    points = []
    for index, each in enumerate(fixed):
        accuracy = float(each.right.sum()) / each.samples
        points.append(FixedPoint(each.chain, accuracy, _interval(accuracy, each.samples, random), each.costs[-1],
                                 index in corners))
    return tuple(sorted(points, key=lambda point: point.mean_ms))


def _notes(
    observations: Observations, recipe: PlanRecipe, trials: list[Trials], table: Table, default: int,
    saving: Saving,
) -> tuple[str, ...]:
    accuracy, ms = table.whole
    names = [_named(trials[trial].chain) for trial, _ in table.place]
    chosen = trials[table.place[default][0]]
    notes = list(observations.notes)
    if observations.labels is None:
        notes.append("There were no labels: accuracy means agreement with the dearest point.")
    if chosen.fixed:
        notes.append(
            f"A fixed point is the default: {names[default]}, accuracy {_percent(accuracy[default])} in "
            f"{ms[default]:.4g} ms. No adaptive route surely does better for the objective '{recipe.objective}': on "
            f"blind halves {100 * saving.mean:.0f} % of the time of fixed points mixed at random is saved "
            f"({100 * saving.low:.0f} to {100 * saving.high:.0f} %).")
        return tuple(notes)
    rival = int(np.where(table.fixed & (ms <= ms[default] * (1 + 1e-9)), accuracy, -np.inf).argmax())
    best = int(np.where(table.fixed, accuracy, -np.inf).argmax())
    notes += [
        f"The default is {names[default]} by {chosen.measure}: {_percent(accuracy[default] - saving.slack)} promised "
        f"in {ms[default]:.4g} ms on average. The best fixed point for that time is {names[rival]} with "
        f"{_percent(accuracy[rival])}; the most accurate one takes {ms[best]:.4g} ms for {_percent(accuracy[best])}.",
        f"Against fixed points mixed at random, {100 * saving.mean:.0f} % of the time is saved at equal accuracy "
        f"({100 * saving.low:.0f} to {100 * saving.high:.0f} % over blind halves).",
        f"Slack: {100 * saving.slack:.2f} points are taken off what cross-validation says of adaptive routes, "
        + ("as measured on blind halves." if recipe.slack is None else "as asked for."),
    ]
    if saving.mean <= 0:
        notes.append("Inputs sent to fixed points at random would do as well: the exits' confidence says little here.")
    return tuple(notes)


def _named(chain: Points) -> str:
    return " > ".join(f"ladder {point.ladder} exit {point.stage}" for point in chain)


def _percent(value: float) -> str:
    return f"{100 * float(value):.2f} %"
