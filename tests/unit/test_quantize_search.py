from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pytest

from edgekit.artifacts import Array, Engine, LiteRTModel
from edgekit.converters.quantize import (
    Goal,
    Quality,
    Search,
    Speed,
    Trial,
    open_samples,
    quantize,
    search,
    sensitivity,
    workbench,
)
from edgekit.converters.quantize.plan import Plan, bases, combined, flips, left_out, look_at, without_left_out
from edgekit.converters.quantize.search import pareto
from edgekit.converters.quantize.sensitivity import to_keep
from edgekit.converters.quantize.speed import compare_speed
from edgekit.errors import BadRecipe
from edgekit.recipe import QuantRecipe, QuantRule
from edgekit.report.placement import place
from tests.quantize_models import images, litert, swish_classifier

pytest.importorskip("ai_edge_quantizer")


@pytest.fixture(scope="module")
def model() -> LiteRTModel:
    return litert(swish_classifier(width=64, size=64))


def supposed_speed(
    files: Sequence[bytes], _feeds: Mapping[str, Array], _seconds: float, _engine: Engine = "litert"
) -> tuple[Speed, ...]:
    """As on a processor that reads weights at some speed and stops between two partitions."""
    costs = [len(data) * place(data).partitions for data in files]
    ratios = [cost / costs[0] for cost in costs]
    return tuple(Speed(cpu_ms=ratio, ratio=ratio, low=ratio, high=ratio) for ratio in ratios)


