"""Small networks, costs fitted to their times, and predictions from them."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit import isolate
from edgekit.device_profiles import Corrections, DeviceProfile, load_file, resolve
from edgekit.errors import BadInput, BadRecipe, EngineError
from edgekit.graph.costs import GraphCosts, OpCost
from edgekit.profile.adjust import adjusted, read_measurements
from edgekit.profile.files import predict_file
from edgekit.profile.host import timing
from edgekit.profile.host.estimate import estimate
from edgekit.profile.host.fit import fit_kernels, op_times
from edgekit.profile.host.nets import Micro, build
from edgekit.profile.host.plan import plan
from edgekit.profile.host.profile import profile_of
from edgekit.profile.host.terms import amounts, graph_amounts, kernel_of
from edgekit.profile.host.timing import HostRecipe, Timed, costs_of, measure
from edgekit.profile.predict import predict


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Micro, Path]]:
    """150 of them, without the few that have megabytes of weights, which take longer than all the others."""
    folder = tmp_path_factory.mktemp("micro")
    made: list[tuple[Micro, Path]] = []
    for micro in plan(200):
        data = build(micro).data
        if len(data) < 3_000_000 and len(made) < 150:
            made.append((micro, folder / f"{len(made)}.onnx"))
            made[-1][1].write_bytes(data)
    assert len(made) == 150
    return made


@pytest.fixture(scope="module")
def timed(networks: list[tuple[Micro, Path]]) -> list[Timed]:
    """As if a machine had costs that are exactly our terms, and 1 % of noise."""
    rng = np.random.default_rng(3)
    costs_ms: dict[str, float] = {}
    found = []
    for micro, path in networks:
        costs = costs_of(path)
        ops, whole = graph_amounts(costs)
        for terms in (*ops, whole):
            for name in terms:
                costs_ms.setdefault(name, float(rng.uniform(0.002, 0.02)) if "call" in name else
                                    float(rng.uniform(0.5, 2)) * (0.01 if "network" in name else 0.1))
        ms = float(op_times([*ops, whole], costs_ms).sum() * rng.normal(1, 0.01))
        found.append(Timed(micro.name, costs, 0, ms))
    return found


def test_a_plan_is_the_same_each_time_and_has_many_kinds_of_kernels(timed: list[Timed]) -> None:
    assert list(plan(40)) == list(plan(40))
    kinds = {kernel_of(op) for each in timed for op in each.costs.ops}
    assert {"pointwise.32", "dense.32", "first.32", "depthwise.32", "depthwise_strided.32", "depthwise_large.32",
            "fc.32", "matmul.32", "attention.32", "Softmax.32", "Add.32", "ReduceMean.32", "Resize.32"} <= kinds
    assert any(step.kind == "transposed" for micro in plan(600) for step in micro.steps)
    assert sum(each.whole for each in timed) > 20


def test_costs_that_follow_the_terms_are_found_again(timed: list[Timed]) -> None:
    fitted, unseen = timed[:120], timed[120:]
    kernels = fit_kernels(fitted)
    assert all(cost >= 0 for cost in kernels.costs_ms.values())
    errors = [abs(estimate(each.costs, kernels).total_ms / each.ms - 1) for each in unseen]
    assert np.median(errors) < 0.08
    assert np.mean(np.array(errors) < 0.25) > 0.85


def test_what_the_terms_do_not_explain_is_learned_from_neighbours(timed: list[Timed]) -> None:
    """Kernels that are slower at some widths: the corrections see it, the terms alone do not."""
    costs_ms = fit_kernels(timed).costs_ms

    def odd(each: Timed) -> Timed:
        ops, whole = graph_amounts(each.costs)
        factors = np.exp([0.5 * math.sin(1.2 * math.log(op.cin)) for op in each.costs.ops])
        ms = float(factors @ op_times(ops, costs_ms) + op_times([whole], costs_ms)[0])
        return msgspec.structs.replace(each, ms=ms)

    changed = [odd(each) for each in timed]
    kernels = fit_kernels(changed[:120])
    plain = msgspec.structs.replace(kernels, corrections={
        kernel: Corrections(each.places, (0.0,) * len(each.weights)) for kernel, each in kernels.corrections.items()})
    errors = [np.median([abs(math.log(estimate(each.costs, fit).total_ms / each.ms)) for each in changed[120:]])
              for fit in (kernels, plain)]
    assert errors[0] < 0.85 * errors[1]


def test_amounts_are_never_negative_and_grow_with_the_op(timed: list[Timed]) -> None:
    for each in timed:
        for op in each.costs.ops:
            small = amounts(op)
            assert all(math.isfinite(value) and value >= 0 for value in small.values())
            larger = amounts(msgspec.structs.replace(
                op, macs=2 * op.macs, in_elements=2 * op.in_elements, out_elements=2 * op.out_elements,
                out_h=2 * op.out_h))
            assert all(larger[name] >= value for name, value in small.items())


@pytest.fixture(scope="module")
def profile(timed: list[Timed]) -> DeviceProfile:
    return profile_of(timed, HostRecipe(engine="ort"))


def test_a_profile_says_how_it_was_checked_and_survives_a_file(profile: DeviceProfile, tmp_path: Path) -> None:
    assert profile.kernels is not None
    assert profile.kernels.accuracy.checked >= 5
    assert profile.kernels.accuracy.median_ape < 0.15
    path = tmp_path / "mine.json"
    path.write_bytes(msgspec.json.encode(profile))
    assert load_file(path) == profile
    assert resolve(str(path)) == profile
    path.write_text("{}")
    with pytest.raises(BadInput, match="is no device profile"):
        resolve(str(path))


def test_too_few_networks_make_no_profile(timed: list[Timed]) -> None:
    with pytest.raises(EngineError, match="Allow more time"):
        profile_of(timed[:20], HostRecipe(engine="ort"))


def test_a_profile_of_the_user_is_known_by_its_id(
    profile: DeviceProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.device_profiles.user_folder", lambda: tmp_path)
    (tmp_path / f"{profile.id}.json").write_bytes(msgspec.json.encode(profile))
    assert resolve(profile.id) == profile


def test_a_prediction_counts_every_op_and_the_run(profile: DeviceProfile, networks: list[tuple[Micro, Path]]) -> None:
    micro, path = next(pair for pair in networks if "blocks-separable" in pair[0].name)
    found = predict_file(path, profile)
    assert sum(op.latency_ms for op in found.ops) + found.run_ms == pytest.approx(found.latency_ms)
    assert found.run_ms > 0
    low, high = found.band_ms
    assert low < found.latency_ms < high
    assert found.covered > 0.5, micro.name
    assert found.inside_domain
    assert not found.findings


def test_what_was_never_timed_is_marked_and_not_free(profile: DeviceProfile) -> None:
    odd = OpCost(name="n", kind="Strange", op_class="unknown", in_elements=1_000_000, out_elements=1_000_000)
    found = predict(GraphCosts((odd,), 0, 0), profile)
    assert found.latency_ms > 0
    assert not found.ops[0].known
    assert found.covered < 0.5
    assert not found.inside_domain
    assert any("Strange" in finding for finding in found.findings)


def test_another_engine_and_another_precision_are_noted(profile: DeviceProfile) -> None:
    conv = OpCost(name="c", kind="Conv", op_class="conv", macs=10_000_000, in_elements=1000, out_elements=1000,
                  weight_elements=1000, cin=32, cout=32, out_h=10, out_w=10)
    costs = GraphCosts((conv,), 0, 0)
    assert not predict(costs, profile, "ort").findings
    assert any("proxy" in finding for finding in predict(costs, profile, "litert").findings)
    assert any("proxy" in finding for finding in predict(costs, resolve("raspberry-pi-4"), "litert").findings)
    small = GraphCosts((msgspec.structs.replace(conv, bits=8, weight_bits=8),), 0, 0)
    assert not predict(small, profile).inside_domain


def test_measurements_adjust_a_profile(profile: DeviceProfile, networks: list[tuple[Micro, Path]]) -> None:
    paths = [path for micro, path in networks if "blocks" in micro.name][:5]
    for start in (profile, resolve("raspberry-pi-4")):
        before = {path: predict_file(path, start).latency_ms for path in paths}
        board = adjusted(start, {path: 2.5 * ms for path, ms in list(before.items())[:3]}, "My board")
        assert board.device == "My board"
        assert board.id == f"{start.id}-adjusted"
        for path in paths:
            assert predict_file(path, board).latency_ms == pytest.approx(2.5 * before[path], rel=0.05)
    with pytest.raises(BadRecipe, match="nothing to adjust"):
        adjusted(resolve("google_pixel_3-tflite-cpu-4t-float32"), {paths[0]: 1.0})


def test_tables_of_measurements(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("model,latency_ms\na.onnx,1.5\nb.onnx,2\n")
    assert read_measurements(table) == {tmp_path / "a.onnx": 1.5, tmp_path / "b.onnx": 2.0}
    other = tmp_path / "t.json"
    other.write_text('{"a.onnx": 1.5}')
    assert read_measurements(other) == {tmp_path / "a.onnx": 1.5}
    for text in ("model,ms\na.onnx,1\n", "model,latency_ms\na.onnx,fast\n", "model,latency_ms\na.onnx,0\n", ""):
        table.write_text(text)
        with pytest.raises(BadInput):
            read_measurements(table)
    with pytest.raises(BadInput, match="cannot be read"):
        read_measurements(tmp_path / "absent.csv")


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(BadRecipe, match="Only float32"):
        HostRecipe(engine="ort", precision="int8")
    with pytest.raises(BadRecipe, match="cannot be measured"):
        HostRecipe(seconds=0)


@pytest.mark.slow
def test_a_machine_is_measured() -> None:
    timed = measure(HostRecipe(engine="litert", seconds=60.0, nets=22))
    assert len({each.name for each in timed}) == 22
    assert all(0 < each.ms < 1000 for each in timed)


@pytest.mark.parametrize(("engine", "precision"), [("litert", "float32"), ("litert", "int8"), ("ort", "float32")])
def test_networks_are_timed_in_each_engine(
    engine: str, precision: str, networks: list[tuple[Micro, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, with few runs of small networks, and twice for three of them only."""
    monkeypatch.setattr(timing, "plan", lambda count: [micro for micro, _ in networks[:count]])
    monkeypatch.setattr(timing, "_RUNS", 3)
    monkeypatch.setattr(timing, "_again", lambda subjects: subjects[:3])
    monkeypatch.setattr(isolate, "call", lambda _target, recipe, **_limits: timing._measure(recipe))
    recipe = msgspec.convert({"engine": engine, "precision": precision, "seconds": 60.0, "nets": 20}, HostRecipe)
    timed = measure(recipe)
    assert len({each.name for each in timed}) == 20
    assert all(0 < each.ms < 1000 for each in timed)
    assert len({each.other_bytes for each in timed}) == 3
    bits = {op.bits for each in timed for op in each.costs.ops if op.macs}
    assert (8 in bits) == (precision == "int8")
