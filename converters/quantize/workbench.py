"""Makes candidate files and measures them: size, partitions, distance from the float file, CPU time against it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import msgspec
import numpy as np

from edgekit.artifacts import Array, Engine, LiteRTModel, OrtModel
from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.quantize.apply import bits_of, calibrate, float_form, prepare, quantize
from edgekit.converters.quantize.equalize import EQUALIZED, renamed
from edgekit.converters.quantize.flatbuffer import read_tables, with_unique_names
from edgekit.converters.quantize.plan import Graph, Plan, bases, flips, left_out, look_at
from edgekit.converters.quantize.quality import MAX_DB, Noise
from edgekit.converters.quantize.rounding import adapt
from edgekit.converters.quantize.samples import Feeds, Samples
from edgekit.converters.quantize.sensitivity import Layer, sensitivity
from edgekit.converters.quantize.speed import Speed, compare_speed, probe
from edgekit.errors import BadInput, BadModel, EdgeKitError, EngineError
from edgekit.recipe import QuantRecipe

__all__ = ["Model", "Placed", "Quality", "Trial", "Workbench"]

#: samples that judge a candidate while many are compared, and those that judge the few that remain
_SCREENING, _JUDGING = 32, 1000
_MENDING = 32
_CACHE_BYTES = 128 << 20


Model = LiteRTModel | OrtModel


class Placed(Protocol):
    """How the engine divides a file; what a lower number of ``partitions`` means is the engine's affair."""

    @property
    def partitions(self) -> int:
        """A count that grows with the work lost between kernels."""
        ...


