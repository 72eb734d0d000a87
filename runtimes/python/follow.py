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
from edgekit.runtime.decide import Moment, Scores, added, confidence, decide

__all__ = ["Answer", "Walk", "follow"]

_NOT_FINITE = "the scores are not finite"


class Walk(NamedTuple):
    """What ``follow`` needs from outside.

    ``advance(step)`` runs a step for the inputs that are left and returns their logits (inputs, classes);
    ``keep(rows)`` leaves only those rows; ``next_ms(step)`` is what a step is expected to take for one input;
    ``elapsed_ms()`` the time since the call.
    """

    route: Route
    thresholds: Sequence[float | None]
    advance: Callable[[int], Array]
    keep: Callable[[npt.NDArray[np.intp]], None]
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

    __slots__ = ("certainties", "combined", "elapsed_ms", "logits", "reason")

    def __init__(self) -> None:
        self.logits: list[Array] = []
        self.combined: list[Scores] = []
        self.certainties: list[float] = []
        self.elapsed_ms: list[float] = []
        self.reason = ""

    def add(self, logits: Array, step: Step, elapsed_ms: float) -> float:
        self.logits.append(logits)
        combined = added(self.logits, step.weights)
        certainty = confidence(combined, step, self.combined[-1] if self.combined else None)
        self.combined.append(combined)
        self.certainties.append(certainty)
        self.elapsed_ms.append(elapsed_ms)
        return certainty

    def answer(self) -> Answer:
        """That of the last step with finite logits. Raises EngineError when there is none."""
        for step in range(len(self.combined) - 1, -1, -1):
            if not math.isnan(self.certainties[step]):
                text = self.reason if step == len(self.combined) - 1 else f"error: {_NOT_FINITE}"
                return Answer(self.combined[step], step, text, tuple(self.certainties), tuple(self.elapsed_ms))
        raise EngineError(f"The network gave no answer: {_NOT_FINITE}.",
                          "It overflows for this input: check its values and the preprocessing.")


def follow(walk: Walk, count: int) -> list[Answer]:
    """The answers for ``count`` inputs that start together (runtimes/SPEC.md, 3.1 and 3.2).

    A stage that fails after the first step ends the walk with the answers so far. Raises what ``walk.advance`` raises,
    and EngineError when the logits of every step are not finite.
    """
    steps = walk.route.steps
    tracks = [_Track() for _ in range(count)]
    left = tracks
    for number, step in enumerate(steps):
        try:
            logits = walk.advance(number)
        except EngineError as error:
            if number == 0:
                raise
            for track in left:
                track.reason = f"error: {error.message}"
            break
        moment = _moment(walk, number, len(left))
        rows = []
        for row, track in enumerate(left):
            certainty = track.add(logits[row], step, moment.elapsed_ms)
            stop, reason = decide(certainty, walk.thresholds[number], moment)
            if stop:
                track.reason = reason or ""
            else:
                rows.append(row)
        if not rows:
            break
        if len(rows) < len(left):
            walk.keep(np.array(rows, np.intp))
            left = [left[row] for row in rows]
    return [track.answer() for track in tracks]


def _moment(walk: Walk, number: int, inputs: int) -> Moment:
    """Where ``inputs`` that run together stand after step ``number``."""
    steps, elapsed_ms = len(walk.route.steps), walk.elapsed_ms()
    asked = walk.deadline_ms is not None and number + 1 < steps
    return Moment(number, steps, elapsed_ms, walk.next_ms(number + 1) * inputs if asked else 0.0, walk.deadline_ms)
