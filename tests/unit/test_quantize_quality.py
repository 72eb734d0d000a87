"""How candidates are judged: labels, batches, names, float weights, and what cannot be judged."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from edgekit.artifacts import Array, LiteRTModel
from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.quantize import Goal, Quality, open_samples, quantize, read_model
from edgekit.converters.quantize.flatbuffer import read_tables
from edgekit.converters.quantize.float_form import float_form, quantized_parts
from edgekit.converters.quantize.notes import about_judgement, about_risk
from edgekit.converters.quantize.plan import Plan
from edgekit.converters.quantize.quality import Noise
from edgekit.converters.quantize.sensitivity import saved_bytes
from edgekit.converters.quantize.speed import Speed
from edgekit.converters.quantize.workbench import Trial, Workbench
from edgekit.errors import BadInput, BadModel, BadRecipe, EngineError
from edgekit.recipe import Precision, QuantRecipe, QuantRule
from edgekit.runtime.engines import open_session
from tests.quantize_models import images, litert, onnx_net, swish_classifier

pytest.importorskip("ai_edge_quantizer")

KNOWN_RANGES = QuantRecipe((), ranges={"": (0.0, 0.0)})  # so that nothing is calibrated


@pytest.fixture(scope="module")
def model() -> LiteRTModel:
    return litert(swish_classifier())


def in_form(model: LiteRTModel, precision: Precision, samples: object = None) -> LiteRTModel:
    opened = None if samples is None else open_samples(samples, model.inputs)
    return quantize(model, QuantRecipe((QuantRule(precision),)), opened)


def small_net(*nodes: onnx.NodeProto, batch: int = 1, **weights: Array) -> LiteRTModel:
    """``x`` (batch, 4) to ``y`` (batch, 4)."""
    return litert(onnx_net(nodes, {"x": (batch, 4)}, {"y": (batch, 4)}, weights))


def bench(model: LiteRTModel, data: object) -> Workbench:
    return Workbench(model, open_samples(data, model.inputs), KNOWN_RANGES)


def linear(batch: int, classes: int = 3) -> LiteRTModel:
    weight = np.random.default_rng(0).normal(0, 1, (4, classes)).astype(np.float32)
    return litert(onnx_net([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (batch, 4)},
                           {"y": (batch, classes)}, {"w": weight}))


def test_every_entry_of_a_batch_is_an_answer_with_its_own_label() -> None:
    model = linear(batch=4)
    data = np.random.default_rng(1).normal(0, 1, (10, 4)).astype(np.float32)  # two batches, and two entries left over
    with open_session("litert", model.data) as session:
        right = np.concatenate([session.run({"x": data[at:at + 4]})["y"].argmax(axis=1) for at in (0, 4)])
    labels = np.concatenate([right, [0, 0]])
    labels[5] = (labels[5] + 1) % 3
    quality = bench(model, {"x": data, "labels": labels}).judge(model.data)
    assert quality.samples == 8
    assert quality.agreement == 1
    assert quality.float_accuracy == 7 / 8
    assert quality.drop_points == 0


@pytest.mark.parametrize("label", [-1, 3, 1000])
def test_a_label_that_is_no_class_is_named(label: int) -> None:
    model = linear(batch=1)
    data = {"x": np.ones((2, 4), np.float32), "labels": np.array([0, label])}
    with pytest.raises(BadInput, match=f"label {label} .* 3 classes"):
        bench(model, data).judge(model.data)


def test_an_autoencoder_is_no_classifier() -> None:
    model = small_net(helper.make_node("MatMul", ["x", "w"], ["y"]), w=np.eye(4, dtype=np.float32))
    assert bench(model, np.ones((2, 4), np.float32)).judge(model.data).agreement is None


def test_nan_in_an_answer_of_the_float_network_is_an_error() -> None:
    model = small_net(helper.make_node("Log", ["x"], ["y"]))
    data = np.ones((3, 4), np.float32)
    data[2, 1] = -1
    with pytest.raises(BadModel, match="NaN in the output 'y' on sample 2"):
        bench(model, data).judge(model.data)


def test_a_sample_that_the_engine_refuses_is_said_to_be_at_fault() -> None:
    table = np.ones((5, 4), np.float32)
    proto = onnx_net([helper.make_node("Gather", ["t", "x"], ["y"])], {}, {"y": (2, 4)}, {"t": table})
    proto.graph.input.append(helper.make_tensor_value_info("x", onnx.TensorProto.INT64, (2,)))
    model = litert(proto)
    with pytest.raises(EngineError, match="first sample of the calibration data"):
        bench(model, np.array([[3, 99]]))


def test_a_file_without_signature_keeps_its_names_and_is_judged(model: LiteRTModel) -> None:
    tables = read_tables(model.data)
    tables.signatureDefs = []
    bare = read_model(pack_model(tables))
    stored = images(4).transpose(0, 2, 3, 1)  # the layout was noted for the signature
    made = in_form(bare, "static8", stored)
    assert [spec.name for spec in made.inputs] == [spec.name for spec in bare.inputs]
    assert [spec.name for spec in made.outputs] == [spec.name for spec in bare.outputs]
    work = Workbench(bare, open_samples(stored, bare.inputs), KNOWN_RANGES)
    assert 5 < work.judge(made.data).sqnr_db < 60
    assert work.judge(bare.data).sqnr_db == 140


def test_float16_weights_become_float32_without_loss(model: LiteRTModel) -> None:
    half = in_form(model, "float16")
    whole = float_form(half)
    assert len(half.data) < len(whole.data) < 1.2 * len(model.data)
    assert not any(kind == "DEQUANTIZE" for kind in kinds(whole))
    feeds = next(iter(open_samples(images(1), model.inputs)))
    with open_session("litert", half.data) as one, open_session("litert", whole.data) as other:
        np.testing.assert_array_equal(one.run(feeds)["scores"], other.run(feeds)["scores"])
    assert float_form(model) is model


def kinds(model: LiteRTModel) -> list[str]:
    from edgekit.converters.quantize.plan import look_at

    return [kind for kind, _ in look_at(model.data).ops]


@pytest.mark.parametrize("precision", ["static8", "dynamic8", "weight8", "weight4"])
def test_quantized_files_are_recognised(model: LiteRTModel, precision: Precision) -> None:
    made = in_form(model, precision, images(4) if precision == "static8" else None)
    assert "int" in quantized_parts(made)
    with pytest.raises(BadModel, match=r"'q.tflite' is quantized already: \d+ of \d+ ops"):
        float_form(made, "'q.tflite'")
    assert quantized_parts(model) == ""


def test_a_recipe_without_rules_is_the_file_itself(model: LiteRTModel) -> None:
    assert quantize(model, QuantRecipe(())).data == model.data


def test_what_an_op_would_cost_in_float(model: LiteRTModel) -> None:
    saved = saved_bytes(model.data, in_form(model, "weight8").data)
    assert saved["scores"] == 3 * 32 * 10  # of (32, 10) float32 weights a quarter remains
    assert sum(saved.values()) > 0
    assert set(saved_bytes(model.data, model.data).values()) == {0}


def test_goal_of_agreement_besides_accuracy() -> None:
    goal = Goal(max_drop_points=0.5, min_agreement=0.97)
    assert goal.met(Quality(1000, 20.0, agreement=0.97, drop_points=0.4))
    assert not goal.met(Quality(1000, 20.0, agreement=0.969, drop_points=0.0))
    assert not goal.met(Quality(1000, 20.0, agreement=0.99, drop_points=0.6))
    with pytest.raises(BadRecipe, match="agreement"):
        Goal(min_agreement=97)


def test_notes_on_what_the_figures_cannot_show() -> None:
    inputs = litert(swish_classifier()).inputs
    plain = open_samples(images(2), inputs)
    labelled = open_samples({"x": images(2), "labels": np.zeros(2, np.int64)}, inputs)
    classifier = Quality(64, 30.0, agreement=1.0)
    (few,) = about_judgement(classifier, plain, 0.5, 30.0)
    assert "64 samples cannot show" in few
    assert "200 or more" in few
    assert about_judgement(msgspec.structs.replace(classifier, samples=200), plain, 0.5, 30.0) == []
    assert about_judgement(classifier, plain, None, 30.0) == []
    (unused,) = about_judgement(Quality(64, 30.0), labelled, None, 25.0)
    assert "labels cannot be used" in unused
    assert "25 dB" in unused
    (doubtful,) = about_judgement(Quality(500, 30.0, 1.0, 0.0, -1.0, 1.0, float_accuracy=0.1), labelled, 0.5, 30.0)
    assert "10.0 %" in doubtful


def test_a_file_from_before_the_wide_field_of_kinds_is_quantized(model: LiteRTModel) -> None:
    tables = read_tables(model.data)
    for code in tables.operatorCodes:
        assert code.deprecatedBuiltinCode == code.builtinCode < 127
        code.builtinCode = 0
    tables.signatureDefs = None
    old = read_model(pack_model(tables))
    assert kinds(old) == kinds(model)
    made = in_form(old, "dynamic8")
    assert quantized_parts(made)
    assert len(made.data) < 0.7 * len(old.data)
    assert quantized_parts(in_form(old, "static8", images(2).transpose(0, 2, 3, 1)))


def test_the_lower_bound_falls_with_the_spread_of_samples() -> None:
    rng = np.random.default_rng(0)
    bounds, pooled = [], []
    for spread in (0.0, 0.4, 0.8):
        noise = Noise()
        for sign in (1, -1) * 8:
            want = rng.choice([-1.0, 1.0], 1000)
            noise.add("y", want, want + 0.03 * np.sqrt(1 + sign * spread))
        bound = noise.low_db("y")
        assert bound is not None
        bounds.append(bound)
        pooled.append(noise.db("y"))
    assert pooled == pytest.approx([pooled[0]] * 3, abs=1e-6)
    assert bounds[0] == pytest.approx(pooled[0], abs=1e-6)
    assert bounds[0] > bounds[1] + 1 > bounds[2] + 2
    assert noise.low_db("y") == pytest.approx(  # 16 samples, noise 0.9e-3 times 0.2 or 1.8
        -10 * np.log10(0.9e-3 * (1 + 1.645 * 0.8 * np.sqrt(16 / 15) * np.sqrt(17 / 16))), abs=0.01)


def test_few_samples_and_silent_ones_give_no_bound() -> None:
    noise = Noise()
    for count in range(3):
        noise.add("few", np.ones(3), np.ones(3) + 0.1 * count)
    for _ in range(8):
        noise.add("silent", np.zeros(3), np.ones(3))
    assert noise.low_db("few") is None
    assert noise.low_db("silent") is None


def test_a_faster_file_that_only_the_spread_speaks_against_is_named() -> None:
    def trial(kind: str, ratio: float, low_db: float) -> Trial:
        return Trial(Plan({kind: "static8"}), quality=Quality(64, 32.0, low_db=low_db),
                     speed=Speed(1.0, ratio, ratio, ratio))

    risky, chosen = trial("A", 0.3, 28.0), trial("B", 0.4, 31.0)
    (note,) = about_risk([risky, chosen], chosen, Goal())
    assert risky.name in note
    assert "28.0 dB" in note
    assert about_risk([chosen, trial("C", 0.5, 28.0)], chosen, Goal()) == []
    assert about_risk([risky], None, Goal(min_sqnr_db=33.0)) == []
