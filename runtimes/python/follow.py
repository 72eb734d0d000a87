"""One walk along a route: run a step, combine, decide, and go on with the inputs that are not sure yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array
from edgekit.bundle.adaptive import Route, Step
from edgekit.errors import EngineError
from edgekit.runtime.decide import Moment, Scores, added, confidence, decide, scores

__all__ = ["Answer", "Walk", "follow", "follow_one"]

_NOT_FINITE = "the scores are not finite"


class Walk(NamedTuple):
    """What ``follow`` needs from outside.

    ``advance(ladder, stage)`` brings the inputs that are left to the end of a stage and returns their logits (inputs,
    classes); ``next_ms(step)`` is what a step is expected to take for one input; ``elapsed_ms()`` the time since the
    call.
    """

    route: Route
    thresholds: Sequence[float | None]
    advance: Callable[[int, int], Array]
    next_ms: Callable[[int], float]
    elapsed_ms: Callable[[], float]
    deadline_ms: float | None


class Answer(NamedTuple):
    """The combined logits (classes,) of the step that answers, and why it was the last.

    ``certainties`` and ``elapsed_ms`` have an entry for each complete step.
    """

    logits: Scores
    step: int
    reason: str
    certainties: tuple[float, ...]
    elapsed_ms: tuple[float, ...]


class _Track:
    """What is known of one input."""

    __slots__ = ("certainties", "combined", "elapsed_ms", "found", "reason")

    def __init__(self) -> None:
        self.found: list[Scores] = []
        self.combined: list[Scores] = []
        self.certainties: list[float] = []
        self.elapsed_ms: list[float] = []
        self.reason = ""

    def stops(self, logits: Array, step: Step, threshold: float | None, moment: Moment) -> bool:
        """Whether the input stops after ``step``, whose own logits (classes,) these are."""
        self.found.append(scores(logits))
        combined = added(self.found, step.weights)
        certainty = confidence(combined, step, self.combined[-1] if self.combined else None)
        self.combined.append(combined)
        self.certainties.append(certainty)
        self.elapsed_ms.append(moment.elapsed_ms)
        stop, reason = decide(certainty, threshold, moment)
        if stop:
            self.reason = reason or ""
        return stop

    def answer(self) -> Answer:
        """That of the last step with finite logits. Raises EngineError when there is none."""
        last = len(self.combined) - 1
        for step in range(last, -1, -1):
            if not math.isnan(self.certainties[step]):
                text = self.reason if step == last else f"error: {_NOT_FINITE}"
                return Answer(self.combined[step], step, text, tuple(self.certainties), tuple(self.elapsed_ms))
        raise EngineError(f"The network gave no answer: {_NOT_FINITE}.",
                          "It overflows for this input: check its values and the preprocessing.")


def follow_one(walk: Walk) -> Answer:
    """``follow`` for one input, which is spared all that several need."""
    track = _Track()
    for number, step in enumerate(walk.route.steps):
        try:
            logits = walk.advance(step.ladder, step.stage)
        except EngineError as error:
            if number == 0:
                raise
            track.reason = f"error: {error.message}"
            break
        if track.stops(logits[0], step, walk.thresholds[number], _moment(walk, number, 1)):
            break
    return track.answer()


def follow(walk: Walk, keep: Callable[[npt.NDArray[np.intp]], None], count: int) -> list[Answer]:
    """The answers for ``count`` inputs that start together (runtimes/SPEC.md, 3.1 and 3.2).

    ``keep(rows)`` is to leave only those rows. A stage that fails after the first step ends the walk with the answers
    so far. Raises what ``walk.advance`` raises, and EngineError when the logits of every step are not finite.
    """
    tracks = [_Track() for _ in range(count)]
    left = tracks
    for number, step in enumerate(walk.route.steps):
        try:
            logits = walk.advance(step.ladder, step.stage)
        except EngineError as error:
            if number == 0:
                raise
            for track in left:
                track.reason = f"error: {error.message}"
            break
        moment = _moment(walk, number, len(left))
        threshold = walk.thresholds[number]
        rows = [row for row, track in enumerate(left) if not track.stops(logits[row], step, threshold, moment)]
        if not rows:
            break
        if len(rows) < len(left):
            keep(np.array(rows, np.intp))
            left = [left[row] for row in rows]
    return [track.answer() for track in tracks]


def _moment(walk: Walk, number: int, inputs: int) -> Moment:
    """Where ``inputs`` that run together stand after step ``number``."""
    steps, elapsed_ms = len(walk.route.steps), walk.elapsed_ms()
    asked = walk.deadline_ms is not None and number + 1 < steps
    return Moment(number, steps, elapsed_ms, walk.next_ms(number + 1) * inputs if asked else 0.0, walk.deadline_ms)
