"""A planned bundle on images that it has not seen, by the real runtime: accuracy and CPU time, beside fixed points."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array, Prediction
from edgekit.plan.hull import hull_of
from edgekit.runtime import Runtime, load
from edgekit.runtime.adaptive import AdaptiveRuntime, largest
from edgekit.runtime.options import RuntimeOptions

__all__ = ["Score", "score", "score_line"]

Floats = npt.NDArray[np.float64]
_WARM_UP, _BLOCKS, _DRAWS = 20, 50, 2000


class Score(msgspec.Struct, frozen=True):
    """Means over the images; times in milliseconds of CPU on one thread, policy and hand-over included, preprocessing
    not. ``intervals``: 95 %, by name of the field, over resampled blocks of neighbouring images.

    ``saved_whole``: against the whole network in stages, which is what the bundle runs without a plan; ``saved_piece``:
    against the network without exits in one piece, if there is such a bundle. ``saved_fixed``: against fixed points
    (every exit of every ladder, and sums of the last two or three) mixed at random, at the accuracy that was realised;
    ``gained``: accuracy above theirs in the time that was taken. ``promised``: accuracy, by the plan.
    """

    images: int
    accuracy: float
    promised: float
    mean_ms: float
    whole_accuracy: float
    whole_ms: float
    piece_ms: float | None
    best_fixed_accuracy: float
    saved_whole: float
    saved_piece: float | None
    saved_fixed: float
    gained: float
    stops: tuple[float, ...]
    intervals: dict[str, tuple[float, float]]


def score(bundle: Path, pictures: Sequence[Array], labels: Array, plan: Path | None = None,
          piece: Path | None = None) -> Score:
    """``pictures``: uint8 (height, width, 3); ``labels``: class numbers. ``plan``: a file in place of the bundle's;
    ``piece``: a bundle of the same network in one stage.
    """
    with contextlib.ExitStack() as stack:
        # the order of axes in which the engine stores them, so that no transposition is timed
        runtime = stack.enter_context(load(bundle, options=RuntimeOptions(plan=plan, array_layout="stored")))
        alone = None if piece is None else stack.enter_context(
            load(piece, options=RuntimeOptions(array_layout="stored")))
        seen = _run(cast(AdaptiveRuntime, runtime), alone, pictures)
    right, whole_right = seen.answers == labels, seen.whole_answers == labels
    point_right = seen.point_answers == labels[:, None]

    def figures(rows: npt.NDArray[np.intp]) -> dict[str, float]:
        hull = hull_of(seen.point_ms, point_right[rows].mean(axis=0))
        mean_ms, accuracy = float(seen.ms[rows].mean()), float(right[rows].mean())
        wanted = min(accuracy, float(hull.accuracy[-1]))
        whole = float(whole_right[rows].mean())
        return {"accuracy": accuracy, "mean_ms": mean_ms, "whole_accuracy": whole,
                "saved_whole": 1 - mean_ms / seen.whole_ms, "saved_fixed": 1 - mean_ms / float(hull.ms_for(wanted)),
                "best_fixed_accuracy": float(hull.accuracy[-1]), "drop": accuracy - whole,
                "gained": accuracy - float(hull.accuracy_at(mean_ms)),
                **({} if seen.piece_ms is None else {"saved_piece": 1 - mean_ms / seen.piece_ms})}

    everything = figures(np.arange(len(labels)))
    stops = np.bincount(seen.stopped, minlength=seen.steps) / len(labels)
    return Score(
        images=len(labels), accuracy=everything["accuracy"], promised=seen.promised, mean_ms=everything["mean_ms"],
        whole_accuracy=everything["whole_accuracy"], whole_ms=seen.whole_ms, piece_ms=seen.piece_ms,
        best_fixed_accuracy=everything["best_fixed_accuracy"], saved_whole=everything["saved_whole"],
        saved_piece=everything.get("saved_piece"), saved_fixed=everything["saved_fixed"],
        gained=everything["gained"], stops=tuple(float(each) for each in stops),
        intervals=_intervals(figures, len(labels)))


class _Seen(msgspec.Struct, frozen=True):
    answers: Array
    stopped: Array
    ms: Floats
    whole_answers: Array
    whole_ms: float
    piece_ms: float | None
    point_answers: Array
    point_ms: Floats
    promised: float
    steps: int


def _run(runtime: AdaptiveRuntime, piece: Runtime | None, pictures: Sequence[Array]) -> _Seen:
    """Everything on every picture: the plan, the whole network and the piece in turn, and one of the fixed points."""
    plan, ladders = runtime.plan, runtime.ladders
    assert plan is not None
    points = [(ladder, stage) for ladder, each in enumerate(ladders) for stage in range(len(each.stages))]
    fixed = [runtime.fixed(*point) for point in points]
    biggest = largest(ladders)
    alone = [runtime.whole(), *([] if piece is None else [piece])]
    answers, stopped, whole_answers, point_answers = [], [], [], []
    taken: list[list[float]] = [[] for _ in range(1 + len(alone))]
    point_ms: list[list[float]] = [[] for _ in points]
    for number, picture in enumerate([*pictures[:_WARM_UP], *pictures]):
        inputs = {ladder.id: runtime.prepared(index, picture) for index, ladder in enumerate(ladders)}
        at = number % len(points)
        subjects: list[Callable[[], Prediction]] = [
            partial(runtime.run, inputs), *(partial(each.run, inputs[ladders[biggest].id]) for each in alone),
            partial(fixed[at].run, inputs[ladders[points[at][0]].id])]
        found, ms = _in_turn(subjects, number)
        exits = [runtime.exits(index, inputs) for index in range(len(ladders))]
        point_ms[at].append(ms[-1])
        if number < _WARM_UP:
            continue
        answers.append(int(found[0].outputs["logits"].argmax()))
        stopped.append(len(found[0].steps) - 1)
        whole_answers.append(int(next(iter(found[1].outputs.values())).argmax()))
        point_answers.append(_point_answers([[each.logits for each in row] for row in exits]))
        for times, each in zip(taken, ms, strict=False):
            times.append(each)
    route = plan.routes[plan.default]
    return _Seen(
        np.array(answers), np.array(stopped), np.array(taken[0]), np.array(whole_answers), float(np.mean(taken[1])),
        None if piece is None else float(np.mean(taken[2])), np.array(point_answers),
        _point_ms([float(np.mean(each)) for each in point_ms], [len(each.stages) for each in ladders]),
        route.promise.accuracy, len(route.steps))


def _in_turn(subjects: Sequence[Callable[[], Prediction]], number: int) -> tuple[list[Prediction], list[float]]:
    """All of them, beginning with another one each time, as who comes later finds other things in the cache."""
    found: list[Prediction | None] = [None] * len(subjects)
    ms = [0.0] * len(subjects)
    for offset in range(len(subjects)):
        index = (number + offset) % len(subjects)
        found[index], ms[index] = _timed(subjects[index])
    return [each for each in found if each is not None], ms


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


def _point_ms(ms: Sequence[float], stages: Sequence[int]) -> Floats:
    """The times of ``_point_answers``: a sum takes no longer than its last exit."""
    found, start = [], 0
    for count in stages:
        found += [ms[start + last] for _, last in _spans(count)]
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
