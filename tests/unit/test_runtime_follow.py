"""Walking along a route, with stages that are made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from edgekit.artifacts import Array
from edgekit.bundle.adaptive import Promise, Route, Step
from edgekit.errors import BadInput, EngineError
from edgekit.runtime.decide import combine
from edgekit.runtime.follow import Answer, Walk, follow, follow_one

SURE, UNSURE = [9.0, 0.0], [0.1, 0.0]


def route(*thresholds: float | None) -> Route:
    """Steps over one ladder that add up their logits, with the margin as measure."""
    steps = tuple(Step(0, number, (0.5,) * number + (1.0,), "margin", threshold)
                  for number, threshold in enumerate(thresholds))
    share = 1 / len(steps)
    return Route(steps, Promise(0.9, (0.8, 1.0), 1.0, 2.0, (share,) * len(steps), 10))


class Stages:
    """Logits of each step for each input; an exception in their place is raised."""

    def __init__(self, *steps: Sequence[Sequence[float]] | Exception) -> None:
        self.steps = steps
        self.ran: list[tuple[int, int]] = []
        self.rows = list(range(len(steps[0]))) if not isinstance(steps[0], Exception) else [0]

    def advance(self, _ladder: int, stage: int) -> Array:
        found = self.steps[stage]
        if isinstance(found, Exception):
            raise found
        self.ran.append((stage, len(self.rows)))
        return np.array([found[row] for row in self.rows], np.float32)

    def keep(self, rows: Array) -> None:
        self.rows = [self.rows[row] for row in rows]


def walk(stages: Stages, taken: Route, *, elapsed: Callable[[], float] = lambda: 1.0,
         deadline_ms: float | None = None, next_ms: float = 1.0) -> list[Answer]:
    thresholds = [step.threshold for step in taken.steps]
    outside = Walk(taken, thresholds, stages.advance, lambda _step: next_ms, elapsed, deadline_ms)
    return [follow_one(outside)] if len(stages.rows) == 1 else follow(outside, stages.keep, len(stages.rows))


def test_a_sure_step_ends_the_walk_and_later_ones_do_not_run() -> None:
    stages = Stages([SURE], [SURE], [SURE])
    (answer,) = walk(stages, route(0.9, 0.9, None))
    assert (answer.step, answer.reason) == (0, "confident")
    assert stages.ran == [(0, 1)]
    assert answer.logits == pytest.approx(SURE)


def test_the_last_step_answers_with_the_combination_of_all() -> None:
    first, second, third = [0.1, 0.0], [0.3, 0.2], [0.0, 0.4]
    (answer,) = walk(Stages([first], [second], [third]), route(0.9, 0.9, None))
    assert (answer.step, answer.reason, len(answer.certainties), len(answer.elapsed_ms)) == (2, "last", 3, 3)
    assert np.array_equal(answer.logits, combine(
        [np.array(each, np.float32) for each in (first, second, third)], (0.5, 0.5, 1.0)))


def test_a_deadline_stops_before_the_step_that_would_miss_it() -> None:
    stages = Stages([UNSURE], [UNSURE], [SURE])
    clock = iter([2.0, 4.0, 6.0])
    (answer,) = walk(stages, route(0.9, 0.9, None), elapsed=lambda: next(clock), deadline_ms=5.5, next_ms=2.0)
    assert (answer.step, answer.reason, answer.elapsed_ms) == (1, "deadline", (2.0, 4.0))


def test_the_threshold_that_is_used_is_the_one_given() -> None:
    stages = Stages([[1.0, 0.0]], [SURE])
    taken = route(0.99, None)
    answer = follow_one(Walk(taken, (0.4, None), stages.advance, lambda _step: 1.0, lambda: 0.0, None))
    assert (answer.step, answer.reason) == (0, "confident")


def test_a_failing_later_stage_gives_the_answer_before_it_and_the_error() -> None:
    (answer,) = walk(Stages([UNSURE], EngineError("it broke"), [SURE]), route(0.9, 0.9, None))
    assert (answer.step, answer.reason) == (0, "error: it broke")
    assert answer.logits == pytest.approx(UNSURE)


def test_a_failing_first_stage_is_an_error() -> None:
    with pytest.raises(EngineError, match="it broke"):
        walk(Stages(EngineError("it broke"), [SURE]), route(0.9, None))


def test_only_errors_of_the_engine_are_survived() -> None:
    with pytest.raises(BadInput):
        walk(Stages([UNSURE], BadInput("wrong")), route(0.9, None))


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, np.inf], [1.0, np.nan], [-np.inf, -np.inf]])
def test_logits_that_are_not_finite_never_answer(bad: list[float]) -> None:
    (answer,) = walk(Stages([UNSURE], [bad]), route(0.9, None))
    assert (answer.step, answer.reason) == (0, "error: the scores are not finite")
    assert np.isnan(answer.certainties[1])
    with pytest.raises(EngineError, match="not finite"):
        walk(Stages([bad], [UNSURE]), route(0.9, None))


def test_a_batch_goes_on_with_those_that_are_not_sure() -> None:
    stages = Stages([SURE, UNSURE, UNSURE, SURE], [SURE, UNSURE, SURE, UNSURE], [UNSURE, [0.0, 3.0], SURE, SURE])
    answers = walk(stages, route(0.9, 0.9, None))
    assert [(answer.step, answer.reason) for answer in answers] == [
        (0, "confident"), (2, "last"), (1, "confident"), (0, "confident")]
    assert stages.ran == [(0, 4), (1, 2), (2, 1)]
    assert int(np.argmax(answers[1].logits)) == 1


def test_the_expected_time_of_a_batch_is_that_of_all_that_are_left() -> None:
    thresholds = route(0.9, None)
    many = walk(Stages([UNSURE] * 4, [SURE] * 4), thresholds, deadline_ms=4.0, next_ms=1.0)
    few = walk(Stages([UNSURE] * 3, [SURE] * 3), thresholds, deadline_ms=4.0, next_ms=1.0)
    assert {answer.reason for answer in many} == {"deadline"}
    assert {answer.reason for answer in few} == {"last"}


def test_a_batch_whose_later_stage_fails_keeps_what_was_sure() -> None:
    answers = walk(Stages([SURE, UNSURE], EngineError("out of memory")), route(0.9, None))
    assert [answer.reason for answer in answers] == ["confident", "error: out of memory"]


def test_one_by_one_or_together_gives_the_same() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(3, 50, 4)) * 2
    taken = route(0.6, 0.4, None)
    together = walk(Stages(*logits.tolist()), taken)
    alone = [walk(Stages(*[[step[row]] for step in logits.tolist()]), taken)[0] for row in range(50)]
    assert {answer.step for answer in together} == {0, 1, 2}
    for one, other in zip(together, alone, strict=True):
        assert (one.step, one.reason, one.certainties) == (other.step, other.reason, other.certainties)
        assert np.array_equal(one.logits, other.logits)
