from __future__ import annotations

import importlib

import msgspec
import numpy as np
import pytest
from onnx import helper

from edgekit.artifacts import Array, LiteRTModel
from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.quantize import calibrate, open_samples, quantize, read_model
from edgekit.converters.quantize.flatbuffer import kind_of, name_of, read_tables, with_unique_names
from edgekit.converters.quantize.quality import sqnr_db
from edgekit.errors import BadModel, BadRecipe, UnknownName
from edgekit.recipe import Precision, QuantRecipe, QuantRule
from edgekit.report.placement import place
from edgekit.runtime.engines import open_session
from tests.quantize_models import images, litert, onnx_net, swish_classifier

pytest.importorskip("ai_edge_quantizer")


@pytest.fixture(scope="module")
def model() -> LiteRTModel:
    return litert(swish_classifier())


def run(model: LiteRTModel, data: Array) -> Array:
    with open_session("litert", model.data) as session:
        rows = [np.concatenate([np.ravel(out) for out in session.run(feeds).values()])
                for feeds in open_samples(data, model.inputs)]
    return np.stack(rows)


def quality_db(model: LiteRTModel, other: LiteRTModel, data: Array) -> float:
    want, got = run(model, data), run(other, data)
    return sqnr_db(float((want**2).sum()), float(((want - got) ** 2).sum()))


def weights(model: LiteRTModel) -> dict[str, int]:
    """Bytes of the constants by tensor name."""
    tables = read_tables(model.data)
    return {name_of(t): len(tables.buffers[t.buffer].data) for t in tables.subgraphs[0].tensors
            if tables.buffers[t.buffer].data is not None}


@pytest.mark.parametrize(
    ("precision", "floor_db"),
    [("float16", 55), ("weight8", 35), ("dynamic8", 33), ("static8", 25), ("dynamic4", 8), ("weight4", 8)],
)
def test_every_precision_answers_close_to_float_and_is_smaller(
    model: LiteRTModel, precision: Precision, floor_db: float
) -> None:
    samples = open_samples(images(16), model.inputs)
    made = quantize(model, QuantRecipe((QuantRule(precision),)), samples)
    assert quality_db(model, made, images(8, seed=5)) > floor_db
    assert sum(weights(made).values()) < 0.6 * sum(weights(model).values())
    assert (made.inputs, made.outputs, made.signatures) == (model.inputs, model.outputs, model.signatures)
    assert not any(buffer.offset for buffer in read_tables(made.data).buffers)


def test_hard_swish_in_float_mends_the_partitions(model: LiteRTModel) -> None:
    samples = open_samples(images(8), model.inputs)
    recipe = calibrate(model, QuantRecipe((QuantRule("static8"),)), samples)
    kept = msgspec.structs.replace(recipe, rules=(*recipe.rules, QuantRule("float32", ("HARD_SWISH",))))
    assert place(quantize(model, recipe).data).partitions > 1
    assert place(quantize(model, kept).data).partitions == 1


def test_the_recipe_as_json_gives_the_same_bytes(model: LiteRTModel) -> None:
    recipe = calibrate(model, QuantRecipe((QuantRule("static8"),), method="percentile"),
                       open_samples(images(8), model.inputs))
    again = msgspec.json.decode(msgspec.json.encode(recipe), type=QuantRecipe)
    assert again == recipe
    assert quantize(model, again).data == quantize(model, recipe).data


# the quantizer's own calibration reads inner values, which LiteRT warns needs memory
@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors:UserWarning")
def test_one_sample_by_average_is_what_the_quantizers_own_calibration_gives(model: LiteRTModel) -> None:
    quantizer = importlib.import_module("ai_edge_quantizer.quantizer")
    theirs = importlib.import_module("ai_edge_quantizer.recipe")

    samples = open_samples(images(1), model.inputs)
    stock = quantizer.Quantizer(bytearray(model.data), theirs.static_wi8_ai8())
    found = stock.calibrate({"serving_default": list(samples)})
    # the runner gives outputs their names; ours has float inputs and outputs
    recipe = calibrate(model, QuantRecipe((QuantRule("static8"),), method="average"), samples)
    for name, values in found.items():
        if values and name in recipe.ranges:
            assert recipe.ranges[name] == pytest.approx((float(values["min"].min()), float(values["max"].max())))
    assert {name for name, values in found.items() if values and values["min"].size == 1} <= {
        *recipe.ranges, *weights(model)}


def test_int8_inputs_and_outputs_on_request(model: LiteRTModel) -> None:
    recipe = QuantRecipe((QuantRule("static8"),), io="int8")
    made = quantize(model, recipe, open_samples(images(8), model.inputs))
    assert [spec.dtype for spec in (*made.inputs, *made.outputs)] == ["int8", "int8"]
    assert made.inputs[0].layout == "nhwc"
    assert [spec.name for spec in made.inputs + made.outputs] == [s.name for s in model.inputs + model.outputs]