@pytest.fixture(scope="module")
def found(model: LiteRTModel) -> Search:
    """Times are supposed, as integers are faster on some processors only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbench, "compare_speed", supposed_speed)
        return search(model, open_samples(images(12, size=64), model.inputs), Goal(min_sqnr_db=25.0, max_seconds=4))


def trial(name: str, ratio: float, size: int, db: float) -> Trial:
    speed = Speed(cpu_ms=ratio, ratio=ratio, low=ratio, high=ratio)
    return Trial(Plan({name: "static8"}), size_bytes=size, quality=Quality(1, db), speed=speed)


def test_the_search_keeps_hard_swish_float_and_is_faster(found: Search) -> None:
    assert found.chosen is not None
    assert found.chosen.speed is not None
    assert found.chosen.speed.ratio < 1
    assert found.chosen.plan.kinds.get("HARD_SWISH", "float32") == "float32"
    assert found.chosen.partitions == 1
    assert found.chosen.quality.sqnr_db >= 25
    assert found.chosen.size_bytes == len(found.model.data)
    assert found.chosen.name in {each.name for each in found.trials}


def test_the_stock_recipe_is_named_as_slow_where_it_is(found: Search, model: LiteRTModel) -> None:
    stock = next(each for each in found.trials if each.plan == bases(look_at(model.data))[0])
    assert {kind for kind, _ in stock.left_out} == {"HARD_SWISH"}
    assert stock.partitions > 1
    assert stock.speed is not None
    assert any("HARD_SWISH" in note for note in found.notes) == (stock.speed.ratio > 1)


def test_the_recipe_found_makes_the_same_file_again(found: Search, model: LiteRTModel) -> None:
    again = msgspec.json.decode(msgspec.json.encode(found.recipe), type=QuantRecipe)
    assert quantize(model, again).data == found.model.data


def test_layers_name_every_op_and_add_up(found: Search, model: LiteRTModel) -> None:
    kinds = [kind for kind, _ in look_at(model.data).ops]
    assert [layer.kind for layer in found.layers] == kinds
    assert all(layer.low <= layer.high for layer in found.layers)
    last = found.layers[-1]
    assert found.chosen is not None
    assert last.sqnr_db == pytest.approx(found.chosen.quality.sqnr_db, abs=3)


@pytest.mark.slow
def test_with_times_of_this_processor_the_choice_is_faster_or_the_float_file(model: LiteRTModel) -> None:
    found = search(model, open_samples(images(12, size=64), model.inputs), Goal(min_sqnr_db=25.0, max_seconds=4))
    timed = [each.speed.ratio for each in found.trials if each.speed is not None and each.quality.sqnr_db >= 26]
    assert len(timed) >= 3
    if found.chosen is None:
        assert found.model.data == model.data
        assert any("float file is kept" in note for note in found.notes)
    else:
        assert found.chosen.speed is not None
        assert found.chosen.speed.ratio < 1
        assert found.chosen.speed.ratio <= 1.25 * min(timed)


@pytest.mark.slow
def test_accuracy_loop_raises_quality_step_by_step(model: LiteRTModel) -> None:
    samples = open_samples(images(12, size=64), model.inputs)
    strict = search(model, samples, Goal(min_sqnr_db=45.0, max_seconds=20))
    assert strict.steps
    assert len({step.kept for step in strict.steps}) == len(strict.steps)
    assert all(step.met == (step.sqnr_db >= 45) == (step.ratio is not None) for step in strict.steps)
    if strict.chosen is not None:
        assert strict.chosen.quality.sqnr_db >= 45


def test_keeping_the_worst_layers_float_improves_the_output(model: LiteRTModel) -> None:
    samples = open_samples(images(8, size=64), model.inputs)
    plan = Plan(dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "HARD_SWISH"), "static8"))
    made = quantize(model, QuantRecipe(plan.rules()), samples)
    layers = sensitivity(model.data, made.data, samples)
    kept = plan.changed({}, keep=to_keep(layers, 2))
    better = quantize(model, QuantRecipe(kept.rules()), samples)
    assert sensitivity(model.data, better.data, samples)[-1].sqnr_db > layers[-1].sqnr_db + 0.5


@pytest.mark.slow
def test_size_as_objective_takes_the_smallest(model: LiteRTModel) -> None:
    samples = open_samples(images(6, size=64), model.inputs)
    found = search(model, samples, Goal(objective="size", min_sqnr_db=25.0, max_seconds=1))
    assert found.chosen is not None
    good = [each for each in found.trials if each.speed is not None and each.quality.sqnr_db >= 25]
    assert found.chosen.size_bytes == min(each.size_bytes for each in good)


@pytest.mark.slow
def test_when_nothing_is_good_enough_the_float_file_is_kept_and_that_is_said(model: LiteRTModel) -> None:
    found = search(model, open_samples(images(4, size=64), model.inputs), Goal(min_sqnr_db=120.0, max_seconds=1))
    assert found.chosen is None
    assert found.model.data == model.data
    assert any("float file is kept" in note for note in found.notes)


def test_goal_by_labels_agreement_or_noise() -> None:
    goal = Goal(min_sqnr_db=30, max_drop_points=0.5)
    assert goal.met(Quality(1000, 10.0, agreement=0.98, drop_points=0.4))
    assert not goal.met(Quality(1000, 50.0, agreement=0.98, drop_points=0.6))
    assert goal.met(Quality(1000, 10.0, agreement=0.995))
    assert not goal.met(Quality(1000, 50.0, agreement=0.994))
    assert goal.met(Quality(64, 30.0, agreement=63 / 64))  # one sample may always differ
    assert not goal.met(Quality(64, 30.0, agreement=62 / 64))
    assert goal.met(Quality(64, 31.0))
    assert not goal.met(Quality(64, 30.9)), "the margin for other inputs"
    assert goal.met(Quality(64, 31.0, low_db=30.0))
    assert not goal.met(Quality(64, 31.0, low_db=29.9)), "other inputs may differ more than those at hand"
    assert goal.possible(Quality(32, 31.0, low_db=29.9)), "all samples may show another spread"
    assert not goal.possible(Quality(32, 30.9, low_db=30.5))
    for bad in ({"min_sqnr_db": 0.0}, {"max_drop_points": -1.0}):
        with pytest.raises(BadRecipe):
            Goal(**bad)  # type: ignore[arg-type]


@pytest.mark.slow
def test_labels_give_the_drop_and_its_interval(model: LiteRTModel) -> None:
    data = images(40, size=64)
    labels = np.zeros(40, np.int64)
    found = search(model, open_samples({"x": data, "labels": labels}, model.inputs),
                   Goal(max_drop_points=100.0, max_seconds=1))
    assert found.chosen is not None
    quality = found.chosen.quality
    assert quality.samples == 40
    assert quality.drop_points is not None
    assert quality.drop_low is not None
    assert quality.drop_high is not None
    assert quality.drop_low <= quality.drop_points <= quality.drop_high


def test_pareto_leaves_out_what_another_beats() -> None:
    trials = [trial("fast", 0.5, 10, 30), trial("slow", 0.9, 10, 30), trial("exact", 1.0, 20, 60),
              trial("small", 2.0, 5, 20)]
    assert set(pareto(trials)) == {trials[0].name, trials[2].name, trials[3].name}


def test_plans_from_the_partition_structure(model: LiteRTModel) -> None:
    graph = look_at(model.data)
    everything = bases(graph)[0]
    assert set(everything.kinds) == set(graph.kinds)
    made = quantize(model, QuantRecipe(everything.rules()), open_samples(images(4, size=64), model.inputs))
    out = left_out(made.data, place(made.data), graph)
    (plan,) = without_left_out(everything, out, (), graph)
    assert {kind for kind, form in plan.kinds.items() if form == "float32"} == {"HARD_SWISH"}
    assert without_left_out(everything, out, out, graph) == []  # what the float file leaves out too is no fault
    assert without_left_out(plan, out, (), graph) == []


def test_some_ops_of_a_kind_are_kept_by_name(model: LiteRTModel) -> None:
    graph = look_at(model.data)
    everything = bases(graph)[0]
    convolution = next(op for op in graph.ops if op[0] == "CONV_2D")
    whole, some = without_left_out(everything, [convolution], (), graph)
    assert whole.kinds["CONV_2D"] == "float32"
    assert some.kinds["CONV_2D"] == "static8"
    assert some.rules()[-1] == QuantRule("float32", (), (convolution[1],))


def test_a_dynamic_rule_comes_after_what_must_not_be_static() -> None:
    plan = Plan({"BATCH_MATMUL": "dynamic8", "ADD": "static8"}, cut=("t",), keep=("u",))
    assert [rule.precision for rule in plan.rules()] == ["static8", "float32", "dynamic8", "float32"]


def test_flips_change_one_kind_and_combine(model: LiteRTModel) -> None:
    graph = look_at(model.data)
    plan = bases(graph)[0]
    changed = flips(plan, graph, cut=["HARD_SWISH"])
    for other in changed:
        assert sum(plan.kinds[kind] != other.kinds[kind] for kind in plan.kinds) == 1
    assert len({other.name for other in changed}) == len(changed)
    both = combined(plan, [other for other in changed if other.kinds["MEAN"] == "float32"
                           or other.kinds["CONV_2D"] == "dynamic8"])
    assert (both.kinds["MEAN"], both.kinds["CONV_2D"]) == ("float32", "dynamic8")


def test_speed_of_a_file_against_itself_is_one(model: LiteRTModel) -> None:
    feeds = next(iter(open_samples(images(1, size=64), model.inputs)))
    first, second = compare_speed([model.data, model.data], feeds, seconds=1.5)
    assert first.ratio == 1
    assert second.low <= second.ratio <= second.high
    assert second.ratio == pytest.approx(1, abs=0.25)


