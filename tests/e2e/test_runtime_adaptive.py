"""Adaptive bundles on both engines: the golden one, and others made from it."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from edgekit.artifacts import Array, OnnxModel
from edgekit.bundle import Bundle, Ladder, Manifest, encode_plan, ladders_sha256, write_bundle
from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import pack_signatures
from edgekit.errors import BadBundle, BadInput, BadRecipe, EngineError, SignatureMismatch, UserError
from edgekit.recipe import ConvertRecipe
from edgekit.runtime import AdaptiveRuntime, Runtime, RuntimeOptions, load

CONFORMANCE = Path(__file__).resolve().parents[2] / "runtimes" / "conformance"
GOLDEN = CONFORMANCE / "golden_adaptive.edge"
SIDECAR = CONFORMANCE / "golden_adaptive_ort.edgeplan"
KEY = CONFORMANCE / "test_key.pub"
EXPECTED: dict[str, Any] = json.loads((CONFORMANCE / "golden_adaptive.json").read_text(encoding="ascii"))
replace = msgspec.structs.replace
Opener = Callable[..., AdaptiveRuntime]


def picture(pixels: Any) -> Array:
    """A grey image of three equal channels."""
    return np.repeat(np.array(pixels, np.uint8)[:, :, np.newaxis], 3, axis=2)


IMAGES = [picture(each["image"]) for each in EXPECTED["images"]]


def open_with(engine: Any, **options: Any) -> AdaptiveRuntime:
    """The golden bundle with the plan for ``engine``: its own for LiteRT, that of the sidecar for ONNX Runtime."""
    plan = SIDECAR if engine == "ort" else None
    runtime = load(GOLDEN, engine, RuntimeOptions(public_key=KEY, require_signature=True, plan=plan, **options))
    assert isinstance(runtime, AdaptiveRuntime)
    return runtime


@pytest.fixture(params=["litert", "ort"])
def opener(request: pytest.FixtureRequest) -> Opener:
    return lambda **options: open_with(request.param, **options)


def parts() -> tuple[Manifest, dict[str, bytes]]:
    with Bundle.open(GOLDEN) as bundle:
        return bundle.manifest, {entry.name: bundle.read(entry.name) for entry in bundle.manifest.entries}


# Answers


def test_the_golden_answers(opener: Opener) -> None:
    with opener() as runtime:
        assert runtime.plan is not None
        assert runtime.signature_checked
        for image, want in zip(IMAGES, EXPECTED["images"], strict=True):
            got = runtime.run(image)
            assert (got.exit, got.reason, got.label, got.route) == (want["exit"], want["reason"], want["label"], 1)
            np.testing.assert_allclose(got.outputs["logits"], [want["logits"]], rtol=1e-5, atol=1e-6)
            assert got.outputs["logits"].dtype == np.float32
            assert got.steps[0].confidence == pytest.approx(want["confidence"], rel=1e-5)
            assert [step.stage for step in got.steps] == list(range(want["exit"] + 1))
            assert got.resolution == (2, 2)
            assert got.score == pytest.approx(max(score for _, score in got.top))
        counters = runtime.counters()
    assert counters.exits == {(0, 0): 2, (0, 1): 2}
    assert counters.reasons == {"confident": 2, "last": 2}


def test_every_point_alone(opener: Opener) -> None:
    with opener() as runtime:
        for ladder, described in enumerate(runtime.ladders):
            for image, want in zip(IMAGES, EXPECTED["images"], strict=True):
                points = runtime.exits(ladder, image)
                for stage in (0, 1):
                    alone = runtime.fixed(ladder, stage).run(image)
                    assert (alone.exit, alone.resolution, alone.reason) == (stage, described.resolution, "complete")
                    assert np.array_equal(alone.outputs[f"exit{stage}"], points[stage].logits)
                    if ladder == 0:
                        np.testing.assert_allclose(points[stage].logits, [want["exits"][stage]], rtol=1e-5, atol=1e-6)
                    assert points[stage].stage_ms > 0
        for point in ((2, 0), (0, 2), (-1, 0)):
            with pytest.raises(BadRecipe, match=r"\[2, 2\] stages"):
                runtime.fixed(*point)
        assert runtime.counters().inputs == 0


def test_a_route_over_two_resolutions(opener: Opener) -> None:
    with opener() as runtime:
        runtime.limits(budget_ms=1e6)
        answers = [runtime.run(IMAGES[2]) for _ in range(12)]
        assert [answer.route for answer in answers[:9]] == [1] * 9
        assert answers[-1].route == 2
        assert (answers[-1].resolution, answers[-1].exit) == ((4, 4), 1)
        assert [(step.ladder[-1], step.stage) for step in answers[-1].steps] == [("2", 0), ("4", 1)]
        small, large = runtime.exits(0, IMAGES[2])[0], runtime.exits(1, IMAGES[2])[1]
        np.testing.assert_allclose(answers[-1].outputs["logits"], 0.25 * small.logits + 1.5 * large.logits, rtol=1e-5)
        assert runtime.counters().route_changes == 1


def test_deadlines(opener: Opener) -> None:
    with opener() as runtime:
        late = runtime.run(IMAGES[2], deadline_ms=1e-6)
        assert late.exit == 0
        assert late.reason.startswith("deadline: missed deadline of 1e-06 ms by ")
        assert runtime.run(IMAGES[2], deadline_ms=1e6).reason == "last"
        assert runtime.counters().deadline_misses == 1
        for wrong in (0, -1, math.nan):
            with pytest.raises(BadInput, match="deadline"):
                runtime.run(IMAGES[0], deadline_ms=wrong)


def test_arrays_by_ladder(opener: Opener) -> None:
    with opener() as runtime:
        arrays = {ladder.id: np.full((1, 1, *ladder.resolution), 0.5, np.float32) for ladder in runtime.ladders}
        assert np.array_equal(runtime.run(arrays).outputs["logits"],
                              runtime.run({runtime.ladders[0].id: next(iter(arrays.values()))}).outputs["logits"])
        assert runtime.exits(1, arrays)[0].logits == pytest.approx(runtime.exits(0, arrays)[0].logits)
        small = runtime.ladders[0].id
        for wrong in ({}, {"nothing": arrays[small]}, arrays | {"nothing": arrays[small]},
                      {runtime.ladders[1].id: arrays[small]}):
            with pytest.raises(BadInput):
                runtime.run(wrong)
        for array in (arrays[runtime.ladders[1].id], arrays[small].astype(np.float64), arrays[small] * np.nan,
                      np.repeat(arrays[small], 2, axis=0), IMAGES[0].astype(np.float32)):
            with pytest.raises(BadInput):
                runtime.run({small: array})
        assert runtime.run(IMAGES[0]).label == "light"


@pytest.mark.parametrize("layout", ["onnx", "stored"])
def test_prepared_arrays_are_what_run_takes(layout: Any) -> None:
    with open_with("litert", array_layout=layout) as runtime:
        for image in IMAGES:
            ready = {ladder.id: runtime.prepared(index, image) for index, ladder in enumerate(runtime.ladders)}
            assert np.array_equal(runtime.run(ready).outputs["logits"], runtime.run(image).outputs["logits"])


# What goes wrong


def test_a_failing_later_stage(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    with opener() as runtime:
        session = runtime._network.session(0, 1)

        def broken(feeds: Any) -> Any:
            raise RuntimeError("the accelerator is gone")

        with monkeypatch.context() as patch:
            patch.setattr(session, "_execute", broken)
            answer = runtime.run(IMAGES[2])
            assert answer.reason.startswith("error: ")
            assert "the accelerator is gone" in answer.reason
            assert (answer.exit, len(answer.steps)) == (0, 1)
            np.testing.assert_allclose(answer.outputs["logits"], [EXPECTED["images"][2]["exits"][0]], atol=1e-6)
            assert runtime.run(IMAGES[0]).reason == "confident"
            with pytest.raises(EngineError, match="the accelerator is gone"):
                runtime.exits(0, IMAGES[2])
        assert runtime.run(IMAGES[2]).reason == "last"
        assert runtime.counters().reasons == {"error": 1, "confident": 1, "last": 1}


def test_a_closed_runtime_says_so(opener: Opener) -> None:
    runtime = opener()
    point = runtime.fixed(0, 0)
    runtime.close()
    runtime.close()
    for call in (lambda: runtime.run(IMAGES[0]), lambda: point.run(IMAGES[0]), lambda: runtime.exits(0, IMAGES[0])):
        with pytest.raises(UserError, match="closed"):
            call()


def test_a_manifest_that_is_not_what_the_model_is(tmp_path: Path) -> None:
    manifest, blobs = parts()
    first: Ladder = manifest.ladders[0]
    stages = tuple(replace(stage, inputs=tuple(replace(spec, shape=(1, 1, 2, -1)) for spec in stage.inputs),
                           outputs=tuple(replace(spec, shape=(1, 1, 2, -1)) if spec.name == "squares" else spec
                                         for spec in stage.outputs)) for stage in first.stages)
    manifest = replace(manifest, ladders=(replace(first, stages=stages),), plan_entry=None)
    write_bundle(tmp_path / "m.edge", manifest, {name: data for name, data in blobs.items() if name != "plan.json"})
    with pytest.raises(BadBundle, match=r"stage 0 of ladder 'litert-2'.*input 'image'"):
        load(tmp_path / "m.edge")
    stages = tuple(replace(stage, signature="other") for stage in first.stages)
    manifest = replace(manifest, ladders=(replace(first, stages=stages),))
    write_bundle(tmp_path / "m.edge", manifest, {name: data for name, data in blobs.items() if name != "plan.json"})
    with pytest.raises(UserError, match="no signature 'other'"):
        load(tmp_path / "m.edge")


def test_a_changed_model_is_refused_before_an_engine_sees_it(tmp_path: Path) -> None:
    data = GOLDEN.read_bytes()
    at = data.index(b"TFL3") + 200
    (tmp_path / "m.edge").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
    with pytest.raises(BadBundle, match=r"models/litert\.tflite.*hash"):
        load(tmp_path / "m.edge", "litert")


# Several at once


def with_free_batch(data: bytes) -> onnx.ModelProto:
    """An ONNX stage of the golden bundle that takes any number of images."""
    proto = onnx.load_from_string(data)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "images"
    return proto


def at_one_size(proto: onnx.ModelProto, weights: bytes, side: int) -> tuple[OnnxModel, ConvertRecipe]:
    """The stage for images of ``side`` pixels, with its weights inside."""
    fixed = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in fixed.graph.initializer:
        place = {each.key: each.value for each in tensor.external_data}
        tensor.raw_data = weights[int(place["offset"]):][:int(place["length"])]
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.dim_value = side
    return describe(fixed), ConvertRecipe()


def batched(tmp_path: Path, engine: Any) -> AdaptiveRuntime:
    """The golden network with a free number of images."""
    manifest, blobs = parts()
    del blobs["plan.json"]
    models = {number: with_free_batch(blobs[f"models/ort-stage{number}.onnx"]) for number in (0, 1)}
    blobs |= {f"models/ort-stage{number}.onnx": proto.SerializeToString() for number, proto in models.items()}
    blobs["models/litert.tflite"] = pack_signatures({
        f"r{side}x{side}s{number}": at_one_size(proto, blobs["models/ort.bin"], side)
        for side in (2, 4) for number, proto in models.items()}).model.data
    ladders = tuple(replace(ladder, stages=tuple(replace(
        stage, inputs=tuple(replace(spec, shape=(-1, *spec.shape[1:])) for spec in stage.inputs),
        outputs=tuple(replace(spec, shape=(-1, *spec.shape[1:])) for spec in stage.outputs))
        for stage in ladder.stages)) for ladder in manifest.ladders)
    path = tmp_path / "batched.edge"
    manifest = write_bundle(path, replace(manifest, ladders=ladders, plan_entry=None), blobs)
    with Bundle.open(GOLDEN) as bundle:
        plan = bundle.plan()
    assert plan is not None
    plan = replace(plan, engine=engine, ladders_sha256=ladders_sha256(manifest, engine))
    write_bundle(path, replace(manifest, plan_entry="plan.json"), blobs | {"plan.json": encode_plan(plan)})
    runtime = load(path, engine)
    assert isinstance(runtime, AdaptiveRuntime)
    return runtime


@pytest.mark.parametrize("engine", ["litert", "ort"])
def test_a_batch_is_packed_where_the_stages_allow_it(engine: Any, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    images = [picture(rng.integers(0, 256, (6, 6))) for _ in range(20)] + IMAGES
    with batched(tmp_path, engine) as runtime:
        alone = [runtime.run(image) for image in images]
        rows: list[tuple[int, int]] = []
        execute = runtime._network.execute

        def counted(ladder: int, stage: int, known: Any) -> Any:
            rows.append((stage, len(known["image"])))
            return execute(ladder, stage, known)

        monkeypatch.setattr(runtime._network, "execute", counted)
        together = runtime.run_batch(images)
        assert runtime.run(images[0]).outputs["logits"].shape == (1, 3)
    unsure = sum(answer.exit == 1 for answer in alone)
    assert 0 < unsure < len(images)
    assert rows[:2] == [(0, len(images)), (1, unsure)]
    for one, other in zip(alone, together, strict=True):
        assert (one.exit, one.reason, one.label) == (other.exit, other.reason, other.label)
        np.testing.assert_allclose(one.outputs["logits"], other.outputs["logits"], rtol=1e-5, atol=1e-6)


def test_a_batch_runs_one_by_one_where_they_do_not(opener: Opener) -> None:
    with opener() as runtime:
        answers = runtime.run_batch(IMAGES)
        assert [answer.label for answer in answers] == [each["label"] for each in EXPECTED["images"]]
        assert [answer.exit for answer in answers] == [each["exit"] for each in EXPECTED["images"]]
        assert sorted(answer.latency_ms for answer in answers) == [answer.latency_ms for answer in answers]
        assert runtime.run_batch([]) == []
        assert runtime.counters().inputs == len(IMAGES)


def test_a_stream(opener: Opener) -> None:
    with opener() as runtime:
        found = list(runtime.stream(iter(IMAGES * 5), "block"))
        assert [each.prediction.label for each in found] == [each["label"] for each in EXPECTED["images"]] * 5
        assert [each.frame for each in found] == list(range(20))


def test_several_threads(opener: Opener) -> None:
    wrong: list[Any] = []
    with opener(touch_up=True) as runtime:
        def work() -> None:
            for _ in range(25):
                for image, want in zip(IMAGES, EXPECTED["images"], strict=True):
                    got = runtime.run(image)
                    if not np.allclose(got.outputs["logits"], [want["logits"]], atol=1e-5):
                        wrong.append(got)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert runtime.counters().inputs == 400
        state = runtime.export_touchup()
        assert len(state) < 4096
        runtime.import_touchup(state)


# What is loaded


def test_without_a_plan_the_largest_network_runs_whole() -> None:
    with load(GOLDEN, "ort") as runtime:
        assert isinstance(runtime, AdaptiveRuntime)
        assert runtime.plan is None
        answer = runtime.run(IMAGES[0])
        assert (answer.exit, answer.resolution, answer.reason, answer.route) == (1, (4, 4), "complete", None)
        assert np.array_equal(answer.outputs["exit1"], runtime.exits(1, IMAGES[0])[1].logits)
        assert [each.exit for each in runtime.run_batch(IMAGES[:2])] == [1, 1]
        for call in (runtime.counters, runtime.limits, runtime.export_touchup):
            with pytest.raises(BadRecipe, match="no plan for ort"):
                call()


def test_auto_takes_the_engine_of_the_plan() -> None:
    with load(GOLDEN) as runtime:
        assert (runtime.engine, isinstance(runtime, AdaptiveRuntime)) == ("litert", True)
    with load(GOLDEN, options=RuntimeOptions(plan=SIDECAR)) as runtime:
        assert runtime.engine == "ort"


def test_variants_are_taken_where_there_is_no_plan_or_one_is_named(tmp_path: Path) -> None:
    manifest, blobs = parts()
    with Bundle.open(CONFORMANCE / "golden.edge") as bundle:
        plain = bundle.manifest
        blobs |= {entry.name: bundle.read(entry.name) for entry in plain.entries if entry.name != "labels.txt"}
    manifest = replace(manifest, variants=plain.variants, preprocess=None)
    write_bundle(tmp_path / "m.edge", manifest, blobs)
    with load(tmp_path / "m.edge") as runtime:
        assert isinstance(runtime, AdaptiveRuntime)
    for engine, options in (("ort", RuntimeOptions()), ("auto", RuntimeOptions(variant="litert-fp32"))):
        with load(tmp_path / "m.edge", engine, options) as runtime:  # type: ignore[arg-type]
            assert type(runtime) is Runtime
    with load(tmp_path / "m.edge", "ort", RuntimeOptions(plan=SIDECAR)) as runtime:
        assert isinstance(runtime, AdaptiveRuntime)


def test_plans_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match="has no ladders"):
        load(CONFORMANCE / "golden.edge", options=RuntimeOptions(plan=SIDECAR))
    with pytest.raises(BadRecipe, match="is for ort, but litert was asked for"):
        load(GOLDEN, "litert", RuntimeOptions(plan=SIDECAR))
    with pytest.raises(BadRecipe, match="no variants"):
        load(GOLDEN, options=RuntimeOptions(resolution=(2, 2)))
    with pytest.raises(BadRecipe, match="leave the others out"):
        RuntimeOptions(plan=SIDECAR, resolution=(2, 2))
    data = SIDECAR.read_bytes()
    (tmp_path / "m.edgeplan").write_bytes(b"edgeplan 1 unsigned\n" + data.split(b"\n", 1)[1])
    with load(GOLDEN, "ort", RuntimeOptions(plan=tmp_path / "m.edgeplan")) as runtime:
        assert isinstance(runtime, AdaptiveRuntime)
    with pytest.raises(SignatureMismatch, match="not signed"):
        load(GOLDEN, "ort", RuntimeOptions(plan=tmp_path / "m.edgeplan", public_key=KEY))
    manifest, blobs = parts()
    write_bundle(tmp_path / "other.edge", replace(manifest, plan_entry=None),
                 {name: b"\0" * 60 if name == "models/ort.bin" else each for name, each in blobs.items()
                  if name != "plan.json"})
    with pytest.raises(BadBundle, match="not made for the ladders"):
        load(tmp_path / "other.edge", "ort", RuntimeOptions(plan=SIDECAR))
