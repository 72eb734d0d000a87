"""The search for ONNX Runtime: where it starts, what it makes of the fused graph, what it says."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from onnx import helper

from edgekit.artifacts import OrtModel
from edgekit.converters.onnx_model import describe
from edgekit.converters.quantize import (
    Goal,
    Search,
    open_samples,
    ort_float_model,
    quantize_ort,
    search_ort,
    target_cpu,
)
from edgekit.converters.quantize.ort_search import OrtWorkbench
from edgekit.errors import EdgeKitError
from edgekit.recipe import QuantRecipe
from tests.quantize_models import images, onnx_net, swish_classifier


@pytest.fixture(scope="module")
def model() -> OrtModel:
    return ort_float_model(describe(swish_classifier(width=64, size=64)))


@pytest.fixture(scope="module")
def found(model: OrtModel) -> Search:
    return search_ort(model, open_samples(images(12, size=64), model.inputs), Goal(min_sqnr_db=20.0, max_seconds=4))


def test_the_choice_is_good_enough_and_not_slower(found: Search) -> None:
    if found.chosen is None:
        assert any("float file is kept" in note for note in found.notes)
        return
    assert found.chosen.speed is not None
    assert found.chosen.speed.ratio < 1
    assert found.chosen.quality.sqnr_db >= 20
    assert found.chosen.size_bytes == len(found.model.data)
    assert found.chosen.name in {trial.name for trial in found.trials}
    assert found.layers


def test_the_recipe_found_makes_the_same_file_again(found: Search, model: OrtModel) -> None:
    again = msgspec.json.decode(msgspec.json.encode(found.recipe), type=QuantRecipe)
    assert again.cpu == target_cpu()
    assert quantize_ort(model, again).data == found.model.data


def test_every_candidate_was_made_and_judged(found: Search) -> None:
    assert len(found.trials) >= 6
    assert not [trial.failure for trial in found.trials if trial.failure]
    assert all(trial.quality.samples for trial in found.trials)


def test_an_impossible_goal_keeps_the_float_file_and_says_so(model: OrtModel) -> None:
    samples = open_samples(images(4, size=64), model.inputs)
    found = search_ort(model, samples, Goal(min_sqnr_db=139.0, max_seconds=1), QuantRecipe((), cpu="x86"))
    assert found.chosen is None
    assert found.model.data == model.data
    assert any("float file is kept" in note for note in found.notes)


@pytest.mark.slow
def test_integers_of_another_cpu_are_said_to_be_timed_here(model: OrtModel) -> None:
    other = "x86_vnni" if target_cpu() == "arm" else "arm"
    recipe = msgspec.convert({"rules": [], "cpu": other}, QuantRecipe)
    found = search_ort(model, open_samples(images(2, size=64), model.inputs), Goal(max_seconds=0.5), recipe)
    assert found.recipe.cpu == other
    assert any(f"for {other}" in note for note in found.notes)


def test_what_the_fused_graph_still_converts_is_seen() -> None:
    net = onnx_net(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Softplus", ["c"], ["s"]),
         helper.make_node("Conv", ["s", "v"], ["scores"])],
        {"x": (1, 3, 32, 32)}, {"scores": (1, 8, 32, 32)},
        {"w": np.ones((8, 3, 1, 1), np.float32), "v": np.ones((8, 8, 1, 1), np.float32)})
    model = ort_float_model(describe(net))
    bench = OrtWorkbench(model, open_samples(images(2), model.inputs), QuantRecipe(()))
    static = bench.bases()[0]
    made = bench.quantized(msgspec.structs.replace(bench.base, rules=static.rules()))
    (placement,) = bench.probe([made.data])
    assert placement.partitions == 4  # into and out of the convolutions on either side of Softplus
    assert bench.outside(made.data, placement) == (("Softplus", "s"),)


def test_a_file_that_the_engine_refuses_is_an_error_of_its_own(model: OrtModel) -> None:
    bench = OrtWorkbench(model, open_samples(images(2, size=64), model.inputs), QuantRecipe(()))
    good, bad = bench.probe([model.data, b"no model"])
    assert good.partitions == 0
    assert isinstance(bad, EdgeKitError)


def test_attention_products_without_weights_are_left_alone_at_first() -> None:
    net = onnx_net(
        [helper.make_node("MatMul", ["x", "w"], ["q"]), helper.make_node("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
         helper.make_node("MatMul", ["q", "t"], ["a"])],
        {"x": (1, 8, 16)}, {"a": (1, 8, 8)}, {"w": np.ones((16, 16), np.float32)})
    model = ort_float_model(describe(net))
    bench = OrtWorkbench(model, open_samples(np.ones((2, 8, 16), np.float32), model.inputs), QuantRecipe(()))
    everything, *others = bench.bases()
    assert everything.cut == ()
    assert any(plan.cut == ("a",) and plan.kinds["MatMul"] == "static8" for plan in others)
    assert any(plan.kinds == {"MatMul": "dynamic8"} for plan in others)
    changed = bench.flips(everything, cut={"MatMul"})
    assert {plan.kinds["MatMul"] for plan in changed} == {"float32", "dynamic8", "static8"}
