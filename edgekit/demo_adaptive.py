"""The second half of ``edgekit demo``: the adaptive network that comes along, beside fixed points of itself.

The bundle (edgekit/data/digits.edge) was trained by benchmarks/train_digits.py. It is planned for the machine at hand
on validation canvases and judged on test canvases, whose digits are in neither training nor validation.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array, Prediction
from edgekit.atomic import write_atomically
from edgekit.bundle.adaptive import Plan
from edgekit.demo_digits import Canvases, draw_canvases
from edgekit.demo_picture import Stop, draw_demo
from edgekit.plan import PlanRecipe, plan_with_points
from edgekit.planning import observe, store_plan
from edgekit.runtime import AdaptiveRuntime, load

__all__ = ["SIDE", "AdaptiveResult", "Answered", "digits_bundle", "run_adaptive_demo"]

SIDE = 128
_VALIDATION, _TEST, _WARM_UPS, _DRAWS, _SHOWN = 3000, 1500, 20, 1000, 6
_RECIPE = PlanRecipe(max_drop=0.5)

Floats = npt.NDArray[np.float64]


class Answered(msgspec.Struct, frozen=True):
    """One way to answer every test image: part of right answers, and mean CPU milliseconds on one thread.

    ``cpu_ms`` counts from the network's input on, ``with_resizing_ms`` from the 128-pixel image.
    """

    name: str
    accuracy: float
    cpu_ms: float
    with_resizing_ms: float


class AdaptiveResult(msgspec.Struct, frozen=True):
    """``adaptive`` beside fixed points of the same bundle, on ``images`` test images, all in turns.

    ``whole``: the whole network at its largest resolution; ``fixed``: the cheapest exit of any resolution that is at
    least as accurate on these images as ``adaptive`` (the whole network where none is). ``saved_whole`` and
    ``saved_fixed``: parts of their CPU time, with 95 % intervals over resampled images. ``promised``: by the plan.
    ``stops``: the part of the images that each step of the route answered.
    """

    bundle: str
    picture: str
    size_bytes: int
    images: int
    adaptive: Answered
    whole: Answered
    fixed: Answered
    saved_whole: float
    saved_whole_interval: tuple[float, float]
    saved_fixed: float
    saved_fixed_interval: tuple[float, float]
    promised: float
    stops: dict[str, float]


def digits_bundle() -> Path:
    """The bundle as it comes with EdgeKit."""
    return Path(str(resources.files("edgekit").joinpath("data", "digits.edge")))


def run_adaptive_demo(folder: Path) -> AdaptiveResult:
    """Plan for this machine, answer test images, and draw what happened; files go into ``folder``.

    Raises MissingExtra, WriteFailed, and what planning and running raise.
    """
    validation, bundle, picture = folder / "digits-validation.npz", folder / "digits.edge", folder / "digits.svg"
    write_atomically(validation, _packed(draw_canvases("validation", _VALIDATION, side=SIDE)))
    planned = plan_with_points(observe(digits_bundle(), validation), _RECIPE)
    store_plan(digits_bundle(), bundle, planned.plan)
    tests = draw_canvases("test", _TEST, side=SIDE)
    with load(bundle) as loaded:
        runtime = cast(AdaptiveRuntime, loaded)
        names = _names(runtime)
        route = planned.plan.routes[planned.plan.default]
        rivals = _fixed_points(runtime, planned.plan, tests)
        adaptive = _Run("adaptive", runtime.run, lambda image: _prepared(runtime, image))
        whole = _fixed_run(runtime, names, max(names, key=lambda at: (runtime.ladders[at[0]].resolution, at[1])))
        accuracy = float(np.mean([_right(runtime.run(image), label)
                                  for image, label in zip(tests.images, tests.labels, strict=True)]))
        fixed = _fixed_run(runtime, names, _as_accurate(rivals, accuracy))
        seen = [_Seen([], [], [], []) for _ in range(3)]
        _take_turns((adaptive, whole, fixed), tests, seen)
    steps = [names[step.ladder, step.stage] for step in route.steps]
    stopped = np.array(seen[0].steps)
    stops = [Stop(name, float(np.mean(stopped == at)), tests.images[stopped == at][:_SHOWN])
             for at, name in enumerate(steps)]
    write_atomically(picture, draw_demo(planned, stops).encode())
    return _result(bundle, picture, route.promise.accuracy, (adaptive, whole, fixed), seen, stops)


def _packed(drawn: Canvases) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=drawn.images, labels=drawn.labels)
    return buffer.getvalue()


class _Run(NamedTuple):
    """``run`` answers what ``prepare`` makes of an image."""

    name: str
    run: Callable[[Any], Prediction]
    prepare: Callable[[Array], Any]


class _Seen(NamedTuple):
    """For each image: whether the answer was right, how many steps went before the last one, milliseconds."""

    right: list[bool]
    steps: list[int]
    ms: list[float]
    resized_ms: list[float]


def _names(runtime: AdaptiveRuntime) -> dict[tuple[int, int], str]:
    return {(index, stage): f"{ladder.resolution[0]} px, exit {stage + 1}"
            for index, ladder in enumerate(runtime.ladders) for stage in range(len(ladder.stages))}


def _prepared(runtime: AdaptiveRuntime, image: Array) -> dict[str, Array]:
    return {ladder.id: runtime.prepared(index, image) for index, ladder in enumerate(runtime.ladders)}


def _fixed_run(runtime: AdaptiveRuntime, names: Mapping[tuple[int, int], str], at: tuple[int, int]) -> _Run:
    return _Run(names[at], runtime.fixed(*at).run, lambda image: runtime.prepared(at[0], image))


def _right(prediction: Prediction, label: int) -> bool:
    return int(prediction.outputs[next(iter(prediction.outputs))].argmax()) == int(label)


def _fixed_points(runtime: AdaptiveRuntime, plan: Plan, tests: Canvases) -> list[tuple[float, float, tuple[int, int]]]:
    """(milliseconds by the plan, accuracy on ``tests``, ladder and stage) of every exit, the dearest last."""
    found = []
    for ladder, stage_ms in enumerate(plan.stage_ms):
        answers = np.array([[int(exit_.logits.argmax()) for exit_ in runtime.exits(ladder, image)]
                            for image in tests.images])
        accuracy = (answers == tests.labels[:, None]).mean(axis=0)
        found += [(sum(stage_ms[:stage + 1]), float(accuracy[stage]), (ladder, stage))
                  for stage in range(len(stage_ms))]
    return sorted(found)


def _as_accurate(points: Sequence[tuple[float, float, tuple[int, int]]], accuracy: float) -> tuple[int, int]:
    """The cheapest point of at least ``accuracy``, else the dearest."""
    return next((at for _, reached, at in points if reached >= accuracy), points[-1][2])


def _take_turns(runs: Sequence[_Run], tests: Canvases, seen: Sequence[_Seen]) -> None:
    """Every image through every run, one after another, since a shared machine drifts; CPU time of this thread."""
    for number in range(-_WARM_UPS, len(tests.labels)):
        image, label = tests.images[number], tests.labels[number]
        for run, kept in zip(runs, seen, strict=True):
            begin = time.thread_time_ns()
            run.run(image)
            middle = time.thread_time_ns()
            ready = run.prepare(image)
            start = time.thread_time_ns()
            prediction = run.run(ready)
            end = time.thread_time_ns()
            if number >= 0:
                kept.right.append(_right(prediction, label))
                kept.steps.append(max(len(prediction.steps) - 1, 0))
                kept.ms.append((end - start) / 1e6)
                kept.resized_ms.append((middle - begin) / 1e6)


def _result(
    bundle: Path, picture: Path, promised: float, runs: Sequence[_Run], seen: Sequence[_Seen], stops: Sequence[Stop]
) -> AdaptiveResult:
    adaptive, whole, fixed = (
        Answered(run.name, float(np.mean(each.right)), float(np.mean(each.ms)), float(np.mean(each.resized_ms)))
        for run, each in zip(runs, seen, strict=True))
    ms = [np.array(each.ms) for each in seen]
    return AdaptiveResult(
        bundle=str(bundle), picture=str(picture), size_bytes=bundle.stat().st_size, images=len(ms[0]),
        adaptive=adaptive, whole=whole, fixed=fixed,
        saved_whole=1 - adaptive.cpu_ms / whole.cpu_ms, saved_whole_interval=_saved(ms[0], ms[1]),
        saved_fixed=1 - adaptive.cpu_ms / fixed.cpu_ms, saved_fixed_interval=_saved(ms[0], ms[2]),
        promised=promised, stops={each.name: each.share for each in stops})


def _saved(own: Floats, other: Floats) -> tuple[float, float]:
    """The 95 % interval of the part of the time that is saved, over resampled images."""
    rows = np.random.default_rng(0).integers(len(own), size=(_DRAWS, len(own)))
    low, high = np.quantile(1 - own[rows].mean(axis=1) / other[rows].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)
