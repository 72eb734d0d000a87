"""Graphs -> flatbuffer, through the schema's object API.

Weights go in as numpy arrays: bytes and lists cost about a second a megabyte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.graph import Graph, Op, Tensor
from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.onnx_to_litert.schema import enum_value, op_version, options_name, schema
from edgekit.errors import BadModel, InternalError

__all__ = ["SIGNATURE", "write"]

SIGNATURE = "serving_default"
_TABLE_BYTES = 80  # of a buffer beside its data
_SCHEMA_VERSION = 3
#: flatbuffer offsets are 32-bit and signed
_MAX_BYTES = 2**31 - 2**20
#: the size written for a dynamic dimension of which nothing better is known
_PLACEHOLDER = 1
#: constants up to this size are compared by content even within one subgraph
_SHARE_BYTES = 4096
_TENSOR_TYPES = {
    "float32": "FLOAT32", "float16": "FLOAT16", "float64": "FLOAT64", "int8": "INT8", "uint8": "UINT8",
    "int16": "INT16", "uint16": "UINT16", "int32": "INT32", "uint32": "UINT32", "int64": "INT64", "bool": "BOOL",
}  # fmt: skip


def write(signatures: Mapping[str, Graph], metadata: Mapping[str, bytes] | None = None) -> bytes:
    """The .tflite bytes with one subgraph for each signature, and those that their ops refer to behind them.

    ``metadata``: named blobs that engines pass over. Raises BadModel above 2 GiB.
    """
    writer = _ModelWriter()
    model = writer.model(signatures, metadata or {})
    if writer.constant_bytes > _MAX_BYTES:
        raise BadModel(f"The weights take {writer.constant_bytes} bytes; a .tflite file holds at most 2 GiB.")
    return pack_model(model)


class _ModelWriter:
    """What all subgraphs share: buffers, operator codes, the list of subgraphs."""

    def __init__(self) -> None:
        self.schema = schema()
        self.constant_bytes = 0
        self._buffers = [self.schema.BufferT()]  # buffer 0 is empty by convention
        self._by_content: dict[object, int] = {}
        self._codes: dict[tuple[str, int], int] = {}
        self._graphs: list[Graph] = []

    def model(self, signatures: Mapping[str, Graph], metadata: Mapping[str, bytes]) -> Any:
        for graph in signatures.values():
            self.subgraph_index(graph)
        written: list[_SubgraphWriter] = []
        while len(written) < len(self._graphs):  # writing one may ask for others
            written.append(_SubgraphWriter(self, self._graphs[len(written)]))
        model = self.schema.ModelT()
        model.version = _SCHEMA_VERSION
        model.description = "EdgeKit"
        model.subgraphs = [subgraph.table for subgraph in written]
        model.metadata = [self._metadata(name, blob) for name, blob in metadata.items()]
        model.buffers = self._buffers
        model.operatorCodes = [self._code(kind, version) for kind, version in self._codes]
        model.signatureDefs = [written[index].signature(key, index) for index, key in enumerate(signatures)]
        return model

    def _metadata(self, name: str, blob: bytes) -> Any:
        entry = self.schema.MetadataT()
        entry.name = name
        entry.buffer = self.buffer(np.frombuffer(blob, np.uint8))
        return entry

    def subgraph_index(self, graph: Graph) -> int:
        """The place of ``graph`` in the file; it is queued at the first mention."""
        for index, known in enumerate(self._graphs):
            if known is graph:
                return index
        self._graphs.append(graph)
        return len(self._graphs) - 1

    def buffer(self, data: Array) -> int:
        """The buffer with ``data``; equal constants are written once."""
        if data.nbytes == 0:
            return 0
        key: object = (data.dtype.str, data.tobytes()) if data.nbytes <= _SHARE_BYTES else self._large_key(data)
        if key not in self._by_content:
            little = np.ascontiguousarray(data)
            little = little.astype(little.dtype.newbyteorder("<"), copy=False)
            buffer = self.schema.BufferT()
            buffer.data = little.reshape(-1).view(np.uint8)
            self._by_content[key] = len(self._buffers)
            self._buffers.append(buffer)
            self.constant_bytes += data.nbytes + _TABLE_BYTES
        return self._by_content[key]

    def _large_key(self, data: Array) -> object:
        """Within one subgraph the array itself; several subgraphs hold copies, which only their content tells."""
        if len(self._graphs) == 1:
            return id(data)
        return hashlib.sha256(np.ascontiguousarray(data).tobytes()).digest()

    def opcode(self, kind: str, version: int) -> int:
        """The index of an operator code."""
        return self._codes.setdefault((kind, version), len(self._codes))

    def _code(self, kind: str, version: int) -> Any:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, self.schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
        code.version = version
        return code


class _SubgraphWriter:
    """One subgraph: its tensors and operators."""

    def __init__(self, model: _ModelWriter, graph: Graph) -> None:
        self.model = model
        self.graph = graph
        self._tensors: dict[int, int] = {}
        self._tables: list[Any] = []
        self.table = model.schema.SubGraphT()
        self.table.name = graph.name
        self.table.inputs = self._indices(graph.inputs)
        self.table.outputs = self._indices(graph.outputs)
        self.table.operators = [self._operator(op) for op in graph.ops]
        self.table.tensors = self._tables

    def signature(self, key: str, index: int) -> Any:
        """The signature over this subgraph's inputs and outputs, by their names."""
        signature = self.model.schema.SignatureDefT()
        signature.signatureKey = key
        signature.subgraphIndex = index
        signature.inputs = [self._named(tensor) for tensor in self.graph.inputs]
        signature.outputs = [self._named(tensor) for tensor in self.graph.outputs]
        return signature

    def _named(self, tensor: Tensor) -> Any:
        entry = self.model.schema.TensorMapT()
        entry.name = tensor.name
        entry.tensorIndex = self._tensors[id(tensor)]
        return entry

    def _indices(self, tensors: list[Tensor]) -> Array:
        return np.array([self._tensor(tensor) for tensor in tensors], np.int32)

    def _tensor(self, tensor: Tensor) -> int:
        if id(tensor) in self._tensors:
            return self._tensors[id(tensor)]
        table = self.model.schema.TensorT()
        table.name = tensor.name
        sizes = [self._size(dim) for dim in tensor.shape]
        if max(sizes, default=0) > _MAX_BYTES:
            raise BadModel(f"'{tensor.name}' has the shape {sizes}, beyond what a .tflite file can say.")
        table.shape = np.array(sizes, np.int32)
        if any(dim < 0 for dim in tensor.shape):
            table.shapeSignature = np.array([max(dim, -1) for dim in tensor.shape], np.int32)
        if tensor.dtype.name not in _TENSOR_TYPES:
            raise InternalError(f"'{tensor.name}' has the dtype {tensor.dtype.name}, which no LiteRT tensor has.")
        table.type = self._type(tensor)
        table.hasRank = True
        table.buffer = 0 if tensor.data is None else self.model.buffer(tensor.data)
        if tensor.quantization is not None:
            table.quantization = self._quantization(tensor)
        index = self._tensors[id(tensor)] = len(self._tables)
        self._tables.append(table)
        return index

    def _quantization(self, tensor: Tensor) -> Any:
        quantization = tensor.quantization
        if quantization is None:
            raise InternalError(f"'{tensor.name}' is not quantized.")
        table = self.model.schema.QuantizationParametersT()
        table.scale = np.asarray(quantization.scales, np.float32).reshape(-1)
        table.zeroPoint = np.asarray(quantization.zero_points, np.int64).reshape(-1)
        table.quantizedDimension = quantization.axis
        return table

    def _size(self, dim: int) -> int:
        return dim if dim >= 0 else self.graph.sizes.get(dim, _PLACEHOLDER)

    def _operator(self, op: Op) -> Any:
        s = self.model.schema
        operator = s.OperatorT()
        operator.opcodeIndex = self.model.opcode(op.kind, op_version(op))
        operator.inputs = np.array([-1 if t is None else self._tensor(t) for t in op.inputs], np.int32)
        operator.outputs = np.array([self._tensor(t) for t in op.outputs], np.int32)
        name = options_name(op.kind)
        if name is None:
            if op.options:
                raise InternalError(f"{op.kind} has no options, but was given {sorted(op.options)}.")
            return operator
        table = getattr(s, name + "T")()
        for field, value in self._options(op).items():
            if not hasattr(table, field):
                raise InternalError(f"{name} has no field '{field}'.")
            number = self.model.subgraph_index(value) if isinstance(value, Graph) else enum_value(field, value)
            setattr(table, field, number)
        operator.builtinOptionsType = getattr(s.BuiltinOptions, name)
        operator.builtinOptions = table
        return operator

    def _options(self, op: Op) -> dict[str, object]:
        if op.kind == "CAST":
            source = op.inputs[0]
            if source is None:
                raise InternalError("CAST has no input.")
            return {"inDataType": self._type(source), "outDataType": self._type(op.outputs[0])}
        return op.options

    def _type(self, tensor: Tensor) -> Any:
        return getattr(self.model.schema.TensorType, _TENSOR_TYPES[tensor.dtype.name])
