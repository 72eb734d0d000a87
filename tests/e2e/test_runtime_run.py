"""Running bundles on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.artifacts import TensorSpec
from edgekit.errors import BadInput, UserError
from edgekit.recipe import Preprocess
from edgekit.runtime import Runtime, RuntimeOptions, decode_image, load
from tests.runtime_models import COLOURS, conv_tflite, pair_tflite, write_arrays, write_colours


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("bundles") / "colours.edge")


@pytest.fixture(params=["litert", "ort"])
def runtime(request: pytest.FixtureRequest, bundle: Path) -> Iterator[Runtime]:
    with load(bundle, request.param) as opened:
        yield opened


def photograph(colour: str, height: int = 40, width: int = 50) -> np.ndarray:
    image = np.full((height, width, 3), 40, np.uint8)
    image[:, :, COLOURS.index(colour)] = 200
    return image


@pytest.mark.parametrize("colour", COLOURS)
def test_a_photograph_is_named(runtime: Runtime, colour: str) -> None:
    answer = runtime.run(photograph(colour))
    assert answer.label == colour
    assert answer.score == answer.top[0][1] == max(score for _, score in answer.top)
    assert sum(score for _, score in answer.top) == pytest.approx(1)
    assert {label for label, _ in answer.top} == set(COLOURS)
    assert (answer.exit, answer.resolution, answer.reason) == (0, (4, 6), "complete")
    assert answer.latency_ms > 0
    scores = np.full(3, 40 / 255)
    scores[COLOURS.index(colour)] = 200 / 255
    np.testing.assert_allclose(answer.outputs["scores"][0], scores, rtol=1e-5)


def test_a_file_goes_through_decoding(runtime: Runtime, tmp_path: Path) -> None:
    Image.fromarray(photograph("blue")).save(tmp_path / "a.jpg", quality=95)
    assert runtime.run(decode_image(tmp_path / "a.jpg")).label == "blue"


def test_arrays_are_in_onnx_order_for_both_engines(bundle: Path) -> None:
    x = np.random.default_rng(0).random((1, 3, 5, 7), np.float32)
    answers = []
    for engine in ("litert", "ort"):
        with load(bundle, engine) as runtime:
            assert runtime.inputs[0].shape == (-1, 3, -1, -1)
            answers.append(runtime.run(x).outputs["scores"])
            np.testing.assert_array_equal(runtime.run({"image": x}).outputs["scores"], answers[-1])
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5)
    np.testing.assert_allclose(answers[0], x.mean((2, 3)), rtol=1e-5)


def test_the_stored_order_on_request(bundle: Path) -> None:
    x = np.random.default_rng(0).random((2, 5, 7, 3), np.float32)
    with load(bundle, "litert", RuntimeOptions(array_layout="stored")) as runtime:
        assert runtime.inputs[0].shape == (-1, -1, -1, 3)
        np.testing.assert_allclose(runtime.run(x).outputs["scores"], x.mean((1, 2)), rtol=1e-5)
        assert runtime.run(photograph("green")).label == "green"
        with pytest.raises(BadInput):
            runtime.run(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("layout", ["onnx", "stored"])
def test_outputs_come_in_the_same_order_as_inputs_go(tmp_path: Path, layout: str) -> None:
    path = write_arrays(tmp_path / "a.edge", conv_tflite(), [TensorSpec("image", "float32", (1, 8, 8, 3), "nhwc")],
                        [TensorSpec("features", "float32", (1, 8, 8, 16), "nhwc")])
    pixels = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
    with load(path, options=RuntimeOptions(array_layout="stored")) as runtime:
        wanted = runtime.run(pixels).outputs["features"]
    with load(path, options=RuntimeOptions(array_layout=layout)) as runtime:  # type: ignore[arg-type]
        x = pixels if layout == "stored" else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        answer = runtime.run(x)
        got = answer.outputs["features"]
        assert got.shape == runtime.outputs[0].shape == ((1, 8, 8, 16) if layout == "stored" else (1, 16, 8, 8))
        np.testing.assert_array_equal(got if layout == "stored" else got.transpose(0, 2, 3, 1), wanted)
        assert (answer.label, answer.score, answer.top) == (None, None, ())
        assert answer.resolution == (8, 8)


def test_a_batch_of_several_returns_arrays_without_a_label(runtime: Runtime) -> None:
    x = np.random.default_rng(0).random((3, 3, 5, 7), np.float32)
    answer = runtime.run(x)
    assert (answer.label, answer.top) == (None, ())
    assert answer.outputs["scores"].shape == (3, 3)
    assert answer.resolution == (5, 7)


def test_a_network_of_several_inputs_takes_them_by_name(tmp_path: Path) -> None:
    specs = [TensorSpec(name, "float32", (1, 4)) for name in ("zebra", "ant")]
    path = write_arrays(tmp_path / "a.edge", pair_tflite(), specs, [TensorSpec("sum", "float32", (1, 4))])
    with load(path) as runtime:
        answer = runtime.run({"zebra": np.ones((1, 4), np.float32), "ant": np.full((1, 4), 2, np.float32)})
        np.testing.assert_array_equal(answer.outputs["sum"], [[3, 3, 3, 3]])
        assert answer.resolution is None
        with pytest.raises(BadInput, match=r"2 inputs.*zebra, ant"):
            runtime.run(np.ones((1, 4), np.float32))


@pytest.mark.parametrize(("wrong", "message"), [
    (np.ones((1, 3, 4, 4)), "got float64.*float32 of shape"),
    (np.ones((1, 4, 4, 3), np.float32), r"got float32 of shape \[1, 4, 4, 3\]"),
    (np.ones((3, 4, 4), np.float32), "'image'"),
    (np.full((1, 3, 4, 4), np.nan, np.float32), "48 NaN"),
    (np.ones((4, 4, 1), np.uint8), "The image is a uint8 array"),
    (np.ones((4, 4), np.uint8), "'image' does not fit: got uint8"),
    ([[1.0]], "list"),
    (None, "NoneType"),
    ({"picture": np.ones((1, 3, 4, 4), np.float32)}, "unknown: picture"),
    ({}, "missing: image"),
])
def test_what_does_not_fit_is_bad_input(runtime: Runtime, wrong: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        runtime.run(wrong)  # type: ignore[arg-type]
    assert runtime.run(photograph("red")).label == "red"


def test_the_deadline_is_judged_but_the_answer_comes_all_the_same(runtime: Runtime) -> None:
    late = runtime.run(photograph("red"), deadline_ms=1e-6)
    assert late.label == "red"
    assert late.reason.startswith("complete: missed deadline of 1e-06 ms by ")
    assert runtime.run(photograph("red"), deadline_ms=60_000).reason == "complete"
    for nonsense in (0, -1, float("nan")):
        with pytest.raises(BadInput, match="deadline"):
            runtime.run(photograph("red"), deadline_ms=nonsense)


def test_top_limits_the_answers(bundle: Path) -> None:
    with load(bundle, options=RuntimeOptions(top=2)) as runtime:
        top = runtime.run(photograph("green")).top
        assert top[0][0] == "green"
        assert len(top) == 2


def test_without_preprocessing_an_image_is_an_array_like_any_other(tmp_path: Path) -> None:
    path = write_colours(tmp_path / "a.edge", preprocess=None)
    with load(path) as runtime, pytest.raises(BadInput, match="got uint8"):
        runtime.run(photograph("red"))


def test_both_engines_see_the_same_pixels(tmp_path: Path) -> None:
    recipe = Preprocess(mean=(120.0, 110.0, 100.0), std=(50.0, 60.0, 70.0))
    path = write_colours(tmp_path / "a.edge", preprocess=recipe)
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    answers = []
    for engine in ("litert", "ort"):
        with load(path, engine) as runtime:
            answers.append(runtime.run(image).outputs["scores"])
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-6)


def test_a_closed_runtime_says_so(runtime: Runtime) -> None:
    runtime.close()
    with pytest.raises(UserError, match="closed"):
        runtime.run(photograph("red"))
