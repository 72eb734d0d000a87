from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edgekit.artifacts import Array, LiteRTModel
from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.converters.quantize import open_samples, prepare, quantize
from edgekit.converters.quantize.engine import InnerValues
from edgekit.converters.quantize.flatbuffer import read_tables
from edgekit.converters.quantize.rounding import adapt, packed, rounded, unpacked
from edgekit.converters.quantize.weighted import constant, patches, weighted_ops
from edgekit.errors import BadRecipe
from edgekit.recipe import Precision, QuantRecipe, QuantRule
from tests.quantize_models import images, litert, swish_classifier

pytest.importorskip("ai_edge_quantizer")


@pytest.fixture(scope="module")
def model() -> LiteRTModel:
    return litert(swish_classifier(width=32))


def layer_errors(model: LiteRTModel, steps: dict[str, str], bits: int) -> dict[str, float]:
    """Share of each layer's results that rounding its weights changes, on samples that were not used."""
    tables, found = read_tables(model.data), {}
    inner = InnerValues(model.data)
    feeds = list(open_samples(images(4, seed=9), model.inputs))
    values = [dict(inner.run(sample)) | dict(zip([_input(tables)], sample.values(), strict=True)) for sample in feeds]
    for layer in weighted_ops(tables):
        weights = constant(tables, layer.weights)
        away = unpacked(steps[layer.result], weights.size, "") if layer.result in steps else None
        op = tables.subgraphs[0].operators[layer.operator]
        change = rounded(weights, layer.kind, away, bits) - weights
        rows = np.concatenate([patches(op, layer.kind, weights.shape, each[layer.source], 64) for each in values])
        found[layer.result] = _power(rows, change) / _power(rows, weights)
    return found


def _input(tables: object) -> str:
    subgraph = tables.subgraphs[0]  # type: ignore[attr-defined]
    name = subgraph.tensors[subgraph.inputs[0]].name
    return name.decode() if isinstance(name, bytes) else str(name)


def _power(rows: Array, weights: Array) -> float:
    if rows.ndim == 3:
        return float(np.sum(np.einsum("ptc,tc->pc", rows, weights.reshape(-1, weights.shape[-1])) ** 2))
    return float(np.sum((rows @ weights.reshape(len(weights), -1).T) ** 2))


@pytest.mark.parametrize("bits", [8, 4])
def test_adaptive_rounding_lowers_the_error_of_layers_on_new_samples(model: LiteRTModel, bits: int) -> None:
    results = {layer.result: bits for layer in weighted_ops(read_tables(model.data))}
    steps = adapt(model.data, results, open_samples(images(32), model.inputs))
    assert steps
    before, after = layer_errors(model, {}, bits), layer_errors(model, steps, bits)
    assert all(after[name] < before[name] for name in steps)
    assert all(after[name] == before[name] for name in results if name not in steps)


@pytest.mark.parametrize("precision", ["weight8", "dynamic8", "static8", "weight4"])
def test_recipe_with_steps_and_shifts_gives_the_same_bytes_without_data(
    model: LiteRTModel, precision: Precision
) -> None:
    samples = open_samples(images(16), model.inputs)
    asked = QuantRecipe((QuantRule(precision),), rounding="adaptive", correct_bias=True)
    recipe = prepare(model, asked, samples)
    again = msgspec.json.decode(msgspec.json.encode(recipe), type=QuantRecipe)
    assert again.weight_steps
    assert quantize(model, again).data == quantize(model, recipe).data == quantize(model, asked, samples).data
    plain = msgspec.structs.replace(recipe, weight_steps={}, bias_shifts={})
    assert quantize(model, plain).data != quantize(model, recipe).data


def test_quantized_weights_are_the_rounded_ones(model: LiteRTModel) -> None:
    recipe = prepare(model, QuantRecipe((QuantRule("weight8"),), rounding="adaptive"),
                     open_samples(images(16), model.inputs))
    made, source = read_tables(quantize(model, recipe).data), read_tables(model.data)
    stored = {bytes(np.asarray(made.buffers[t.buffer].data)) for t in made.subgraphs[0].tensors
              if t.type == schema().TensorType.INT8}
    assert recipe.weight_steps
    for layer in weighted_ops(source):
        if layer.result in recipe.weight_steps:
            weights = constant(source, layer.weights)
            away = unpacked(recipe.weight_steps[layer.result], weights.size, "")
            values = rounded(weights, layer.kind, away, 8)
            axes = (0, 1, 2) if layer.kind == "DEPTHWISE_CONV_2D" else tuple(range(1, weights.ndim))
            scale = np.abs(weights).max(axis=axes, keepdims=True) / 127
            assert np.round(values / scale).astype(np.int8).tobytes() in stored


def test_steps_that_do_not_fit_are_refused(model: LiteRTModel) -> None:
    samples = open_samples(images(2), model.inputs)
    rules = (QuantRule("weight8"),)
    with pytest.raises(BadRecipe, match="does not say how"):
        quantize(model, QuantRecipe(rules, rounding="adaptive"))
    layer = weighted_ops(read_tables(model.data))[0]
    for text in (packed(np.zeros(3, np.int8)), packed(np.zeros(1 << 20, np.int8)), "not base64!", "AAAA"):
        recipe = QuantRecipe(rules, rounding="adaptive", weight_steps={layer.result: text})
        with pytest.raises(BadRecipe, match="does not fit"):
            quantize(model, recipe, samples)
    with pytest.raises(BadRecipe, match="no op with weights"):
        quantize(model, QuantRecipe(rules, rounding="adaptive", weight_steps={"nothing": ""}))
