"""Constants that are mostly zero, stored without their zeros: LiteRT's CSR form, made dense by an op at loading.

The engine expands such weights once, before the first run: the file is smaller, neither memory nor time is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.converters.quantize.flatbuffer import constant_bytes, kind_of, name_of

__all__ = ["make_sparse"]

#: kinds of ops that read expanded float weights as they would read stored ones
_READERS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
#: the sparse form must be so much smaller, since it takes an op and tables besides
_WORTH = 0.9
_MIN_BYTES = 1024
_SUFFIX = "/sparse"


def make_sparse(tables: Any) -> int:
    """Store the mostly zero weights of the main subgraph sparsely, in place; how many constants that were.

    These are float32 weights and int8 weights that are computed as float32: XNNPACK refuses files in which int8 kernels
    read expanded weights. Values stay as they are, but for the sign of negative zeros.
    """
    subgraph = tables.subgraphs[0]
    owners = [tensor.buffer for graph in tables.subgraphs for tensor in graph.tensors]
    outputs = {int(index) for index in subgraph.outputs}
    names = {name_of(tensor) for tensor in subgraph.tensors}
    new = []
    for index in _read_as_weights(tables):
        tensor = subgraph.tensors[index]
        free = owners.count(tensor.buffer) == 1 and index not in outputs and name_of(tensor) + _SUFFIX not in names
        encoded = _encoded(tables, tensor) if free else None
        if encoded is not None:
            new.append(_expanded(tables, index, *encoded))
    subgraph.operators = [*new, *subgraph.operators]
    return len(new)


def _read_as_weights(tables: Any) -> list[int]:
    """Tensors that only such ops read that take expanded weights, in the order of their first reader."""
    subgraph, float32 = tables.subgraphs[0], schema().TensorType.FLOAT32
    fit: dict[int, bool] = {}
    for op in subgraph.operators:
        kind = kind_of(tables, op)
        for place, number in enumerate(op.inputs):
            index, weights_at = int(number), 0 if kind == "DEQUANTIZE" else 1
            if index >= 0:
                taken = kind == "DEQUANTIZE" or (kind in _READERS and subgraph.tensors[index].type == float32)
                fit[index] = fit.get(index, True) and taken and place == weights_at
    return [index for index, fits in fit.items() if fits]


def _encoded(tables: Any, tensor: Any) -> tuple[npt.NDArray[np.uint8], Any] | None:
    """The values that are not zero, and how they lie; None where that takes no less place."""
    types = schema().TensorType
    known: dict[int, np.dtype[Any]] = {types.FLOAT32: np.dtype(np.float32), types.INT8: np.dtype(np.int8)}
    dtype = known.get(tensor.type)
    size = constant_bytes(tables, tensor)
    if dtype is None or size < _MIN_BYTES or tensor.sparsity is not None or len(tensor.shape) < 2:
        return None
    if tensor.quantization is not None and np.any(np.asarray(
            [] if tensor.quantization.zeroPoint is None else tensor.quantization.zeroPoint)):
        return None
    shape = tuple(int(dim) for dim in tensor.shape)
    values = np.ascontiguousarray(tables.buffers[tensor.buffer].data, np.uint8).view(dtype).reshape(-1, shape[-1])
    full = values != 0
    segments = np.concatenate([[0], np.cumsum(full.sum(axis=1))])
    columns = np.nonzero(full)[1]
    stored = np.ascontiguousarray(values[full])
    dims = [_dense(dim) for dim in shape[:-1]] + [_compressed(segments, columns)]
    taken = stored.nbytes + dims[-1].arraySegments.values.nbytes + dims[-1].arrayIndices.values.nbytes
    if not len(columns) or taken > _WORTH * size:
        return None
    sparsity = schema().SparsityParametersT()
    sparsity.traversalOrder, sparsity.dimMetadata = np.arange(len(shape), dtype=np.int32), dims
    return stored.view(np.uint8), sparsity


def _dense(size: int) -> Any:
    dim = schema().DimensionMetadataT()
    dim.format, dim.denseSize = schema().DimensionType.DENSE, size
    return dim


def _compressed(segments: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Any:
    dim = schema().DimensionMetadataT()
    dim.format = schema().DimensionType.SPARSE_CSR
    dim.arraySegmentsType, dim.arraySegments = _vector(segments)
    dim.arrayIndicesType, dim.arrayIndices = _vector(columns)
    return dim


def _vector(values: npt.NDArray[np.int64]) -> tuple[int, Any]:
    """In the narrowest of the three integer types that holds them."""
    s, peak = schema(), int(values.max(initial=0))
    dtype: np.dtype[Any]
    if peak < 1 << 8:
        kind, vector, dtype = s.SparseIndexVector.Uint8Vector, s.Uint8VectorT(), np.dtype(np.uint8)
    elif peak < 1 << 16:
        kind, vector, dtype = s.SparseIndexVector.Uint16Vector, s.Uint16VectorT(), np.dtype(np.uint16)
    else:
        kind, vector, dtype = s.SparseIndexVector.Int32Vector, s.Int32VectorT(), np.dtype(np.int32)
    vector.values = values.astype(dtype)
    return kind, vector


def _expanded(tables: Any, index: int, stored: npt.NDArray[np.uint8], sparsity: Any) -> Any:
    """The op that makes tensor ``index`` of a new, sparse constant; ``index`` keeps its name and readers."""
    s, subgraph = schema(), tables.subgraphs[0]
    tensor = subgraph.tensors[index]
    constant, empty = s.TensorT(), s.BufferT()
    constant.name, constant.shape, constant.type = name_of(tensor) + _SUFFIX, tensor.shape, tensor.type
    constant.quantization, constant.sparsity, constant.buffer = tensor.quantization, sparsity, tensor.buffer
    tables.buffers[tensor.buffer].data = stored
    tensor.buffer = len(tables.buffers)
    tables.buffers.append(empty)
    subgraph.tensors.append(constant)
    op = s.OperatorT()
    op.opcodeIndex = _densify_code(tables)
    op.inputs = np.array([len(subgraph.tensors) - 1], np.int32)
    op.outputs = np.array([index], np.int32)
    op.builtinOptionsType, op.builtinOptions = s.BuiltinOptions.DensifyOptions, s.DensifyOptionsT()
    return op


def _densify_code(tables: Any) -> int:
    s = schema()
    for number, code in enumerate(tables.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == s.BuiltinOperator.DENSIFY:
            return number
    code = s.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = s.BuiltinOperator.DENSIFY
    code.version = 1
    tables.operatorCodes.append(code)
    return len(tables.operatorCodes) - 1
