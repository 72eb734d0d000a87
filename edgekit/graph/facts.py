"""What is in a model file or bundle, told without trusting it: the work behind ``edgekit inspect``.

Our own readers (bundle, .tflite) run in this process, since wrong bytes can only make them raise. The protobuf parser
and the engines run in a child process (``edgekit.isolate``).
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Literal, cast

import msgspec

from edgekit import isolate
from edgekit.artifacts import Engine, TensorSpec
from edgekit.bundle import Bundle, Ladder, Manifest, Plan, ladders_of
from edgekit.errors import BadModel, EdgeKitError, InternalError, MissingExtra
from edgekit.graph.facts_tflite import describe_tflite
from edgekit.graph.model_facts import BundleFacts, LadderFacts, ModelFacts, PlanFacts, SignatureFacts

__all__ = ["BundleFacts", "ModelFacts", "SignatureFacts", "inspect_model"]

Format = Literal["onnx", "tflite", "ort", "edge"]

_SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".tflite": "tflite", ".ort": "ort", ".edge": "edge"}
_PARSE_TIMEOUT_S = 120.0
_LOAD_TIMEOUT_S = 120.0
_MIN_ORT_BYTES = 16
_REMEDY = "Obtain the file anew, or convert the model again."


def inspect_model(path: Path | str) -> ModelFacts:
    """The facts of the .onnx, .tflite, .ort or .edge file at ``path`` (told apart by suffix, else by content).

    Raises BadModel when it is missing, not a file, damaged or not a model; BadBundle or SchemaTooNew for an .edge file
    that cannot be used; MissingExtra when the package that parses the format is not installed. An engine that refuses a
    sound file is no error: ``loads`` is False then. No content of the file can crash or hang the calling process.
    """
    path = Path(path)
    kind = _format(path)
    if kind == "edge":
        return _bundle_facts(path)
    if kind == "ort":
        return _ort_facts(path)
    if kind == "tflite":
        return _with_load(describe_tflite(_content(path), f"'{path}'"), "litert", path)
    facts = cast(ModelFacts, isolate.call("edgekit.graph.facts_onnx:describe_onnx", str(path),
                                          timeout_s=_PARSE_TIMEOUT_S, subject=f"Reading '{path}'"))
    return facts if facts.load_note else _with_load(facts, "ort", path)


def _format(path: Path) -> Format:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise BadModel(f"'{path}' is a directory.", "Give the path of a model file.")
        if not stat.S_ISREG(mode):
            raise BadModel(f"'{path}' is not a regular file.", "Give the path of a model file.")
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise BadModel(f"There is no file '{path}'.", "Check the path.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadModel(f"'{path}' cannot be read: {reason}.", "Check the path and its permissions.") from error
    kind = _SUFFIXES.get(path.suffix.lower()) or _by_content(head)
    if kind is None:
        raise BadModel(f"'{path}' has no known suffix, and its first bytes are not those of a .tflite, .ort or .edge "
                       "file.", f"Known: {', '.join(_SUFFIXES)}.")
    return kind


def _by_content(head: bytes) -> Format | None:
    """ONNX files have no mark of their own."""
    if head[:4] == b"PK\3\4":
        return "edge"
    return {b"TFL3": "tflite", b"ORTM": "ort"}.get(head[4:8])  # type: ignore[return-value]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadModel(f"'{path}' cannot be read: {error.strerror}.", "Check the path and its permissions.") from error


def _try_load(engine: Engine, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    found = isolate.call("edgekit.graph.try_load:open_once", engine, str(path), timeout_s=_LOAD_TIMEOUT_S,
                         subject=f"Loading '{path}'")
    return cast(tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]], found)


def _with_load(facts: ModelFacts, engine: Engine, path: Path) -> ModelFacts:
    try:
        _try_load(engine, path)
    except MissingExtra as error:
        return msgspec.structs.replace(facts, load_note=str(error))
    except InternalError:
        raise
    except EdgeKitError as error:
        return msgspec.structs.replace(facts, loads=False, load_note=error.message)
    return msgspec.structs.replace(facts, loads=True)


def _ort_facts(path: Path) -> ModelFacts:
    """ONNX Runtime checks its flatbuffer itself; what it holds besides inputs and outputs it does not tell."""
    data = _content(path)
    if len(data) < _MIN_ORT_BYTES or data[4:8] != b"ORTM":
        raise BadModel(f"'{path}' is not an .ort file ({len(data)} bytes, without the mark ORTM).", _REMEDY)
    try:
        inputs, outputs = _try_load("ort", path)
    except MissingExtra as error:
        return ModelFacts("ort", len(data), (), (), load_note=str(error))
    except InternalError:
        raise
    except EdgeKitError as error:
        raise BadModel(f"ONNX Runtime cannot load '{path}': {error.message}", _REMEDY) from error
    return ModelFacts("ort", len(data), inputs, outputs, loads=True)


def _bundle_facts(path: Path) -> ModelFacts:
    with Bundle.open(path) as bundle:
        manifest = bundle.manifest
        summary = BundleFacts(
            name=manifest.name,
            task=manifest.task,
            schema_version=manifest.schema_version,
            signed=bundle.signed,
            entries=tuple((entry.name, entry.size_bytes) for entry in manifest.entries),
            variants=tuple((item.id, item.engine, item.format, item.precision) for item in manifest.variants),
            test_vectors=len(manifest.test_vectors),
            source_name=manifest.provenance.source_name,
            source_sha256=manifest.provenance.source_sha256,
            tools=manifest.provenance.tools,
            ladders=tuple(_ladder_facts(each) for each in manifest.ladders),
            plan=_plan_facts(bundle.plan(), manifest),
        )
    inputs, outputs = _first_specs(manifest)
    return ModelFacts("edge", path.stat().st_size, inputs, outputs, bundle=summary,
                      load_note="The engines were not tried; edgekit verify does that.")


def _first_specs(manifest: Manifest) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Of the first variant; of the image and the exits of the first ladder where there is no variant."""
    if manifest.variants:
        return manifest.variants[0].inputs, manifest.variants[0].outputs
    stages = manifest.ladders[0].stages
    return stages[0].inputs, tuple(
        spec for stage in stages for spec in stage.outputs if spec.name == stage.logits)


def _ladder_facts(ladder: Ladder) -> LadderFacts:
    first = ladder.stages[0]
    classes = next(spec.shape[1] for spec in first.outputs if spec.name == first.logits)
    return LadderFacts(ladder.id, ladder.engine, ladder.format, ladder.precision, ladder.resolution,
                       len(ladder.stages), classes, len(ladder.test_vectors))


def _plan_facts(plan: Plan | None, manifest: Manifest) -> PlanFacts | None:
    if plan is None:
        return None
    ladders = ladders_of(manifest, plan.engine)
    route = plan.routes[plan.default]
    points = tuple((ladders[step.ladder].id, step.stage) for step in route.steps)
    return PlanFacts(plan.device, plan.engine, plan.source, plan.objective, len(plan.routes), plan.default, points,
                     route.promise.accuracy, route.promise.mean_ms, route.promise.p95_ms)
