"""From a photograph to the tensor a network wants, as the manifest says (runtimes/SPEC.md, "Preprocessing")."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array, TensorSpec
from edgekit.errors import BadBundle, BadInput
from edgekit.recipe import Preprocess
from edgekit.runtime.choose import image_axes
from edgekit.runtime.resize import Image, resize

__all__ = ["ImageInput"]

# ITU-R BT.601 in 16-bit fixed point, so that every language and Pillow's "L" mode give the same grey level.
_GRAY_WEIGHTS = (19595, 38470, 7471)
_GRAY_HALF = 1 << 15


class ImageInput:
    """Makes the input ``spec`` from uint8 RGB images (H, W, 3) of any size."""

    def __init__(self, spec: TensorSpec, recipe: Preprocess, resolution: tuple[int, int] | None) -> None:
        """``resolution`` is (height, width) in pixels; None where the input's size is free and nobody gave one.

        Raises BadBundle when ``spec`` is not an input that the recipe can fill.
        """
        channels = len(recipe.mean)
        axes = image_axes(spec)
        plain = recipe.mean == (0.0,) * channels and recipe.std == (1.0,) * channels
        channel_axis = 3 if spec.layout == "nhwc" else 1
        if axes is None or spec.shape[channel_axis] not in (-1, channels) or spec.shape[0] not in (-1, 1):
            raise BadBundle(f"The manifest asks for image preprocessing, but the input '{spec.name}' of shape "
                            f"{list(spec.shape)} does not hold one image of {channels} channels.")
        if not (spec.dtype in ("float32", "float16") or (spec.dtype == "uint8" and plain)):
            raise BadBundle(f"The manifest asks for normalised pixels, but the input '{spec.name}' is {spec.dtype}.",
                            "Preprocessing fills float inputs, and uint8 inputs with mean 0 and deviation 1.")
        self._spec = spec
        self._recipe = recipe
        self._resolution = resolution
        self._axes = axes
        self._rows: dict[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = {}

    def __call__(self, image: Array) -> Array:
        """The input tensor (batch 1) in stored order. Raises BadInput for anything but a uint8 (H, W, 3) array."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise BadInput(f"The image is a {image.dtype} array of shape {list(image.shape)}.",
                           "Wanted: uint8 of shape [height, width, 3], in the order red, green, blue.")
        if self._resolution is None:
            raise BadInput(f"The input '{self._spec.name}' takes any image size, and the bundle names none.",
                           "Say which: RuntimeOptions(resolution=(height, width)).")
        pixels = resize(self._cropped(image.astype(np.uint8, copy=False)), *self._resolution)
        return self._normalised(_coloured(pixels, self._recipe.colour))

    def _cropped(self, image: Image) -> Image:
        if self._recipe.resize == "stretch":
            return image
        height, width = image.shape[:2]
        side = max(1, math.floor(self._recipe.crop_fraction * min(height, width) + 0.5))
        top, left = (height - side) // 2, (width - side) // 2
        return image[top:top + side, left:left + side]

    def _normalised(self, pixels: Image) -> Array:
        height, width, channels = pixels.shape
        if self._spec.dtype == "uint8":
            values: Array = pixels
        else:
            # A row of W x C values at a time: numpy is slow over a last axis of length 3.
            means, deviations = self._rows_of(width)
            scaled = pixels.reshape(height, width * channels) - means
            scaled /= deviations
            values = scaled.astype(self._spec.dtype, copy=False).reshape(height, width, channels)
        if self._spec.layout != "nhwc":
            values = np.ascontiguousarray(values.transpose(2, 0, 1))
        return values[np.newaxis]

    def _rows_of(self, width: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Mean and deviation for each value of a row, of the last width asked for: making them takes 40 us."""
        found = self._rows.get(width)
        if found is None:
            found = _tiled(self._recipe.mean, width), _tiled(self._recipe.std, width)
            self._rows = {width: found}
        return found


def _tiled(values: tuple[float, ...], width: int) -> npt.NDArray[np.float32]:
    return np.tile(np.array(values, np.float32), width)


def _coloured(pixels: Image, colour: str) -> Image:
    if colour == "rgb":
        return pixels
    if colour == "bgr":
        return np.ascontiguousarray(pixels[:, :, ::-1])
    red, green, blue = (pixels[:, :, channel].astype(np.uint32) * weight
                        for channel, weight in enumerate(_GRAY_WEIGHTS))
    return ((red + green + blue + _GRAY_HALF) >> 16).astype(np.uint8)[:, :, np.newaxis]
