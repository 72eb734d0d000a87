"""A planned bundle on images that it has not seen, by the real runtime: accuracy and CPU time, beside fixed points."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array, Prediction
from edgekit.plan.hull import hull_of
from edgekit.runtime import load
from edgekit.runtime.adaptive import AdaptiveRuntime
from edgekit.runtime.options import RuntimeOptions

__all__ = ["Score", "score", "score_line"]

Floats = npt.NDArray[np.float64]
_WARM_UP, _BLOCKS, _DRAWS = 20, 50, 2000


class Score(msgspec.Struct, frozen=True):
    """Means over the images; times in milliseconds of CPU on one thread, policy and hand-over included, preprocessing
    not. ``intervals``: 95 %, by name of the field, over resampled blocks of neighbouring images.

    ``saved_whole``: against the whole network; ``saved_fixed``: against fixed points (every exit of every ladder, and
    sums of the last two or three) mixed at random, at the accuracy that was realised. ``promised``: by the plan.
    """

    images: int
    accuracy: float
    promised: float
    mean_ms: float
    whole_accuracy: float
    whole_ms: float
    best_fixed_accuracy: float
    saved_whole: float
    saved_fixed: float
    stops: tuple[float, ...]
    intervals: dict[str, tuple[float, float]]


def score(bundle: Path, pictures: Sequence[Array], labels: Array, plan: Path | None = None) -> Score:
    """``pictures``: uint8 (height, width, 3); ``labels``: class numbers. ``plan``: a file in place of the bundle's."""
    with load(bundle, options=RuntimeOptions(plan=plan)) as runtime:
        seen = _run(cast(AdaptiveRuntime, runtime), pictures)
        route = seen.plan_route
    right, whole_right = seen.answers == labels, seen.whole_answers == labels
    point_right = seen.point_answers == labels[:, None]

    def figures(rows: npt.NDArray[np.intp]) -> dict[str, float]:
        # the median over images is the time of a point; a mean would count what else the machine did
        hull = hull_of(seen.point_ms, point_right[rows].mean(axis=0))
        mean_ms, accuracy = float(seen.ms[rows].mean()), float(right[rows].mean())
        wanted = min(accuracy, float(hull.accuracy[-1]))
        return {"accuracy": accuracy, "mean_ms": mean_ms, "whole_accuracy": float(whole_right[rows].mean()),
                "saved_whole": 1 - mean_ms / seen.whole_ms, "saved_fixed": 1 - mean_ms / float(hull.ms_for(wanted)),
                "best_fixed_accuracy": float(hull.accuracy[-1]),
                "drop": accuracy - float(whole_right[rows].mean())}

    everything = figures(np.arange(len(labels)))
    stops = np.bincount(seen.stopped, minlength=len(route)) / len(labels)
    return Score(
        images=len(labels), accuracy=everything["accuracy"], promised=seen.promised, mean_ms=everything["mean_ms"],
        whole_accuracy=everything["whole_accuracy"], whole_ms=seen.whole_ms,
        best_fixed_accuracy=everything["best_fixed_accuracy"], saved_whole=everything["saved_whole"],
        saved_fixed=everything["saved_fixed"], stops=tuple(float(each) for each in stops),
        intervals=_intervals(figures, len(labels)))


class _Seen(msgspec.Struct, frozen=True):
    answers: Array
    stopped: Array
    ms: Floats
    whole_answers: Array
    whole_ms: float
    point_answers: Array
    point_ms: Floats
    promised: float
    plan_route: tuple[object, ...]


