"""Quantization for ONNX Runtime: forms, ranges, integers by CPU, what is refused, what is rebuilt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekit.artifacts import Array, OrtModel
from edgekit.converters.onnx_model import describe
from edgekit.converters.quantize import (
    Samples,
    calibrate_ort,
    is_quantized,
    open_samples,
    ort_float_model,
    quantize_ort,
    target_cpu,
)
from edgekit.converters.quantize.histogram import RangeFinder
from edgekit.converters.quantize.ort_values import OrtInnerValues, sensitivity_ort
from edgekit.converters.quantize.quality import Noise
from edgekit.errors import BadInput, BadRecipe, UnknownName
from edgekit.recipe import QuantRecipe, QuantRule, TargetCpu
from edgekit.runtime.engines import open_session
from tests.quantize_models import images, onnx_net, swish_classifier

STATIC = QuantRecipe((QuantRule("static8"),))


@pytest.fixture(scope="module")
def model() -> OrtModel:
    return ort_float_model(describe(swish_classifier()))


@pytest.fixture(scope="module")
def samples(model: OrtModel) -> Samples:
    return open_samples(images(12), model.inputs)


@pytest.fixture(scope="module")
def ranged(model: OrtModel, samples: Samples) -> QuantRecipe:
    return calibrate_ort(model, STATIC, samples)


def kinds(data: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_model_from_string(data).graph.node)


def answers(data: bytes, fed: Array) -> list[Array]:
    with open_session("ort", data) as session:
        return [np.array(session.run({"x": each[None]})["scores"]) for each in fed]


def distance_db(want: list[Array], got: list[Array]) -> float:
    noise = Noise()
    for a, b in zip(want, got, strict=True):
        noise.add("y", a, b)
    return noise.db("y")


@pytest.mark.parametrize(("precision", "least_db", "most_size"), [
    ("static8", 18, 0.75), ("dynamic8", 35, 1.2), ("float16", 55, 0.8), ("float32", 139, 1.001)])
def test_every_precision_is_close_to_float(
    model: OrtModel, ranged: QuantRecipe, precision: str, least_db: float, most_size: float
) -> None:
    rule = msgspec.convert({"precision": precision}, QuantRule)
    made = quantize_ort(model, msgspec.structs.replace(ranged, rules=(rule,)))
    fed = images(6, seed=5)
    assert distance_db(answers(model.data, fed), answers(made.data, fed)) >= least_db
    assert (made.inputs, made.outputs) == (model.inputs, model.outputs)
    wide = ort_float_model(describe(swish_classifier(width=96)))
    ranges = calibrate_ort(wide, STATIC, open_samples(images(2), wide.inputs)).ranges
    large = quantize_ort(wide, QuantRecipe((rule,), ranges=ranges))
    assert len(large.data) < most_size * len(wide.data)


@pytest.mark.parametrize(("cpu", "activations", "largest"), [
    ("x86_vnni", onnx.TensorProto.UINT8, 127), ("x86", onnx.TensorProto.UINT8, 64),
    ("arm", onnx.TensorProto.INT8, 127)])
def test_the_cpu_decides_the_integers(
    model: OrtModel, ranged: QuantRecipe, cpu: TargetCpu, activations: int, largest: int
) -> None:
    made = quantize_ort(model, msgspec.structs.replace(ranged, cpu=cpu))
    graph = onnx.load_model_from_string(made.data).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    zeros = {tensors[node.input[2]].data_type for node in graph.node if node.op_type == "QuantizeLinear"}
    assert zeros == {activations}
    weights = [numpy_helper.to_array(tensor) for name, tensor in tensors.items()
               if name.endswith("_quantized") and tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1]
    assert len(weights) == 4
    assert max(int(np.abs(each.astype(int)).max()) for each in weights) == largest
    scales = [tensors[node.input[1]].dims for node in graph.node
              if node.op_type == "DequantizeLinear" and node.input[0] in tensors
              and tensors[node.input[0]].data_type == onnx.TensorProto.INT8]
    assert sorted(dims[0] for dims in scales if dims) == [10, 16, 16, 32]  # one for each output channel


def test_dynamic_weights_fit_the_dot_product(model: OrtModel) -> None:
    for cpu, largest in (("x86", 63), ("x86_vnni", 127)):
        recipe = msgspec.convert({"rules": [{"precision": "dynamic8"}], "cpu": cpu}, QuantRecipe)
        made = quantize_ort(model, recipe)
        assert kinds(made.data)["MatMulInteger"] == 1
        assert kinds(made.data)["Gemm"] == 0
        graph = onnx.load_model_from_string(made.data).graph
        weights = next(numpy_helper.to_array(each) for each in graph.initializer if each.name.endswith("_weight8"))
        assert np.abs(weights.astype(int)).max(axis=0).tolist() == [largest] * 10


def test_the_same_recipe_makes_the_same_bytes_without_data(model: OrtModel, ranged: QuantRecipe) -> None:
    again = msgspec.json.decode(msgspec.json.encode(ranged), type=QuantRecipe)
    first = quantize_ort(model, ranged).data
    assert quantize_ort(ort_float_model(describe(swish_classifier())), again).data == first
    assert not onnx.load_model_from_string(first).metadata_props


def test_later_rules_win_and_name_ops_by_kind_or_result(model: OrtModel, ranged: QuantRecipe) -> None:
    first = next(n.output[0] for n in onnx.load_model_from_string(model.data).graph.node if n.op_type == "Conv")
    rules = (QuantRule("static8", ("Conv",)), QuantRule("float32", (), (first,)), QuantRule("dynamic8", ("Gemm",)))
    made = kinds(quantize_ort(model, msgspec.structs.replace(ranged, rules=rules)).data)
    assert made["MatMulInteger"] == 1
    weighted = 2 * 2  # weights and bias of two convolutions
    assert made["DequantizeLinear"] - made["QuantizeLinear"] == weighted


def test_hard_sigmoid_in_integers_equals_its_float_form(model: OrtModel, ranged: QuantRecipe) -> None:
    plain = kinds(model.data)
    assert plain["HardSigmoid"] == 3
    made = quantize_ort(model, ranged)
    ops = kinds(made.data)
    assert (ops["HardSigmoid"], ops["Add"], ops["Mul"]) == (0, 3, 3)  # the slope has become part of a scale
    graph = onnx.load_model_from_string(made.data).graph
    read = {name for node in graph.node for name in node.input} | {"scores"}
    assert all(node.output[0] in read for node in graph.node)
    floating = msgspec.structs.replace(ranged, rules=(QuantRule("static8"), QuantRule("float32", ("HardSigmoid",))))
    fed = images(6, seed=7)
    wanted = answers(model.data, fed)
    loss = distance_db(wanted, answers(quantize_ort(model, floating).data, fed)) - distance_db(
        wanted, answers(made.data, fed))
    assert loss < 6


def test_an_old_opset_is_raised_and_weights_transposed(samples: Samples) -> None:
    rng = np.random.default_rng(0)
    net = onnx_net(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["scores"], transB=1)],
        {"x": (1, 3, 32, 32)}, {"scores": (1, 7)},
        {"w": rng.normal(size=(7, 3072)).astype(np.float32), "b": np.zeros(7, np.float32)})
    net.opset_import[0].version = 9
    model = ort_float_model(describe(net))
    recipe = calibrate_ort(model, STATIC, samples)
    for rules in ((QuantRule("static8"),), (QuantRule("dynamic8"),)):
        made = quantize_ort(model, msgspec.structs.replace(recipe, rules=rules))
        fed = images(12)[:3]
        assert distance_db(answers(model.data, fed), answers(made.data, fed)) > 30


def test_a_value_that_is_not_finite_keeps_its_readers_float(samples: Samples) -> None:
    net = onnx_net(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Log", ["r"], ["l"]),
         helper.make_node("Exp", ["l"], ["e"]), helper.make_node("Conv", ["e", "w"], ["c"]),
         helper.make_node("GlobalAveragePool", ["c"], ["scores"])],
        {"x": (1, 3, 32, 32)}, {"scores": (1, 4, 1, 1)}, {"w": np.ones((4, 3, 1, 1), np.float32)})
    model = ort_float_model(describe(net))
    recipe = calibrate_ort(model, STATIC, samples)
    assert "l" not in recipe.ranges
    made = quantize_ort(model, recipe)
    assert "l_QuantizeLinear_Output" not in {
        name for node in onnx.load_model_from_string(made.data).graph.node for name in node.output}
    fed = images(3, seed=3)
    assert distance_db(answers(model.data, fed), answers(made.data, fed)) > 25


def test_constant_and_all_zero_channels(samples: Samples) -> None:
    weights = np.ones((4, 3, 1, 1), np.float32)
    weights[1] = 0
    net = onnx_net([helper.make_node("Conv", ["x", "w"], ["scores"])], {"x": (1, 3, 32, 32)},
                   {"scores": (1, 4, 32, 32)}, {"w": weights})
    model = ort_float_model(describe(net))
    got = answers(quantize_ort(model, STATIC, samples).data, images(1))[0]
    assert np.isfinite(got).all()
    assert np.abs(got[:, 1]).max() < 1e-6
    still = open_samples(np.zeros((2, 3, 32, 32), np.float32), model.inputs)
    assert np.isfinite(answers(quantize_ort(model, STATIC, still).data, images(1))[0]).all()


def test_no_rule_changes_no_byte(model: OrtModel) -> None:
    assert quantize_ort(model, QuantRecipe(())).data == model.data


def test_ranges_are_those_of_the_method(model: OrtModel, samples: Samples, ranged: QuantRecipe) -> None:
    low, high = calibrate_ort(model, QuantRecipe(STATIC.rules, method="minmax"), samples).ranges["x"]
    assert (low, high) == (float(images(12).min()), float(images(12).max()))
    assert ranged.method == "extreme"
    assert ranged.ranges["x"][0] < low < high < ranged.ranges["x"][1]
    cut = calibrate_ort(model, QuantRecipe(STATIC.rules, method="percentile", percentile=90), samples).ranges["x"]
    assert low < cut[0] < cut[1] < high


def test_calibration_holds_one_sample(model: OrtModel, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = 0, 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def walk() -> Iterator[dict[str, Array]]:
        nonlocal alive, most
        for image in images(20):
            alive += 1
            most = max(most, alive)
            yield {"x": image[None].view(Counted)}

    calibrate_ort(model, STATIC, Samples(walk))
    assert most <= 2
    seen: list[int] = []
    monkeypatch.setattr(RangeFinder, "add", lambda _, values: seen.append(len(list(values))))
    calibrate_ort(model, STATIC, Samples(walk))
    assert len(seen) == 40


def test_inner_values_and_where_the_error_enters(model: OrtModel, samples: Samples, ranged: QuantRecipe) -> None:
    made = quantize_ort(model, ranged)
    names = {name for name, _ in OrtInnerValues(model.data).run({"x": images(1)})}
    assert names == {node.output[0] for node in onnx.load_model_from_string(model.data).graph.node}
    layers = sensitivity_ort(model.data, made.data, samples)
    assert {layer.tensor for layer in layers} <= names
    assert layers[-1].tensor == "scores"
    assert 10 < layers[-1].sqnr_db < 60
    assert max(layer.gain_db for layer in layers) > 0


@pytest.mark.parametrize(("recipe", "error", "text"), [
    (QuantRecipe((QuantRule("weight4"),)), BadRecipe, "weight4"),
    (QuantRecipe((QuantRule("static8"),)), BadRecipe, "no ranges"),
    (QuantRecipe((QuantRule("float16"),), io="int8"), BadRecipe, "float32 inputs"),
    (QuantRecipe((QuantRule("float16", ("CONV_2D",)),)), UnknownName, "CONV_2D"),
    (QuantRecipe((QuantRule("float16", (), ("nothing",)),)), BadRecipe, "nothing"),
])
def test_bad_recipes(model: OrtModel, recipe: QuantRecipe, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        quantize_ort(model, recipe)


def test_samples_must_be_there(model: OrtModel) -> None:
    with pytest.raises(BadInput, match="no sample"):
        quantize_ort(model, STATIC, Samples(lambda: iter(())))


def test_which_graphs_are_quantized(model: OrtModel, ranged: QuantRecipe) -> None:
    assert not is_quantized(describe(swish_classifier()))
    made = quantize_ort(model, ranged)
    assert is_quantized(describe(onnx.load_model_from_string(made.data)))


def test_the_host_is_one_of_the_kinds() -> None:
    assert target_cpu() in ("x86", "x86_vnni", "arm")
    assert target_cpu("arm") == "arm"
