"""Planning with files: run the stages of a bundle on validation data, time them, and store the plan.

What is decided, and how, is in ``edgekit.plan``, which touches no file.
"""

from __future__ import annotations

import contextlib
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit import isolate
from edgekit.artifacts import Array, Engine
from edgekit.bundle import Bundle, Manifest, encode_plan, ladders_of, ladders_sha256, write_bundle
from edgekit.bundle.adaptive import Ladder, Plan, Stage, Step
from edgekit.errors import BadRecipe
from edgekit.plan import Observations
from edgekit.plan_data import open_validation

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from edgekit.device_profiles import DeviceProfile
    from edgekit.profile.predict import LatencyPrediction

__all__ = ["HOST", "ObserveOptions", "observe", "store_plan"]

HOST = "host"
_PLAN = "plan.json"
_WARM_UP = 3
_MOST_FINDINGS = 5
_TIMEOUT_S = 24 * 3600.0


class ObserveOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``engine`` chooses the ladders ("auto": those listed first). ``device``: "host" times the stages here while they
    run, on one thread; else the id of a device profile, which predicts them. ``limit``: how many images to use.
    """

    engine: Literal["auto", "litert", "ort"] = "auto"
    device: str = HOST
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise BadRecipe(f"The limit is {self.limit} images.", "It must be at least 1.")


@dataclass
class _Seen:
    """``logits[l][s]``: (samples, classes); ``stage_ms``: medians of the CPU time; ``policy_ms``: of a decision;
    ``shapes[l]``: of all that the ladder's stages read, as stored.
    """

    logits: list[list[npt.NDArray[np.float32]]]
    labels: npt.NDArray[np.int64] | None
    stage_ms: list[list[float]]
    policy_ms: float
    shapes: list[dict[str, tuple[int, ...]]]


def observe(bundle: Path, data: Path, options: ObserveOptions = ObserveOptions()) -> Observations:
    """What a plan for ``bundle`` is made from. ``data``: see ``edgekit.plan_data.open_validation``.

    Every stage of every ladder is run on every image, in a child process, so that what is observed is what the engine
    really gives. Raises BadBundle, BadInput, BadModel, BadRecipe (no ladders, no preprocessing), EngineError,
    MissingExtra, UnknownName.
    """
    from edgekit.device_profiles import resolve

    with Bundle.open(bundle) as opened:
        engine = _engine(opened.manifest, options.engine)
        if opened.manifest.preprocess is None:
            raise BadRecipe(f"The bundle '{bundle}' does not say how an image becomes its input.",
                            "Build it with preprocessing, or plan from logits with edgekit.plan.make_plan.")
        profile = None if options.device == HOST else resolve(options.device)
        sha256 = ladders_sha256(opened.manifest, engine)
    seen = isolate.call(f"{__name__}:_run", str(bundle), str(data), engine, options.limit,
                        timeout_s=_TIMEOUT_S, subject=f"Running '{bundle}'")
    seen = cast(_Seen, seen)
    times, notes = (seen.stage_ms, ()) if profile is None else _predicted(bundle, engine, profile, seen.shapes)
    return Observations(
        logits=tuple(tuple(row) for row in seen.logits), labels=seen.labels,
        stage_ms=tuple(tuple(row) for row in times), overhead_ms=seen.policy_ms,
        device=_host_name() if profile is None else profile.id, engine=engine,
        source="measured" if profile is None else "predicted", ladders_sha256=sha256, notes=notes,
    )


def store_plan(source: Path, out: Path, plan: Plan, key: Ed25519PrivateKey | None = None) -> Manifest:
    """Write to ``out`` the bundle ``source`` with ``plan`` in place of any it has; all other entries stay as they are.

    ``key`` signs the result, which is unsigned without one. Raises BadBundle (a plan for other ladders, too) and
    WriteFailed.
    """
    with Bundle.open(source) as opened:
        opened.verify_all()
        manifest = opened.manifest
        blobs = {entry.name: opened.read(entry.name) for entry in manifest.entries if entry.name != manifest.plan_entry}
    name = manifest.plan_entry or _free_name(blobs)
    blobs[name] = encode_plan(plan)
    return write_bundle(out, msgspec.structs.replace(manifest, plan_entry=name), blobs, key)


def _free_name(blobs: Mapping[str, bytes]) -> str:
    return next(name for name in (_PLAN, *(f"plan{number}.json" for number in range(len(blobs) + 1)))
                if name not in blobs)


def _engine(manifest: Manifest, wanted: Literal["auto", "litert", "ort"]) -> Engine:
    engines = list(dict.fromkeys(ladder.engine for ladder in manifest.ladders))
    if not engines:
        raise BadRecipe(f"The bundle '{manifest.name}' has no ladders: there is nothing to plan.",
                        "Build one with: edgekit build --exits NAME,NAME --resolutions PIXELS,PIXELS")
    if wanted == "auto":
        return engines[0]
    if wanted not in engines:
        raise BadRecipe(f"The bundle '{manifest.name}' has no ladders for '{wanted}', but for: {', '.join(engines)}.")
    return wanted


def _host_name() -> str:
    return f"host ({platform.system()}, {platform.machine() or 'unknown'})"


def _run(path: str, data: str, engine: Engine, limit: int | None) -> _Seen:
    """In the child: every stage on every image, ladder by ladder for each image, so that all share the same moments."""
    from edgekit.runtime.preprocess import ImageInput
    from edgekit.runtime.stages import StagedNetwork

    with contextlib.closing(StagedNetwork(bundle := Bundle.open(Path(path)), engine, threads=1)) as network:
        manifest, ladders = bundle.manifest, network.ladders
        assert manifest.preprocess is not None
        names = () if manifest.labels_entry is None else bundle.read(manifest.labels_entry).decode().splitlines()
        samples = open_validation(Path(data), names, limit)
        inputs = [ImageInput(ladder.stages[0].inputs[0], manifest.preprocess, ladder.resolution) for ladder in ladders]
        logits: list[list[list[Array]]] = [[[] for _ in ladder.stages] for ladder in ladders]
        times: list[list[list[float]]] = [[[] for _ in ladder.stages] for ladder in ladders]
        shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in ladders]
        policy_ms: list[float] = []
        for image in samples.images():
            for index, ladder in enumerate(ladders):
                known = {ladder.stages[0].inputs[0].name: inputs[index](image)}
                for number, stage in enumerate(ladder.stages):
                    start = time.thread_time_ns()
                    known |= network.execute(index, number, known)
                    times[index][number].append((time.thread_time_ns() - start) / 1e6)
                    logits[index][number].append(np.array(known[stage.logits], np.float32).reshape(-1))
                    policy_ms.append(_decision_ms(logits[index][number][-1]))
                shapes[index] = {name: array.shape for name, array in known.items()}
    stacked = [[np.stack(stage) for stage in row] for row in logits]
    return _Seen(stacked, samples.labels, [[_typical(stage) for stage in row] for row in times],
                 _typical(policy_ms), shapes)


def _files(ladders: Sequence[Ladder]) -> set[str]:
    entries = {stage.entry for ladder in ladders for stage in ladder.stages}
    return entries | {ladder.weights for ladder in ladders if ladder.weights is not None}


def _typical(times: Sequence[float]) -> float:
    """The median without the first runs; at least a microsecond, the clock being coarse on some systems."""
    return max(float(np.median(times[_WARM_UP:] or times)), 1e-3)


def _decision_ms(logits: npt.NDArray[np.float32]) -> float:
    """What combining two exits and deciding takes right after a stage, when the code is not in the cache."""
    from edgekit.runtime.decide import Moment, added, confidence, decide, scores

    step = Step(0, 0, (0.5, 0.5), "margin", 0.5)
    start = time.thread_time_ns()
    found = scores(logits)
    decide(confidence(added((found, found), step.weights), step, None), step.threshold, Moment(0, 2, 0.0, 0.0, None))
    return (time.thread_time_ns() - start) / 1e6


def _predicted(
    source: Path, engine: Engine, profile: DeviceProfile, shapes: Sequence[Mapping[str, tuple[int, ...]]]
) -> tuple[list[list[float]], tuple[str, ...]]:
    """The milliseconds that a device's profile predicts for each stage, and what is to be said of them.

    ``shapes``: of what each ladder's stages read. Raises BadRecipe.
    """
    with Bundle.open(source) as bundle, tempfile.TemporaryDirectory() as folder:
        ladders = ladders_of(bundle.manifest, engine)
        weights = {ladder.weights for ladder in ladders}
        paths = {name: Path(folder) / (name if name in weights else f"{number}{Path(name).suffix}")
                 for number, name in enumerate(sorted(_files(ladders)))}
        for name, path in paths.items():  # graphs refer to their weights by the name of the entry
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bundle.read(name))
        found = [[_of_stage(paths[stage.entry], stage, known, profile, engine) for stage in ladder.stages]
                 for ladder, known in zip(ladders, shapes, strict=True)]
    dearest = max(found, key=lambda row: sum(each.latency_ms for each in row))
    low, middle, high = (sum(values) for values in zip(
        *((each.band_ms[0], each.latency_ms, each.band_ms[1]) for each in dearest), strict=True))
    findings = dict.fromkeys(finding for row in found for each in row for finding in each.findings)
    notes = (f"Times are predicted for {profile.id}: {middle:.3g} ms for all stages of the dearest ladder, "
             f"90 % band {low:.3g} to {high:.3g} ms.", *list(findings)[:_MOST_FINDINGS])
    return [[each.latency_ms for each in row] for row in found], notes


def _of_stage(
    path: Path, stage: Stage, known: Mapping[str, tuple[int, ...]], profile: DeviceProfile, engine: Engine
) -> LatencyPrediction:
    from edgekit.graph.costs_read import graph_costs
    from edgekit.profile.predict import predict

    # a signature is for one resolution; an ONNX stage may serve all of them
    shapes = {} if stage.signature else {spec.name: known[spec.name] for spec in stage.inputs}
    return predict(graph_costs(path, shapes, stage.signature), profile, engine)
