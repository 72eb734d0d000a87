"""Comparing engines: the rule, the inputs, and what happens when a model is wrong, damaged or of another shape."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import numpy_helper

from edgekit.artifacts import LiteRTModel, OnnxModel, OrtModel, OutputError, TensorSpec, VerifyReport
from edgekit.bundle import Bundle, write_bundle
from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.converters.onnx_to_ort import to_ort
from edgekit.errors import (
    BadBundle,
    BadModel,
    BadRecipe,
    EngineError,
    SignatureMismatch,
    UnknownName,
    UserError,
    VerificationFailed,
)
from edgekit.parity import compare, compare_outputs, reference_sample, require_passed, run_isolated, verify
from edgekit.pipeline import build
from edgekit.recipe import BuildRecipe, ConvertRecipe
from edgekit.sample_inputs import candidate_shapes, random_inputs
from tests.graphs import classifier, conv_net, model_of, node

Floats = npt.NDArray[np.float32]


def one(want: npt.ArrayLike, got: npt.ArrayLike, tolerance: float = 1e-3) -> OutputError:
    (result,) = compare_outputs({"y": np.asarray(want)}, {"y": np.asarray(got)}, tolerance)
    return result


# -- the rule --------------------------------------------------------------------------------------------------------

finite = arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=3, max_side=5),
                       elements=st.floats(-1e6, 1e6, width=32))


@given(finite)
def test_an_array_equals_itself(array: Floats) -> None:
    result = one(array, array.copy())
    assert result.passed
    assert result.max_abs_diff == 0


@given(finite, st.integers(0, 10**6), st.floats(1.5, 100))
def test_a_difference_above_the_tolerance_fails_wherever_it_is(array: Floats, place: int, factor: float) -> None:
    want = np.append(array.astype(np.float64), [0.0, 10.0])
    spread = float(want.max() - want.min())
    got = want.copy()
    got[place % want.size] += factor * (1e-3 * spread + 1e-5 * float(np.abs(want).max()) + 1e-5)
    assert not one(want, got).passed


@given(finite, st.integers(0, 10**6), st.floats(0, 0.9))
def test_a_difference_within_the_tolerance_passes(array: Floats, place: int, part: float) -> None:
    want = np.append(array.astype(np.float64), [0.0, 10.0])
    got = want.copy()
    got[place % want.size] += part * 1e-3 * float(want.max() - want.min())
    assert one(want, got).passed


def test_nan_must_meet_nan() -> None:
    assert one([np.nan, 1.0, 3.0], [np.nan, 1.0, 3.0]).passed
    for got in ([1.0, np.nan, 3.0], [1.0, 1.0, 3.0], [np.nan, np.nan, 3.0]):
        result = one([np.nan, 1.0, 3.0], got)
        assert not result.passed
        assert "NaN" in result.problem


def test_infinities_must_have_the_same_sign() -> None:
    assert one([np.inf, 1.0, 2.0], [np.inf, 1.0, 2.0]).passed
    assert not one([np.inf, 1.0, 2.0], [-np.inf, 1.0, 2.0]).passed
    assert not one([np.inf, 1.0, 2.0], [5.0, 1.0, 2.0]).passed
    assert not one([0.0, 1.0, 2.0], [np.inf, 1.0, 2.0]).passed


def test_the_range_is_that_of_the_finite_reference() -> None:
    assert one([np.inf, 1.0, 4.0, np.nan], [np.inf, 1.0, 4.0, np.nan]).output_range == 3.0


def test_a_single_value_is_held_to_its_magnitude() -> None:
    assert one([100.0], [100.05]).passed
    assert not one([100.0], [100.5]).passed


def test_integers_and_bools_must_be_equal_even_beyond_float64() -> None:
    big = 2**60
    assert one(np.array([big]), np.array([big])).passed
    assert not one(np.array([big]), np.array([big + 1])).passed
    assert not one(np.array([3]), np.array([4]), tolerance=0.9).passed
    assert not one(np.array([True, False]), np.array([True, True])).passed


def test_another_shape_or_kind_of_dtype_is_a_failure_that_says_so() -> None:
    shape = one(np.zeros((1, 3)), np.zeros((3, 1)))
    assert not shape.passed
    assert shape.problem == "shape [3, 1] instead of [1, 3]"
    kind = one(np.zeros(3, np.float32), np.zeros(3, np.int32))
    assert kind.problem == "dtype int32 instead of float32"
    (missing,) = compare_outputs({"y": np.zeros(1)}, {}, 1e-3)
    assert not missing.passed
    assert "does not have this output" in missing.problem


def test_empty_outputs_compare_by_shape() -> None:
    assert one(np.zeros((0, 4)), np.zeros((0, 4))).passed
    assert not one(np.zeros((0, 4)), np.zeros((0, 5))).passed


def test_require_passed_names_every_output_that_failed() -> None:
    outputs = compare_outputs({"a": np.arange(3.0), "b": np.zeros(2), "c": np.zeros(2)},
                              {"a": np.arange(3.0) + 1, "b": np.zeros(3), "c": np.zeros(2)}, 1e-3)
    report = VerifyReport("The model", "the reference", 1e-3, outputs, passed=False, seconds=0.0)
    words = r"'a': differs by 1 at a range of 2; 'b': shape \[3\] instead"
    with pytest.raises(VerificationFailed, match=words) as caught:
        require_passed(report)
    assert "'c'" not in str(caught.value)


# -- inputs ----------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.sampled_from(["float32", "float16", "float64", "int64", "int32", "uint8", "int8", "bool"]),
       st.lists(st.integers(0, 4), max_size=4).map(tuple), st.integers(0, 99))
def test_inputs_are_seeded_and_of_the_right_kind(dtype: str, shape: tuple[int, ...], seed: int) -> None:
    spec = TensorSpec("x", dtype, shape)
    first = random_inputs([spec], {"x": shape}, seed)["x"]
    assert first.dtype == np.dtype(dtype)
    assert first.shape == shape
    np.testing.assert_array_equal(first, random_inputs([spec], {"x": shape}, seed)["x"])
    if first.dtype.kind in "iu" and first.dtype.itemsize > 1:
        assert ((first >= 0) & (first < 3)).all()


def test_a_dtype_without_values_is_refused() -> None:
    with pytest.raises(BadModel, match="complex64"):
        random_inputs([TensorSpec("x", "complex64", (1,))], {"x": (1,)})


def test_sizes_come_from_the_recipe_then_the_example_then_a_guess() -> None:
    hinted = conv_net(metadata={"edgekit.example_shapes": {"image": [1, 3, 40, 48]}})
    assert next(candidate_shapes(hinted, {"image": (1, 3, 8, 8)})) == {"image": (1, 3, 8, 8)}
    assert list(candidate_shapes(hinted, {})) == [{"image": (1, 3, 40, 48)}]
    assert list(candidate_shapes(conv_net(), {})) == [{"image": (1, 3, 64, 64)}, {"image": (1, 3, 224, 224)}]


def test_axes_with_one_symbol_get_one_size_also_when_another_input_is_fixed() -> None:
    model = model_of([node("Add", ["x", "y"], ["z"])], {"x": ["n", "m"], "y": ["n", "m"]}, {"z": ["n", "m"]})
    assert next(candidate_shapes(model, {})) == {"x": (1, 16), "y": (1, 16)}
    assert next(candidate_shapes(model, {"y": (5, 7)})) == {"x": (5, 7), "y": (5, 7)}


@pytest.mark.parametrize("note", [{"image": "large"}, {"image": [1, 3]}, {"image": [1, 3, -5, 0]}, ["image"], 7])
def test_a_senseless_hint_is_not_followed(note: object) -> None:
    model = conv_net(metadata={"edgekit.example_shapes": note})
    assert next(candidate_shapes(model, {})) == {"image": (1, 3, 64, 64)}


def test_a_size_that_the_network_refuses_is_followed_by_another() -> None:
    needs_many = model_of([node("AveragePool", ["x"], ["y"], kernel_shape=[100, 100])], {"x": [1, 2, "H", "W"]},
                          {"y": [1, 2, "h", "w"]})
    inputs, outputs = reference_sample(needs_many, {})
    assert inputs["x"].shape == (1, 2, 224, 224)
    assert outputs["y"].shape == (1, 2, 125, 125)


def test_when_no_size_suits_the_message_says_how_to_give_one() -> None:
    model = model_of([node("AveragePool", ["x"], ["y"], kernel_shape=[900, 900])], {"x": [1, 2, "H", "W"]},
                     {"y": [1, 2, "h", "w"]})
    with pytest.raises(EngineError, match="--shape"):
        reference_sample(model, {})
    with pytest.raises(UnknownName, match="Known: x"):
        reference_sample(model, {"image": (1, 2, 3, 4)})
    with pytest.raises(BadRecipe, match="does not fit"):
        reference_sample(model, {"x": (1, 3, 900, 900)})


# -- engines ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def litert() -> LiteRTModel:
    model = to_litert(conv_net()).model
    assert isinstance(model, LiteRTModel)
    return model


@pytest.fixture(scope="module")
def as_ort() -> OrtModel:
    model = to_ort(conv_net(), file_format="ort").model
    assert isinstance(model, OrtModel)
    return model


def test_both_engines_agree_with_the_reference_whatever_their_layout(litert: LiteRTModel, as_ort: OrtModel) -> None:
    assert litert.inputs[0].layout == "nhwc"
    for model in (litert, as_ort):
        report = compare(model, conv_net(), ConvertRecipe(shapes={"image": (1, 3, 6, 9)}))
        assert report.passed
        assert [output.name for output in report.outputs] == ["features", "scores"]
        assert all(output.output_range > 0.01 for output in report.outputs)
        assert report.seconds > 0


def with_changed_weight(model: OnnxModel) -> OnnxModel:
    proto = onnx.load_from_string(model.data)
    weight = numpy_helper.to_array(proto.graph.initializer[2]).copy()
    weight[0, 0, 0, 0] += 0.5
    proto.graph.initializer[2].CopyFrom(numpy_helper.from_array(weight, proto.graph.initializer[2].name))
    return describe(proto)


def test_one_wrong_weight_is_noticed(litert: LiteRTModel) -> None:
    report = compare(litert, with_changed_weight(conv_net()))
    assert not report.passed
    assert not report.outputs[0].passed
    with pytest.raises(VerificationFailed, match="The LiteRT model does not answer as the ONNX model does"):
        require_passed(report)


def test_where_the_optimized_reference_is_off_the_plain_one_decides(
    litert: LiteRTModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = conv_net()
    inputs, answers = reference_sample(net, {})
    off = {name: array + np.float32(0.01) * np.ptp(array) for name, array in answers.items()}
    monkeypatch.setattr("edgekit.parity.reference_sample", lambda *_: (inputs, off))
    report = compare(litert, net)
    assert report.passed
    assert "not optimized" in report.reference
    other = to_litert(with_changed_weight(net)).model
    assert isinstance(other, LiteRTModel)
    wrong = compare(other, net)
    assert not wrong.passed
    assert "not optimized" not in wrong.reference


def test_a_wrong_layout_is_noticed_by_the_shape(litert: LiteRTModel) -> None:
    outputs = tuple(msgspec.structs.replace(spec, layout="onnx") for spec in litert.outputs)
    report = compare(msgspec.structs.replace(litert, outputs=outputs), conv_net(7, 9))
    assert report.outputs[0].problem == "shape [1, 7, 9, 4] instead of [1, 4, 7, 9]"
    assert not report.passed


def test_other_names_or_another_order_are_refused(litert: LiteRTModel) -> None:
    model = msgspec.structs.replace(litert, outputs=litert.outputs[::-1])
    with pytest.raises(BadModel, match="names and order must be the same"):
        compare(model, conv_net())


@pytest.mark.parametrize("position", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.parametrize("engine", ["litert", "ort"])
def test_a_damaged_model_cannot_take_this_process_down(
    engine: str, position: float, litert: LiteRTModel, as_ort: OrtModel
) -> None:
    model: LiteRTModel | OrtModel = litert if engine == "litert" else as_ort
    at = int(position * len(model.data))
    data = model.data[:at] + bytes(255 - byte for byte in model.data[at : at + 40]) + model.data[at + 40 :]
    with suppress(UserError, EngineError):  # anything else, and a crash, fails the test
        # inverted bytes may also hit a weight, or padding, and leave a model that runs
        compare(msgspec.structs.replace(model, data=data), conv_net())


def test_a_truncated_model_is_an_error_of_the_tree(litert: LiteRTModel) -> None:
    with pytest.raises((BadModel, EngineError)):
        run_isolated("litert", litert.data[: len(litert.data) // 2], (litert.inputs, litert.outputs), {}, "The model")


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(conv_net().data)
    return path


def test_model_files_are_compared_with_their_source(
    tmp_path: Path, source: Path, litert: LiteRTModel, as_ort: OrtModel
) -> None:
    for suffix, model in ((".tflite", litert), (".ort", as_ort)):
        path = tmp_path / f"net{suffix}"
        path.write_bytes(model.data)
        (report,) = verify(path, against=source)
        assert report.passed
        assert report.subject == str(path)
        (report,) = verify(path, against=with_changed_weight(conv_net()))
        assert not report.passed


@pytest.mark.parametrize("size", [3, 8])
def test_the_layout_is_found_even_where_the_shape_fits_both(tmp_path: Path, size: int) -> None:
    model = conv_net(size, size, channels=size)
    path = tmp_path / "net.tflite"
    path.write_bytes(to_litert(model).model.data)
    (report,) = verify(path, against=model)
    assert report.passed


def test_what_cannot_be_compared_is_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(BadRecipe, match="nothing to compare"):
        verify(source)
    with pytest.raises(BadRecipe, match="only bundles are signed"):
        verify(source, against=source, require_signature=True)
    with pytest.raises(BadModel, match="cannot be read"):
        verify(tmp_path / "missing.tflite", against=source)
    with pytest.raises(UnknownName, match=r"Known: \.edge, \.tflite, \.ort, \.onnx"):
        verify(tmp_path / "net.pb", against=source)
    (tmp_path / "empty.tflite").touch()
    with pytest.raises(BadModel, match="0 bytes"):
        verify(tmp_path / "empty.tflite", against=source)


# -- bundles ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "net.edge"
    build(classifier(), path, BuildRecipe(name="net", test_vectors=2))
    return path


def test_a_bundle_is_checked_on_every_engine_and_vector(bundle: Path) -> None:
    reports = verify(bundle)
    assert [(report.subject, report.reference) for report in reports] == [
        (f"Variant '{variant}' of net.edge", f"test vector {number}")
        for variant in ("litert-fp32", "ort-fp32") for number in (0, 1)]
    assert all(report.passed for report in reports)


def test_a_bundle_can_be_held_to_its_source_too(bundle: Path) -> None:
    assert all(report.passed for report in verify(bundle, against=classifier()))
    proto = onnx.load_from_string(classifier().data)
    weight = numpy_helper.to_array(proto.graph.initializer[0]) * np.float32(1.5)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w0"))
    reports = verify(bundle, against=describe(proto))
    assert [report.passed for report in reports] == [True, True, False, True, True, False]


def test_a_vector_with_a_wrong_answer_is_reported(bundle: Path, tmp_path: Path) -> None:
    with Bundle.open(bundle) as opened:
        manifest = opened.manifest
        blobs = {entry.name: opened.read(entry.name) for entry in manifest.entries}
    entry = manifest.test_vectors[1].outputs[0].entry
    answer = np.frombuffer(blobs[entry], np.float32).copy()
    answer[2] += 0.1
    write_bundle(tmp_path / "wrong.edge", manifest, {**blobs, entry: answer.tobytes()})
    assert [report.passed for report in verify(tmp_path / "wrong.edge")] == [True, False, True, False]


def test_a_changed_byte_in_any_entry_is_a_bad_bundle(bundle: Path, tmp_path: Path) -> None:
    data = bytearray(bundle.read_bytes())
    with Bundle.open(bundle) as opened:
        offset, size = opened.span("models/ort-fp32.onnx")
    data[offset + size // 2] ^= 1
    (tmp_path / "flipped.edge").write_bytes(data)
    with pytest.raises(BadBundle, match=r"models/ort-fp32\.onnx"):
        verify(tmp_path / "flipped.edge")


def test_a_required_signature_must_be_there(bundle: Path, tmp_path: Path) -> None:
    from edgekit.bundle import generate_key_pair

    generate_key_pair(tmp_path / "key.pem", tmp_path / "key.pub")
    with pytest.raises(SignatureMismatch):
        verify(bundle, public_key=tmp_path / "key.pub", require_signature=True)
