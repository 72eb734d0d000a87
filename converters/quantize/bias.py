"""Bias correction: what quantization shifts a layer's results by on average is taken off its bias (Nagel et al., 2019).

Measured, not derived: per channel, the mean over the calibration samples of what the float file computes less what the
quantized file does. Layers are corrected one by one in the order of computation, since a correction moves all that
comes after it.
"""

from __future__ import annotations

import base64
import copy
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.converters.quantize.engine import InnerValues, input_names
from edgekit.converters.quantize.flatbuffer import constant_bytes, kind_of, name_of, read_tables
from edgekit.converters.quantize.samples import Feeds
from edgekit.errors import BadRecipe

__all__ = ["find_shifts", "shift_biases"]

_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_SAMPLES = 16
Floats = npt.NDArray[np.float32]
Means = npt.NDArray[np.float64]


def find_shifts(float_data: bytes, data: bytes, samples: Iterable[Feeds]) -> dict[str, str]:
    """What to add to the biases of ``data``, which was made of ``float_data``, by the names of the layers' results.

    Each is a float32 vector as base64. Raises EngineError, BadModel.
    """
    feeds = list(itertools.islice(samples, _SAMPLES))
    tables, found = read_tables(data), dict[str, str]()
    names = dict(zip(input_names(data), (name_of(tables.subgraphs[0].tensors[index])
                                         for index in tables.subgraphs[0].inputs), strict=True))
    by_tensor = [{names[name]: array for name, array in sample.items()} for sample in feeds]
    layers = _biased(tables)
    wanted = _means(InnerValues(float_data), [result for result, _ in layers], feeds)
    for result, op in layers:
        if result in wanted:
            got = _means(InnerValues(_up_to(tables, op), only_outputs=True), [result], by_tensor)
            shift = _packed(wanted[result], got.get(result))
            if shift:
                found[result] = shift
                shift_biases(tables, {result: shift})
    return found


def _up_to(tables: Any, last: Any) -> bytes:
    """The file that ends with the op ``last``; ``tables`` stays as it is."""
    subgraph = tables.subgraphs[0]
    kept = subgraph.operators, subgraph.outputs, tables.signatureDefs
    number = next(index for index, op in enumerate(subgraph.operators) if op is last)
    subgraph.operators = subgraph.operators[:number + 1]
    subgraph.outputs, tables.signatureDefs = np.array(last.outputs[:1], np.int32), []
    data = pack_model(tables)
    subgraph.operators, subgraph.outputs, tables.signatureDefs = kept
    return data


def _packed(wanted: Means, got: Means | None) -> str:
    """The difference as text; "" where it is none, or not finite."""
    if got is None or got.shape != wanted.shape:
        return ""
    shift = (wanted - got).astype("<f4")
    return base64.b64encode(shift.tobytes()).decode() if np.isfinite(shift).all() and shift.any() else ""


def _biased(tables: Any) -> list[tuple[str, Any]]:
    """Result and op of each layer that has a constant bias."""
    subgraph, types = tables.subgraphs[0], schema().TensorType
    found = []
    for op in subgraph.operators:
        if kind_of(tables, op) in _KINDS and len(op.inputs) > 2 and op.inputs[2] >= 0:
            bias = subgraph.tensors[op.inputs[2]]
            if bias.type in (types.FLOAT32, types.INT32) and constant_bytes(tables, bias):
                found.append((name_of(subgraph.tensors[op.outputs[0]]), op))
    return found


def _means(inner: InnerValues, names: Sequence[str], feeds: Sequence[Feeds]) -> dict[str, Means]:
    """Mean over samples and places of each channel (last axis) of the named values."""
    sums, wanted = dict[str, Means](), set(names)
    counts: Counter[str] = Counter()
    for sample in feeds:
        for name, array in inner.run(sample):
            if name in wanted and array.ndim and array.size:
                rows = array.reshape(-1, array.shape[-1])
                sums[name] = sums.get(name, 0.0) + rows.sum(axis=0, dtype=np.float64)
                counts[name] += len(rows)
    return {name: total / counts[name] for name, total in sums.items()}


def shift_biases(tables: Any, shifts: Mapping[str, str]) -> None:
    """Add ``shifts`` to the biases of the quantized ``tables``; one that other ops read as well is copied first.

    Raises BadRecipe for a layer that is not there, or has another number of channels.
    """
    layers = dict(_biased(tables))
    for result, text in shifts.items():
        op = layers.get(result)
        if op is None:
            raise BadRecipe(f"The recipe shifts the bias of '{result}', which no op with a bias computes.",
                            "Use a recipe that was made for this model.")
        _shift(tables, op, _unpacked(text, result), result)


def _unpacked(text: str, result: str) -> Floats:
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except ValueError:
        values = np.array([np.nan], np.float32)
    if not np.isfinite(values).all():
        raise BadRecipe(f"The recipe's shift of the bias of '{result}' is not a list of finite numbers.",
                        "Use a recipe as it was saved.")
    return values


def _shift(tables: Any, op: Any, shift: Floats, result: str) -> None:
    subgraph = tables.subgraphs[0]
    tensor = _own(tables, subgraph, op)
    buffer, types = tables.buffers[tensor.buffer], schema().TensorType
    dtype = np.float32 if tensor.type == types.FLOAT32 else np.int32
    values = np.ascontiguousarray(buffer.data, np.uint8).view(dtype)
    if values.shape != shift.shape:
        raise BadRecipe(f"The recipe shifts {len(shift)} biases of '{result}', which has {len(values)}.",
                        "Use a recipe that was made for this model.")
    if dtype is np.float32:
        moved = (values + shift).astype(np.float32)
    else:
        scale = np.asarray(tensor.quantization.scale, np.float64)
        limits = np.iinfo(np.int32)
        moved = np.clip(values + np.round(shift / scale), limits.min, limits.max).astype(np.int32)
    buffer.data = moved.view(np.uint8)


def _own(tables: Any, subgraph: Any, op: Any) -> Any:
    """The bias of ``op``, made its own where other ops read the tensor or other tensors share its buffer."""
    index = int(op.inputs[2])
    tensor = subgraph.tensors[index]
    readers = sum(int(index in other.inputs) for other in subgraph.operators)
    owners = sum(each.buffer == tensor.buffer for graph in tables.subgraphs for each in graph.tensors)
    if readers == 1 and owners == 1:
        return tensor
    mine, buffer = copy.copy(tensor), copy.copy(tables.buffers[tensor.buffer])
    mine.name = f"{name_of(tensor)}/of/{name_of(subgraph.tensors[op.outputs[0]])}"
    mine.buffer = len(tables.buffers)
    tables.buffers.append(buffer)
    subgraph.tensors.append(mine)
    inputs = np.array(op.inputs, np.int32)
    inputs[2] = len(subgraph.tensors) - 1
    op.inputs = inputs
    return mine
