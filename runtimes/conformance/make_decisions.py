"""Makes ``decisions.json``: cases of deciding, of confidence and of control that every runtime must reproduce.

    python runtimes/conformance/make_decisions.py

The cases are drawn with a fixed seed, with ties, ends of ranges and values that are not numbers among them. A change of
the file is a change of runtimes/SPEC.md, part 3.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgekit.bundle.adaptive import Confidence, Gate, Plan, Promise, Route, Step
from edgekit.runtime.controller import Limits, choose, first_state, judge, observe
from edgekit.runtime.decide import Moment, combine, confidence, decide

_OUT = Path(__file__).with_name("decisions.json")


def _decide_case(rng: random.Random) -> dict[str, Any]:
    steps = rng.randint(1, 5)
    step = rng.randrange(steps)
    threshold = None if rng.random() < 0.15 else round(rng.random(), 2)
    certainty = threshold if threshold is not None and rng.random() < 0.2 else round(rng.random(), 3)
    if rng.random() < 0.05:
        certainty = math.nan
    elapsed, following = rng.choice([0.0, 0.25, 1.5, 8.0, 12.0]), rng.choice([0.0, 0.5, 2.0, 4.0])
    deadline = None if rng.random() < 0.3 else rng.choice([0.5, 2.0, 3.5, 10.0, 12.0, 16.0, elapsed + following])
    result = decide(certainty, threshold, Moment(step, steps, elapsed, following, deadline))
    return {"confidence": None if math.isnan(certainty) else certainty, "threshold": threshold, "step": step,
            "steps": steps, "elapsed_ms": elapsed, "next_ms": following, "deadline_ms": deadline, "stop": result.stop,
            "reason": result.reason}


def _confidence_case(rng: random.Random) -> dict[str, Any]:
    classes, steps = rng.choice([1, 2, 3, 10, 40]), rng.randint(1, 3)
    scale = rng.choice([0.1, 3.0, 30.0, 500.0])
    logits = [[round(rng.uniform(-scale, scale), 3) for _ in range(classes)] for _ in range(steps)]
    if rng.random() < 0.2:
        logits[-1] = [logits[-1][0]] * classes
    weights = [[round(rng.uniform(0.1, 1.5), 3) for _ in range(step + 1)] for step in range(steps)]
    measure: Confidence = rng.choice(["margin", "max_probability", "gate"])
    gate = Gate(tuple(round(rng.uniform(-3, 3), 3) for _ in range(5)), round(rng.uniform(-2, 2), 3))  # type: ignore[arg-type]
    step = Step(0, 0, tuple(weights[-1]), measure, 0.5, gate if measure == "gate" else None)
    arrays = [np.array(each, np.float32) for each in logits]
    combined = [combine(arrays[: count + 1], weights[count]) for count in range(steps)]
    value = confidence(combined[-1], step, combined[-2] if steps > 1 else None)
    return {"logits": logits, "weights": weights, "measure": measure,
            "gate": msgspec.to_builtins(step.gate), "confidence": value}


def _plan(rng: random.Random) -> Plan:
    stage_ms = tuple(tuple(round(rng.uniform(0.5, 6), 2) for _ in range(rng.randint(1, 4)))
                     for _ in range(rng.randint(1, 3)))
    routes = sorted((_route(rng, stage_ms) for _ in range(rng.randint(1, 5))), key=lambda route: route.promise.p95_ms)
    return Plan("board", "litert", "measured", stage_ms, 0.25, tuple(routes), rng.randrange(len(routes)), "trace", (),
                "0" * 64)


def _points(stage_ms: tuple[tuple[float, ...], ...]) -> list[tuple[int, int]]:
    return [(ladder, stage) for ladder, row in enumerate(stage_ms) for stage in range(len(row))]


def _route(rng: random.Random, stage_ms: tuple[tuple[float, ...], ...]) -> Route:
    points = sorted(rng.sample(_points(stage_ms),
                               k=min(rng.randint(1, 4), sum(map(len, stage_ms)))))
    raw = [rng.random() for _ in points]
    stops = tuple(share / sum(raw) for share in raw)
    steps = tuple(Step(ladder, stage, (0.0,) * index + (1.0,), "margin", None if index + 1 == len(points) else 0.5)
                  for index, (ladder, stage) in enumerate(points))
    p95 = round(sum(sum(stage_ms[ladder][: stage + 1]) for ladder, stage in points), 2)
    return Route(steps, Promise(0.9, (0.8, 0.95), p95 / 2, p95, stops, 500))


def _trace(rng: random.Random, judged: bool) -> dict[str, Any]:
    """A device that is as planned, then slower, then as before, with noise, while the limits change."""
    plan = _plan(rng)
    state = first_state(plan)
    dearest = plan.routes[-1].promise.p95_ms
    events: list[dict[str, Any]] = []
    limits = Limits()
    for frame in range(60):
        if frame % 15 == 0:
            budget = round(dearest * rng.uniform(0.2, 1.6), 2)
            limits = Limits(rng.choice([None, budget]), rng.choice([0, 0, 1, 2, 3, 7]))
        state, route, fits = choose(state, plan, limits)
        events.append({"choose": limits._asdict(), "route": route, "fits": fits})
        slow = 2.0 if 20 <= frame < 40 else 1.0
        run = {(step.ladder, stage) for step in plan.routes[route].steps for stage in range(step.stage + 1)}
        for ladder, stage in sorted(run):
            took = round(plan.stage_ms[ladder][stage] * slow * rng.uniform(0.95, 1.2) * rng.choice([1] * 30 + [8]), 3)
            state = observe(state, plan, ladder, stage, took)
            events.append({"observe": [ladder, stage], "ms": took})
        if judged:
            took = round(plan.routes[route].promise.p95_ms * slow * rng.uniform(0.6, 1.4), 3)
            late = rng.choice([None, False, False, True])
            state = judge(state, plan, limits, took, late)
            events.append({"judge": took, "late": late, "margin": state.margin, "caution": state.caution})
    return {"plan": msgspec.to_builtins(plan), "events": events}


def main() -> None:
    """Write the file."""
    rng = random.Random(6)
    cases = {"decide": [_decide_case(rng) for _ in range(160)],
             "confidence": [_confidence_case(rng) for _ in range(80)],
             "traces": [_trace(rng, judged) for judged in (False,) * 8 + (True,) * 4]}
    _OUT.write_text(json.dumps(cases, indent=None, separators=(",", ":")).replace('},{"', '},\n{"') + "\n")


if __name__ == "__main__":
    main()
