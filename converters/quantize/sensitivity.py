"""Where quantization error enters: every inner value of the quantized file against the float file's, in one walk."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.quantize.engine import InnerValues
from edgekit.converters.quantize.flatbuffer import constant_bytes, kind_of, name_of, read_tables, with_unique_names
from edgekit.converters.quantize.quality import Noise
from edgekit.converters.quantize.samples import Feeds

__all__ = ["Layer", "Op", "compare_layers", "ops_of", "saved_bytes", "sensitivity", "to_keep"]

_SAMPLES = 4
_OUTLIER = 8.0


class Layer(msgspec.Struct, frozen=True):
    """One op of the float file.

    ``sqnr_db``: of its first result, with all error that came in before. ``added``: by how much the ratio of noise to
    signal grew over its noisiest operand. ``gain_db``: what the op's share of all added noise would be worth.
    ``outlier_channels``: channels (last axis) whose peak is over 8 times the median channel's; they stretch the range
    that all channels share. ``low`` and ``high``: what the values were on the samples.
    """

    tensor: str
    kind: str
    sqnr_db: float
    added: float
    gain_db: float
    low: float
    high: float
    outlier_channels: int
    readers: tuple[str, ...]


def sensitivity(float_data: bytes, data: bytes, samples: Iterable[Feeds], count: int = _SAMPLES) -> tuple[Layer, ...]:
    """The ops of ``float_data`` in order of computation, compared in ``data`` on the first ``count`` samples.

    Raises EngineError, BadModel.
    """
    float_data = with_unique_names(float_data)
    return compare_layers(InnerValues(float_data), InnerValues(data), ops_of(float_data), samples, count,
                          channels_last=True)


class Op(NamedTuple):
    """A node: its kind, the name of its first result, the names of its operands."""

    kind: str
    result: str
    operands: tuple[str, ...]


def ops_of(data: bytes) -> list[Op]:
    """The ops of the main subgraph of ``data``, whose tensors have unique names, in order of computation."""
    model = read_tables(data)
    names = [name_of(tensor) for tensor in model.subgraphs[0].tensors]
    return [Op(kind_of(model, op), names[op.outputs[0]], tuple(names[index] for index in op.inputs if index >= 0))
            for op in model.subgraphs[0].operators if len(op.outputs)]


def saved_bytes(float_data: bytes, data: bytes) -> dict[str, int]:
    """By first result of an op of ``float_data``: how many bytes its constants are smaller in ``data``.

    So many does the file grow when the op is kept float, unless another op shares the constants.
    """
    float_data = with_unique_names(float_data)
    large, small = _constant_sizes(float_data), _constant_sizes(data)
    return {op.result: sum(large[name] - small.get(name, large[name]) for name in set(op.operands) if name in large)
            for op in ops_of(float_data)}


def _constant_sizes(data: bytes) -> dict[str, int]:
    model = read_tables(data)
    return {name_of(tensor): size for tensor in model.subgraphs[0].tensors if (size := constant_bytes(model, tensor))}


class _Values(Protocol):
    def run(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Every inner value by name."""
        ...


def compare_layers(
    reference: _Values, subject: _Values, ops: Sequence[Op], samples: Iterable[Feeds], count: int = _SAMPLES,
    channels_last: bool = False,
) -> tuple[Layer, ...]:
    """``ops`` of the float network ``reference`` in order, compared in ``subject`` on the first ``count`` samples.

    The channels are on the last axis, or else on the second one of values with four axes.
    """
    noise, extremes = Noise(), _Extremes(channels_last)
    for feeds in itertools.islice(samples, count):
        wanted = {name: np.array(array) for name, array in reference.run(feeds)}
        for name, array in subject.run(feeds):
            if name in wanted and wanted[name].dtype.kind == "f" and wanted[name].size == array.size:
                noise.add(name, wanted[name], array)
        for name, array in wanted.items():
            extremes.add(name, array)
    return _layers(ops, noise, extremes)


class _Extremes:
    """Peaks per channel and the range of each value."""

    def __init__(self, channels_last: bool) -> None:
        self._channels_last = channels_last
        self.low: dict[str, float] = {}
        self.high: dict[str, float] = {}
        self._peaks: dict[str, Array] = {}

    def add(self, name: str, array: Array) -> None:
        if array.size == 0 or array.dtype.kind != "f":
            return
        self.low[name] = min(self.low.get(name, math.inf), float(array.min()))
        self.high[name] = max(self.high.get(name, -math.inf), float(array.max()))
        if array.ndim > 1:
            last = array if self._channels_last or array.ndim != 4 else np.moveaxis(array, 1, -1)
            peaks = np.abs(last).reshape(-1, last.shape[-1]).max(axis=0)
            self._peaks[name] = np.maximum(self._peaks[name], peaks) if name in self._peaks else peaks

    def outliers(self, name: str) -> int:
        peaks = self._peaks.get(name)
        if peaks is None or not np.median(peaks) > 0:
            return 0
        return int(np.sum(peaks > _OUTLIER * np.median(peaks)))


def _layers(ops: Sequence[Op], noise: Noise, extremes: _Extremes) -> tuple[Layer, ...]:
    ratio = {name: noise.error[name] / noise.signal[name] if noise.signal[name] else 0.0 for name in noise.error}
    readers: dict[str, list[str]] = {}
    for op in ops:
        for name in op.operands:
            readers.setdefault(name, []).append(op.result)
    added = {op.result: max(0.0, ratio[op.result] - max((ratio.get(name, 0.0) for name in op.operands), default=0.0))
             for op in ops if op.result in ratio}
    total = sum(added.values())
    return tuple(
        Layer(
            tensor=name, kind=op.kind, sqnr_db=noise.db(name), added=added[name],
            gain_db=_gain(added[name], total), low=extremes.low.get(name, 0.0), high=extremes.high.get(name, 0.0),
            outlier_channels=extremes.outliers(name), readers=tuple(dict.fromkeys(readers.get(name, ()))),
        )
        for op in ops if (name := op.result) in added)


def _gain(share: float, total: float) -> float:
    if not share > 0 or not math.isfinite(total):
        return 0.0
    return min(60.0, -10 * math.log10(max(1 - share / total, 1e-6)))


def to_keep(layers: Sequence[Layer], count: int) -> tuple[str, ...]:
    """The tensors whose ops must stay float so that the ``count`` worst values of ``layers`` are not quantized.

    A value is rounded because its producer or a reader computes in integers, so both are kept.
    """
    worst = sorted(layers, key=lambda layer: -layer.added)[:count]
    return tuple(dict.fromkeys(name for layer in worst for name in (layer.tensor, *layer.readers)))
