"""benchmarks.controller and adaptive_cifar: streams on made-up traces, curves of made-up plans."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from benchmarks.adaptive_cifar import Row, at_loss
from benchmarks.adaptive_score import Score
from benchmarks.controller import Trace, budgets, replay_stream, slowdown
from edgekit.bundle.adaptive import Plan, Promise, Route, Step

_FIRST = Route((Step(0, 0, (1.0,), "margin", None),), Promise(0.5, (0.4, 0.6), 1.0, 1.0, (1.0,), 500))
_BOTH = Route((Step(0, 0, (1.0,), "margin", 0.5), Step(0, 1, (0.0, 1.0), "margin", None)),
              Promise(0.9, (0.8, 1.0), 2.5, 4.0, (0.5, 0.5), 500))
PLAN = Plan("made up", "litert", "measured", ((1.0, 3.0),), 0.0, (_FIRST, _BOTH), 1, "sweep", (), "0" * 64)


def trace(jitter: float) -> Trace:
    """200 pictures: the first exit is sure and right of the even ones, the second of all."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    sure = 9.0 * np.eye(3, dtype=np.float32)[labels]
    unsure = np.where(np.arange(200)[:, None] % 2 == 0, sure, 0.1 * np.eye(3, dtype=np.float32)[(labels + 1) % 3])
    ms = [planned * np.exp(jitter * random.normal(size=200)) for planned in (1.0, 3.0)]
    return Trace([[unsure.astype(np.float32), sure]], [ms], labels, 0)


def test_a_stream_runs_on_the_routes_of_the_plan() -> None:
    found = replay_stream(PLAN, trace(0.0), 400, budget_ms=None)
    assert all(frame.right and frame.route == 1 for frame in found)
    assert [(frame.ms, frame.step) for frame in found[:2]] == [(1.0, 0), (4.0, 1)]


def test_the_budget_is_kept_as_a_95th_percentile_although_times_vary() -> None:
    _, missed = budgets(PLAN, trace(0.15), 700)
    assert missed == []


def test_a_slower_device_is_answered_in_time() -> None:
    text, missed = slowdown(PLAN, trace(0.03), 1000)
    assert missed == []
    assert "100.00" in text, "the whole network misses every frame"


def test_what_is_saved_at_a_loss_lies_between_two_plans() -> None:
    score = Score(images=1, accuracy=0.9, promised=0.9, mean_ms=1.0, whole_accuracy=0.9, whole_ms=2.0, piece_ms=2.0,
                  best_fixed_accuracy=0.9, saved_whole=0.5, saved_piece=0.2, saved_fixed=0.1, gained=0.0, stops=(),
                  intervals={})
    rows = [Row(0, 0.0, score), Row(0, 1.0, msgspec.structs.replace(score, accuracy=0.89, saved_piece=0.6))]
    assert at_loss(rows, "saved_piece", 0.005) == pytest.approx(0.4)
    assert at_loss(rows, "saved_piece", 0.05) == pytest.approx(0.6)
