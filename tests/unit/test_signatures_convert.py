"""What the signatures of a file are, and that each of them is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array, LiteRTModel, OnnxModel
from edgekit.converters.onnx_model import describe
from edgekit.errors import BadModel, BadRecipe, UnknownName, VerificationFailed
from edgekit.graph.stages import split_stages, with_fixed_shapes
from edgekit.parity import reference_sample
from edgekit.recipe import ConvertRecipe
from edgekit.signatures import compare_signatures, convert_signatures, parts_of, run_signatures, stages


def model(
    nodes: list[onnx.NodeProto], inputs: dict[str, list[Any]], outputs: list[str], weights: dict[str, Array]
) -> OnnxModel:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(data, name) for name, data in weights.items()],
    )
    return describe(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def dense(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def two_ends() -> OnnxModel:
    """x -> a -> b -> c, with an output at each side of b, and a second input that only c reads, doubled."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["aside"]),
        helper.make_node("MatMul", ["a", "w2"], ["b"]),
        helper.make_node("Add", ["second", "second"], ["doubled"]),
        helper.make_node("Add", ["b", "doubled"], ["c"]),
    ]
    return model(nodes, {"x": [1, 8], "second": [1, 8]}, ["aside", "c"], {"w1": dense(1, 8, 8), "w2": dense(2, 8, 8)})


def ends(part: OnnxModel) -> tuple[list[str], list[str]]:
    return [spec.name for spec in part.inputs], [spec.name for spec in part.outputs]


def test_stages_take_and_give_what_belongs_to_them() -> None:
    found = [ends(part) for part in split_stages(with_fixed_shapes(two_ends(), {}), ["b", "a"])]
    assert found == [(["x"], ["a"]), (["a"], ["b", "aside"]), (["b", "second"], ["c"])]


def test_a_tensor_that_does_not_come_from_the_one_before_is_refused() -> None:
    with pytest.raises(BadRecipe, match="'doubled' does not depend on 'b'"):
        split_stages(with_fixed_shapes(two_ends(), {}), ["b", "doubled"])
    with pytest.raises(UnknownName, match="'nowhere'"):
        split_stages(two_ends(), ["nowhere"])


def test_shapes_that_inference_does_not_know_come_from_the_stage_before() -> None:
    # MOD on the way to the target shape is beyond ONNX's shape inference
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Mod", ["sizes", "twenty"], ["target"]),
        helper.make_node("Reshape", ["x", "target"], ["same"]),
        helper.make_node("MatMul", ["same", "w"], ["middle"]),
        helper.make_node("Relu", ["middle"], ["end"]),
    ]
    weights = {"twenty": np.array([20, 20], np.int64), "w": dense(1, 8, 6)}
    network = model(nodes, {"x": ["n", 8]}, ["end"], weights)
    parts = stages(network, ["middle"], ConvertRecipe(shapes={"x": (3, 8)}))
    assert [spec.shape for spec in parts["stage2"][0].inputs] == [(3, 6)]
    assert [spec.shape for spec in stages(network, ["middle"])["stage2"][0].inputs] == [(-1, 6)]


def test_a_tensor_is_handed_on_in_one_order_of_axes() -> None:
    """A convolution gives N, H, W, C; by itself a reshape would take N, C, H, W."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["middle"]),
        helper.make_node("Reshape", ["middle", "shape"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w2"], ["y"]),
    ]
    weights = {"w1": dense(1, 4, 3, 3, 3), "shape": np.array([1, 4, 36], np.int64), "w2": dense(2, 36, 5)}
    packed = convert_signatures(stages(model(nodes, {"x": [1, 3, 8, 8]}, ["y"], weights), ["middle"]))
    converted = packed.conversion.model
    assert isinstance(converted, LiteRTModel)
    first, second, full = converted.signatures
    assert first.outputs == second.inputs
    assert (first.outputs[0].layout, first.outputs[0].shape) == ("nhwc", (1, 6, 6, 4))
    x = {"x": dense(3, 1, 3, 8, 8)}
    whole = run_signatures(converted, {"full": x, "stage1": x})
    chained = run_signatures(converted, {"stage2": whole["stage1"]})["stage2"]
    np.testing.assert_allclose(chained["y"], whole["full"]["y"], rtol=1e-5, atol=1e-5)
    assert full.inputs == first.inputs


def products(seed: int) -> OnnxModel:
    return model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 8]}, ["y"], {"w": dense(seed, 8, 5)})


def test_every_signature_is_compared(tmp_path: Path) -> None:
    """A file whose second signature computes another network than the one it is said to be."""
    recipe = ConvertRecipe(shapes={"x": (2, 8)})
    packed = convert_signatures({"one": (products(1), recipe), "two": (products(2), recipe)}, tmp_path / "m.tflite")
    assert packed.conversion.verification is not None
    assert [output.name for output in packed.conversion.verification.outputs] == ["one:y", "two:y"]
    converted = packed.conversion.model
    assert isinstance(converted, LiteRTModel)
    reports = compare_signatures(converted, {"one": (products(1), recipe), "two": (products(3), recipe)})
    assert {name: report.passed for name, report in reports.items()} == {"one": True, "two": False}
    with pytest.raises(BadModel, match="no signature 'three'"):
        run_signatures(converted, {"three": {"x": dense(1, 2, 8)}})


def test_a_file_that_fails_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"one": (products(1), ConvertRecipe()), "two": (products(2), ConvertRecipe())}

    def altered(reference: OnnxModel, *arguments: Any, **options: Any) -> Any:
        inputs, outputs = reference_sample(reference, *arguments, **options)
        return inputs, {name: array + (reference is parts["two"][0]) for name, array in outputs.items()}

    monkeypatch.setattr("edgekit.signatures.reference_sample", altered)
    with pytest.raises(VerificationFailed, match="'two:y'") as failure:
        convert_signatures(parts, tmp_path / "m.tflite")
    assert "one:y" not in str(failure.value)
    assert not (tmp_path / "m.tflite").exists()


def test_the_default_signature_comes_first() -> None:
    recipe = ConvertRecipe(verify=False)
    packed = convert_signatures({"one": (products(1), recipe), "serving_default": (products(2), recipe)})
    converted = packed.conversion.model
    assert isinstance(converted, LiteRTModel)
    assert [signature.name for signature in converted.signatures] == ["serving_default", "one"]
    assert packed.verifications == {}
    assert packed.conversion.verification is None


def test_parts_need_something_to_be_made_of() -> None:
    with pytest.raises(BadRecipe, match="Neither"):
        parts_of(products(1))
    with pytest.raises(BadRecipe, match="no name"):
        parts_of(products(1), [(" ", {})])
    with pytest.raises(BadRecipe, match="No signatures"):
        convert_signatures({})
