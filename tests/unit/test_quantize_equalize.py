"""Channels scaled between layers: the float function stays, int8 gets better where channels differ in size."""

from __future__ import annotations

import base64

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from edgekit.artifacts import Array, LiteRTModel
from edgekit.converters.quantize import open_samples, prepare, quantize, read_model
from edgekit.converters.quantize.apply import float_form
from edgekit.converters.quantize.equalize import equalized, find_factors
from edgekit.converters.quantize.flatbuffer import name_of, read_tables, with_unique_names
from edgekit.converters.quantize.workbench import Workbench
from edgekit.errors import BadRecipe
from edgekit.recipe import QuantRecipe, QuantRule
from edgekit.runtime.engines import open_session
from tests.quantize_models import images, litert, onnx_net

pytest.importorskip("ai_edge_quantizer")

STATIC = QuantRecipe((QuantRule("static8"),))
EQUAL = msgspec.structs.replace(STATIC, equalize=True)


def uneven(activation: str, seed: int = 0) -> LiteRTModel:
    """Pointwise, activation, depthwise, activation, pointwise; the first layer's channels differ 100-fold in size."""
    rng = np.random.default_rng(seed)
    width = 16
    sizes = np.geomspace(0.03, 3.0, width)[rng.permutation(width)]
    weights: dict[str, Array] = {
        "w0": rng.standard_normal((width, 3, 1, 1)) * sizes[:, None, None, None],
        "w1": rng.standard_normal((width, 1, 3, 3)) / sizes[:, None, None, None],
        "w2": rng.standard_normal((10, width, 1, 1)),
        "b0": rng.standard_normal(width) * sizes * 0.1, "low": np.array(0.0), "high": np.array(6.0),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"]), _activation(activation, "a", "b"),
        helper.make_node("Conv", ["b", "w1"], ["c"], group=width, pads=[1] * 4), _activation(activation, "c", "d"),
        helper.make_node("Conv", ["d", "w2"], ["y"]),
    ]
    return litert(onnx_net(nodes, {"x": (1, 3, 32, 32)}, {"y": (1, 10, 32, 32)},
                           {name: np.asarray(array, np.float32) for name, array in weights.items()}))


def _activation(kind: str, source: str, result: str) -> onnx.NodeProto:
    return helper.make_node(kind, [source, "low", "high"] if kind == "Clip" else [source], [result])


def outputs(data: bytes, array: Array) -> Array:
    with open_session("litert", data) as session:
        (spec,) = read_model(data).inputs
        stored = array.transpose(0, 2, 3, 1) if spec.layout == "nhwc" else array
        return np.array(next(iter(session.run({spec.name: np.ascontiguousarray(stored)}).values())))


def sqnr_db(want: Array, got: Array) -> float:
    return float(10 * np.log10(np.mean(want**2) / np.mean((want - got) ** 2)))


@pytest.mark.parametrize(("activation", "gain_db"), [("Relu", 4.0), ("Clip", 1.0)])
def test_int8_gets_better_where_channels_differ(activation: str, gain_db: float) -> None:
    model, data = uneven(activation), images(8)
    samples = open_samples(data[:6], model.inputs)
    plain, scaled = quantize(model, STATIC, samples), quantize(model, EQUAL, samples)
    want = outputs(model.data, data[6:7])
    assert sqnr_db(want, outputs(scaled.data, data[6:7])) > sqnr_db(want, outputs(plain.data, data[6:7])) + gain_db


def test_the_float_function_stays() -> None:
    model, data = uneven("Relu"), images(6)
    recipe = prepare(model, EQUAL, open_samples(data[:5], model.inputs))
    assert recipe.channel_factors
    want, got = outputs(model.data, data[5:]), outputs(float_form(model, recipe), data[5:])
    assert np.abs(want - got).max() < 1e-5 * np.ptp(want)


def test_a_saved_recipe_makes_the_same_bytes() -> None:
    model = uneven("Relu")
    recipe = prepare(model, msgspec.structs.replace(EQUAL, rounding="adaptive", correct_bias=True),
                     open_samples(images(6), model.inputs))
    again = msgspec.json.decode(msgspec.json.encode(recipe), type=QuantRecipe)
    assert quantize(model, recipe).data == quantize(model, again).data
    names = {name_of(tensor) for tensor in read_tables(quantize(model, recipe).data).subgraphs[0].tensors}
    assert {f"{name}/equalized" for name in recipe.channel_factors or {}} <= names


def test_hard_swish_is_left_alone_and_relu6_has_room() -> None:
    def found(activation: str) -> tuple[dict[str, str], dict[str, tuple[float, float]]]:
        model = uneven(activation)
        return find_factors(with_unique_names(model.data), open_samples(images(4), model.inputs))

    assert found("HardSwish")[0] == {}
    factors, ranges = found("Clip")
    assert factors
    for tensor, text in factors.items():
        values = np.frombuffer(base64.b64decode(text), "<f4")
        assert values.min() >= 1
        assert ranges[tensor][1] <= 6


def test_layers_are_called_as_in_the_float_file() -> None:
    model = uneven("Relu")
    bench = Workbench(model, open_samples(images(6), model.inputs), QuantRecipe(()))
    plan = msgspec.structs.replace(bench.bases()[0], equalized=True)
    (trial,) = bench.make([plan], lambda _: None)
    assert "equalised channels" in trial.name
    kept = {layer.tensor for layer in bench.layers(bench.files[trial.name])}
    assert kept <= {tensor for _, tensor in bench.graph.ops}
    assert len(kept) == len(bench.graph.ops)


@pytest.mark.parametrize("factors", [{"nowhere": "AACAPw=="}, {"b": "AACAPw=="}, {"b": "x"}])
def test_factors_of_another_model(factors: dict[str, str]) -> None:
    with pytest.raises(BadRecipe):
        equalized(with_unique_names(uneven("Relu").data), factors)
