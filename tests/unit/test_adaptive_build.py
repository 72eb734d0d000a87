"""build_adaptive: what is in the bundle, what it refuses, and that stages which answer wrongly are not written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from edgekit.adaptive import AdaptiveRecipe, build, build_adaptive
from edgekit.adaptive.quantized import quantize_resolutions
from edgekit.artifacts import Array, OnnxModel, Signature
from edgekit.bundle import Bundle, Ladder, generate_key_pair, load_private_key, load_public_key
from edgekit.converters.onnx_model import describe
from edgekit.errors import BadInput, BadRecipe, UnknownName, VerificationFailed
from edgekit.recipe import Preprocess, QuantRecipe, QuantRule
from tests.unit.adaptive_nets import CLASSES, Net, chain_litert, image, run_onnx, two_exits, wide_two_exits

SIZES = ((12, 12), (16, 20))
RECIPE = AdaptiveRecipe(resolutions=SIZES)
INT8 = AdaptiveRecipe(resolutions=((12, 12), (16, 16)), precision="int8")


def images(count: int = 6) -> Array:
    return np.random.default_rng(4).integers(0, 256, (count, 30, 24, 3), dtype=np.uint8)


def signatures(ladder: Ladder) -> list[Signature]:
    return [Signature(stage.signature, stage.inputs, stage.outputs) for stage in ladder.stages]


def vector(bundle: Bundle, ladder: Ladder) -> tuple[Array, dict[str, Array]]:
    (found,) = ladder.test_vectors
    arrays = {blob.name: np.frombuffer(bundle.read(blob.entry), blob.dtype).reshape(blob.shape)
              for blob in (*found.inputs, *found.outputs)}
    return arrays.pop(found.inputs[0].name).astype(np.float32), arrays


def test_a_ladder_for_each_resolution_in_one_file(tmp_path: Path) -> None:
    model = two_exits()
    manifest = build_adaptive(model, tmp_path / "n.edge", RECIPE)
    assert [ladder.id for ladder in manifest.ladders] == ["litert-fp32-12x12", "litert-fp32-16x20"]
    assert {stage.entry for ladder in manifest.ladders for stage in ladder.stages} == {"models/litert-fp32.tflite"}
    assert [stage.signature for stage in manifest.ladders[1].stages] == ["r16x20s0", "r16x20s1"]
    assert [stage.logits for stage in manifest.ladders[0].stages] == ["exit0", "exit1"]
    assert manifest.variants == ()
    with Bundle.open(tmp_path / "n.edge") as bundle:
        bundle.verify_all()
        assert bundle.manifest == manifest
        for ladder in manifest.ladders:
            start, want = vector(bundle, ladder)
            assert start.shape == (1, 3, *ladder.resolution)
            got = chain_litert(bundle.read("models/litert-fp32.tflite"), signatures(ladder), start)
            for name, answer in run_onnx(model, {"x": start}).items():
                np.testing.assert_allclose(got[name], answer, atol=1e-4)
                np.testing.assert_allclose(want[name], answer, atol=1e-5)


def test_ort_stages_share_graphs_and_weights(tmp_path: Path) -> None:
    model = two_exits()
    manifest = build_adaptive(model, tmp_path / "n.edge", msgspec.structs.replace(RECIPE, engines=("ort",)))
    assert [stage.entry for ladder in manifest.ladders for stage in ladder.stages] == [
        "models/ort-fp32-s0.onnx", "models/ort-fp32-s1.onnx"] * 2
    assert {ladder.weights for ladder in manifest.ladders} == {"models/ort-fp32.weights"}
    with Bundle.open(tmp_path / "n.edge") as bundle:
        values: dict[str, Array] = {"x": image(12)}
        for stage in manifest.ladders[0].stages:
            values |= run_stage(bundle, stage.entry, values)
    for name, answer in run_onnx(model, {"x": image(12)}).items():
        np.testing.assert_allclose(values[name], answer, atol=1e-4)


def run_stage(bundle: Bundle, entry: str, values: dict[str, Array]) -> dict[str, Array]:
    weights = bundle.read("models/ort-fp32.weights")
    options: Any = onnxruntime.SessionOptions()
    options.add_external_initializers_from_files_in_memory(["models/ort-fp32.weights"], [weights], [len(weights)])
    session = onnxruntime.InferenceSession(bundle.read(entry), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {value.name: values[value.name] for value in session.get_inputs()}),
                    strict=True))


def test_a_graph_that_depends_on_the_resolution_is_kept_for_each(tmp_path: Path) -> None:
    net = Net(2)
    value = net.node("Relu", net.conv("x", 3, 6))
    grid = net.node("ConstantOfShape", net.node("Shape", value))  # folded to a constant of the resolution's size
    deep = net.conv(net.node("Add", value, grid), 6, 6)
    model = net.model([net.head(value, 6), net.head(deep, 6)])
    recipe = msgspec.structs.replace(RECIPE, engines=("ort", "litert"))
    manifest = build_adaptive(model, tmp_path / "n.edge", recipe)
    assert [ladder.engine for ladder in manifest.ladders] == ["ort", "ort", "litert", "litert"]


def test_int8_calibrates_each_resolution_and_shares_weights(tmp_path: Path) -> None:
    model = two_exits()
    manifest = build_adaptive(model, tmp_path / "n.edge", INT8, calibration=images())
    assert [ladder.precision for ladder in manifest.ladders] == ["int8", "int8"]
    assert [stage.inputs[0].dtype for stage in manifest.ladders[0].stages] == ["float32", "int8"]
    with Bundle.open(tmp_path / "n.edge") as bundle:
        data = bundle.read("models/litert-int8.tflite")
        for ladder in manifest.ladders:
            start, want = vector(bundle, ladder)
            got = chain_litert(data, signatures(ladder), start)
            assert 0.02 <= ladder.test_vectors[0].tolerance <= 0.5
            for name, answer in want.items():
                np.testing.assert_array_equal(got[name], answer)
    wide = build_adaptive(model, tmp_path / "s.edge",
                          msgspec.structs.replace(INT8, preprocess=Preprocess(std=(1.0, 1.0, 1.0))),
                          calibration=images())
    assert wide.entries != manifest.entries, "the ranges follow the preprocessing"


def test_calibration_data_come_in_several_forms(tmp_path: Path) -> None:
    model, recipe = two_exits(), msgspec.structs.replace(INT8, resolutions=((12, 12),))
    np.save(tmp_path / "i.npy", images())
    np.savez(tmp_path / "i.npz", images=images(), labels=np.zeros(6, np.int64))
    floats = np.random.default_rng(0).standard_normal((3, 3, 12, 12)).astype(np.float32)
    sources: tuple[Array | str | Path, ...] = (images(), str(tmp_path / "i.npy"), tmp_path / "i.npz", floats, "random")
    made = [build_adaptive(model, tmp_path / f"{number}.edge", recipe, calibration=data).entries
            for number, data in enumerate(sources)]
    assert made[0] == made[1] == made[2]
    assert made[0] != made[3] != made[4]
    with pytest.raises(BadInput, match="cannot be read"):
        build_adaptive(model, tmp_path / "n.edge", recipe, calibration=tmp_path / "none.npz")
    with pytest.raises(BadInput, match=r"\[6, 30, 24\]"):
        build_adaptive(model, tmp_path / "n.edge", recipe, calibration=images()[..., 0])


def test_adaptive_rounding_is_found_once_for_all_resolutions() -> None:
    from edgekit.artifacts import LiteRTModel
    from edgekit.converters.onnx_to_litert import to_litert
    from edgekit.converters.quantize.flatbuffer import read_tables
    from edgekit.recipe import ConvertRecipe

    wholes = {}
    for side in (12, 16):
        made = to_litert(two_exits(), ConvertRecipe(shapes={"x": (1, 3, side, side)})).model
        assert isinstance(made, LiteRTModel)
        wholes[side, side] = made
    recipe = QuantRecipe(rules=(QuantRule("static8"),), rounding="adaptive")
    found = quantize_resolutions(wholes, recipe, images(), None)
    kernels = [{bytes(buffer.data) for buffer in read_tables(model.data).buffers
                if buffer.data is not None and len(buffer.data) >= 8 * 27} for model in found.values()]
    assert kernels[0] == kernels[1]


def test_the_same_input_gives_the_same_bytes_and_a_key_signs(tmp_path: Path) -> None:
    generate_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")
    key = load_private_key(tmp_path / "private.pem")
    steps: list[str] = []
    for name in ("a.edge", "b.edge"):
        build_adaptive(two_exits(), tmp_path / name, RECIPE, key, on_stage=steps.append)
    assert (tmp_path / "a.edge").read_bytes() == (tmp_path / "b.edge").read_bytes()
    assert steps[:4] == ["vectors", "stages", "verify", "write"]
    with Bundle.open(tmp_path / "a.edge", public_key=load_public_key(tmp_path / "public.pem"),
                     require_signature=True) as bundle:
        assert bundle.signature_checked


def test_labels_and_preprocessing_are_kept(tmp_path: Path) -> None:
    labels = tuple(f"class {number}" for number in range(CLASSES))
    recipe = msgspec.structs.replace(RECIPE, labels=labels, preprocess=Preprocess(), name="five", test_vectors=2)
    manifest = build_adaptive(two_exits(), tmp_path / "n.edge", recipe)
    assert (manifest.task, manifest.name, manifest.labels_entry) == ("classification", "five", "labels.txt")
    assert [len(ladder.test_vectors) for ladder in manifest.ladders] == [2, 2]
    assert manifest.provenance.recipe["resolutions"] == [[12, 12], [16, 20]]
    with pytest.raises(BadRecipe, match="4 labels"):
        build_adaptive(two_exits(), tmp_path / "n.edge", msgspec.structs.replace(recipe, labels=labels[:4]))


def test_stages_that_answer_wrongly_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.adaptive import chain

    def off(*arguments: Any) -> list[list[dict[str, Array]]]:
        found = chain.run_chains(*arguments)
        found[1][0]["exit0"] = found[1][0]["exit0"] * np.float32(1.01)
        return found

    monkeypatch.setattr(build, "run_chains", off)
    for recipe, data in ((RECIPE, None), (INT8, images())):
        with pytest.raises(VerificationFailed, match=r"-16x.*exit0"):
            build_adaptive(two_exits(), tmp_path / "n.edge", recipe, calibration=data)
    assert not (tmp_path / "n.edge").exists()


def changed(**fields: Any) -> AdaptiveRecipe:
    return msgspec.structs.replace(RECIPE, **fields)


def test_recipes_that_make_no_sense_cannot_be_made() -> None:
    for fields, words in (
        ({"resolutions": ()}, "at least one"), ({"resolutions": ((8, 8), (8, 8))}, "each once"),
        ({"resolutions": ((0, 8),)}, "at least 1 pixel"), ({"engines": ()}, "at least one"),
        ({"engines": ("ort",), "precision": "int8"}, "LiteRT only"), ({"test_vectors": 0}, "1 and 16"),
        ({"tolerance": 0.0}, "between 0 and 1"),
        ({"quantize": QuantRecipe((QuantRule("static8"),), ranges={"x": (0.0, 1.0)})}, "each resolution"),
        ({"quantize": QuantRecipe((QuantRule("static8"),), io="int8")}, "stay float32"),
    ):
        with pytest.raises(BadRecipe, match=words):
            changed(**fields)
    assert msgspec.json.decode(msgspec.json.encode(INT8), type=AdaptiveRecipe) == INT8


def test_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "n.edge"
    for model, recipe, error, words in (
        (two_exits(), changed(exits=("exit0", "exit7")), UnknownName, "exit7"),
        (long_way(), changed(exits=("exit1", "exit0")), BadRecipe, "shallow to deep"),
        (two_exits(), changed(exits=("exit0", "exit0")), BadRecipe, "twice"),
        (two_exits(12), RECIPE, BadRecipe, "dynamic sides"),
        (two_exits(), msgspec.structs.replace(INT8), BadRecipe, "calibration data"),
        (flat_input(), RECIPE, BadRecipe, "one float32 image"),
        (not_logits(), changed(engines=("ort",)), BadRecipe, "gives logits"),
    ):
        with pytest.raises(error, match=words):
            build_adaptive(model, out, recipe)
    assert not out.exists()


def long_way() -> OnnxModel:
    net = Net(1)
    value = first = net.node("Relu", net.conv("x", 3, 6))
    for _ in range(3):
        value = net.node("Relu", net.conv(value, 6, 6))
    return net.model([net.head(first, 6), net.head(value, 6)])


def flat_input() -> OnnxModel:
    proto = onnx.load_model_from_string(two_exits().data)
    del proto.graph.input[0].type.tensor_type.shape.dim[3]
    return describe(proto)


def not_logits() -> OnnxModel:
    net = Net(1)
    value = net.node("Relu", net.conv("x", 3, 6))
    proto = onnx.load_model_from_string(net.model([value, net.head(net.conv(value, 6, 6), 6)]).data)
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    return describe(onnx.shape_inference.infer_shapes(proto))


@pytest.mark.parametrize("recipe", [RECIPE, msgspec.structs.replace(RECIPE, engines=("ort",)), INT8],
                         ids=["litert", "ort", "int8"])
def test_a_network_for_each_resolution_shares_the_trunk(tmp_path: Path, recipe: AdaptiveRecipe) -> None:
    trunk = wide_two_exits(0)
    own = {resolution: wide_two_exits(seed) for seed, resolution in enumerate(recipe.resolutions)}
    calibration = images() if recipe.precision == "int8" else None
    build_adaptive(trunk, tmp_path / "one.edge", recipe, calibration=calibration)
    manifest = build_adaptive(own, tmp_path / "own.edge", recipe, calibration=calibration)
    with Bundle.open(tmp_path / "own.edge") as bundle:
        answers = [vector(bundle, ladder) for ladder in manifest.ladders]
    for (start, want), model in zip(answers, own.values(), strict=True):
        if recipe.precision == "fp32":  # in int8, building has compared bits with the quantized network of each
            for name, answer in run_onnx(model, {"x": start}).items():
                np.testing.assert_allclose(want[name], answer, atol=1e-4)
    more = (tmp_path / "own.edge").stat().st_size - (tmp_path / "one.edge").stat().st_size
    assert more < 0.3 * len(trunk.data)  # the second pair of heads, and no second trunk


def test_networks_for_other_resolutions_or_with_other_exits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match="one for each resolution"):
        build_adaptive({(12, 12): two_exits()}, tmp_path / "n.edge", RECIPE)
    other = msgspec.structs.replace(two_exits(), outputs=two_exits().outputs[:1])
    with pytest.raises(BadRecipe, match="different inputs or outputs"):
        build_adaptive({SIZES[0]: two_exits(), SIZES[1]: other}, tmp_path / "n.edge", RECIPE)
    assert not (tmp_path / "n.edge").exists()
