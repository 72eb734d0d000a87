"""Is a .tflite file safe to hand to a parser? LiteRT reads flatbuffers without checking them and crashes on damage.

Two passes, both in Python, where a wrong offset can only raise. Structure: every table, vtable, vector and string that
the schema's root reaches lies inside the file, is aligned, and each field lies inside its table. Each (type, position)
is visited once, and all work draws on a budget in proportion to the file's size, so offsets that are shared or repeated
cannot hang the reader. References: every index (tensor, buffer, op code, subgraph) is in range, no constant is shorter
than its shape.

What this cannot see is an op with impossible parameters; ``edgekit.graph.facts`` therefore also tries the model in a
child process.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import NoReturn

from edgekit.errors import BadModel
from edgekit.graph.tflite_reader import Budget, Exhausted, Table, root
from edgekit.graph.tflite_schema import Field, Schema, load_schema
from edgekit.graph.tflite_sparsity import sparse_values

__all__ = ["MIN_TFLITE_BYTES", "TENSOR_BITS", "check_tflite"]

MIN_TFLITE_BYTES = 16
_MAX_TABLES = 2_000_000
_MAX_RANK = 64
_VERSION = 3
_READ_SPARSE = frozenset({9, 124})  # FULLY_CONNECTED, DENSIFY
_REMEDY = "Obtain the file anew, or convert the model again."

_SIZES = {code: struct.calcsize("<" + code) for code in "?bBhHiIqQfd"}
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")

TENSOR_BITS = {
    "FLOAT32": 32, "FLOAT16": 16, "INT32": 32, "UINT8": 8, "INT64": 64, "BOOL": 8, "INT16": 16, "COMPLEX64": 64,
    "INT8": 8, "FLOAT64": 64, "COMPLEX128": 128, "UINT64": 64, "UINT32": 32, "UINT16": 16, "INT4": 4, "BFLOAT16": 16,
    "INT2": 2, "UINT4": 4, "FLOAT8_E4M3FN": 8, "FLOAT8_E5M2": 8,
}
"""Bits that one element takes, for the types whose size is fixed (not STRING, RESOURCE, VARIANT)."""


def check_tflite(data: bytes, name: str = "The model") -> None:
    """Raise BadModel, naming ``name``, unless ``data`` is a sound .tflite flatbuffer of schema version 3."""
    if len(data) < MIN_TFLITE_BYTES or data[4:8] != b"TFL3":
        raise BadModel(f"{name} is not a .tflite file ({len(data)} bytes, without the mark TFL3).", _REMEDY)
    try:
        _Structure(data, load_schema()).check()
        _check_references(root(data), len(data))
    except (_Damaged, Exhausted) as error:
        raise BadModel(f"{name} is damaged: {error}.", _REMEDY) from None


class _Damaged(Exception):
    """What is wrong with the file."""


class _Structure:
    """The first pass. ``_todo`` holds (table type, position) and replaces recursion."""

    def __init__(self, data: bytes, schema: Schema) -> None:
        self._data = data
        self._size = len(data)
        self._schema = schema
        self._budget = Budget(len(data))
        self._todo: list[tuple[str, int]] = []
        self._seen: set[tuple[str, int]] = set()
        self._vtables: dict[int, tuple[int, ...]] = {}

    def check(self) -> None:
        self._plan("Model", self._offset_at(0, "the root"))
        while self._todo:
            self._table(*self._todo.pop())

    def _plan(self, table: str, at: int) -> None:
        if (table, at) not in self._seen:
            if len(self._seen) >= _MAX_TABLES:
                raise _Damaged(f"it has more than {_MAX_TABLES} tables")
            self._seen.add((table, at))
            self._todo.append((table, at))

    def _table(self, name: str, at: int) -> None:
        self._range(at, 4, 4, name)
        vtable = at - _I32.unpack_from(self._data, at)[0]
        offsets = self._vtables.get(vtable) or self._vtable(vtable, name)
        table_bytes = offsets[0]
        self._range(at, table_bytes, 4, name)
        positions: dict[str, int] = {}
        for field_name, field in self._schema.tables[name].items():
            index = field.slot // 2 - 1
            offset = offsets[index] if index < len(offsets) else 0
            if offset:
                size = _SIZES[field.item] if field.kind == "scalar" else 4
                if offset < 4 or offset + size > table_bytes or (at + offset) % size:
                    raise _Damaged(f"field {field_name} of a {name} lies outside its table")
                positions[field_name] = at + offset
        for field_name, position in positions.items():
            self._field(name, field_name, position, positions)

    def _vtable(self, at: int, name: str) -> tuple[int, ...]:
        """The size of the table followed by the offset of each field."""
        self._range(at, 4, 2, f"the vtable of a {name}")
        size = _U16.unpack_from(self._data, at)[0]
        if size < 4 or size % 2:
            raise _Damaged(f"the vtable of a {name} has the size {size}")
        self._range(at, size, 2, f"the vtable of a {name}")
        offsets = struct.unpack_from(f"<{size // 2 - 1}H", self._data, at + 2)
        if offsets[0] < 4:
            raise _Damaged(f"a {name} has the size {offsets[0]}")
        self._vtables[at] = offsets
        return offsets

    def _field(self, table: str, name: str, at: int, positions: dict[str, int]) -> None:
        field = self._schema.tables[table][name]
        if field.kind == "scalar":
            return
        what = f"field {name} of a {table}"
        target = self._offset_at(at, what)
        if field.kind == "table":
            self._plan(field.item, target)
        elif field.kind == "union":
            self._union(field, what, target, positions.get(f"{name}Type"))
        elif field.kind == "vector":
            self._vector(target, _SIZES[field.item], what)
        elif field.kind == "string":
            self._string(target, what)
        else:
            count = self._vector(target, 4, what)
            self._budget.spend_tables(count)
            for position in range(target + 4, target + 4 + 4 * count, 4):
                element = self._offset_at(position, what)
                if field.kind == "tables":
                    self._plan(field.item, element)
                else:
                    self._string(element, what)

    def _union(self, field: Field, what: str, target: int, type_at: int | None) -> None:
        code = self._data[type_at] if type_at else 0
        if code == 0:
            return  # absent: readers look at the type first
        table = self._schema.unions[field.item].get(code)
        if table is None:
            raise _Damaged(f"{what} has the type {code}, which the schema does not have")
        self._plan(table, target)

    def _vector(self, at: int, item_bytes: int, what: str) -> int:
        self._range(at, 4, 4, what)
        count: int = _U32.unpack_from(self._data, at)[0]
        self._range(at + 4, count * item_bytes, item_bytes, what)
        return count

    def _string(self, at: int, what: str) -> None:
        end = at + 4 + self._vector(at, 1, what)
        if self._data[end:end + 1] != b"\0":
            raise _Damaged(f"{what} is a string without an end")

    def _offset_at(self, at: int, what: str) -> int:
        offset: int = _U32.unpack_from(self._data, at)[0]
        if offset == 0:
            raise _Damaged(f"{what} points to itself")
        return at + offset

    def _range(self, at: int, size: int, alignment: int, what: str) -> None:
        if at < 0 or at + size > self._size:
            raise _Damaged(f"{what} lies outside the file ({at} + {size} of {self._size} bytes)")
        if at % alignment:
            raise _Damaged(f"{what} is not aligned ({at})")


def _check_references(model: Table, file_size: int) -> None:
    if model.number("Version") != _VERSION:
        raise _Damaged(f"it has the schema version {model.number('Version')}, not {_VERSION}")
    buffers = [_buffer_bytes(buffer, file_size) for buffer in model.tables("Buffers")]
    codes = [max(code.number("BuiltinCode"), code.number("DeprecatedBuiltinCode"))
             for code in model.tables("OperatorCodes")]
    op_codes = len(codes)
    tensor_counts: list[int] = []
    for number, subgraph in enumerate(model.tables("Subgraphs")):
        what = f"subgraph {number}"
        tensor_counts.append(subgraph.length("Tensors"))
        sparse: set[int] = set()
        for index, tensor in enumerate(subgraph.tables("Tensors")):
            _check_tensor(tensor, buffers, what)
            if tensor.table("Sparsity") is not None:
                sparse.add(index)
        for field in ("Inputs", "Outputs"):
            _check_indices(subgraph.numbers(field), tensor_counts[-1], f"an entry of {field} of {what}")
            _check_dense(subgraph.numbers(field), sparse, what)
        for operator in subgraph.tables("Operators"):
            _check_indices([operator.number("OpcodeIndex")], op_codes, f"the op code of an op in {what}", lowest=0)
            for field in ("Inputs", "Outputs", "Intermediates"):
                _check_indices(operator.numbers(field), tensor_counts[-1], f"one of {field} of an op in {what}")
                if field != "Inputs" or codes[operator.number("OpcodeIndex")] not in _READ_SPARSE:
                    _check_dense(operator.numbers(field), sparse, what)
    if not tensor_counts:
        raise _Damaged("it has no subgraph")
    for signature in model.tables("SignatureDefs"):
        what = f"the signature '{signature.text('SignatureKey')[:100]}'"
        subgraph_index = signature.number("SubgraphIndex")
        _check_indices([subgraph_index], len(tensor_counts), f"the subgraph of {what}", lowest=0)
        for field in ("Inputs", "Outputs"):
            for item in signature.tables(field):
                _check_indices([item.number("TensorIndex")], tensor_counts[subgraph_index], f"a tensor of {what}", 0)
    for metadata in model.tables("Metadata"):
        _check_indices([metadata.number("Buffer")], len(buffers), "the buffer of a metadata entry", lowest=0)


def _buffer_bytes(buffer: Table, file_size: int) -> int:
    """The size of the content, which lies in the flatbuffer or, for large models, behind it at an offset."""
    offset, size = buffer.number("Offset"), buffer.number("Size")
    if offset <= 1:  # 0 and 1 mean "not behind the flatbuffer"
        return buffer.length("Data")
    if offset + size > file_size:
        raise _Damaged(f"a buffer behind the flatbuffer lies outside the file ({offset} + {size} of {file_size} bytes)")
    return size


def _check_tensor(tensor: Table, buffers: list[int], what: str) -> None:
    name = tensor.text("Name")[:100]
    kind = load_schema().enums["TensorType"].get(tensor.number("Type"))
    if kind is None:
        raise _Damaged(f"tensor '{name}' of {what} has the type {tensor.number('Type')}, which the schema lacks")
    shape = tensor.numbers("Shape") or ()
    if len(shape) > _MAX_RANK or any(dim < 0 for dim in shape):
        raise _Damaged(f"tensor '{name}' of {what} has the shape {list(shape)[:20]}")
    if any(dim < -1 for dim in tensor.numbers("ShapeSignature") or ()):
        raise _Damaged(f"tensor '{name}' of {what} has an impossible shape signature")
    _check_indices([tensor.number("Buffer")], len(buffers), f"the buffer of tensor '{name}' of {what}", lowest=0)
    content = buffers[tensor.number("Buffer")]
    sparsity = tensor.table("Sparsity")
    count = math.prod(shape)
    if sparsity is not None:
        try:
            count = sparse_values(sparsity, tuple(shape))
        except ValueError as error:
            raise _Damaged(f"the sparse constant '{name}' of {what} {error}") from None
    if (content or sparsity is not None) and kind in TENSOR_BITS:
        needed = (count * TENSOR_BITS[kind] + 7) // 8
        if content < needed:
            raise _Damaged(f"the constant '{name}' of {what} needs {needed} bytes but has {content}")


def _check_dense(indices: Iterable[int] | None, sparse: set[int], what: str) -> None:
    """Other ops would read a sparse constant as if it were whole, beyond its end."""
    for index in indices or ():
        if index in sparse:
            raise _Damaged(f"tensor {index} of {what} is sparse, and something reads it that wants dense values")


def _check_indices(indices: Iterable[int] | None, count: int, what: str, lowest: int = -1) -> None:
    """``lowest`` -1 allows the index that means "none"."""
    for index in indices or ():
        if not lowest <= index < count:
            _refuse_index(index, count, what)


def _refuse_index(index: int, count: int, what: str) -> NoReturn:
    raise _Damaged(f"{what} is {index}, but there are {count}")
