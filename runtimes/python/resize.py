"""Bilinear resizing with antialiasing, in numpy alone, so that a phone-sized install needs no imaging package.

A triangle filter whose width grows with the scale, with weights of 22 binary places, along x first and then along y,
rounded half up to 8 bits after each: bit for bit what Pillow's ``Image.resize(size, BILINEAR)`` gives for each of the
two steps. (In one call some versions of Pillow take y first for upright images, which moves a few pixels by a level.)
The sums are computed in float64, where they are exact integers, because that is what numpy multiplies fast.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Image", "resize"]

Image: TypeAlias = npt.NDArray[np.uint8]

_ONE = 1 << 22
_HALF = 1 << 21
_ROWS = 32  # of a photograph as float64: what stays in a processor's cache
_BLOCK = 8  # outputs of one matrix product: more waste multiplications by zero, fewer waste calls


class _Block(NamedTuple):
    """Outputs ``first`` to ``last`` as a product: ``source[start:stop]`` times ``weights`` (source, output)."""

    first: int
    last: int
    start: int
    stop: int
    weights: npt.NDArray[np.float64]


def resize(image: Image, height: int, width: int) -> Image:
    """``image`` (H, W, C) in the new size, as a new array or, where nothing changes, itself."""
    if image.shape[1] != width:
        image = _along_x(image, width)
    if image.shape[0] != height:
        image = _along_y(image, height)
    return image


def _along_x(image: Image, width: int) -> Image:
    height, source_width, channels = image.shape
    rows = image.reshape(height, source_width * channels)
    result = np.empty((height, width * channels), np.uint8)
    for top in range(0, height, _ROWS):
        strip = rows[top:top + _ROWS].astype(np.float64)
        for block in _blocks(source_width, width, channels):
            result[top:top + _ROWS, block.first:block.last] = _rounded(strip[:, block.start:block.stop] @ block.weights)
    return result.reshape(height, width, channels)


def _along_y(image: Image, height: int) -> Image:
    source_height, width, channels = image.shape
    rows = image.reshape(source_height, width * channels)
    result = np.empty((height, width * channels), np.uint8)
    for block in _blocks(source_height, height, 1):
        result[block.first:block.last] = _rounded(block.weights.T @ rows[block.start:block.stop].astype(np.float64))
    return result.reshape(height, width, channels)


def _rounded(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums of 22 binary places as levels; storing them into uint8 cuts the fraction off."""
    sums += _HALF
    sums *= 1 / _ONE
    return np.minimum(sums, 255, out=sums)  # thousands of rounded weights may sum to more than 1


@lru_cache(maxsize=16)
def _blocks(source: int, target: int, channels: int) -> tuple[_Block, ...]:
    """The filter from ``source`` to ``target`` samples, for rows in which ``channels`` values alternate."""
    taps = [_taps(source, target, index) for index in range(target)]
    blocks = []
    for first in range(0, target, _BLOCK):
        part = taps[first:first + _BLOCK]
        start, stop = part[0][0], part[-1][0] + len(part[-1][1])
        weights = np.zeros((stop - start, len(part)))
        for column, (begin, values) in enumerate(part):
            weights[begin - start:begin - start + len(values), column] = values
        blocks.append(_Block(first * channels, (first + len(part)) * channels, start * channels, stop * channels,
                             np.kron(weights, np.eye(channels)).astype(np.float64)))
    return tuple(blocks)


def _taps(source: int, target: int, index: int) -> tuple[int, npt.NDArray[np.float64]]:
    """First source sample and weights of output ``index``: a triangle around its centre, as wide as the scale."""
    scale = source / target
    width = max(scale, 1.0)
    centre = (index + 0.5) * scale
    begin = max(math.floor(centre - width + 0.5), 0)
    end = min(math.floor(centre + width + 0.5), source)
    weights = np.maximum(1 - np.abs((np.arange(begin, end) - centre + 0.5) * (1 / width)), 0)
    rounded: npt.NDArray[np.float64] = np.floor(weights / weights.sum() * _ONE + 0.5)
    return begin, rounded
