from __future__ import annotations

import base64

import numpy as np
import pytest

from edgekit.artifacts import LiteRTModel
from edgekit.converters.quantize import open_samples, prepare, quantize
from edgekit.converters.quantize.engine import InnerValues
from edgekit.converters.quantize.flatbuffer import read_tables
from edgekit.converters.quantize.weighted import weighted_ops
from edgekit.errors import BadRecipe
from edgekit.recipe import Precision, QuantRecipe, QuantRule
from tests.quantize_models import images, litert, swish_classifier

pytest.importorskip("ai_edge_quantizer")


@pytest.fixture(scope="module")
def model() -> LiteRTModel:
    return litert(swish_classifier(width=32))


def shift_of(model: LiteRTModel, other: LiteRTModel, count: int) -> float:
    """Squares of the mean error of each channel, over the results of all layers."""
    samples = list(open_samples(images(count), model.inputs))
    names = [layer.result for layer in weighted_ops(read_tables(model.data))]
    total = 0.0
    wanted, got = InnerValues(model.data), InnerValues(other.data)
    pairs = [({n: np.array(a) for n, a in wanted.run(feeds)}, {n: np.array(a) for n, a in got.run(feeds)})
             for feeds in samples]
    for name in names:
        error = np.mean([(a[name] - b[name]).reshape(-1, a[name].shape[-1]).mean(axis=0) for a, b in pairs], axis=0)
        total += float(np.sum(error**2))
    return total


@pytest.mark.parametrize(("precision", "factor"), [("weight4", 50), ("weight8", 50), ("static8", 3)])
def test_mean_errors_of_layers_vanish(model: LiteRTModel, precision: Precision, factor: float) -> None:
    samples = open_samples(images(16), model.inputs)
    rules = (QuantRule(precision), QuantRule("float32", ("HARD_SWISH",)))
    plain = quantize(model, QuantRecipe(rules), samples)
    mended = quantize(model, QuantRecipe(rules, correct_bias=True), samples)
    assert shift_of(model, mended, 16) * factor < shift_of(model, plain, 16)
    assert len(mended.data) <= len(plain.data) + 4096


def test_shifts_that_do_not_fit_are_refused(model: LiteRTModel) -> None:
    layer = weighted_ops(read_tables(model.data))[0]
    for result, values, words in ((layer.result, [1.0], "biases"), ("nothing", [1.0], "no op with a bias"),
                                  (layer.result, [np.nan], "finite")):
        text = base64.b64encode(np.array(values, "<f4").tobytes()).decode()
        with pytest.raises(BadRecipe, match=words):
            quantize(model, QuantRecipe((QuantRule("weight8"),), correct_bias=True, bias_shifts={result: text}))
    with pytest.raises(BadRecipe, match="does not say how"):
        quantize(model, QuantRecipe((QuantRule("weight8"),), correct_bias=True))


def test_a_complete_recipe_needs_no_data(model: LiteRTModel) -> None:
    recipe = prepare(model, QuantRecipe((QuantRule("static8"),), correct_bias=True),
                     open_samples(images(8), model.inputs))
    assert recipe.bias_shifts
    assert quantize(model, recipe).data == quantize(model, recipe).data
