"""Rounding of weights to integers so that each layer's results, not its weights, stay as they are.

Each layer by itself (Frantar et al., GPTQ, 2023, the idea of Nagel et al., AdaRound, 2020): its weights are rounded one
input at a time, and the error that this makes in the layer's results on the calibration samples is made good, as far as
can be, by the weights that are not rounded yet. Scales stay as they are, so that the weights of largest size keep
their integers.
"""

from __future__ import annotations

import base64
import itertools
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array
from edgekit.converters.quantize.engine import InnerValues, input_names
from edgekit.converters.quantize.flatbuffer import name_of, read_tables
from edgekit.converters.quantize.samples import Feeds
from edgekit.converters.quantize.weighted import Weighted, constant, patches, set_constant, weighted_ops
from edgekit.errors import BadRecipe

__all__ = ["adapt", "packed", "round_weights", "rounded", "unpacked"]

_SAMPLES = 32
_PLACES = 128  # of a layer's result for each sample
_MAX_INPUTS = 2048
_MAX_BYTES = 256 << 20
_DAMPING = 0.01
_BLOCK = 64
_LEVELS = {8: 127, 4: 7}
#: a layer whose error falls less than this many times keeps nearest rounding, which costs nothing in the recipe
_WORTH = 1.26
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int8]


def packed(steps: Integers) -> str:
    """Steps away from nearest rounding, as text: base64 of the deflated bytes."""
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode()


def unpacked(text: str, count: int, result: str) -> Integers:
    """The ``count`` steps of ``text``. Raises BadRecipe for what ``packed`` cannot have made of so many."""
    try:
        reader = zlib.decompressobj()
        raw = reader.decompress(base64.b64decode(text, validate=True), count + 1)
    except (ValueError, zlib.error):
        raw = b""
    if len(raw) != count:
        raise BadRecipe(f"The recipe's rounding of '{result}' does not fit its {count} weights.",
                        "Use a recipe that was made for this model.")
    return np.frombuffer(raw, np.int8)


def rounded(weights: Array, kind: str, steps: Integers | None, bits: int) -> Array:
    """``weights`` at the nearest integers times their channels' scales, or ``steps`` away from them."""
    rows = _rows(weights.astype(np.float64), kind)
    scale = _scales(rows, bits)
    integers = np.round(rows / scale)
    if steps is not None:
        integers += _rows(steps.reshape(weights.shape).astype(np.float64), kind)
    limit = _LEVELS[bits]
    values = np.clip(integers, -limit, limit) * scale
    return _unrows(values, weights.shape, kind).astype(np.float32)


def round_weights(tables: Any, bits_of: Mapping[str, int], steps: Mapping[str, str]) -> None:
    """Put the rounded values in the place of the float weights, so that quantization finds those integers.

    Raises BadRecipe for steps of an op that is not in the model.
    """
    layers = {layer.result: layer for layer in weighted_ops(tables)}
    for result, text in steps.items():
        if result not in layers:
            raise BadRecipe(f"The recipe rounds the weights of '{result}', which no op with weights computes.",
                            "Use a recipe that was made for this model.")
        if result in bits_of:
            layer = layers[result]
            weights = constant(tables, layer.weights)
            away = unpacked(text, weights.size, result)
            set_constant(tables, layer.weights, rounded(weights, layer.kind, away, bits_of[result]))


def adapt(data: bytes, bits_of: Mapping[str, int], samples: Iterable[Feeds]) -> dict[str, str]:
    """Steps away from nearest rounding of the weights of layers, packed, by the name of each layer's result.

    ``data``: the float file, with unique names of tensors. ``bits_of``: 8 or 4, by the names of results. Layers with
    over 2048 inputs to a result, or with more than were seen, keep nearest rounding, and so do those in which it is as
    good. Raises EngineError, BadModel.
    """
    tables = read_tables(data)
    layers = _bounded(tables, [layer for layer in weighted_ops(tables) if layer.result in bits_of])
    moments = _moments(data, tables, layers, itertools.islice(samples, _SAMPLES))
    found: dict[str, str] = {}
    for layer in layers:
        if layer.result in moments:
            weights = constant(tables, layer.weights)
            steps = _steps(weights, layer.kind, moments[layer.result], bits_of[layer.result])
            if steps is not None:
                found[layer.result] = packed(steps)
    return found


def _bounded(tables: Any, layers: Sequence[Weighted]) -> list[Weighted]:
    """Those whose second moments are small enough to be worked with."""
    kept, total = [], 0
    for layer in layers:
        shape = tables.subgraphs[0].tensors[layer.weights].shape
        inputs = int(np.prod(shape[1:3] if layer.kind == "DEPTHWISE_CONV_2D" else shape[1:]))
        size = 8 * inputs ** 2 * (int(shape[3]) if layer.kind == "DEPTHWISE_CONV_2D" else 1)
        if inputs <= _MAX_INPUTS and total + size <= _MAX_BYTES:
            kept.append(layer)
            total += size
    return kept


