"""Read a photograph from a file."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import BadInput, MissingExtra
from edgekit.runtime.resize import Image

__all__ = ["decode_image"]

_MAX_PIXELS = 89_478_485  # Pillow's own limit; a program that raises it in PIL.Image raises it here too
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def decode_image(path: Path | str) -> Image:
    """The image in ``path`` as a uint8 array (height, width, 3) in the order red, green, blue.

    It is turned upright as its EXIF data say; transparency is dropped; of an animation the first frame is taken.
    Raises BadInput for a missing, broken, too large (more pixels than PIL.Image.MAX_IMAGE_PIXELS) or not 8-bit image,
    MissingExtra without Pillow.
    """
    pillow = _import_pillow()
    ops = importlib.import_module("PIL.ImageOps")
    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice the limit; the error must come before the pixels are decoded.
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path) as file:
                _check(file, pillow.MAX_IMAGE_PIXELS or _MAX_PIXELS, path)
                pixels = np.asarray(ops.exif_transpose(file).convert("RGB"))
    except BadInput:
        raise
    except FileNotFoundError as error:
        raise BadInput(f"There is no file '{path}'.", "Check the path.") from error
    except Exception as error:  # the decoders of broken files raise whatever comes: SyntaxError, struct.error, ...
        raise BadInput(f"'{path}' cannot be read as an image: {error}.", "Give a PNG, JPEG or another common format.",
                       ) from error
    return np.require(pixels, np.uint8, ["C", "W"])


def _import_pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ModuleNotFoundError as error:
        raise MissingExtra.of("pillow", "image") from error


def _check(file: Any, max_pixels: int, path: Path | str) -> None:
    if file.width * file.height > max_pixels:
        raise BadInput(f"'{path}' has {file.width} x {file.height} pixels, more than {max_pixels}.", "Scale it down.")
    if file.mode not in _EIGHT_BIT_MODES:
        raise BadInput(f"'{path}' has pixels of the kind '{file.mode}', not of 8 bits.", "Convert it to 8 bits first.")
