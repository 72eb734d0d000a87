"""``convert`` and ``build``: what they write, in which order they work, and that a failure writes nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.artifacts import Conversion, LiteRTModel, OnnxModel, OrtModel
from edgekit.bundle import Bundle, Manifest, generate_key_pair, load_private_key
from edgekit.converters import onnx_to_litert
from edgekit.converters.onnx_model import describe
from edgekit.errors import (
    BadModel,
    BadRecipe,
    EdgeKitError,
    UnknownName,
    UnsupportedOps,
    VerificationFailed,
    WriteFailed,
)
from edgekit.pipeline import build, convert
from edgekit.recipe import BuildRecipe, ConvertRecipe, Preprocess
from tests.graphs import classifier, conv_net, model_of, node

LABELS = ("ant", "bee", "cat", "dog", "eel")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(classifier().data)
    return path


def unsupported() -> OnnxModel:
    nodes = [node("Foo", ["x"], ["a"], domain="acme"), node("Bar", ["a"], ["y"], domain="acme")]
    return model_of(nodes, {"x": [1, 2]}, {"y": [1, 2]})


def with_other_weights(model: OnnxModel) -> OnnxModel:
    proto = onnx.load_from_string(model.data)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name))
    return describe(proto)


@pytest.fixture
def wrong_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A LiteRT converter with a bug: every weight comes out 10 % too large."""
    right = onnx_to_litert.to_litert

    def wrong(model: OnnxModel, recipe: ConvertRecipe) -> Conversion:
        return right(with_other_weights(model), recipe)

    monkeypatch.setattr(onnx_to_litert, "to_litert", wrong)


# -- convert ---------------------------------------------------------------------------------------------------------


def test_convert_writes_what_it_returns_and_verifies_it(source: Path, tmp_path: Path) -> None:
    for engine, name, kind in (("litert", "a.tflite", LiteRTModel), ("ort", "a.onnx", OrtModel)):
        result = convert(source, "litert" if engine == "litert" else "ort", tmp_path / name)
        assert isinstance(result.model, kind)
        assert (tmp_path / name).read_bytes() == result.model.data
        assert result.verification is not None
        assert result.verification.passed
        assert result.seconds > 0


def test_convert_without_a_file_writes_nothing(source: Path, tmp_path: Path) -> None:
    result = convert(source, "ort", recipe=ConvertRecipe(verify=False))
    assert result.verification is None
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("wish", "name", "magic"),
    [("auto", "m.ort", b"ORTM"), ("auto", "m.onnx", None), ("ort", "m.bin", b"ORTM"), ("onnx", "m.ort", None)],
)
def test_the_format_for_onnx_runtime_follows_the_wish_then_the_name(
    wish: str, name: str, magic: bytes | None, source: Path, tmp_path: Path
) -> None:
    recipe = msgspec.convert({"ort_format": wish, "verify": False}, ConvertRecipe)
    result = convert(source, "ort", tmp_path / name, recipe)
    assert isinstance(result.model, OrtModel)
    assert result.model.format == ("ort" if magic else "onnx")
    assert ((tmp_path / name).read_bytes()[4:8] == b"ORTM") == bool(magic)


