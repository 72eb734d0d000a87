"""Whether a .tflite file is a float network, and one that keeps its weights as float16 as a float32 network again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from edgekit.artifacts import LiteRTModel
from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.converters.quantize.flatbuffer import constant_bytes, kind_of, read_model, read_tables
from edgekit.errors import BadModel

__all__ = ["float_form", "quantized_parts"]

_MOVES = frozenset({"DEQUANTIZE", "QUANTIZE"})


def quantized_parts(model: LiteRTModel) -> str:
    """In words, which ops of ``model`` compute with quantized values or weights; "" for a float network."""
    tables = read_tables(model.data)
    types = schema().TensorType
    names = {types.INT4: "int4", types.INT8: "int8", types.UINT8: "uint8", types.INT16: "int16"}
    found: Counter[str] = Counter()
    total = 0
    for subgraph in tables.subgraphs:
        for op in subgraph.operators:
            touched = [subgraph.tensors[index] for index in (*op.inputs, *op.outputs) if index >= 0]
            kinds = {names[tensor.type] for tensor in touched if tensor.type in names and _scaled(tensor)}
            total += kind_of(tables, op) not in _MOVES
            if kinds and (kind_of(tables, op) not in _MOVES or any(constant_bytes(tables, each) for each in touched)):
                found["/".join(sorted(kinds))] += 1
    return ", ".join(f"{count} of {total} ops with {kind} values" for kind, count in found.most_common())


def _scaled(tensor: Any) -> bool:
    scales = None if tensor.quantization is None else tensor.quantization.scale
    return scales is not None and len(scales) > 0


def float_form(model: LiteRTModel, subject: str = "The model") -> LiteRTModel:
    """``model`` with weights that are stored as float16 turned into float32, which loses nothing.

    Raises BadModel, naming ``subject``, when it is quantized already.
    """
    parts = quantized_parts(model)
    if parts:
        raise BadModel(f"{subject} is quantized already: {parts}.",
                       "Use it as it is (edgekit convert keeps an ONNX file's integers), or give the float file that "
                       "it was made from.")
    tables = read_tables(model.data)
    unfolded = sum(_unfold(tables, subgraph) for subgraph in tables.subgraphs)
    if not unfolded:
        return model
    used = {tensor.buffer for subgraph in tables.subgraphs for tensor in subgraph.tensors}
    used |= {entry.buffer for entry in tables.metadata or ()}
    for index, buffer in enumerate(tables.buffers):
        if index not in used:
            buffer.data = None
    return read_model(pack_model(tables), subject)


def _unfold(tables: Any, subgraph: Any) -> int:
    """Makes float32 constants of the DEQUANTIZE ops of float16 constants in ``subgraph``; how many."""
    float16, kept, read = schema().TensorType.FLOAT16, [], []
    for op in subgraph.operators:
        source = subgraph.tensors[op.inputs[0]] if len(op.inputs) and op.inputs[0] >= 0 else None
        if source is None or kind_of(tables, op) != "DEQUANTIZE" or source.type != float16 \
                or not constant_bytes(tables, source):
            kept.append(op)
            continue
        half = np.ascontiguousarray(tables.buffers[source.buffer].data, np.uint8).view(np.float16)
        buffer = schema().BufferT()
        buffer.data = half.astype(np.float32).view(np.uint8)
        tables.buffers.append(buffer)
        subgraph.tensors[op.outputs[0]].buffer = len(tables.buffers) - 1
        read.append(source)
    for source in read:
        source.buffer = 0  # the empty buffer: nothing reads the tensor any more
    removed = len(subgraph.operators) - len(kept)
    subgraph.operators = kept
    return removed