def _moments(data: bytes, tables: Any, layers: Sequence[Weighted], samples: Iterable[Feeds]) -> dict[str, Floats]:
    """Second moments of what each layer multiplies with its weights: (inputs, inputs), or one for each channel."""
    by_source: dict[str, list[Weighted]] = {}
    for layer in layers:
        by_source.setdefault(layer.source, []).append(layer)
    subgraph, inner, found = tables.subgraphs[0], InnerValues(data), dict[str, Floats]()
    seen: Counter[str] = Counter()
    of_inputs = dict(zip(input_names(data), (name_of(subgraph.tensors[i]) for i in subgraph.inputs), strict=True))
    for feeds in samples:
        given = ((of_inputs[name], array) for name, array in feeds.items())
        for name, array in itertools.chain(given, inner.run(feeds)):
            for layer in by_source.get(name, ()) if array.dtype.kind == "f" and np.isfinite(array).all() else ():
                shape = subgraph.tensors[layer.weights].shape
                rows = patches(subgraph.operators[layer.operator], layer.kind, shape, array, _PLACES)
                found[layer.result] = found.get(layer.result, 0.0) + _moment(rows)
                seen[layer.result] += len(rows)
    return {name: moment for name, moment in found.items() if seen[name] >= moment.shape[-1]}


def _moment(rows: Array) -> Floats:
    if rows.ndim == 3:  # depthwise: (places, taps, channels)
        by_channel = rows.transpose(2, 1, 0)
        return (by_channel @ by_channel.transpose(0, 2, 1)).astype(np.float64)
    return (rows.T @ rows).astype(np.float64)


def _rows(weights: Array, kind: str) -> Array:
    """(outputs, inputs): each row has its own scale."""
    if kind == "DEPTHWISE_CONV_2D":
        return weights.reshape(-1, weights.shape[-1]).T
    return weights.reshape(weights.shape[0], -1)


def _unrows(rows: Array, shape: Sequence[int], kind: str) -> Array:
    return (rows.T if kind == "DEPTHWISE_CONV_2D" else rows).reshape(tuple(shape))


def _scales(rows: Array, bits: int) -> Array:
    peak = np.abs(rows).max(axis=1, keepdims=True)
    return np.where(peak > 0, peak, 1.0) / _LEVELS[bits]


def _steps(weights: Array, kind: str, moment: Floats, bits: int) -> Integers | None:
    """How far each weight's integer is from the nearest, or None where that is as good."""
    rows = _rows(weights.astype(np.float64), kind)
    if kind == "DEPTHWISE_CONV_2D" and moment.shape[0] != rows.shape[0]:
        return None  # a depth multiplier: several results for each channel of the source
    scale = _scales(rows, bits)
    nearest = np.round(rows / scale)
    chosen = _compensated(rows, scale, moment, bits)
    before, after = (_loss(rows - integers * scale, moment) for integers in (nearest, chosen))
    if not after * _WORTH < before:
        return None
    steps = np.clip(chosen - nearest, -128, 127)
    return np.ascontiguousarray(_unrows(steps, weights.shape, kind)).astype(np.int8)


def _loss(error: Floats, moment: Floats) -> float:
    """Sum of squares that ``error`` in the weights makes in the layer's results."""
    if moment.ndim == 3:
        return float(np.einsum("ci,cij,cj", error, moment, error))
    return float(np.sum((error @ moment) * error))


def _compensated(rows: Floats, scale: Floats, moment: Floats, bits: int) -> Floats:
    """Integers of ``rows``, input by input, from the strongest; what is left to round makes good each error."""
    limit, count = _LEVELS[bits], rows.shape[1]
    power = np.diagonal(moment, axis1=-2, axis2=-1)
    damping = _DAMPING * power.mean(axis=-1, keepdims=True) + (power == 0) * (power.mean() + 1e-9)
    order = np.argsort(-power.reshape(-1, count).sum(axis=0), kind="stable")
    damped = (moment + damping[..., None] * np.eye(count))[..., order, :][..., order]
    nearest = np.round(rows / scale)
    try:
        inverse = np.linalg.inv(damped)
        factor = np.linalg.cholesky((inverse + np.swapaxes(inverse, -1, -2)) / 2)
    except np.linalg.LinAlgError:
        return nearest
    factor = np.swapaxes(factor, -1, -2)
    # The scale comes from the largest weights, and pruned ones stay pruned.
    fixed = ((np.abs(nearest) >= limit) | (rows == 0))[:, order]
    left, pinned, chosen = rows[:, order].copy(), nearest[:, order], np.zeros((len(rows), count))
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = np.zeros((len(rows), end - start))
        for column in range(start, end):
            target = np.clip(np.round(left[:, column] / scale[:, 0]), -limit, limit)
            chosen[:, column] = np.where(fixed[:, column], pinned[:, column], target)
            error = (left[:, column] - chosen[:, column] * scale[:, 0]) / factor[..., column, column]
            left[:, column + 1:end] -= error[:, None] * factor[..., column, column + 1:end]
            errors[:, column - start] = error
        if end < count:
            left[:, end:] -= _spent(errors, np.asarray(factor[..., start:end, end:], np.float64))
    found = np.empty_like(chosen)
    found[:, order] = chosen
    return found


def _spent(errors: Floats, factor: Floats) -> Floats:
    spent: Floats = errors @ factor if factor.ndim == 2 else np.einsum("ci,cij->cj", errors, factor)
    return spent
