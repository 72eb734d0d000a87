"""``edgekit plan`` on a bundle with two resolutions and two exits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from edgekit.artifacts import Engine
from edgekit.bundle import Bundle, decode_plan, generate_key_pair, ladders_sha256, load_private_key, read_plan
from edgekit.errors import BadInput, BadRecipe, UnknownName
from edgekit.graph.costs_read import graph_costs
from edgekit.plan import PlanRecipe, make_plan
from edgekit.plan_data import open_validation
from edgekit.planning import ObserveOptions, observe, store_plan
from edgekit.replay import replay
from edgekit.runtime import load
from edgekit.runtime.decide import combine, confidence
from tests.conftest import Cli
from tests.plan_bundle import COLOURS, LABELS, write_bundle, write_images

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

Edgekit = Callable[..., tuple[dict[str, Any], str]]
ENGINES: tuple[Engine, ...] = ("litert", "ort")
STAGE_MS = ((1.0, 20.0), (30.0, 40.0))  # where the plan must not depend on how fast this machine happens to be


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    write_bundle(folder / "in.edge", ENGINES)
    write_images(folder / "val.npz", 500)
    return folder


@pytest.fixture
def edgekit(cli: Cli) -> Edgekit:
    def run(*arguments: str | Path, code: int = 0) -> tuple[dict[str, Any], str]:
        done = cli(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout), done.stderr

    return run


def contents(path: Path) -> dict[str, bytes]:
    with Bundle.open(path) as bundle:
        bundle.verify_all()
        return {entry.name: bytes(bundle.read(entry.name)) for entry in bundle.manifest.entries}


def test_a_plan_is_added_and_every_entry_stays(edgekit: Edgekit, made: Path, tmp_path: Path) -> None:
    generate_key_pair(tmp_path / "key.pem", tmp_path / "key.pub")
    report, _ = edgekit("plan", made / "in.edge", "--data", made / "val.npz", "-o", tmp_path / "out.edge", "--max-drop",
                        "2", "--sidecar", tmp_path / "p.edgeplan", "--plot", tmp_path / "c.svg", "--key",
                        tmp_path / "key.pem")
    assert report["sha256"] == hashlib.sha256((tmp_path / "out.edge").read_bytes()).hexdigest()
    assert (report["samples"], report["labelled"], report["times"]) == (500, True, "measured")
    assert report["objective"] == "drop <= 2 points"
    before, after = contents(made / "in.edge"), contents(tmp_path / "out.edge")
    assert {name: data for name, data in after.items() if name != "plan.json"} == before
    with Bundle.open(tmp_path / "out.edge", public_key=tmp_path / "key.pub", require_signature=True) as bundle:
        assert bundle.signature_checked
        plan = decode_plan(after["plan.json"], bundle.manifest)
        assert bundle.manifest.plan_entry == "plan.json"
        assert read_plan(tmp_path / "p.edgeplan", bundle.manifest, public_key=tmp_path / "key.pub") == plan
    assert len(report["routes"]) == len(plan.routes)
    default = report["routes"][report["default"]]
    assert default["accuracy"] == plan.routes[plan.default].promise.accuracy
    best = max(point["accuracy"] for point in report["fixed"])
    assert default["accuracy"] >= best - 0.02 - 1e-9
    means = [route.promise.mean_ms for route in plan.routes]  # which points win depends on how fast stages are here
    assert means == sorted(means)
    assert plan.routes[-1].promise.accuracy >= best - 0.02
    picture = ElementTree.fromstring((tmp_path / "c.svg").read_text())  # noqa: S314 - our own file
    circles = picture.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) >= len(plan.routes) + 4


def test_a_second_plan_replaces_the_first_and_a_budget_that_none_keeps_writes_nothing(
    edgekit: Edgekit, made: Path, tmp_path: Path
) -> None:
    seen = observe(made / "in.edge", made / "val.npz", ObserveOptions(engine="ort"))
    first, second = (make_plan(seen, PlanRecipe(max_drop=drop, max_steps=2)) for drop in (0.0, 5.0))
    store_plan(made / "in.edge", tmp_path / "one.edge", first)
    store_plan(tmp_path / "one.edge", tmp_path / "two.edge", second)
    store_plan(made / "in.edge", tmp_path / "direct.edge", second)
    assert (tmp_path / "two.edge").read_bytes() == (tmp_path / "direct.edge").read_bytes()
    report, errors = edgekit("plan", made / "in.edge", "--data", made / "val.npz", "-o", tmp_path / "no.edge",
                             "--budget-ms", "0.00001", code=1)
    assert report["error"]["type"] == "BudgetImpossible"
    assert "cheapest takes" in errors
    assert not (tmp_path / "no.edge").exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_observed_is_what_the_stages_answer(made: Path, engine: Engine) -> None:
    """Against the network written down in numpy: the mean over pixels times the colours."""
    seen = observe(made / "in.edge", made / "val.npz", ObserveOptions(engine=engine, limit=120))
    assert (seen.samples, seen.classes, seen.engine) == (120, 4, engine)
    assert [len(row) for row in seen.logits] == [2, 2]
    assert all(0 < ms < 1000 for row in seen.stage_ms for ms in row)
    assert 0 < seen.overhead_ms < 100
    with np.load(made / "val.npz") as file:
        images, labels = file["images"], file["labels"]
    kept = np.zeros(len(images), bool)
    kept[np.random.default_rng(0).permutation(len(images))[:120]] = True
    assert seen.labels is not None
    np.testing.assert_array_equal(seen.labels, labels[kept])
    few = ((images[kept].astype(np.float32) - 127.5) / 127.5)[:, ::4, ::4].mean(axis=(1, 2))
    centred = COLOURS - COLOURS.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(seen.logits[1][0], few @ (12 * centred).T + [0, 0, 0, -0.2], atol=1e-4)
    with Bundle.open(made / "in.edge") as bundle:
        assert seen.ladders_sha256 == ladders_sha256(bundle.manifest, engine)


def test_a_folder_of_classes_gives_the_same_as_the_arrays(made: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    with np.load(made / "val.npz") as file:
        for index in range(120):
            folder = tmp_path / "val" / LABELS[file["labels"][index]]
            folder.mkdir(parents=True, exist_ok=True)
            image.fromarray(file["images"][index]).save(folder / f"{index:03}.png")
        np.savez(tmp_path / "val.npz", images=file["images"][:120], labels=file["labels"][:120])
    options = ObserveOptions(engine="ort")
    folder_seen = observe(made / "in.edge", tmp_path / "val", options)
    arrays_seen = observe(made / "in.edge", tmp_path / "val.npz", options)
    assert folder_seen.labels is not None
    assert arrays_seen.labels is not None
    for label in range(4):
        one, other = (np.sort(seen.logits[1][1][seen.labels == label], axis=0) for seen in (folder_seen, arrays_seen))
        np.testing.assert_array_equal(one, other)


def test_a_device_profile_predicts_the_stages(made: Path) -> None:
    options = ObserveOptions(engine="litert", device="raspberry-pi-4-ncnn-cpu-1t", limit=100)
    seen = observe(made / "in.edge", made / "val.npz", options)
    assert seen.source == "predicted"
    assert seen.device == "raspberry-pi-4-ncnn-cpu-1t"
    small, large = seen.stage_ms
    assert all(one < other for one, other in zip(small, large, strict=True))
    assert "Times are predicted for raspberry-pi-4" in make_plan(seen, PlanRecipe(max_steps=1)).notes[0]
    onnx = observe(made / "in.edge", made / "val.npz", ObserveOptions(engine="ort", device=seen.device, limit=100))
    for one, other in zip(onnx.stage_ms, seen.stage_ms, strict=True):
        assert 0.3 < sum(one) / sum(other) < 3  # the same network in two formats
    with pytest.raises(UnknownName, match="toaster"):
        observe(made / "in.edge", made / "val.npz", ObserveOptions(device="toaster"))


def test_costs_of_a_signature_are_those_of_its_graph(made: Path, tmp_path: Path) -> None:
    with Bundle.open(made / "in.edge") as bundle:
        ladders = [ladder for ladder in bundle.manifest.ladders if ladder.engine == "litert"]
        entry = ladders[0].stages[0].entry
        (tmp_path / "stages.tflite").write_bytes(bundle.read(entry))
    found = [[graph_costs(tmp_path / "stages.tflite", signature=stage.signature).macs for stage in ladder.stages]
             for ladder in ladders]
    small, large = found
    assert small[0] < large[0]  # a 1 x 1 convolution of 3 channels, and a matrix of 3 x 4
    assert large[0] == 9 * 16 * 16 + 12
    assert large[1] == 27 * 16 * 16 + 12
    with pytest.raises(UnknownName, match="nothing"):
        graph_costs(tmp_path / "stages.tflite", signature="nothing")


def test_routes_keep_their_promises_on_other_images(made: Path, tmp_path: Path) -> None:
    options = ObserveOptions(engine="litert")
    seen = dataclasses.replace(observe(made / "in.edge", made / "val.npz", options), stage_ms=STAGE_MS)
    plan = make_plan(seen, PlanRecipe(max_drop=1.0, max_steps=2))
    write_images(tmp_path / "fresh.npz", 1500, seed=9)
    fresh = observe(made / "in.edge", tmp_path / "fresh.npz", options)
    assert max(len(route.steps) for route in plan.routes) == 2
    for route in plan.routes:
        found = replay(plan, route, fresh)
        # the standard error of 500 images: 2 points
        assert found.accuracy == pytest.approx(route.promise.accuracy, abs=0.08)
        assert np.abs(found.stops - route.promise.stops).max() < 0.08


@pytest.mark.parametrize("engine", ENGINES)
def test_the_runtime_follows_the_plan(made: Path, tmp_path: Path, engine: Engine) -> None:
    """Image by image: it stops at the step, and gives the answer, that the plan comes to on the observed logits."""
    seen = observe(made / "in.edge", made / "val.npz", ObserveOptions(engine=engine, limit=150))
    plan = make_plan(dataclasses.replace(seen, stage_ms=STAGE_MS), PlanRecipe(budget_ms=15.0, max_steps=2))
    store_plan(made / "in.edge", tmp_path / "out.edge", plan)
    images = open_validation(made / "val.npz", limit=150).images()
    route, stops = plan.routes[plan.default], []
    assert len(route.steps) == 2  # no fixed point but the worst keeps the budget
    with load(tmp_path / "out.edge") as runtime:
        for number, image in enumerate(images):
            answer = runtime.run(image)
            logits = [seen.logits[step.ladder][step.stage][number] for step in route.steps]
            first = combine(logits[:1], route.steps[0].weights)
            threshold = route.steps[0].threshold
            stopped = threshold is not None and confidence(first, route.steps[0], None) >= threshold
            expected = first if stopped else combine(logits, route.steps[1].weights)
            assert answer.reason == ("confident" if stopped else "last")
            np.testing.assert_allclose(answer.outputs["logits"][0], expected, atol=1e-4)
            stops.append(stopped)
    assert 0 < np.mean(stops) < 1


def test_what_cannot_be_planned_is_said(edgekit: Edgekit, made: Path, tmp_path: Path) -> None:
    _, errors = edgekit("plan", made / "in.edge", "--data", made / "val.npz", code=2)
    assert "nothing would be written" in errors
    _, errors = edgekit("plan", made / "in.edge", "--data", made / "val.npz", "-o", tmp_path / "x.edge", "--sweep",
                        "--max-drop", "1", code=2)
    assert "--sweep" in errors
    _, errors = edgekit("plan", made / "in.edge", "--data", made / "val.npz", "-o", made / "in.edge", code=1)
    assert "is the input" in errors
    with np.load(made / "val.npz") as file:
        np.savez(tmp_path / "few.npz", images=file["images"][:20], labels=file["labels"][:20])
        np.savez(tmp_path / "wrong.npz", images=file["images"][:150], labels=np.full(150, 4))
    with pytest.raises(BadInput, match="20 validation samples"):
        observe(made / "in.edge", tmp_path / "few.npz")
    with pytest.raises(BadInput, match="classes 0 to 3"):
        observe(made / "in.edge", tmp_path / "wrong.npz")


def test_a_bundle_without_ladders_says_how_to_build_one(golden: Path) -> None:
    with pytest.raises(BadRecipe, match="no ladders"):
        observe(golden, golden)


@pytest.fixture
def golden() -> Path:
    return Path(__file__).resolve().parents[2] / "runtimes" / "conformance" / "golden.edge"


def test_a_signed_plan_in_a_bundle_is_bound_to_its_key(made: Path, tmp_path: Path) -> None:
    generate_key_pair(tmp_path / "a.pem", tmp_path / "a.pub")
    seen = observe(made / "in.edge", made / "val.npz", ObserveOptions(engine="ort", limit=150))
    plan = make_plan(seen, PlanRecipe(max_steps=1))
    store_plan(made / "in.edge", tmp_path / "out.edge", plan, load_private_key(tmp_path / "a.pem"))
    with Bundle.open(tmp_path / "out.edge", public_key=tmp_path / "a.pub") as bundle:
        assert bundle.signature_checked
