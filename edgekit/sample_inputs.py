"""Seeded inputs for comparing engines: which shape where a dimension is dynamic, and which values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgekit.artifacts import Array, OnnxModel, TensorSpec
from edgekit.errors import BadModel, BadRecipe, UnknownName

__all__ = ["candidate_shapes", "random_inputs"]

Shapes = dict[str, tuple[int, ...]]

_HINTS = "edgekit.example_shapes"
#: (side of an image, other length) to try for unknown sizes: small ones that most networks take, then customary ones
_GUESSES = ((64, 16), (224, 512))
_SMALL = 3  # below the length of nearly every axis that an integer input could index


def candidate_shapes(model: OnnxModel, fixed: Mapping[str, tuple[int, ...]]) -> Iterator[Shapes]:
    """Shapes for the inputs of ``model``, the likeliest first; try the next when the network refuses one.

    A dimension takes the size of ``fixed``, else the model's own, else that of the example which the exporter recorded,
    else a guess: 1 for a batch, 64 or 224 for a side of an image, 16 or 512 elsewhere. Axes that share a symbol share a
    size. Raises UnknownName, BadRecipe for ``fixed`` shapes that do not fit.
    """
    symbols, hints = _symbols_and_hints(model)
    _check_fixed(model.inputs, fixed)
    known: dict[str, int] = {}
    for name, shape in [*fixed.items(), *hints.items()]:
        for symbol, size in zip(symbols.get(name, ()), shape, strict=False):
            known.setdefault(symbol, size)
    seen: list[Shapes] = []
    for guess in _GUESSES:
        sizes = dict(known)
        shapes = {
            spec.name: fixed.get(spec.name) or _shape(spec, symbols[spec.name], hints.get(spec.name, ()), guess, sizes)
            for spec in model.inputs
        }
        if shapes not in seen:
            seen.append(shapes)
            yield shapes


def _check_fixed(specs: Sequence[TensorSpec], fixed: Mapping[str, tuple[int, ...]]) -> None:
    known = {spec.name: spec.shape for spec in specs}
    for name, shape in fixed.items():
        if name not in known:
            raise UnknownName.of("input", name, known)
        have = known[name]
        if len(have) != len(shape) or any(a not in (-1, b) for a, b in zip(have, shape, strict=True)):
            raise BadRecipe(f"The shape {list(shape)} does not fit the input '{name}' {list(have)}.")


def _shape(
    spec: TensorSpec, symbols: Sequence[str], hint: Sequence[int], guess: tuple[int, int], sizes: dict[str, int]
) -> tuple[int, ...]:
    """``sizes`` holds the size of each symbol; a guess is added to it."""
    result = []
    for axis, dim in enumerate(spec.shape):
        size = dim
        if dim < 0 and symbols[axis]:
            size = sizes.setdefault(symbols[axis], _guess(len(spec.shape), axis, *guess))
        elif dim < 0:
            size = hint[axis] if len(hint) == len(spec.shape) else _guess(len(spec.shape), axis, *guess)
        result.append(size)
    return tuple(result)


def _guess(rank: int, axis: int, side: int, length: int) -> int:
    if axis == 0:
        return 1
    return side if rank == 4 and axis >= 2 else length


def _symbols_and_hints(model: OnnxModel) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """By input: the symbols of its dimensions, and the shape of the exporter's example where the file has one."""
    from edgekit.converters.onnx_model import parse_onnx

    proto = parse_onnx(model.data)
    symbols = {value.name: tuple(dim.dim_param for dim in value.type.tensor_type.shape.dim)
               for value in proto.graph.input}
    text = next((entry.value for entry in proto.metadata_props if entry.key == _HINTS), "{}")
    try:
        hints = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadModel(f"The model's metadata '{_HINTS}' is not JSON: {error}.", "Export it again.") from error
    if not isinstance(hints, dict):
        return symbols, {}
    return symbols, {name: tuple(shape) for name, shape in hints.items() if _is_shape(shape)}


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(dim, int) and dim > 0 for dim in value)


def random_inputs(
    specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]], seed: int = 0
) -> dict[str, Array]:
    """Arrays by name for ``specs``: standard normal floats, small non-negative integers, coin flips.

    uint8 spans 0 to 255 and int8 -128 to 127, since they hold pixels or quantised values; other integers stay below 3,
    since they may be indices. The same seed gives the same arrays everywhere. Raises BadModel for other dtypes.
    """
    rng = np.random.default_rng(seed)
    return {spec.name: _random(rng, spec, shapes[spec.name]) for spec in specs}


def _random(rng: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError as error:
        raise BadModel(f"The input '{spec.name}' is {spec.dtype}, which numpy does not have.") from error
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype in (np.dtype(np.uint8), np.dtype(np.int8)):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0, _SMALL, shape).astype(dtype)
    raise BadModel(f"The input '{spec.name}' is {spec.dtype}.", "Known: floats, integers and bool.")
