"""What may go into a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.artifacts import TensorSpec
from edgekit.errors import BadInput
from edgekit.runtime.inputs import FeedCheck, contiguous, in_onnx_order, to_onnx, to_stored

SPECS = (TensorSpec("image", "float32", (-1, 3, 4, 4), "nhwc"), TensorSpec("count", "int64", ()))
GOOD: dict[str, Any] = {"image": np.ones((2, 3, 4, 4), np.float32), "count": np.array(3)}


def refused(**changes: object) -> str:
    feeds = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(BadInput) as caught:
        FeedCheck(SPECS)(feeds)
    return str(caught.value)


def test_fitting_arrays_pass() -> None:
    FeedCheck(SPECS)(GOOD)
    FeedCheck(SPECS)({**GOOD, "image": np.ones((7, 4, 4, 3), np.float32).transpose(0, 3, 1, 2)})


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 4), (1, 2, 3, 4, 4), ()])
def test_a_wrong_shape_is_named_with_the_one_that_is_wanted(shape: tuple[int, ...]) -> None:
    message = refused(image=np.ones(shape, np.float32))
    assert f"'image' does not fit: got float32 of shape {list(shape)}" in message
    assert "float32 of shape [any, 3, 4, 4]" in message
    assert ("array_layout='stored'" in message) == (len(shape) == 4)


@pytest.mark.parametrize("dtype", ["float64", "uint8", ">f4", "float16", "complex64", "O"])
def test_nothing_is_cast(dtype: str) -> None:
    assert "Wanted: float32" in refused(image=np.ones((2, 3, 4, 4), dtype))


@pytest.mark.parametrize("value", [[1.0], 3, "text"])
def test_only_arrays_are_taken(value: object) -> None:
    assert "not a numpy array" in refused(count=value)


def test_names_are_checked_both_ways() -> None:
    assert "missing: count" in refused(count=None)
    assert "unknown: extra" in refused(extra=np.ones(1))
    message = refused(count=None, cuont=np.array(3))
    assert "missing: count; unknown: cuont" in message
    assert "Wanted: image, count." in message


@given(st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 95))
def test_one_bad_pixel_is_found_wherever_it_is(bad: float, place: int) -> None:
    image = np.ones((2, 3, 4, 4), np.float32)
    image.reshape(-1)[place] = bad
    assert "'image' holds" in refused(image=image)


def test_large_finite_values_are_no_infinity() -> None:
    FeedCheck(SPECS)({**GOOD, "image": np.full((2, 3, 4, 4), 3e38, np.float32)})


def test_the_message_counts_what_is_not_finite() -> None:
    image = np.ones((2, 3, 4, 4), np.float32)
    image[0, 0, 0] = np.nan
    image[1, 1, 1, 1] = -np.inf
    assert "4 NaN and 1 infinite values of 96" in refused(image=image)


def test_axes_go_to_the_stored_order_and_back_without_a_copy() -> None:
    stored = (TensorSpec("image", "float32", (-1, 4, 5, 3), "nhwc"), TensorSpec("flat", "float32", (1, 7)))
    assert [spec.shape for spec in in_onnx_order(stored)] == [(-1, 3, 4, 5), (1, 7)]
    arrays = {"image": np.random.default_rng(0).normal(size=(2, 3, 4, 5)), "flat": np.ones((1, 7))}
    views = to_stored(stored, arrays)
    assert views["image"].shape == (2, 4, 5, 3)
    assert views["image"][1, 2, 3, 0] == arrays["image"][1, 0, 2, 3]
    assert np.shares_memory(views["image"], arrays["image"])
    back = to_onnx(stored, views)
    np.testing.assert_array_equal(back["image"], arrays["image"])
    assert np.shares_memory(back["image"], arrays["image"])


@pytest.mark.parametrize("channels", [1, 3, 8, 9])
def test_a_copy_into_order_is_equal_to_its_source(channels: int) -> None:
    view = np.random.default_rng(0).normal(size=(2, channels, 5, 6)).transpose(0, 2, 3, 1)
    copy = contiguous(view)
    assert copy.flags.c_contiguous
    np.testing.assert_array_equal(copy, view)
    assert contiguous(copy) is copy
