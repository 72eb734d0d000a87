"""The decision core against ``runtimes/conformance/decisions.json``: what any runtime in any language replays."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgekit.bundle.adaptive import Gate, Plan, Step
from edgekit.runtime.controller import Limits, choose, first_state, judge, observe
from edgekit.runtime.decide import Moment, combine, confidence, decide

CASES: dict[str, list[Any]] = json.loads(
    (Path(__file__).parents[2] / "runtimes" / "conformance" / "decisions.json").read_text())


def test_there_are_enough_of_every_kind() -> None:
    reasons = {case["reason"] for case in CASES["decide"]}
    assert reasons == {"last", "confident", "deadline", None}
    assert {case["measure"] for case in CASES["confidence"]} == {"margin", "max_probability", "gate"}
    assert len(CASES["decide"]) + len(CASES["confidence"]) >= 200
    routes = [event["route"] for trace in CASES["traces"] for event in trace["events"] if "route" in event]
    assert len(set(routes)) > 2


def test_deciding() -> None:
    for case in CASES["decide"]:
        certainty = math.nan if case["confidence"] is None else case["confidence"]
        moment = Moment(case["step"], case["steps"], case["elapsed_ms"], case["next_ms"], case["deadline_ms"])
        assert decide(certainty, case["threshold"], moment) == (case["stop"], case["reason"]), case


def test_confidence() -> None:
    for case in CASES["confidence"]:
        logits = [np.array(each, np.float32) for each in case["logits"]]
        combined = [combine(logits[: k + 1], weights) for k, weights in enumerate(case["weights"])]
        gate = msgspec.convert(case["gate"], Gate) if case["gate"] else None
        step = Step(0, 0, tuple(case["weights"][-1]), case["measure"], 0.5, gate)
        got = confidence(combined[-1], step, combined[-2] if len(combined) > 1 else None)
        assert got == pytest.approx(case["confidence"], abs=1e-12), case


@pytest.mark.parametrize("trace", CASES["traces"], ids=lambda trace: f"{len(trace['plan']['routes'])} routes")
def test_control(trace: dict[str, Any]) -> None:
    plan = msgspec.convert(trace["plan"], Plan)
    state, limits = first_state(plan), Limits()
    for number, event in enumerate(trace["events"]):
        if "observe" in event:
            ladder, stage = event["observe"]
            state = observe(state, plan, ladder, stage, event["ms"])
        elif "judge" in event:
            state = judge(state, plan, limits, event["judge"], event["late"])
            wanted = event["margin"], event["caution"]
            assert (state.margin, state.caution) == pytest.approx(wanted), f"event {number}"
        else:
            limits = Limits(**event["choose"])
            state, route, fits = choose(state, plan, limits)
            assert (route, fits) == (event["route"], event["fits"]), f"event {number}"
