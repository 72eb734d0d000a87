"""From photographs to tensors."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgekit.artifacts import TensorSpec
from edgekit.errors import BadBundle, BadInput
from edgekit.recipe import Preprocess
from edgekit.runtime.preprocess import ImageInput

NHWC = TensorSpec("image", "float32", (1, 8, 8, 3), "nhwc")
NCHW = TensorSpec("image", "float32", (1, 3, 8, 8))
AS_IS = Preprocess(resize="stretch", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def photograph(height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_each_channel_is_shifted_and_scaled_by_its_own_numbers() -> None:
    recipe = Preprocess(resize="stretch", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    image = photograph()
    got = ImageInput(NHWC, recipe, (8, 8))(image)
    wanted = (image - np.array(recipe.mean)) / np.array(recipe.std)
    assert got.dtype == np.float32
    assert got.shape == (1, 8, 8, 3)
    np.testing.assert_allclose(got[0], wanted, rtol=1e-6, atol=1e-6)


def test_both_stored_orders_hold_the_same_pixels() -> None:
    image = photograph(30, 20)
    pixels = ImageInput(NHWC, Preprocess(), (8, 8))(image)
    planes = ImageInput(NCHW, Preprocess(), (8, 8))(image)
    assert planes.shape == (1, 3, 8, 8)
    assert planes.flags.c_contiguous
    np.testing.assert_array_equal(planes.transpose(0, 2, 3, 1), pixels)


def test_bgr_swaps_the_channels_before_the_mean_is_taken_off() -> None:
    image = photograph()
    recipe = Preprocess(colour="bgr", resize="stretch", mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))
    got = ImageInput(NHWC, recipe, (8, 8))(image)
    np.testing.assert_array_equal(got[0], image[:, :, ::-1].astype(np.float32) - np.array([1, 2, 3], np.float32))


def test_gray_is_the_luminance_that_pillow_computes() -> None:
    image = photograph()
    recipe = Preprocess(colour="gray", resize="stretch", mean=(0.0,), std=(1.0,))
    got = ImageInput(TensorSpec("image", "float32", (1, 8, 8, 1), "nhwc"), recipe, (8, 8))(image)
    np.testing.assert_array_equal(got[0, :, :, 0], np.asarray(Image.fromarray(image).convert("L"), np.float32))


@pytest.mark.parametrize(("height", "width", "fraction"), [(40, 60, 0.875), (61, 40, 0.5), (33, 33, 1.0), (1, 9, 0.1)])
def test_center_crop_takes_the_central_square(height: int, width: int, fraction: float) -> None:
    image = photograph(height, width)
    recipe = Preprocess(crop_fraction=fraction, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    side = max(1, int(fraction * min(height, width) + 0.5))
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(image).crop((left, top, left + side, top + side))
    wanted = np.asarray(square.resize((8, 8), Image.Resampling.BILINEAR), np.float32)
    got = ImageInput(NHWC, recipe, (8, 8))(image)
    np.testing.assert_array_equal(got[0], wanted)


def test_stretch_uses_the_whole_image_for_an_oblong_input() -> None:
    image = photograph(20, 30)
    got = ImageInput(TensorSpec("image", "float32", (1, 4, 10, 3), "nhwc"), AS_IS, (4, 10))(image)
    wanted = np.asarray(Image.fromarray(image).resize((10, 4), Image.Resampling.BILINEAR), np.float32)
    np.testing.assert_array_equal(got[0], wanted)


def test_a_uint8_network_gets_its_pixels_as_they_are() -> None:
    image = photograph()
    got = ImageInput(TensorSpec("image", "uint8", (1, 8, 8, 3), "nhwc"), AS_IS, (8, 8))(image)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[0], image)


def test_half_precision_is_rounded_at_the_end() -> None:
    image = photograph()
    got = ImageInput(TensorSpec("image", "float16", (1, 8, 8, 3), "nhwc"), Preprocess(resize="stretch"), (8, 8))(image)
    np.testing.assert_array_equal(got[0], ((image.astype(np.float32) - 127) / 128).astype(np.float16))


@pytest.mark.parametrize("image", [
    np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8), np.zeros((8, 8, 3)),
])
def test_what_is_no_rgb_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(BadInput, match=r"uint8 of shape \[height, width, 3\]"):
        ImageInput(NHWC, Preprocess(), (8, 8))(image)


def test_without_a_resolution_the_remedy_says_how_to_give_one() -> None:
    free = TensorSpec("image", "float32", (-1, -1, -1, 3), "nhwc")
    with pytest.raises(BadInput, match=r"RuntimeOptions\(resolution="):
        ImageInput(free, Preprocess(), None)(photograph())


@pytest.mark.parametrize("spec", [
    TensorSpec("x", "float32", (1, 12)),
    TensorSpec("x", "float32", (1, 8, 8, 3)),  # the channels of this order are 8
    TensorSpec("x", "float32", (1, 8, 8, 1), "nhwc"),
    TensorSpec("x", "float32", (4, 8, 8, 3), "nhwc"),
    TensorSpec("x", "int8", (1, 8, 8, 3), "nhwc"),
    TensorSpec("x", "uint8", (1, 8, 8, 3), "nhwc"),  # the recipe normalises, so pixels would not be what it wants
])
def test_a_manifest_whose_input_cannot_be_filled_is_refused(spec: TensorSpec) -> None:
    with pytest.raises(BadBundle, match="'x'"):
        ImageInput(spec, Preprocess(), (8, 8))
