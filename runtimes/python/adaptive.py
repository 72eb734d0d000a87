"""An adaptive bundle that answers: for each input it chooses where to begin and when to stop.

The choices are made by ``decide`` and ``controller``, which are pure; ``policy`` keeps their state, and this file has
the clock and the engine's sessions.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array, Prediction, StepTaken
from edgekit.bundle.adaptive import Ladder, Plan, Route
from edgekit.bundle.manifest import Variant
from edgekit.errors import BadInput, BadRecipe
from edgekit.runtime.chain import ChainSession, LadderInput, logits_spec
from edgekit.runtime.classify import Classifier
from edgekit.runtime.decide import softmax
from edgekit.runtime.follow import Answer, Walk, follow, follow_one
from edgekit.runtime.options import RuntimeOptions
from edgekit.runtime.policy import Counters, Policy
from edgekit.runtime.session import Loaded, Runtime, complaint
from edgekit.runtime.stages import Pass, Seen, StagedNetwork
from edgekit.runtime.streaming import DropPolicy, Streamed, stream_answers

__all__ = ["AdaptiveRuntime", "Inputs", "Point", "as_variant", "largest"]

Inputs = Array | Mapping[str, Array]
"""A uint8 image (height, width, 3); or arrays by the ids of the ladders; or one array where there is one ladder."""


class Point(NamedTuple):
    """The logits (1, classes) of an exit, and the milliseconds that its stage took."""

    logits: Array
    stage_ms: float


class AdaptiveRuntime(Runtime):
    """Runs the ladders of a bundle by its plan; made by ``load``. Close it, or use it as a context manager.

    ``variant``, ``inputs``, ``outputs`` and ``resolution`` tell of the whole network at its largest resolution; without
    a plan that is what ``run`` runs. All methods may be called from several threads; each stage runs for one at a time.
    """

    def __init__(self, network: StagedNetwork, loaded: Loaded, plan: Plan | None, options: RuntimeOptions) -> None:
        """Takes over ``network``; ``loaded`` describes its largest ladder. Opens and warms what the plan runs."""
        biggest = largest(network.ladders)
        last = len(network.ladders[biggest].stages) - 1
        super().__init__(ChainSession(network, biggest, last), loaded, options)
        self._network = network
        self._options = options
        self._entries = [LadderInput(each, loaded.manifest.preprocess, self._stored) for each in network.ladders]
        self._ids = {each.id for each in network.ladders}
        self._policy = None if plan is None else Policy(plan, options.touch_up)
        for ladder, stage in {(biggest, last)} if plan is None else _points(plan):
            network.warm(ladder, stage)

    @property
    def plan(self) -> Plan | None:
        """What decides; None where the bundle has none for this engine."""
        return self._policy.plan if self._policy else None

    @property
    def ladders(self) -> tuple[Ladder, ...]:
        """Those of this engine, in the order in which the plan counts them."""
        return self._network.ladders

    def run(self, x: Inputs, deadline_ms: float | None = None) -> Prediction:
        """The answer for one input, of the step at which the route stops; ``Prediction.reason`` says why it does.

        ``x``: a uint8 image (height, width, 3), RGB, of any size, where the manifest has preprocessing; or the arrays
        of the ladders by their ids, in ONNX order; or one array where the bundle has one ladder. ``deadline_ms``: no
        step begins that is expected to end after it; the first one always runs. Reasons: "confident", "last" (step of
        the route), "deadline", and "error: ..." when a later stage failed and the answer is that of the step before;
        a missed deadline is added. ``outputs`` has the combined "logits" (1, classes), float32.

        Raises BadInput, EngineError (of the first step), UserError (closed).
        """
        if self._policy is None:
            return super().run(self._alone(x), deadline_ms)
        begin = time.perf_counter()
        _check_deadline(deadline_ms)
        return self._run_one(self._policy, x, self._policy.choose(), deadline_ms, begin)

    def run_batch(self, xs: Sequence[Inputs], deadline_ms: float | None = None) -> list[Prediction]:
        """The answers for several inputs, on one route; ``deadline_ms`` is for all of them together.

        Where the stages leave the number of images free, each step runs once, for those that are not sure yet, packed
        together; else one input runs after the other. ``latency_ms`` counts from the call. Raises as ``run``.
        """
        begin = time.perf_counter()
        policy = self._policy
        if policy is None:
            return [self.run(x, deadline_ms) for x in xs]
        if not xs:
            return []
        _check_deadline(deadline_ms)
        index = policy.choose(len(xs))
        packed = len(xs) > 1 and all(
            self._network.takes_batches(step.ladder, step.stage) for step in policy.plan.routes[index].steps)
        if packed:
            return self._run_packed(policy, xs, index, deadline_ms, begin)
        return [self._run_one(policy, x, index, deadline_ms, begin) for x in xs]

    def stream(self, frames: Iterable[Inputs], drop: DropPolicy = "newest", *, size: int = 2,
               deadline_ms: float | None = None) -> Iterator[Streamed]:
        """The answers for frames that come by themselves; a thread reads ``frames``, and at most ``size`` wait.

        A frame that comes when ``size`` wait is dropped ("newest"), or the one that waits longest is ("oldest"), or the
        source has to wait ("block"). Raises what ``frames`` and ``run`` raise, BadRecipe, UnknownName.
        """
        return stream_answers(lambda frame: self.run(frame, deadline_ms), frames, drop, size)

    def limits(self, budget_ms: float | None = None, thermal: int = 0) -> None:
        """What to keep from the next input on: the 95th percentile of the time, given how hot the device is.

        ``budget_ms`` None: the plan's own default route. ``thermal``: 0 nominal, 1 fair, 2 serious, 3 critical, as the
        system reports (``linux_thermal_level`` on Linux). Raises BadRecipe.
        """
        self._planned().limit(budget_ms, thermal)

    def counters(self) -> Counters:
        """What has happened since loading. Raises BadRecipe without a plan."""
        return self._planned().counters()

    def fixed(self, ladder: int, stage: int) -> Runtime:
        """A runtime for one point: ladder ``ladder`` (from 0, of this engine's) up to ``stage``, always.

        It lives as long as this one, and closing it frees nothing. Raises BadRecipe, BadBundle, EngineError.
        """
        stages = [len(each.stages) for each in self._network.ladders]
        if not 0 <= ladder < len(stages) or not 0 <= stage < stages[ladder]:
            raise BadRecipe(f"There is no stage {stage} of ladder {ladder}.",
                            f"The ladders have {stages} stages, both counted from 0.")
        chosen = self._network.ladders[ladder]
        variant = as_variant(chosen, stage)
        classifier = Classifier(self.labels, variant.outputs[0], self._options.top) if self._loaded.classifier else None
        loaded = self._loaded._replace(variant=variant, classifier=classifier, image=self._entries[ladder].image,
                                       resolution=chosen.resolution, exit=stage)
        return Runtime(ChainSession(self._network, ladder, stage), loaded, self._options)

    def whole(self) -> Runtime:
        """``fixed`` for the last stage of the ladder with most pixels: nothing is saved."""
        ladder = largest(self._network.ladders)
        return self.fixed(ladder, len(self._network.ladders[ladder].stages) - 1)

    def exits(self, ladder: int, x: Inputs) -> tuple[Point, ...]:
        """Every exit of a ladder for one input, from the first to the last, all stages run once. Raises as ``run``."""
        seen: list[Seen] = []
        walk = Pass(self._network, lambda each: self._image(each, x), seen)
        logits = [walk.advance(ladder, stage) for stage in range(len(self._network.ladders[ladder].stages))]
        return tuple(Point(each, ms) for each, (_, _, ms) in zip(logits, seen, strict=True))

    def prepared(self, ladder: int, image: Array) -> Array:
        """The array that a uint8 image becomes for a ladder, as ``run`` takes it by the ladders' ids. Raises BadInput.

        For an app that has the pixels early, or that times networks and not resizing.
        """
        return self._entries[ladder].as_given(self._image(ladder, image))

    def export_touchup(self) -> bytes:
        """What the thresholds have learned, as JSON of a few KB. Raises BadRecipe when the touch-up is off."""
        return self._planned().export_touchup()

    def import_touchup(self, data: bytes | None) -> None:
        """Go on from what ``export_touchup`` gave; None forgets all. Raises BadInput, and BadRecipe when it is off."""
        self._planned().import_touchup(data)

    def close(self) -> None:
        """Free the engine's memory and close the bundle. Doing so twice is harmless."""
        super().close()
        self._network.close()

    def _planned(self) -> Policy:
        if self._policy is None:
            raise BadRecipe(f"The bundle '{self.manifest.name}' has no plan for {self.engine}.",
                            "Make one with edgekit plan, or give one: RuntimeOptions(plan=FILE).")
        return self._policy

    def _run_one(self, policy: Policy, x: Inputs, index: int, deadline_ms: float | None, begin: float) -> Prediction:
        started = time.perf_counter()
        route = policy.plan.routes[index]
        seen: list[Seen] = []

        def next_ms(step: int) -> float:
            policy.observe(tuple(seen))
            seen.clear()
            return policy.next_ms(index, step)

        walk = Pass(self._network, lambda ladder: self._image(ladder, x), seen)
        answer = follow_one(Walk(route, policy.thresholds(index), walk.advance, next_ms,
                                 lambda: (time.perf_counter() - begin) * 1e3, deadline_ms))
        policy.observe(seen)
        found = self._prediction(answer, index, route, deadline_ms, begin)
        policy.finish(index, (answer,), (found.latency_ms,), deadline_ms)
        late = None if deadline_ms is None else found.latency_ms > deadline_ms and len(found.steps) > 1
        policy.judge((time.perf_counter() - started) * 1e3, late)
        return found

    def _run_packed(self, policy: Policy, xs: Sequence[Inputs], index: int, deadline_ms: float | None,
                    begin: float) -> list[Prediction]:
        """The times of a packed batch are not those of the plan, so they say nothing of how slow the device is."""
        route = policy.plan.routes[index]
        left = list(xs)

        def keep(rows: npt.NDArray[np.intp]) -> None:
            left[:] = [left[row] for row in rows]
            walk.keep(rows)

        walk = Pass(self._network, lambda ladder: np.concatenate([self._image(ladder, x) for x in left]))
        answers = follow(Walk(route, policy.thresholds(index), walk.advance, lambda step: policy.next_ms(index, step),
                              lambda: (time.perf_counter() - begin) * 1e3, deadline_ms), keep, len(xs))
        found = [self._prediction(answer, index, route, deadline_ms, begin) for answer in answers]
        policy.finish(index, answers, [each.latency_ms for each in found], deadline_ms)
        return found

    def _prediction(self, answer: Answer, index: int, route: Route, deadline_ms: float | None,
                    begin: float) -> Prediction:
        ladders = self._network.ladders
        step = route.steps[answer.step]
        classifier = self._loaded.classifier
        top = classifier.named(softmax(answer.logits)) if classifier else ()
        taken = tuple([
            StepTaken(ladders[each.ladder].id, each.stage, certainty, elapsed_ms)
            for each, certainty, elapsed_ms in zip(route.steps, answer.certainties, answer.elapsed_ms, strict=False)])
        latency_ms = (time.perf_counter() - begin) * 1e3
        return Prediction(
            outputs={"logits": np.array([answer.logits], np.float32)}, label=top[0][0] if top else None,
            score=top[0][1] if top else None, top=top, exit=step.stage, resolution=ladders[step.ladder].resolution,
            latency_ms=latency_ms, reason=answer.reason + complaint(latency_ms, deadline_ms), route=index, steps=taken)

    def _image(self, ladder: int, x: Inputs) -> Array:
        """The tensor of one input for a ladder."""
        if isinstance(x, Mapping):
            name = self._entries[ladder].id
            if name not in x or not x.keys() <= self._ids:
                known = ", ".join(each.id for each in self._entries)
                raise BadInput(f"The arrays are for {', '.join(map(str, x)) or 'nothing'}; ladder '{name}' is to run.",
                               f"Give arrays by the ids of the ladders: {known}.")
            x = x[name]
        return self._entries[ladder](x)

    def _alone(self, x: Inputs) -> Array | Mapping[str, Array]:
        """``x`` for the whole network alone: arrays by ladder become that of the largest ladder."""
        name = self._network.ladders[largest(self._network.ladders)].id
        if isinstance(x, Mapping) and name in x:
            return x[name]
        return x


def _check_deadline(deadline_ms: float | None) -> None:
    if deadline_ms is not None and not deadline_ms > 0:
        raise BadInput(f"The deadline is {deadline_ms} ms.", "It must be more than 0.")


def largest(ladders: Sequence[Ladder]) -> int:
    """The ladder of most pixels, the first of equal ones."""
    return max(range(len(ladders)), key=lambda each: (ladders[each].resolution[0] * ladders[each].resolution[1], -each))


def as_variant(ladder: Ladder, stage: int) -> Variant:
    """The ladder up to a stage, in the terms of a network of one stage."""
    return Variant(ladder.id, ladder.engine, ladder.format, ladder.precision, ladder.stages[stage].entry,
                   ladder.stages[0].inputs, (logits_spec(ladder, stage),), ladder.resolution)


def _points(plan: Plan) -> dict[tuple[int, int], None]:
    """The last stage that any route runs, of each ladder that one runs."""
    last: dict[int, int] = {}
    for route in plan.routes:
        for step in route.steps:
            last[step.ladder] = max(step.stage, last.get(step.ladder, 0))
    return dict.fromkeys(sorted(last.items()))