class Quality(msgspec.Struct, frozen=True):
    """Against the float file on ``samples`` samples. ``sqnr_db``: of the worst output. ``low_db``: what one more
    sample falls below once in twenty times, for the worst output; None with fewer than four samples.

    For classifiers (one float output, a row of scores for each entry of the batch) also ``agreement``, the share of
    equal top-1 answers, and with labels ``drop_points``, the loss of accuracy in percentage points with its 95 %
    interval (paired by sample). None otherwise.
    """

    samples: int
    sqnr_db: float
    agreement: float | None = None
    drop_points: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    float_accuracy: float | None = None
    low_db: float | None = None


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
    """The float file, the data, and every candidate made so far.

    For LiteRT; for another engine a subclass replaces the methods from ``prepared`` on.
    """

    engine: Engine = "litert"
    #: kinds of linear layers, which have a form that quantizes activations at run time
    linear: tuple[str, ...] = ("FULLY_CONNECTED",)
    #: what a person can take where int8 does not pay
    otherwise = "float16 and weight8 are smaller and not slower"

    def __init__(self, model: Model, samples: Samples, base: QuantRecipe) -> None:
        """Calibrates, unless ``base`` holds ranges. Candidates have float32 inputs and outputs, whatever it says.

        Raises as ``calibrate``, and EngineError or BadModel when the float file does not run.
        """
        base = msgspec.structs.replace(base, io="float32", rounding="nearest", correct_bias=False)
        self._recipes: dict[Plan, QuantRecipe] = {}
        self._steps: dict[tuple[bool, str, int], str | None] = {}
        self._factors: QuantRecipe | None = None
        self.source = model
        self.model = self.prepared(model)
        self.samples = samples
        self.graph = self.look()
        self.feeds = self._first()
        (placement,) = self.probe([self.model.data])
        if isinstance(placement, EngineError):
            raise EngineError(f"The float model fails on the first sample of the calibration data: {placement.message}",
                              placement.remedy or "Give inputs that the model accepts.") from placement
        if isinstance(placement, EdgeKitError):
            raise placement
        self.placement = placement
        self.left_out = self.outside(self.model.data, self.placement)
        self.base = base if base.ranges else self.calibrated(base)
        self.files: dict[str, bytes] = {}
        self._cached: list[Feeds] = []
        self._complete = False
        self._wanted: list[dict[str, Array]] = []
        self._session = self._open(self.model.data)

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

    def _answered(self, count: int) -> Iterator[tuple[dict[str, Array], Feeds]]:
        """The float file's outputs for the first ``count`` samples; those that fit into 128 MB are computed once."""
        for number, feeds in enumerate(self._some(count)):
            if number < len(self._wanted):
                yield self._wanted[number], feeds
                continue
            wanted = self._outputs(self._session, feeds)
            broken = [name for name, array in wanted.items() if array.dtype.kind == "f" and np.isnan(array).any()]
            if broken:
                raise BadModel(f"The float model answers NaN in the output '{broken[0]}' on sample {number} of the "
                               "calibration data, so no quality can be judged.",
                               "Find where it comes from (an inner log, square root or division; a weight that is "
                               "NaN), or leave out the samples that cause it.")
            if (number + 1) * sum(array.nbytes for array in wanted.values()) <= _CACHE_BYTES:
                self._wanted.append(wanted)
            yield wanted, feeds

    def _open(self, data: bytes) -> Any:
        from edgekit.runtime.engines import open_session

        return open_session(self.engine, data)

    def _outputs(self, session: Any, feeds: Feeds) -> dict[str, Array]:
        return {name: np.array(array) for name, array in session.run(feeds).items()}

    def make(self, plans: Sequence[Plan], on_step: Callable[[str], None]) -> list[Trial]:
        """The candidates for ``plans``: made, tried together in a child process, compared on a few samples."""
        made: dict[Plan, bytes] = {}
        failed: dict[Plan, str] = {}
        for plan in plans:
            on_step(f"making '{plan.name}'")
            try:
                made[plan] = self.quantized(self.recipe_of(plan)).data
            except EdgeKitError as error:
                failed[plan] = error.message
        trials = [self._trial(plan, data, placement) for (plan, data), placement in
                  zip(made.items(), self.probe(list(made.values())) if made else (), strict=True)]
        return trials + [Trial(plan, failure=message) for plan, message in failed.items()]

    def recipe_of(self, plan: Plan) -> QuantRecipe:
        """The complete recipe of ``plan``, with what was found on the samples."""
        if plan not in self._recipes:
            recipe = msgspec.structs.replace(self.base, rules=plan.rules())
            if plan.equalized:
                recipe = msgspec.structs.replace(recipe, equalize=True)
            self._recipes[plan] = self.mended(recipe) if plan.mended else self.completed(recipe)
        return self._recipes[plan]

    def _trial(self, plan: Plan, data: bytes, placement: Placed | EdgeKitError) -> Trial:
        if isinstance(placement, EdgeKitError):
            return Trial(plan, failure=placement.message)
        self.files[plan.name] = data
        return Trial(
            plan, size_bytes=len(data), size_ratio=len(data) / len(self.model.data), partitions=placement.partitions,
            left_out=self.outside(data, placement), quality=self.judge(data, _SCREENING),
        )

    def judge(self, data: bytes, count: int = _JUDGING, unseen: bool = False) -> Quality:
        """``data`` against the float file on the first ``count`` samples.

        Noise is that on samples that ranges and corrections were not found on, where there are enough of them: values
        outside the ranges are what spoils a file in use. Answers are compared on all. ``unseen``: nothing was found on
        any of these samples, so noise is that on all.
        """
        noise = Noise()
        ours: list[int] = []
        theirs: list[int] = []
        session = self._open(data)
        samples = 0
        for wanted, feeds in self._answered(count):
            got = _renamed(session.run(feeds), wanted)
            if unseen or not self.samples.can_hold_out or self.samples.held_out(samples):
                noise.add_all(wanted, got)
            samples += 1
            scores = _scores(wanted, feeds), _scores(got, feeds)
            if scores[0] is not None and scores[1] is not None:
                answers = scores[0].argmax(axis=1), scores[1].argmax(axis=1)
                theirs += answers[0].tolist()
                ours += answers[1].tolist()
                classes = scores[0].shape[1]
        session.close()
        bounds = [low for low in map(noise.low_db, noise.error) if low is not None]
        quality = Quality(max(samples, len(ours)), noise.worst_db(noise.error), low_db=min(bounds, default=None))
        if not ours:
            return quality
        quality = msgspec.structs.replace(quality, agreement=float(np.mean(np.equal(ours, theirs))))
        if self.samples.labels is None:
            return quality
        labels = _checked(self.samples.labels, len(ours) // samples, samples, classes)
        return _with_labels(quality, ours, theirs, labels)

    def timed(self, trials: Sequence[Trial], seconds: float, on_step: Callable[[str], None] | None = None,
              ) -> list[Trial]:
        """``trials`` with their speed, all measured side by side with the float file; failed ones are left out."""
        ready = [trial for trial in trials if not trial.failure]
        if on_step is not None:
            on_step(f"timing {len(ready)} files")
        if not ready:
            return []
        speeds = self.compared([self.model.data, *(self.files[trial.name] for trial in ready)], seconds)
        return [msgspec.structs.replace(trial, speed=speed) for trial, speed in zip(ready, speeds[1:], strict=True)]

    def compared(self, files: Sequence[bytes], seconds: float) -> tuple[Speed, ...]:
        """The speed of each file against the first."""
        return compare_speed(files, self.feeds, seconds, self.engine)

    def prepared(self, model: Model) -> Model:
        """The float model as the other methods want it."""
        return msgspec.structs.replace(model, data=with_unique_names(model.data))

    def look(self) -> Graph:
        """Kinds of ops and their results."""
        return look_at(self.model.data)

    def probe(self, files: Sequence[bytes]) -> list[Any]:
        """What the engine does with each file: a ``Placed``, or the error that it made."""
        return probe(files, self.feeds)

    def outside(self, data: bytes, placement: Any) -> tuple[tuple[str, str], ...]:
        """Kind and first result of the ops of ``data`` that the engine leaves to slower kernels."""
        return left_out(data, placement, self.graph)

    def calibrated(self, base: QuantRecipe) -> QuantRecipe:
        """``base`` with ranges."""
        assert isinstance(self.model, LiteRTModel)
        return calibrate(self.model, base, self.samples.fit)

    def quantized(self, recipe: QuantRecipe) -> Model:
        """The float model as ``recipe`` says."""
        assert isinstance(self.model, LiteRTModel)
        return quantize(self.model, recipe)

    @property
    def mends(self) -> bool:
        """Whether there is adaptive rounding and correction of biases for the engine."""
        return self.engine == "litert"

    def completed(self, recipe: QuantRecipe) -> QuantRecipe:
        """``recipe`` with the factors of channels, where it wants them; they are found once."""
        if not recipe.equalize:
            return recipe
        assert isinstance(self.model, LiteRTModel)
        if self._factors is None:
            wanted = msgspec.structs.replace(self.base, equalize=True)
            self._factors = prepare(self.model, wanted, Samples(self._few))
        return msgspec.structs.replace(recipe, channel_factors=self._factors.channel_factors,
                                       ranges=self._factors.ranges)

    def _few(self) -> Iterator[Feeds]:
        return islice(self.samples.fit, _MENDING)

    def mended(self, recipe: QuantRecipe) -> QuantRecipe:
        """``recipe`` with adaptive rounding and corrected biases, found on the samples."""
        assert isinstance(self.model, LiteRTModel)
        recipe = self.completed(recipe)
        data = float_form(self.model, recipe)
        bits = bits_of(read_tables(data), recipe)
        new = {name: count for name, count in bits.items() if (recipe.equalize, name, count) not in self._steps}
        found = adapt(data, new, self._few()) if new else {}
        self._steps.update({(recipe.equalize, name, count): found.get(name) for name, count in new.items()})
        steps = {name: text for name, count in bits.items()
                 if (text := self._steps[recipe.equalize, name, count]) is not None}
        recipe = msgspec.structs.replace(recipe, rounding="adaptive", weight_steps=steps, correct_bias=True)
        return prepare(self.model, recipe, self.samples.fit)

    def bases(self) -> list[Plan]:
        """Where a search starts; the first plan is everything static."""
        return bases(self.graph)

    def flips(self, plan: Plan, cut: Iterable[str]) -> list[Plan]:
        """``plan`` with the form of one kind changed."""
        return flips(plan, self.graph, cut)

    def layers(self, data: bytes) -> tuple[Layer, ...]:
        """Where error enters in ``data``; tensors are called as in the float file."""
        recipe = next((self._recipes[plan] for plan in self._recipes if self.files.get(plan.name) == data), None)
        if recipe is None or not recipe.channel_factors:
            return sensitivity(self.model.data, data, self.samples)
        assert isinstance(self.model, LiteRTModel)
        tables = read_tables(float_form(self.model, recipe))
        renamed(tables, recipe.channel_factors)
        found = sensitivity(pack_model(tables), data, self.samples)
        return tuple(msgspec.structs.replace(layer, tensor=layer.tensor.removesuffix(EQUALIZED)) for layer in found)

    def why_slow(self, stock: Trial) -> str:
        """Why the file with everything static is slower than the float one."""
        counts = Counter(kind for kind, _ in stock.left_out)
        cut = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        return f"XNNPACK leaves out {cut or 'nothing'} and runs {stock.partitions} partitions"


def _renamed(got: dict[str, Array], wanted: dict[str, Array]) -> dict[str, Array]:
    """``got`` under the names of ``wanted``: files of other tools name outputs otherwise, but keep their order."""
    if got.keys() == wanted.keys():
        return got
    if len(got) != len(wanted):
        raise BadModel(f"The candidate has the outputs {', '.join(got)} instead of {', '.join(wanted)}.")
    return dict(zip(wanted, got.values(), strict=True))


def _scores(outputs: dict[str, Array], feeds: Feeds) -> Array | None:
    """The scores of a classifier, a row for each entry of the batch, or None when the network is something else.

    An output as large as an input is not taken for scores: that is what an autoencoder has.
    """
    if len(outputs) != 1:
        return None
    (scores,) = outputs.values()
    if scores.dtype.kind != "f" or scores.ndim < 2 or scores.shape[-1] < 2:
        return scores[None] if scores.dtype.kind == "f" and scores.ndim == 1 and scores.size > 1 else None
    batches = {array.shape[0] for array in feeds.values() if array.ndim}
    same = any(array.shape == scores.shape and array.dtype.kind == "f" for array in feeds.values())
    if same or scores.shape[0] not in (1, *batches) or math.prod(scores.shape[1:]) != scores.shape[-1]:
        return None
    return scores.reshape(scores.shape[0], -1)


def _checked(labels: Array, rows: int, samples: int, classes: int) -> Array:
    """The labels of the first ``samples`` samples, each of which has ``rows`` answers. Raises BadInput."""
    labels = labels[:samples * rows]
    if len(labels) != samples * rows:
        raise BadInput(f"There are {len(labels)} labels, and the network gives {samples * rows} answers on {samples} "
                       "samples.", "Give one for each answer.")
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < classes:
            raise BadInput(f"The label {label} is none of the network's {classes} classes.",
                           f"Labels count the scores of the output from 0 to {classes - 1}.")
    return labels


def _with_labels(quality: Quality, ours: list[int], theirs: list[int], labels: Array) -> Quality:
    right = np.equal(theirs, labels)
    loss = (right.astype(np.float64) - np.equal(ours, labels)) * 100
    error = 1.96 * float(loss.std(ddof=1)) / math.sqrt(len(loss)) if len(loss) > 1 else 100.0
    drop = float(loss.mean())
    return msgspec.structs.replace(quality, drop_points=drop, drop_low=drop - error, drop_high=drop + error,
                                   float_accuracy=float(right.mean()))
