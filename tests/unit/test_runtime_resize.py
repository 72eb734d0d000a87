"""Resizing against Pillow's BILINEAR, which defines each of its two steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekit.runtime.resize import resize

SIDES = st.integers(1, 90)


def pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow along x and then along y; in one call it may choose the other order."""
    wide = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(wide.resize((width, height), Image.Resampling.BILINEAR))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 9))
def test_every_size_is_equal_to_pillow(height: int, width: int, to_height: int, to_width: int,
                                        seed: int) -> None:
    image = noise(height, width, seed)
    ours = resize(image, to_height, to_width)
    assert ours.shape == (to_height, to_width, 3)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, pillow(image, to_height, to_width))


@pytest.mark.parametrize(("height", "width", "to"), [(600, 512, 224), (1080, 1920, 224), (97, 131, 224)])
def test_common_sizes_are_equal_to_pillow(height: int, width: int, to: int) -> None:
    image = noise(height, width)
    np.testing.assert_array_equal(resize(image, to, to), pillow(image, to, to))


@pytest.mark.parametrize(("height", "width", "to"), [(512, 512, 224), (600, 512, 224), (300, 900, 192)])
def test_pillow_in_one_call_is_at_most_a_level_away(height: int, width: int, to: int) -> None:
    image = noise(height, width)
    once = np.asarray(Image.fromarray(image).resize((to, to), Image.Resampling.BILINEAR))
    assert np.abs(resize(image, to, to).astype(int) - once).max() <= 1


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, 8, 8)[:, 1:-1]
    assert np.abs(small.astype(int) - 127.5).max() <= 1


def test_the_extremes_of_grey_neither_wrap_nor_fade() -> None:
    for level in (0, 255):
        assert (resize(np.full((37, 53, 3), level, np.uint8), 224, 19) == level).all()


def test_a_view_of_a_larger_image_is_resized_like_its_copy() -> None:
    view = noise(50, 60)[5:41, 7:50]
    assert not view.flags.c_contiguous
    assert (resize(view, 20, 30) == resize(view.copy(), 20, 30)).all()


def test_the_same_size_is_the_same_image() -> None:
    image = noise(9, 7)
    assert resize(image, 9, 7) is image
