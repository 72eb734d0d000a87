from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.artifacts import Array, LiteRTModel
from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.quantize import open_samples, quantize
from edgekit.converters.quantize.flatbuffer import kind_of, read_model, read_tables
from edgekit.converters.quantize.sparse import make_sparse
from edgekit.converters.quantize.weighted import constant, set_constant, weighted_ops
from edgekit.errors import BadModel
from edgekit.graph.tflite_check import check_tflite
from edgekit.recipe import Precision, QuantRecipe, QuantRule
from edgekit.runtime.engines import open_session
from edgekit.runtime.engines.litert import import_interpreter
from tests.quantize_models import images, litert, swish_classifier

pytest.importorskip("ai_edge_quantizer")


@pytest.fixture(scope="module")
def pruned() -> LiteRTModel:
    """Nine of ten weights of each larger layer are zero."""
    tables = read_tables(litert(swish_classifier(width=64)).data)
    for layer in weighted_ops(tables):
        weights = constant(tables, layer.weights)
        weights[np.abs(weights) < np.quantile(np.abs(weights), 0.9)] = 0
        set_constant(tables, layer.weights, weights)
    return read_model(pack_model(tables))


def outputs(data: bytes, feeds: dict[str, Array]) -> Array:
    with open_session("litert", data) as session:
        return np.concatenate([np.ravel(each) for each in session.run(feeds).values()])


def without_delegate(data: bytes, feeds: dict[str, Array]) -> Array:
    interpreter_class, _ = import_interpreter()
    from ai_edge_litert.interpreter import OpResolverType

    interpreter = interpreter_class(
        model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], next(iter(feeds.values())))
    interpreter.invoke()
    found: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return found


@pytest.mark.parametrize("precision", ["float32", "weight8"])
def test_sparse_file_is_smaller_and_answers_bit_for_bit_alike(pruned: LiteRTModel, precision: Precision) -> None:
    recipe = QuantRecipe((QuantRule(precision),))
    dense = quantize(pruned, recipe).data
    sparse = quantize(pruned, QuantRecipe(recipe.rules, sparse=True)).data
    assert len(sparse) < 0.8 * len(dense)
    assert "DENSIFY" in [kind_of(read_tables(sparse), op) for op in read_tables(sparse).subgraphs[0].operators]
    for feeds in open_samples(images(3), pruned.inputs):
        np.testing.assert_array_equal(outputs(sparse, feeds), outputs(dense, feeds))
        np.testing.assert_array_equal(without_delegate(sparse, feeds), without_delegate(dense, feeds))
    assert sparse == quantize(pruned, QuantRecipe(recipe.rules, sparse=True)).data


@pytest.mark.parametrize("precision", ["dynamic8", "static8"])
def test_weights_of_integer_kernels_stay_dense_and_the_file_runs(pruned: LiteRTModel, precision: Precision) -> None:
    samples = open_samples(images(4), pruned.inputs)
    sparse = quantize(pruned, QuantRecipe((QuantRule(precision),), sparse=True), samples).data
    dense = quantize(pruned, QuantRecipe((QuantRule(precision),)), samples).data
    for feeds in samples:
        np.testing.assert_array_equal(outputs(sparse, feeds), outputs(dense, feeds))


@pytest.mark.parametrize("rounding", ["nearest", "adaptive"])
def test_zeros_of_a_pruned_network_stay_zero(pruned: LiteRTModel, rounding: str) -> None:
    samples = open_samples(images(8), pruned.inputs)
    rules = (QuantRule("weight8"),)
    recipe = QuantRecipe(rules, rounding="adaptive" if rounding == "adaptive" else "nearest")
    made = read_tables(quantize(pruned, recipe, samples).data)
    before = read_tables(pruned.data)
    zeros = sum(int(np.sum(constant(before, layer.weights) == 0)) for layer in weighted_ops(before))
    stored = [made.buffers[tensor.buffer].data for tensor in made.subgraphs[0].tensors if tensor.type == 9]
    kept = sum(int(np.sum(np.asarray(data) == 0)) for data in stored if data is not None)
    assert zeros > 500
    assert kept >= zeros



@pytest.mark.parametrize("harm", ["index", "start", "rows", "values", "order", "reader", "axis"])
def test_a_sparse_constant_that_would_be_read_beyond_its_end_is_refused(pruned: LiteRTModel, harm: str) -> None:
    tables = read_tables(pruned.data)
    assert make_sparse(tables)
    check_tflite(pack_model(tables))
    tensor = next(each for each in tables.subgraphs[0].tensors if each.sparsity is not None)
    level = tensor.sparsity.dimMetadata[-1]
    if harm == "index":
        level.arrayIndices.values[-1] = tensor.shape[-1]
    elif harm == "start":
        level.arraySegments.values[1] = level.arraySegments.values[-1] + 1
    elif harm == "rows":
        level.arraySegments.values = level.arraySegments.values[:-1]
    elif harm == "values":
        buffer = tables.buffers[tensor.buffer]
        buffer.data = buffer.data[:-4]
    elif harm == "order":
        tensor.sparsity.traversalOrder = tensor.sparsity.traversalOrder[::-1]
    elif harm == "axis":
        tensor.sparsity.dimMetadata[0].denseSize += 1
    else:
        index = next(i for i, each in enumerate(tables.subgraphs[0].tensors) if each is tensor)
        op = next(op for op in tables.subgraphs[0].operators if kind_of(tables, op) != "DENSIFY")
        op.inputs = np.array([op.inputs[0], index, *op.inputs[2:]], np.int32)
    with pytest.raises(BadModel, match="sparse"):
        check_tflite(pack_model(tables))


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0.5, 1.0), seed=st.integers(0, 5))
def test_any_pattern_of_zeros_comes_back(pruned: LiteRTModel, share: float, seed: int) -> None:
    tables, rng = read_tables(pruned.data), np.random.default_rng(seed)
    for layer in weighted_ops(tables):
        weights = rng.normal(size=constant(tables, layer.weights).shape).astype(np.float32)
        set_constant(tables, layer.weights, weights * (rng.random(weights.shape) >= share))
    dense = pack_model(tables)
    make_sparse(tables)
    feeds = next(iter(open_samples(images(1), pruned.inputs)))
    np.testing.assert_array_equal(outputs(pack_model(tables), feeds), outputs(dense, feeds))
