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

__all__ = ["Decision", "Floats", "Moment", "StopReason", "combine", "confidence", "decide", "gate_features", "softmax"]

Floats = npt.NDArray[np.float64]
StopReason = Literal["confident", "last", "deadline"]


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
        return Decision(True, "last")
    if threshold is not None and certainty >= threshold:
        return Decision(True, "confident")
    if moment.deadline_ms is not None and moment.elapsed_ms + moment.next_ms > moment.deadline_ms:
        return Decision(True, "deadline")
    return Decision(False, None)


def combine(logits: Sequence[Array], weights: Sequence[float]) -> Floats:
    """The weighted sum of the logits of the steps so far, in double precision, in the order of the steps.

    ``logits``: one (classes,) array for each step; ``weights``: as many numbers.
    """
    # One operation for the conversion and the product: a decision comes right after a stage, when nothing is in cache.
    total = np.multiply(logits[0], weights[0], dtype=np.float64)
    for each, weight in zip(logits[1:], weights[1:], strict=True):
        total += np.multiply(each, weight, dtype=np.float64)
    return total


def confidence(combined: Floats, step: Step, earlier: Floats | None) -> float:
    """How sure the combined logits are, by the measure that ``step`` names.

    ``earlier``: the combined logits at the step before (None at the first), which only a gate looks at.
    NaN when they hold NaN or infinity. margin: the difference of the two largest softmax probabilities;
    max_probability: the largest; gate: ``Gate``.
    """
    best = int(combined.argmax())
    if not math.isfinite(combined[best]):
        return math.nan
    if step.confidence == "gate":
        return math.nan if step.gate is None else _gate(gate_features(combined, earlier), step.gate)
    # The same numbers as from softmax: all but the two largest need not be divided.
    powers = np.exp(combined - combined[best])
    total = float(powers.sum())
    first = float(powers[best]) / total
    if step.confidence == "max_probability" or powers.size < 2:
        return first
    powers[best] = 0.0
    return first - float(powers.max()) / total


def gate_features(combined: Floats, earlier: Floats | None) -> tuple[float, float, float, float, float]:
    """What a ``Gate`` looks at: margin, largest, second, entropy in nats, agreement with the step before (or 0.5)."""
    chances = softmax(combined)
    first, second = _two_largest(chances)
    positive = chances[chances > 0]
    entropy = float(-(positive * np.log(positive)).sum())
    agrees = 0.5 if earlier is None else float(int(combined.argmax()) == int(earlier.argmax()))
    return (first - second, first, second, entropy, agrees)


def _gate(features: Sequence[float], gate: Gate) -> float:
    score = gate.bias + sum(weight * feature for weight, feature in zip(gate.weights, features, strict=True))
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))


def softmax(values: Floats) -> Floats:
    """The probabilities of logits, which may be large."""
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def _two_largest(chances: Floats) -> tuple[float, float]:
    if chances.size < 2:
        return float(chances[0]), 0.0
    two = np.partition(chances, -2)[-2:]
    return float(two[1]), float(two[0])
