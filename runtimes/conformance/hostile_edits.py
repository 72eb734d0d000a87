"""Changes of golden manifests and plans, on plain JSON values, that every reader must refuse (hostile.py)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

__all__ = ["LADDER_EDITS", "MANIFEST_EDITS", "PLAN_EDITS"]

Json = dict[str, Any]


def _set(*path: str | int, to: object) -> Callable[[Json], None]:
    def edit(manifest: Json) -> None:
        target: Any = manifest
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = copy.deepcopy(to)
    return edit


def _drop(name: str) -> Callable[[Json], None]:
    return lambda manifest: manifest.pop(name) and None


_VECTOR = ("test_vectors", 0)
_INPUT = (*_VECTOR, "inputs", 0)
_BIG = 2**31 - 1

MANIFEST_EDITS: dict[str, Callable[[Json], None]] = {
    "unknown": _set("extra", to=1),
    "unknown-nested": _set("variants", 0, "extra", to=1),
    "missing-name": _drop("name"),
    "missing-entries": _drop("entries"),
    "missing-version": _drop("schema_version"),
    "version-zero": _set("schema_version", to=0),
    "version-negative": _set("schema_version", to=-1),
    "version-text": _set("schema_version", to="1"),
    "version-true": _set("schema_version", to=True),
    "name-empty": _set("name", to=""),
    "name-control": _set("name", to="a\u001b[2Jb"),
    "name-number": _set("name", to=5),
    "task-unknown": _set("task", to="poetry"),
    "entry-size-negative": _set("entries", 0, "size_bytes", to=-1),
    "entry-size-other": _set("entries", 0, "size_bytes", to=5),
    "entry-size-float": _set("entries", 0, "size_bytes", to=5.5),
    "entry-size-huge": _set("entries", 0, "size_bytes", to=2**70),
    "entry-hash-short": _set("entries", 0, "sha256", to="00"),
    "entry-hash-upper": _set("entries", 0, "sha256", to="A" * 64),
    "entry-name-parent": _set("entries", 0, "name", to="../../etc/passwd"),
    "entry-is-manifest": _set("entries", 0, "name", to="manifest.json"),
    "entries-not-sorted": lambda manifest: manifest["entries"].reverse(),
    "entries-repeated": lambda manifest: manifest["entries"].append(manifest["entries"][-1]),
    "entries-empty": _set("entries", to=[]),
    "variants-empty": _set("variants", to=[]),
    "variants-repeated": lambda manifest: manifest["variants"].append(manifest["variants"][0]),
    "variant-entry-unknown": _set("variants", 0, "entry", to="models/none"),
    "variant-entry-is-manifest": _set("variants", 0, "entry", to="manifest.json"),
    "variant-engine-unknown": _set("variants", 0, "engine", to="abacus"),
    "variant-format-of-other-engine": _set("variants", 0, "format", to="ort"),
    "variant-inputs-empty": _set("variants", 0, "inputs", to=[]),
    "variant-inputs-repeated": lambda manifest: manifest["variants"][0]["inputs"].append(
        manifest["variants"][0]["inputs"][0]),
    "variant-inputs-renamed": _set("variants", 1, "inputs", 0, "name", to="other"),
    "variant-resolution-zero": _set("variants", 0, "resolution", to=[0, 5]),
    "variant-resolution-long": _set("variants", 0, "resolution", to=[5, 5, 5]),
    "spec-dtype-unknown": _set("variants", 0, "inputs", 0, "dtype", to="float33"),
    "spec-dim-zero": _set("variants", 0, "inputs", 0, "shape", to=[0, 3]),
    "spec-dim-negative": _set("variants", 0, "inputs", 0, "shape", to=[-2, 3]),
    "spec-dim-huge": _set("variants", 0, "inputs", 0, "shape", to=[2**31, 3]),
    "spec-rank-huge": _set("variants", 0, "inputs", 0, "shape", to=[1] * 17),
    "spec-nhwc-rank": lambda manifest: manifest["variants"][0]["inputs"][0].update(layout="nhwc", shape=[1, 3, 3]),
    "labels-unknown": _set("labels_entry", to="names.txt"),
    "vector-tolerance-zero": _set(*_VECTOR, "tolerance", to=0),
    "vector-tolerance-one": _set(*_VECTOR, "tolerance", to=1),
    "vector-inputs-empty": _set(*_VECTOR, "inputs", to=[]),
    "vector-input-renamed": _set(*_INPUT, "name", to="other"),
    "vector-input-repeated": lambda manifest: manifest["test_vectors"][0]["inputs"].append(
        manifest["test_vectors"][0]["inputs"][0]),
    "vector-entry-unknown": _set(*_INPUT, "entry", to="vectors/none"),
    "vector-dtype-unknown": _set(*_INPUT, "dtype", to="object"),
    "vector-dtype-wider": _set(*_INPUT, "dtype", to="float64"),
    "vector-shape-larger": _set(*_INPUT, "shape", to=[1000, 1000]),
    "vector-shape-dynamic": _set(*_INPUT, "shape", to=[-1, 4]),
    # The product is 0 modulo 2^64, or small: an overflowing reader would believe it.
    "vector-shape-overflow-64": _set(*_INPUT, "shape", to=[2**30, 2**30, 2**2]),
    "vector-shape-overflow-huge": _set(*_INPUT, "shape", to=[_BIG] * 16),
    "vector-shape-rank": _set(*_INPUT, "shape", to=[1] * 17),
    "preprocess-std-zero": _set("preprocess", to={"std": [0, 1, 1]}),
    "preprocess-mean-count": _set("preprocess", to={"mean": [1, 1]}),
    "preprocess-mean-infinite": _set("preprocess", to={"mean": [1e308, 1e308, 1e308], "crop_fraction": 2}),
    "preprocess-crop-zero": _set("preprocess", to={"crop_fraction": 0}),
    "preprocess-unknown": _set("preprocess", to={"blur": 1}),
    "provenance-number": _set("provenance", "tools", to={"onnx": 1}),
    "provenance-list": _set("provenance", "recipe", to=[]),
}


def _downgrade(manifest: Json) -> None:
    manifest["schema_version"] = 1
    del manifest["ladders"]


_LADDER = ("ladders", 0)
_STAGE = (*_LADDER, "stages", 1)

LADDER_EDITS: dict[str, Callable[[Json], None]] = {
    "in-version-1": _set("schema_version", to=1),
    "plan-alone-in-version-1": _downgrade,
    "none-in-version-2": _set("ladders", to=[]),
    "missing-in-version-2": _drop("ladders"),
    "repeated": lambda manifest: manifest["ladders"].append(manifest["ladders"][0]),
    "unknown-field": _set(*_LADDER, "extra", to=1),
    "id-empty": _set(*_LADDER, "id", to=""),
    "engine-unknown": _set(*_LADDER, "engine", to="abacus"),
    "format-of-other-engine": _set(*_LADDER, "format", to="onnx"),
    "resolution-zero": _set(*_LADDER, "resolution", to=[0, 2]),
    "resolution-of-other-image": _set(*_LADDER, "resolution", to=[2, 3]),
    "stages-empty": _set(*_LADDER, "stages", to=[]),
    "too-many-stages": lambda manifest: manifest["ladders"][0].update(stages=manifest["ladders"][0]["stages"][:1] * 65),
    "too-many": lambda manifest: manifest.update(ladders=manifest["ladders"][:1] * 257),
    "weights-of-tflite": _set(*_LADDER, "weights", to="models/ort.bin"),
    "weights-unknown": _set("ladders", 2, "weights", to="models/none.bin"),
    "entry-unknown": _set(*_STAGE, "entry", to="models/none"),
    "signature-empty": _set(*_STAGE, "signature", to=""),
    "signature-of-onnx": _set("ladders", 2, "stages", 0, "signature", to="main"),
    "logits-unknown": _set(*_STAGE, "logits", to="exit7"),
    "logits-rank": _set(*_STAGE, "outputs", 0, "shape", to=[3]),
    "logits-dynamic-classes": _set(*_STAGE, "outputs", 0, "shape", to=[1, -1]),
    "logits-dtype": _set(*_STAGE, "outputs", 0, "dtype", to="int8"),
    "classes-of-stages-differ": _set(*_STAGE, "outputs", 0, "shape", to=[1, 4]),
    "classes-of-ladders-differ": lambda manifest: [
        stage["outputs"][index].update(shape=[1, 5]) for stage in manifest["ladders"][1]["stages"]
        for index, spec in enumerate(stage["outputs"]) if spec["name"] == stage["logits"]] and None,
    "carried-unknown": _set(*_STAGE, "inputs", 0, "name", to="cubes"),
    "carried-dtype": _set(*_STAGE, "inputs", 1, "dtype", to="int8"),
    "carried-shape": _set(*_STAGE, "inputs", 1, "shape", to=[1, 2, 2, 7]),
    "output-twice": _set(*_STAGE, "outputs", 0, "name", to="exit0"),
    "output-named-as-image": _set(*_STAGE, "outputs", 0, "name", to="image"),
    "first-stage-takes-two": lambda manifest: manifest["ladders"][0]["stages"].reverse(),
    "image-rank": _set(*_LADDER, "stages", 0, "inputs", 0, "shape", to=[1, 2]),
    "vector-without-exit": lambda manifest: manifest["ladders"][0]["test_vectors"][0]["outputs"].pop() and None,
    "vector-shape": _set(*_LADDER, "test_vectors", 0, "inputs", 0, "shape", to=[2, 2, 2]),
    "vector-of-no-variant": lambda manifest: manifest.update(test_vectors=manifest["ladders"][0]["test_vectors"]),
    "plan-unknown": _set("plan_entry", to="plans/none.json"),
    "plan-is-manifest": _set("plan_entry", to="manifest.json"),
}

_ROUTE = ("routes", 1)
PLAN_EDITS: dict[str, Callable[[Json], None]] = {
    "unknown-field": _set("extra", to=1),
    "engine-without-ladders": _set("engine", to="ort"),
    "of-other-ladders": _set("ladders_sha256", to="0" * 64),
    "times-of-too-few-ladders": _set("stage_ms", to=[[0.5, 0.5]]),
    "times-of-too-few-stages": _set("stage_ms", to=[[0.5, 0.5], [0.5]]),
    "time-zero": _set("stage_ms", 0, 0, to=0),
    "time-negative": _set("stage_ms", 0, 0, to=-1.5),
    "time-huge": _set("stage_ms", 0, 0, to=1e300),
    "overhead-negative": _set("overhead_ms", to=-0.25),
    "routes-empty": _set("routes", to=[]),
    "too-many-routes": lambda plan: plan.update(routes=plan["routes"][:1] * 65),
    "default-outside": _set("default", to=3),
    "default-negative": _set("default", to=-1),
    "device-control": _set("device", to="a\u001b[2Jb"),
    "note-empty": _set("notes", to=[""]),
    "steps-empty": _set(*_ROUTE, "steps", to=[]),
    "ladder-outside": _set(*_ROUTE, "steps", 0, "ladder", to=2),
    "ladder-negative": _set(*_ROUTE, "steps", 0, "ladder", to=-1),
    "stage-outside": _set(*_ROUTE, "steps", 1, "stage", to=2),
    "stage-twice": _set(*_ROUTE, "steps", 1, "stage", to=0),
    "weights-short": _set(*_ROUTE, "steps", 1, "weights", to=[1.0]),
    "weights-long": _set(*_ROUTE, "steps", 0, "weights", to=[1.0, 1.0]),
    "weight-huge": _set(*_ROUTE, "steps", 0, "weights", to=[1e300]),
    "measure-unknown": _set(*_ROUTE, "steps", 0, "confidence", to="mood"),
    "gate-missing": _set("routes", 2, "steps", 0, "gate", to=None),
    "gate-of-margin": lambda plan: plan["routes"][2]["steps"][0].update(confidence="margin"),
    "gate-short": _set("routes", 2, "steps", 0, "gate", "weights", to=[1.0]),
    "threshold-of-last": _set(*_ROUTE, "steps", 1, "threshold", to=0.5),
    "accuracy-above-1": _set(*_ROUTE, "promise", "accuracy", to=1.5),
    "interval-reversed": _set(*_ROUTE, "promise", "interval", to=[0.9, 0.8]),
    "stops-short": _set(*_ROUTE, "promise", "stops", to=[1.0]),
    "stops-beyond-1": _set(*_ROUTE, "promise", "stops", to=[0.75, 0.75]),
    "stops-negative": _set(*_ROUTE, "promise", "stops", to=[1.25, -0.25]),
    "p95-negative": _set(*_ROUTE, "promise", "p95_ms", to=-1),
    "no-samples": _set(*_ROUTE, "promise", "samples", to=0),
}