def test_the_last_rule_that_matches_decides(model: LiteRTModel) -> None:
    tables = read_tables(model.data)
    tensors = tables.subgraphs[0].tensors
    first = next(name_of(tensors[op.outputs[0]]) for op in tables.subgraphs[0].operators
                 if kind_of(tables, op) == "CONV_2D")
    before = weights(model)
    plain = weights(quantize(model, QuantRecipe((QuantRule("weight8"),))))
    kept = weights(quantize(model, QuantRecipe((QuantRule("weight8"), QuantRule("float32", (), (first,))))))
    changed = {name for name in before if kept.get(name) != plain.get(name)}
    assert len(changed) == 1
    (name,) = changed
    assert kept[name] == before[name] == 4 * plain[name]
    undone = quantize(model, QuantRecipe((QuantRule("float32", (), (first,)), QuantRule("weight8"))))
    assert weights(undone) == plain


def test_without_rules_the_model_answers_the_same(model: LiteRTModel) -> None:
    made = quantize(model, QuantRecipe(()))
    np.testing.assert_array_equal(run(made, images(2)), run(model, images(2)))


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (QuantRule("static8"), BadRecipe, "calibration"),
        (QuantRule("weight8", ("CONVOLVE",)), UnknownName, "CONVOLVE"),
        (QuantRule("weight8", (), ("nothing",)), BadRecipe, "nothing"),
    ],
)
def test_rules_that_cannot_be_followed(model: LiteRTModel, rule: QuantRule, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        quantize(model, QuantRecipe((rule,)))


def test_ranges_must_be_finite_and_in_order() -> None:
    for bad in ((1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(BadRecipe, match="range"):
            QuantRecipe((), ranges={"t": bad})


def test_damaged_files_are_refused() -> None:
    with pytest.raises(BadModel, match="TFL3"):
        read_model(b"no model at all, but long enough")


def conv_net(kernel: Array, bias: Array) -> LiteRTModel:
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
             helper.make_node("Relu", ["c"], ["r"]), helper.make_node("Conv", ["r", "v"], ["y"])]
    second = np.random.default_rng(3).normal(0, 0.3, (4, len(kernel), 1, 1)).astype(np.float32)
    return litert(onnx_net(nodes, {"x": (1, 3, 16, 16)}, {"y": (1, 4, 16, 16)},
                           {"w": kernel, "b": bias, "v": second}))


@pytest.mark.parametrize("precision", ["static8", "dynamic8"])
def test_channels_of_zeros_keep_their_bias(precision: Precision) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32)
    kernel[2] = 0
    model = conv_net(kernel, rng.normal(0, 1, 8).astype(np.float32))
    data = rng.standard_normal((16, 3, 16, 16)).astype(np.float32)
    made = quantize(model, QuantRecipe((QuantRule(precision),)), open_samples(data, model.inputs))
    assert quality_db(model, made, data) > 30


def test_a_tensor_that_is_always_zero_is_no_trouble() -> None:
    kernel = np.random.default_rng(0).normal(0, 0.1, (8, 3, 3, 3)).astype(np.float32)
    model = conv_net(kernel, np.full(8, -1000, np.float32))  # the activation behind it never opens
    data = images(4, size=16)
    made = quantize(model, QuantRecipe((QuantRule("static8"),)), open_samples(data, model.inputs))
    np.testing.assert_array_equal(run(made, data), 0)


def test_values_that_are_not_finite_stay_float() -> None:
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
             helper.make_node("Exp", ["c"], ["e"]), helper.make_node("Div", ["e", "zero"], ["infinite"]),
             helper.make_node("Min", ["infinite", "c"], ["m"]), helper.make_node("Conv", ["m", "v"], ["y"])]
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(0, 0.3, (8, 3, 3, 3)), "b": np.ones(8), "zero": np.zeros((1, 8, 1, 1)),
              "v": rng.normal(0, 0.3, (4, 8, 1, 1))}
    model = litert(onnx_net(nodes, {"x": (1, 3, 16, 16)}, {"y": (1, 4, 16, 16)},
                            {name: array.astype(np.float32) for name, array in arrays.items()}))
    data = rng.standard_normal((4, 3, 16, 16)).astype(np.float32)
    made = quantize(model, QuantRecipe((QuantRule("static8"),)), open_samples(data, model.inputs))
    assert np.isfinite(run(made, data)).all()
    assert quality_db(model, made, data) > 30


def test_tensors_of_equal_names_are_told_apart(model: LiteRTModel) -> None:
    tables = read_tables(model.data)
    for tensor in tables.subgraphs[0].tensors:
        tensor.name = "same"
    double = read_model(pack_model(tables))
    unique = [name_of(t) for t in read_tables(with_unique_names(double.data)).subgraphs[0].tensors]
    assert len(set(unique)) == len(unique)
    made = quantize(double, QuantRecipe((QuantRule("static8"),)), open_samples(images(4), double.inputs))
    assert quality_db(double, made, images(4)) > 25


def test_a_dynamic_batch_is_kept() -> None:
    model = litert(swish_classifier(batch="N"))
    made = quantize(model, QuantRecipe((QuantRule("static8"),)), open_samples(images(8), model.inputs))
    assert made.inputs[0].shape == model.inputs[0].shape == (-1, 32, 32, 3)
    assert quality_db(model, made, images(4)) > 25
