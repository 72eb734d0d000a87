"""Graph -> flatbuffer, through the schema's object API.

Weights go in as numpy arrays (bytes and lists cost about a second a megabyte) and every buffer starts at a multiple of
16 bytes, which the stock ``BufferT.Pack`` does not see to and XNNPACK wants.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.graph import Graph, Op, Tensor
from edgekit.converters.onnx_to_litert.schema import enum_value, op_version, options_name, schema
from edgekit.errors import BadModel, InternalError

__all__ = ["SIGNATURE", "write"]

SIGNATURE = "serving_default"
_ALIGNMENT = 16
_FILE_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
#: flatbuffer offsets are 32-bit and signed
_MAX_BYTES = 2**31 - 2**20
#: the size written for a dynamic dimension; the runtime resizes before it matters
_PLACEHOLDER = 1
_TENSOR_TYPES = {
    "float32": "FLOAT32", "float16": "FLOAT16", "float64": "FLOAT64", "int8": "INT8", "uint8": "UINT8",
    "int16": "INT16", "uint16": "UINT16", "int32": "INT32", "uint32": "UINT32", "int64": "INT64", "bool": "BOOL",
}  # fmt: skip


def write(graph: Graph, hints: dict[int, int] | None = None) -> bytes:
    """The .tflite bytes of ``graph``: one subgraph, one signature. ``hints``: symbol -> the size to write for it.

    Raises BadModel above 2 GiB.
    """
    import flatbuffers

    writer = _Writer(graph, hints or {})
    model = writer.model()
    if writer.constant_bytes > _MAX_BYTES:
        raise BadModel(f"The weights take {writer.constant_bytes} bytes; a .tflite file holds at most 2 GiB.")
    builder = flatbuffers.Builder(writer.constant_bytes + 512 * len(graph.ops) + 4096)
    builder.Finish(model.Pack(builder), _FILE_IDENTIFIER)
    return bytes(memoryview(builder.Bytes)[builder.head :])  # Output() would copy once more


class _Writer:
    def __init__(self, graph: Graph, hints: dict[int, int]) -> None:
        self.graph = graph
        self.hints = hints
        self.schema = schema()
        self.constant_bytes = 0
        self._buffers = [self.schema.BufferT()]  # buffer 0 is empty by convention
        self._by_content: dict[object, int] = {}
        self._tensors: dict[int, int] = {}
        self._tensor_tables: list[object] = []
        self._codes: dict[tuple[str, int], int] = {}

    def model(self) -> Any:
        s = self.schema
        subgraph = s.SubGraphT()
        subgraph.name = self.graph.name
        subgraph.inputs = self._indices(self.graph.inputs)
        subgraph.outputs = self._indices(self.graph.outputs)
        subgraph.operators = [self._operator(op) for op in self.graph.ops]
        subgraph.tensors = self._tensor_tables
        model = s.ModelT()
        model.version = _SCHEMA_VERSION
        model.description = "EdgeKit"
        model.subgraphs = [subgraph]
        model.buffers = self._buffers
        model.operatorCodes = [self._code(kind, version) for kind, version in self._codes]
        model.signatureDefs = [self._signature()]
        return model

    def _signature(self) -> object:
        signature = self.schema.SignatureDefT()
        signature.signatureKey = SIGNATURE
        signature.subgraphIndex = 0
        signature.inputs = [self._named(tensor) for tensor in self.graph.inputs]
        signature.outputs = [self._named(tensor) for tensor in self.graph.outputs]
        return signature

    def _named(self, tensor: Tensor) -> object:
        entry = self.schema.TensorMapT()
        entry.name = tensor.name
        entry.tensorIndex = self._tensors[id(tensor)]
        return entry

    def _indices(self, tensors: list[Tensor]) -> object:
        return np.array([self._tensor(tensor) for tensor in tensors], np.int32)

    def _tensor(self, tensor: Tensor) -> int:
        if id(tensor) in self._tensors:
            return self._tensors[id(tensor)]
        table = self.schema.TensorT()
        table.name = tensor.name
        table.shape = np.array([self._size(dim) for dim in tensor.shape], np.int32)
        if any(dim < 0 for dim in tensor.shape):
            table.shapeSignature = np.array([max(dim, -1) for dim in tensor.shape], np.int32)
        if tensor.dtype.name not in _TENSOR_TYPES:
            raise InternalError(f"'{tensor.name}' has the dtype {tensor.dtype.name}, which no LiteRT tensor has.")
        table.type = getattr(self.schema.TensorType, _TENSOR_TYPES[tensor.dtype.name])
        table.hasRank = True
        table.buffer = 0 if tensor.data is None else self._buffer(tensor.data)
        index = self._tensors[id(tensor)] = len(self._tensor_tables)
        self._tensor_tables.append(table)
        return index

    def _size(self, dim: int) -> int:
        return dim if dim >= 0 else self.hints.get(dim, _PLACEHOLDER)

    def _buffer(self, data: Array) -> int:
        """The buffer with ``data``; the same array is written once."""
        if data.nbytes == 0:
            return 0
        key: object = (id(data), data.shape) if data.nbytes > 4096 else (data.dtype.str, data.tobytes())
        if key not in self._by_content:
            little = np.ascontiguousarray(data)
            little = little.astype(little.dtype.newbyteorder("<"), copy=False)
            buffer = _aligned_buffer(self.schema)
            buffer.data = little.reshape(-1).view(np.uint8)
            self._by_content[key] = len(self._buffers)
            self._buffers.append(buffer)
            self.constant_bytes += data.nbytes + _ALIGNMENT + 64
        return self._by_content[key]

    def _code(self, kind: str, version: int) -> object:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, self.schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
        code.version = version
        return code

    def _operator(self, op: Op) -> object:
        operator = self.schema.OperatorT()
        key = (op.kind, op_version(op))
        operator.opcodeIndex = self._codes.setdefault(key, len(self._codes))
        operator.inputs = np.array([-1 if t is None else self._tensor(t) for t in op.inputs], np.int32)
        operator.outputs = np.array([self._tensor(t) for t in op.outputs], np.int32)
        name = options_name(op.kind)
        if name is None:
            if op.options:
                raise InternalError(f"{op.kind} has no options, but was given {sorted(op.options)}.")
            return operator
        table = getattr(self.schema, name + "T")()
        for field, value in self._options(op).items():
            if not hasattr(table, field):
                raise InternalError(f"{name} has no field '{field}'.")
            setattr(table, field, enum_value(field, value))
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, name)
        operator.builtinOptions = table
        return operator

    def _options(self, op: Op) -> dict[str, object]:
        if op.kind == "CAST":
            source = op.inputs[0]
            if source is None:
                raise InternalError("CAST has no input.")
            return {"inDataType": self._type(source), "outDataType": self._type(op.outputs[0])}
        return op.options

    def _type(self, tensor: Tensor) -> object:
        return getattr(self.schema.TensorType, _TENSOR_TYPES[tensor.dtype.name])


def _aligned_buffer(s: Any) -> Any:
    """A ``BufferT`` whose data starts at a multiple of 16 bytes."""
    buffer = s.BufferT()

    def pack(builder: Any) -> Any:
        data = buffer.data
        builder.StartVector(1, data.size, _ALIGNMENT)
        builder.head -= data.size
        builder.Bytes[builder.head : builder.head + data.size] = memoryview(data)
        vector = builder.EndVector()
        s.BufferStart(builder)
        s.BufferAddData(builder, vector)
        return s.BufferEnd(builder)

    buffer.Pack = pack  # the schema's own ``Pack`` goes through ``CreateNumpyVector``, which aligns to one byte
    return buffer