def _run(runtime: AdaptiveRuntime, pictures: Sequence[Array]) -> _Seen:
    plan, ladders = runtime.plan, runtime.ladders
    assert plan is not None
    whole = runtime.whole()
    answers, stopped, ms, whole_answers, whole_ms = [], [], [], [], []
    point_answers: list[list[int]] = []
    stage_ms: list[list[float]] = []
    largest = max(range(len(ladders)), key=lambda index: ladders[index].resolution)
    for number, picture in enumerate([*pictures[:_WARM_UP], *pictures]):
        inputs = {ladder.id: runtime.prepared(index, picture) for index, ladder in enumerate(ladders)}
        adaptive, taken = _timed(lambda inputs=inputs: runtime.run(inputs))  # type: ignore[misc]
        alone, whole_taken = _timed(lambda inputs=inputs: whole.run(inputs[ladders[largest].id]))  # type: ignore[misc]
        points = [runtime.exits(index, inputs) for index in range(len(ladders))]
        if number < _WARM_UP:
            continue
        answers.append(int(adaptive.outputs["logits"].argmax()))
        stopped.append(len(adaptive.steps) - 1)
        ms.append(taken)
        whole_answers.append(int(next(iter(alone.outputs.values())).argmax()))
        whole_ms.append(whole_taken)
        point_answers.append(_point_answers([[each.logits for each in row] for row in points]))
        stage_ms.append([each.stage_ms for row in points for each in row])
    times = np.median(np.array(stage_ms), axis=0)
    return _Seen(
        np.array(answers), np.array(stopped), np.array(ms), np.array(whole_answers), float(np.mean(whole_ms)),
        np.array(point_answers), _point_ms(times, [len(each.stages) for each in ladders]),
        plan.routes[plan.default].promise.accuracy, plan.routes[plan.default].steps)


def _timed(call: Callable[[], Prediction]) -> tuple[Prediction, float]:
    start = time.thread_time_ns()
    found = call()
    return found, (time.thread_time_ns() - start) / 1e6


def _spans(stages: int) -> list[tuple[int, int]]:
    """(first, last) of the exits whose probabilities are summed: each alone, and with one or two before it."""
    return [(last - size, last) for last in range(stages) for size in range(min(3, last + 1))]


def _point_answers(logits: Sequence[Sequence[Array]]) -> list[int]:
    found = []
    for row in logits:
        scaled = [each.reshape(-1) - np.log(np.exp(each - each.max()).sum()) - each.max() for each in row]
        found += [int(np.sum(scaled[first:last + 1], axis=0).argmax()) for first, last in _spans(len(row))]
    return found


def _point_ms(stage_ms: Floats, stages: Sequence[int]) -> Floats:
    found, start = [], 0
    for count in stages:
        until = np.cumsum(stage_ms[start:start + count])
        found += [float(until[last]) for _, last in _spans(count)]
        start += count
    return np.array(found)


def _intervals(
    figures: Callable[[npt.NDArray[np.intp]], dict[str, float]], count: int
) -> dict[str, tuple[float, float]]:
    blocks = np.array_split(np.arange(count), min(_BLOCKS, count))
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(_DRAWS // 10):
        rows = np.concatenate([blocks[index] for index in random.integers(len(blocks), size=len(blocks))])
        drawn.append(figures(rows))
    return {name: (float(np.quantile([each[name] for each in drawn], 0.025)),
                   float(np.quantile([each[name] for each in drawn], 0.975))) for name in drawn[0]}


def score_line(name: str, found: Score) -> str:
    """A row of a table."""
    low, high = found.intervals["saved_fixed"]
    drop = found.intervals["drop"]
    return (f"| {name} | {100 * found.whole_accuracy:.2f} in {found.whole_ms:.3f} ms | "
            f"{100 * found.accuracy:.2f} in {found.mean_ms:.3f} ms | "
            f"{100 * (found.accuracy - found.whole_accuracy):+.2f} ({100 * drop[0]:+.2f} to "
            f"{100 * drop[1]:+.2f}) | {100 * (found.accuracy - found.promised):+.2f} | "
            f"{100 * found.saved_whole:.0f} % | "
            f"{100 * found.saved_fixed:.0f} % ({100 * low:.0f} to {100 * high:.0f}) |")
