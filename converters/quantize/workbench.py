"""Makes candidate files and measures them: size, partitions, distance from the float file, CPU time against it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from edgekit.artifacts import Array, LiteRTModel
from edgekit.converters.quantize.apply import calibrate, quantize
from edgekit.converters.quantize.flatbuffer import with_unique_names
from edgekit.converters.quantize.plan import Graph, Plan, left_out, look_at
from edgekit.converters.quantize.quality import MAX_DB, Noise
from edgekit.converters.quantize.samples import Feeds, Samples
from edgekit.converters.quantize.speed import Speed, compare_speed, probe
from edgekit.errors import BadInput, EdgeKitError
from edgekit.recipe import QuantRecipe
from edgekit.report.placement import Placement

__all__ = ["Quality", "Trial", "Workbench"]

#: samples that judge a candidate while many are compared, and those that judge the few that remain
_SCREENING, _JUDGING = 16, 1000
_CACHE_BYTES = 128 << 20


class Quality(msgspec.Struct, frozen=True):
    """Against the float file on ``samples`` samples. ``sqnr_db``: of the worst output.

    For classifiers (one float output, a row of scores for each sample) also ``agreement``, the share of equal top-1
    answers, and with labels ``drop_points``, the loss of accuracy in percentage points with its 95 % interval (paired
    by sample). None otherwise.
    """

    samples: int
    sqnr_db: float
    agreement: float | None = None
    drop_points: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    float_accuracy: float | None = None


class Trial(msgspec.Struct, frozen=True):
    """One candidate file. ``speed`` is None until it has been timed; ``failure`` says why there is no file.

    ``left_out``: kind and first tensor of the ops that XNNPACK leaves to slower kernels.
    """

    plan: Plan
    size_bytes: int = 0
    size_ratio: float = 1.0
    partitions: int = 0
    left_out: tuple[tuple[str, str], ...] = ()
    quality: Quality = Quality(0, -MAX_DB)
    speed: Speed | None = None
    failure: str = ""

    @property
    def name(self) -> str:
        """What the plan says of itself; it is unique."""
        return self.plan.name


class Workbench:
    """The float file, the data, and every candidate made so far."""

    def __init__(self, model: LiteRTModel, samples: Samples, base: QuantRecipe) -> None:
        """Calibrates, unless ``base`` holds ranges. Candidates have float32 inputs and outputs, whatever it says.

        Raises as ``calibrate``, and EngineError or BadModel when the float file does not run.
        """
        base = msgspec.structs.replace(base, io="float32")
        self.model = msgspec.structs.replace(model, data=with_unique_names(model.data))
        self.samples = samples
        self.graph: Graph = look_at(self.model.data)
        self.feeds = self._first()
        (placement,) = probe([self.model.data], self.feeds)
        if isinstance(placement, EdgeKitError):
            raise placement
        self.placement = placement
        self.left_out = left_out(self.model.data, self.placement, self.graph)
        self.base = base if base.ranges else calibrate(self.model, base, samples)
        self.files: dict[str, bytes] = {}
        self._cached: list[Feeds] = []
        self._complete = False
        self._wanted = [self._outputs(session, feeds)
                        for session in [self._open(self.model.data)] for feeds in self._some(_JUDGING)]

    def _first(self) -> Feeds:
        for feeds in self.samples:
            return feeds
        raise BadInput("The calibration data holds no sample.", "Give at least one; 32 to 256 are customary.")

    def _some(self, count: int) -> Iterator[Feeds]:
        """The first ``count`` samples; what fits into 128 MB is read once only."""
        room = _CACHE_BYTES // max(1, sum(array.nbytes for array in self.feeds.values()))
        known = len(self._cached)
        yield from self._cached[:count]
        if self._complete or known >= count:
            return
        for number, feeds in enumerate(self.samples):
            if number >= count:
                return
            if number >= known:
                if number == len(self._cached) < room:
                    self._cached.append(feeds)
                yield feeds
        self._complete = len(self._cached) == number + 1

    def _open(self, data: bytes) -> Any:
        from edgekit.runtime.engines import open_session

        return open_session("litert", data)

    def _outputs(self, session: Any, feeds: Feeds) -> dict[str, Array]:
        return {name: np.array(array) for name, array in session.run(feeds).items()}

    def make(self, plans: Sequence[Plan], on_step: Callable[[str], None]) -> list[Trial]:
        """The candidates for ``plans``: made, tried together in a child process, compared on a few samples."""
        made: dict[Plan, bytes] = {}
        failed: dict[Plan, str] = {}
        for plan in plans:
            on_step(f"making '{plan.name}'")
            try:
                made[plan] = quantize(self.model, msgspec.structs.replace(self.base, rules=plan.rules())).data
            except EdgeKitError as error:
                failed[plan] = error.message
        trials = [self._trial(plan, data, placement) for (plan, data), placement in
                  zip(made.items(), probe(list(made.values()), self.feeds) if made else (), strict=True)]
        return trials + [Trial(plan, failure=message) for plan, message in failed.items()]

    def _trial(self, plan: Plan, data: bytes, placement: Placement | EdgeKitError) -> Trial:
        if isinstance(placement, EdgeKitError):
            return Trial(plan, failure=placement.message)
        self.files[plan.name] = data
        return Trial(
            plan, size_bytes=len(data), size_ratio=len(data) / len(self.model.data), partitions=placement.partitions,
            left_out=left_out(data, placement, self.graph), quality=self.judge(data, _SCREENING),
        )

    def judge(self, data: bytes, count: int = _JUDGING) -> Quality:
        """``data`` against the float file on the first ``count`` samples."""
        noise = Noise()
        ours: list[int] = []
        theirs: list[int] = []
        session = self._open(data)
        samples = 0
        for wanted, feeds in zip(self._wanted, self._some(count), strict=False):
            got = session.run(feeds)
            noise.add_all(wanted, got)
            samples += 1
            scores = _scores(wanted), _scores(got)
            if scores[0] is not None and scores[1] is not None:
                theirs.append(int(np.argmax(scores[0])))
                ours.append(int(np.argmax(scores[1])))
        session.close()
        quality = Quality(samples, noise.worst_db(noise.error))
        if len(ours) != samples:
            return quality
        quality = msgspec.structs.replace(quality, agreement=float(np.mean(np.equal(ours, theirs))))
        return quality if self.samples.labels is None else _with_labels(quality, ours, theirs, self.samples.labels)

    def timed(self, trials: Sequence[Trial], seconds: float, on_step: Callable[[str], None] | None = None,
              ) -> list[Trial]:
        """``trials`` with their speed, all measured side by side with the float file; failed ones are left out."""
        ready = [trial for trial in trials if not trial.failure]
        if on_step is not None:
            on_step(f"timing {len(ready)} files")
        if not ready:
            return []
        speeds = compare_speed([self.model.data, *(self.files[trial.name] for trial in ready)], self.feeds, seconds)
        return [msgspec.structs.replace(trial, speed=speed) for trial, speed in zip(ready, speeds[1:], strict=True)]


def _scores(outputs: dict[str, Array]) -> Array | None:
    """The scores of a classifier for one sample, or None when the network is something else."""
    if len(outputs) != 1:
        return None
    (scores,) = outputs.values()
    flat = scores.shape[-1] > 1 and math.prod(scores.shape) == scores.shape[-1] if scores.ndim else False
    return scores.ravel() if flat and scores.dtype.kind == "f" else None


def _with_labels(quality: Quality, ours: list[int], theirs: list[int], labels: Array) -> Quality:
    right = np.equal(theirs, labels[:len(theirs)])
    loss = (right.astype(np.float64) - np.equal(ours, labels[:len(ours)])) * 100
    error = 1.96 * float(loss.std(ddof=1)) / math.sqrt(len(loss)) if len(loss) > 1 else 100.0
    drop = float(loss.mean())
    return msgspec.structs.replace(quality, drop_points=drop, drop_low=drop - error, drop_high=drop + error,
                                   float_accuracy=float(right.mean()))
