"""When to stop: the decision after a step of a route, as a pure function (runtimes/SPEC.md, "Deciding").

Nothing here reads a clock or a file, so every language is held to the same cases in ``runtimes/conformance``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array
from edgekit.bundle.adaptive import Gate, Step

__all__ = [
    "Decision", "Floats", "Moment", "Scores", "StopReason", "added", "combine", "confidence", "decide", "gate_features",
    "scores", "softmax",
]

Floats = npt.NDArray[np.float64]
StopReason = Literal["confident", "last", "deadline"]

Scores = Floats | list[float]
"""One number for each class: a list where there are few. A decision comes right after a stage, when nothing is in the
processor's cache, and then a numpy call takes 3 to 10 us, as long as a whole list of 48."""

_FEW = 48


class Moment(NamedTuple):
    """Where a run stands after step ``step`` of ``steps``: milliseconds since it began, and what the next would take.

    ``next_ms`` is the expected time of the next step, 0 at the last; ``deadline_ms`` None where there is none.
    """

    step: int
    steps: int
    elapsed_ms: float
    next_ms: float
    deadline_ms: float | None


class Decision(NamedTuple):
    """Whether to stop, and why; ``reason`` is None when the run goes on."""

    stop: bool
    reason: StopReason | None


def decide(certainty: float, threshold: float | None, moment: Moment) -> Decision:
    """Stop at the last step, when sure enough, or when the next step would end after the deadline; in this order.

    A certainty that is NaN counts as unsure. ``threshold`` None never stops for certainty.
    """
    if moment.step + 1 >= moment.steps:
        return _LAST
    if threshold is not None and certainty >= threshold:
        return _CONFIDENT
    if moment.deadline_ms is not None and moment.elapsed_ms + moment.next_ms > moment.deadline_ms:
        return _DEADLINE
    return _GO_ON


_LAST, _CONFIDENT, _DEADLINE = Decision(True, "last"), Decision(True, "confident"), Decision(True, "deadline")
_GO_ON = Decision(False, None)


def combine(logits: Sequence[Array], weights: Sequence[float]) -> Floats:
    """The weighted sum of the logits of the steps so far, in double precision, in the order of the steps.

    ``logits``: one (classes,) array for each step; ``weights``: as many numbers.
    """
    return np.asarray(added([scores(each) for each in logits], weights), np.float64)


def scores(logits: Array) -> Scores:
    """Logits (classes,) in double precision, in the form that is faster to decide on."""
    return logits.tolist() if logits.size <= _FEW else logits.astype(np.float64)


def added(found: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """``combine`` of what ``scores`` gives, in the same form."""
    weight, first = weights[0], found[0]
    if not isinstance(first, list):
        total = first * weight
        for each, weight in zip(found[1:], weights[1:], strict=True):
            total += np.multiply(each, weight)
        return total
    few = [weight * score for score in first]
    for each, weight in zip(found[1:], weights[1:], strict=True):
        few = [before + weight * score for before, score in zip(few, each, strict=True)]
    return few


def confidence(combined: Scores, step: Step, earlier: Scores | None) -> float:
    """How sure the combined logits are, by the measure that ``step`` names.

    ``earlier``: the combined logits at the step before (None at the first), which only a gate looks at.
    NaN when they hold NaN or infinity. margin: the difference of the two largest softmax probabilities;
    max_probability: the largest; gate: ``Gate``.
    """
    if step.confidence == "gate":
        finite = math.isfinite(np.max(combined))
        return _gate(gate_features(combined, earlier), step.gate) if finite and step.gate is not None else math.nan
    first, second = _two_likeliest(combined)
    return first if step.confidence == "max_probability" else first - second


def _two_likeliest(combined: Scores) -> tuple[float, float]:
    """The two largest probabilities (the second 0 for a single class), or two NaN; the others need not be divided."""
    if isinstance(combined, list) or combined.size <= _FEW:
        values = combined if isinstance(combined, list) else combined.tolist()
        best = max(values)
        if not math.isfinite(best):
            return math.nan, math.nan
        few = sorted([math.exp(value - best) for value in values])
        total = sum(few)  # not a number where any of them is not
        return few[-1] / total, (few[-2] / total if len(few) > 1 else 0.0)
    # few calls of numpy, each of which meets a cold cache
    place = combined.argmax()
    largest = combined.item(place)
    if not math.isfinite(largest):
        return math.nan, math.nan
    powers = np.exp(combined - largest)
    total = float(np.add.reduce(powers))
    powers[place] = 0.0
    return 1 / total, float(np.maximum.reduce(powers)) / total


def gate_features(combined: Scores, earlier: Scores | None) -> tuple[float, float, float, float, float]:
    """What a ``Gate`` looks at: margin, largest, second, entropy in nats, agreement with the step before (or 0.5)."""
    chances = np.asarray(softmax(combined))
    first, second = _two_largest(chances)
    positive = chances[chances > 0]
    entropy = float(-(positive * np.log(positive)).sum())
    agrees = 0.5 if earlier is None else float(int(np.argmax(combined)) == int(np.argmax(earlier)))
    return (first - second, first, second, entropy, agrees)


def _gate(features: Sequence[float], gate: Gate) -> float:
    score = gate.bias + sum(weight * feature for weight, feature in zip(gate.weights, features, strict=True))
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))


def softmax(values: Scores) -> Scores:
    """The probabilities of logits, which may be large; a list for a list."""
    if isinstance(values, list):
        best = max(values)
        few = [math.exp(value - best) for value in values]
        total = sum(few)
        return [each / total for each in few]
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def _two_largest(chances: Floats) -> tuple[float, float]:
    if chances.size < 2:
        return float(chances[0]), 0.0
    two = np.partition(chances, -2)[-2:]
    return float(two[1]), float(two[0])