def test_stages_are_announced_in_their_order(source: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    convert(source, "litert", tmp_path / "m.tflite", on_stage=seen.append)
    assert seen == ["load", "lower", "verify", "write"]


@pytest.mark.usefixtures("wrong_converter")
def test_a_model_that_answers_wrongly_is_never_written(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.tflite"
    out.write_bytes(b"what was there")
    with pytest.raises(VerificationFailed, match="'scores'"):
        convert(source, "litert", out)
    assert out.read_bytes() == b"what was there"
    with pytest.raises(VerificationFailed, match=r"variant for 'litert'.*test vector 0"):
        build(source, tmp_path / "m.edge")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.tflite", "net.onnx"]


@pytest.mark.parametrize("engine", ["litert", "ort"])
def test_what_cannot_be_converted_leaves_nothing_behind(engine: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOps, match=r"node_a[\s\S]*node_y"):
        convert(unsupported(), "litert" if engine == "litert" else "ort", tmp_path / "m")
    (tmp_path / "damaged.onnx").write_bytes(classifier().data[:500])
    with pytest.raises(BadModel):
        convert(tmp_path / "damaged.onnx", "litert", tmp_path / "m")
    with pytest.raises(BadModel):
        convert(tmp_path / "missing.onnx", "ort", tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.onnx"]


def test_an_unknown_engine_is_refused_with_the_known_ones(source: Path) -> None:
    with pytest.raises(UnknownName, match="Known: litert, ort"):
        convert(source, "coreml")  # type: ignore[arg-type]


def test_a_place_that_cannot_be_written_to_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(WriteFailed):
        convert(source, "ort", tmp_path / "no" / "such" / "m.onnx", ConvertRecipe(verify=False))
    with pytest.raises(WriteFailed):
        build(source, tmp_path, BuildRecipe(convert=ConvertRecipe(verify=False)))


# -- build -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("built")
    (folder / "net.onnx").write_bytes(classifier().data)
    recipe = BuildRecipe(name="pets", preprocess=Preprocess(), labels=LABELS, test_vectors=2)
    return folder / "net.edge", build(folder / "net.onnx", folder / "net.edge", recipe)


def test_a_bundle_holds_a_variant_for_each_engine(built: tuple[Path, Manifest]) -> None:
    path, manifest = built
    with Bundle.open(path) as bundle:
        assert bundle.manifest == manifest
        bundle.verify_all()
    assert [(variant.id, variant.engine, variant.format, variant.precision, variant.resolution)
            for variant in manifest.variants] == [
        ("litert-fp32", "litert", "tflite", "fp32", (16, 16)), ("ort-fp32", "ort", "onnx", "fp32", (16, 16))]
    assert manifest.variants[0].inputs[0].shape == (1, 16, 16, 3)
    assert manifest.variants[1].inputs[0].shape == (1, 3, 16, 16)
    assert manifest.task == "classification"


def test_labels_and_test_vectors_are_entries(built: tuple[Path, Manifest]) -> None:
    path, manifest = built
    with Bundle.open(path) as bundle:
        assert manifest.labels_entry is not None
        assert bundle.read(manifest.labels_entry).decode().split("\n") == [*LABELS, ""]
        first, second = (bundle.read(vector.inputs[0].entry) for vector in manifest.test_vectors)
    assert first != second
    assert len(first) == 1 * 3 * 16 * 16 * 4
    assert manifest.test_vectors[0].tolerance == 1e-4


def test_the_provenance_says_what_it_was_made_from_and_with(built: tuple[Path, Manifest]) -> None:
    path, manifest = built
    provenance = manifest.provenance
    assert provenance.source_name == "net.onnx"
    assert provenance.source_sha256 == hashlib.sha256((path.parent / "net.onnx").read_bytes()).hexdigest()
    assert {"edgekit-sdk", "onnx", "onnxruntime", "ai-edge-litert", "numpy"} <= provenance.tools.keys()
    recipe = msgspec.convert(json.loads(json.dumps(provenance.recipe)), BuildRecipe)
    assert recipe.convert.tolerance == 1e-4
    assert recipe.test_vectors == 2
    assert str(path.parent).encode() not in path.read_bytes()


def test_the_same_input_gives_the_same_bytes(built: tuple[Path, Manifest], tmp_path: Path) -> None:
    path, _ = built
    recipe = BuildRecipe(name="pets", preprocess=Preprocess(), labels=LABELS, test_vectors=2)
    build(path.parent / "net.onnx", tmp_path / "again.edge", recipe)
    assert (tmp_path / "again.edge").read_bytes() == path.read_bytes()


def test_a_key_signs_the_bundle(source: Path, tmp_path: Path) -> None:
    generate_key_pair(tmp_path / "key.pem", tmp_path / "key.pub")
    key = load_private_key(tmp_path / "key.pem")
    seen: list[str] = []
    build(source, tmp_path / "m.edge", key=key, on_stage=seen.append)
    with Bundle.open(tmp_path / "m.edge", public_key=tmp_path / "key.pub", require_signature=True) as bundle:
        assert bundle.signature_checked
    assert seen == ["load", "check", "lower", "vectors", "verify", "describe", "write"]


def test_one_engine_is_enough_and_other_networks_return_arrays(tmp_path: Path) -> None:
    recipe = BuildRecipe(engines=("ort",), convert=ConvertRecipe(ort_format="ort"))
    manifest = build(conv_net(), tmp_path / "m.edge", recipe)
    assert [(variant.id, variant.format, variant.resolution) for variant in manifest.variants] == [
        ("ort-fp32", "ort", None)]
    assert manifest.task == "arrays"
    assert manifest.labels_entry is None
    assert manifest.provenance.source_name == "model.onnx"
    assert [blob.shape for blob in manifest.test_vectors[0].outputs] == [(1, 4, 64, 64), (1, 4)]


def test_shapes_of_the_recipe_reach_variants_and_vectors(tmp_path: Path) -> None:
    recipe = BuildRecipe(convert=ConvertRecipe(shapes={"image": (1, 3, 12, 20)}))
    manifest = build(conv_net(), tmp_path / "m.edge", recipe)
    assert [variant.inputs[0].shape for variant in manifest.variants] == [(1, 12, 20, 3), (1, 3, 12, 20)]
    assert [variant.resolution for variant in manifest.variants] == [(12, 20), (12, 20)]
    assert manifest.test_vectors[0].inputs[0].shape == (1, 3, 12, 20)


def test_the_wish_for_nhwc_is_for_the_engine_that_has_a_choice(tmp_path: Path) -> None:
    manifest = build(conv_net(8, 8), tmp_path / "m.edge", BuildRecipe(convert=ConvertRecipe(io_layout="nhwc")))
    assert [variant.inputs[0].layout for variant in manifest.variants] == ["nhwc", "onnx"]
    with pytest.raises(BadRecipe, match="keeps the layout"):
        convert(conv_net(8, 8), "ort", recipe=ConvertRecipe(io_layout="nhwc"))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (BuildRecipe(labels=("ant", "bee")), "2 labels were given and the output 'scores' has 5 values"),
        (BuildRecipe(labels=("ant", "bee", "cat", "dog", "")), "empty or has a line break"),
        (BuildRecipe(preprocess=Preprocess(colour="gray", mean=(0.0,), std=(1.0,))), "gray images"),
    ],
)
def test_recipes_that_cannot_fit_are_refused_before_the_work(
    recipe: BuildRecipe, words: str, source: Path, tmp_path: Path
) -> None:
    seen: list[str] = []
    with pytest.raises(BadRecipe, match=words):
        build(source, tmp_path / "m.edge", recipe, on_stage=seen.append)
    assert seen == ["load", "check"]
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_preprocessing_needs_an_image(tmp_path: Path) -> None:
    model = model_of([node("Exp", ["x"], ["y"])], {"x": [1, 10]}, {"y": [1, 10]})
    with pytest.raises(BadRecipe, match=r"the network takes 'x' float32 \[1, 10\]"):
        build(model, tmp_path / "m.edge", BuildRecipe(preprocess=Preprocess()))


def test_errors_are_of_the_tree_and_say_what_to_do(tmp_path: Path) -> None:
    for broken in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(EdgeKitError) as caught:
            build(broken, tmp_path / "m.edge")
        assert str(broken) in caught.value.message
