"""Cross-layer equalisation: channels that use little of their tensor's range are scaled up; the next layer undoes it.

Weights have a scale for each channel already; activations have one for the whole tensor, so that a channel whose values
stay small gets few of its 256 levels. Behind a layer whose activation commutes with a positive factor, that layer's
weights and bias can be multiplied by a factor for each channel and the next layer's weights divided by it (Nagel et
al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1, here on measured
ranges of activations). A depthwise layer undoes any factor at no cost, having a scale for each channel; others share a
scale among their input channels, so the factor goes half way there (eq. 11).

RELU commutes with positive factors; RELU6 as long as no value is clipped, which is granted by leaving room above the
largest one seen. Hard swish and others do not commute: pairs around them are left as they are.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.converters.quantize.engine import InnerValues
from edgekit.converters.quantize.flatbuffer import name_of, read_tables
from edgekit.converters.quantize.samples import Feeds
from edgekit.converters.quantize.weighted import Weighted, constant, set_constant, weighted_ops
from edgekit.errors import BadRecipe

__all__ = ["EQUALIZED", "Ranges", "equalized", "find_factors", "renamed"]

Floats = npt.NDArray[np.float64]
Ranges = dict[str, tuple[float, float]]

_ROOM = 1.25  # RELU6 clips nothing up to so many times the largest value seen
_MOST = 64.0  # a channel that is next to dead stays so
#: behind the name of a tensor whose channels are scaled
EQUALIZED = "/equalized"


class _Pair(NamedTuple):
    """Two layers with the tensor ``name`` between them, which nothing else reads."""

    name: str
    first: Weighted
    second: Weighted
    clip: float


def _pairs(tables: Any) -> list[_Pair]:
    subgraph = tables.subgraphs[0]
    layers = weighted_ops(tables)
    made = {layer.result: layer for layer in layers}
    readers = Counter(name_of(subgraph.tensors[index])
                      for op in subgraph.operators for index in op.inputs if index >= 0)
    ends = {name_of(subgraph.tensors[index]) for index in subgraph.outputs}
    found = []
    for layer in layers:
        first = made.get(layer.source)
        if first is None or readers[layer.source] != 1 or layer.source in ends:
            continue
        clip = _clip(subgraph.operators[first.operator])
        whole = first.bias >= 0 or len(subgraph.operators[first.operator].inputs) < 3
        if clip is not None and whole and _channels(tables, first) == _inputs(tables, layer):
            found.append(_Pair(layer.source, first, layer, clip))
    return found


def _clip(op: Any) -> float | None:
    """The value at which the fused activation clips, infinity for none; None where it does not commute."""
    kinds = schema().ActivationFunctionType
    return {kinds.NONE: np.inf, kinds.RELU: np.inf, kinds.RELU6: 6.0}.get(op.builtinOptions.fusedActivationFunction)


def _shape(tables: Any, layer: Weighted) -> tuple[int, ...]:
    return tuple(int(dim) for dim in tables.subgraphs[0].tensors[layer.weights].shape)


def _channels(tables: Any, layer: Weighted) -> int:
    """How many channels the layer makes."""
    shape = _shape(tables, layer)
    return shape[-1] if layer.kind == "DEPTHWISE_CONV_2D" else shape[0]


def _inputs(tables: Any, layer: Weighted) -> int:
    """How many channels the layer reads; -1 where a channel is read in a way that no factor undoes."""
    shape = _shape(tables, layer)
    if layer.kind == "DEPTHWISE_CONV_2D":
        options = tables.subgraphs[0].operators[layer.operator].builtinOptions
        return shape[-1] if options.depthMultiplier in (0, 1) else -1
    return shape[-1]


def find_factors(data: bytes, samples: Iterable[Feeds]) -> tuple[dict[str, str], Ranges]:
    """For each tensor between two layers the factors of its channels (float32 as base64), and its range with them.

    ``data``: the float file, its tensors' names unique. Raises EngineError.
    """
    tables = read_tables(data)
    pairs = _pairs(tables)
    low, high = _extremes(data, {pair.name for pair in pairs}, samples)
    factors: dict[str, str] = {}
    ranges: Ranges = {}
    for pair in pairs:
        if pair.name not in low or not np.isfinite(low[pair.name] + high[pair.name]).all():
            continue
        found = _factors(tables, pair, np.maximum(np.abs(low[pair.name]), np.abs(high[pair.name])))
        if found is None:
            continue
        factors[pair.name] = base64.b64encode(found.astype("<f4").tobytes()).decode()
        kept = found.astype("<f4").astype(np.float64)
        ranges[pair.name] = float((kept * low[pair.name]).min()), float((kept * high[pair.name]).max())
    return factors, ranges


def _extremes(data: bytes, names: set[str], samples: Iterable[Feeds]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Smallest and largest value of each channel (last axis) of the named tensors."""
    low: dict[str, Floats] = {}
    high: dict[str, Floats] = {}
    inner = InnerValues(data)
    for feeds in samples:
        for name, array in inner.run(feeds):
            if name in names and array.ndim and array.size:
                rows = array.reshape(-1, array.shape[-1]).astype(np.float64)
                low[name] = np.minimum(low.get(name, np.inf), rows.min(axis=0))
                high[name] = np.maximum(high.get(name, -np.inf), rows.max(axis=0))
    return low, high


def _factors(tables: Any, pair: _Pair, peaks: Floats) -> Floats | None:
    """What each channel is multiplied by; None where that would change next to nothing."""
    top = float(peaks.max())
    if top <= 0 or len(peaks) != _channels(tables, pair.first):
        return None
    room = top / np.maximum(peaks, top / _MOST)
    if pair.second.kind != "DEPTHWISE_CONV_2D":
        weights = np.abs(constant(tables, pair.second.weights).astype(np.float64))
        reach = weights.reshape(-1, weights.shape[-1]).max(axis=0)
        wanted = np.sqrt(np.maximum(reach, 1e-12) / np.maximum(peaks, top / _MOST))
        room = np.clip(wanted * (top / float((wanted * peaks).max())), 1.0, room)
    if np.isfinite(pair.clip):
        room = np.minimum(room, np.maximum(pair.clip / (_ROOM * np.maximum(peaks, 1e-12)), 1.0))
    found = np.where(peaks > 0, np.maximum(room, 1.0), 1.0)
    return found if float(found.max()) > 1.01 else None


def equalized(data: bytes, factors: Mapping[str, str]) -> bytes:
    """The float file ``data`` with ``factors`` in its weights; it computes what it did but for rounding.

    Tensors keep their names. Raises BadRecipe for factors of a tensor that does not lie between two such layers.
    """
    tables = read_tables(data)
    pairs = {pair.name: pair for pair in _pairs(tables)}
    for name, text in factors.items():
        pair = pairs.get(name)
        if pair is None:
            raise BadRecipe(f"The recipe equalises '{name}', which is not a tensor between two layers.",
                            "Use a recipe that was made for this model.")
        _apply(tables, pair, _unpacked(text, _channels(tables, pair.first), name))
    return pack_model(tables)


def _unpacked(text: str, count: int, name: str) -> npt.NDArray[np.float32]:
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except ValueError:
        values = np.zeros(0, np.float32)
    if len(values) != count or not (np.isfinite(values).all() and (values > 0).all()):
        raise BadRecipe(f"The recipe's factors for '{name}' are not {count} positive numbers.",
                        "Use a recipe as it was saved, for the model that it was made for.")
    return values


def _apply(tables: Any, pair: _Pair, factors: npt.NDArray[np.float32]) -> None:
    first = constant(tables, pair.first.weights)
    across = factors if pair.first.kind == "DEPTHWISE_CONV_2D" else factors.reshape(-1, *[1] * (first.ndim - 1))
    set_constant(tables, pair.first.weights, first * across)
    if pair.first.bias >= 0:
        set_constant(tables, pair.first.bias, constant(tables, pair.first.bias) * factors)
    set_constant(tables, pair.second.weights, constant(tables, pair.second.weights) / factors)


def renamed(tables: Any, factors: Mapping[str, str]) -> None:
    """Mark the scaled tensors of ``tables``, so that nobody takes their values for those of the original's."""
    for tensor in tables.subgraphs[0].tensors:
        if name_of(tensor) in factors:
            tensor.name = name_of(tensor) + EQUALIZED
