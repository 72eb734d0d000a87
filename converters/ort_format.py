"""Equal bytes for equal .ort files.

ONNX Runtime saves its table of kernel type strings in the order of a hash map that is seeded anew for each process;
everything else in a .ort file is in a fixed order. So the table is written again, sorted. The rest of the file, the
Model table and all it refers to, lies behind it and is position independent, and is kept byte for byte.

    InferenceSession { ort_version, model, -, kernel_type_str_resolver }        (slots 0, 1, 2, 3)
    KernelTypeStrResolver { op_kernel_type_str_args: [OpIdKernelTypeStrArgsEntry] }
    OpIdKernelTypeStrArgsEntry { op_id: string, kernel_type_str_args: [KernelTypeStrArgsEntry] }
    KernelTypeStrArgsEntry { kernel_type_str: string, args: [ArgTypeAndIndex] }
    ArgTypeAndIndex { arg_type: int8, index: uint32 }
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import flatbuffers
from flatbuffers import number_types
from flatbuffers.table import Table

from edgekit.errors import InternalError

__all__ = ["canonical_ort"]

_ALIGNMENT = 16
_IDENTIFIER = b"ORTM"

_Arg = tuple[int, int]  # (ArgType, index)
_Entry = tuple[bytes, list[_Arg]]
_Resolver = list[tuple[bytes, list[_Entry]]]


def canonical_ort(data: bytes) -> bytes:
    """``data``, a .ort file just written by ONNX Runtime, with its kernel type strings in sorted order.

    Raises InternalError when the file is laid out in another way than this module knows.
    """
    root = Table(data, int.from_bytes(data[:4], "little"))
    model = _child(root, 1)
    resolver_at = _child(root, 3)
    if data[4:8] != _IDENTIFIER or model is None or resolver_at is None:
        raise InternalError("ONNX Runtime wrote a .ort file without a model or without kernel type strings.")
    vtable = model.Pos - int.from_bytes(data[model.Pos : model.Pos + 4], "little", signed=True)
    start = min(model.Pos, vtable)
    if max(root.Pos, resolver_at.Pos) >= start:
        raise InternalError("ONNX Runtime wrote the model of a .ort file in front of its kernel type strings.")
    return _write(_string(root, 0), data[start:], len(data) - model.Pos, _read(resolver_at))


def _read(resolver: Table) -> _Resolver:
    ops = []
    for op in _children(resolver, 0):
        entries = [(_string(entry, 0), [_arg(arg) for arg in _children(entry, 1)]) for entry in _children(op, 1)]
        ops.append((_string(op, 0), sorted(entries)))
    return sorted(ops)


def _arg(table: Table) -> _Arg:
    kind, index = table.Offset(4), table.Offset(6)
    return (
        table.Get(number_types.Int8Flags, table.Pos + kind) if kind else 0,
        table.Get(number_types.Uint32Flags, table.Pos + index) if index else 0,
    )


def _write(version: bytes, tail: bytes, model: int, resolver: _Resolver) -> bytes:
    """``tail`` ends the file and holds the Model table, ``model`` bytes before the end (a builder's way to point)."""
    builder = flatbuffers.Builder(len(tail) + 4096)
    builder.Bytes[len(builder.Bytes) - len(tail) :] = tail
    builder.head = len(builder.Bytes) - len(tail)
    builder.minalign = _ALIGNMENT
    offset = _vector(builder, [_op(builder, *op) for op in resolver])
    table = _table(builder, lambda: builder.PrependUOffsetTRelativeSlot(0, offset, 0), slots=1)
    text = builder.CreateString(version)

    def fields() -> None:
        builder.PrependUOffsetTRelativeSlot(0, text, 0)
        builder.PrependUOffsetTRelativeSlot(1, model, 0)
        builder.PrependUOffsetTRelativeSlot(3, table, 0)

    builder.Finish(_table(builder, fields, slots=4), _IDENTIFIER)
    return bytes(builder.Output())


def _op(builder: flatbuffers.Builder, name: bytes, entries: Sequence[_Entry]) -> int:
    return _named(builder, name, [_named(builder, key, [_write_arg(builder, *arg) for arg in args])
                                  for key, args in entries])


def _named(builder: flatbuffers.Builder, name: bytes, members: Sequence[int]) -> int:
    """A table of a string and a vector of tables."""
    vector, text = _vector(builder, members), builder.CreateString(name)

    def fields() -> None:
        builder.PrependUOffsetTRelativeSlot(0, text, 0)
        builder.PrependUOffsetTRelativeSlot(1, vector, 0)

    return _table(builder, fields, slots=2)


def _write_arg(builder: flatbuffers.Builder, kind: int, index: int) -> int:
    def fields() -> None:
        builder.PrependInt8Slot(0, kind, 0)
        builder.PrependUint32Slot(1, index, 0)

    return _table(builder, fields, slots=2)


def _table(builder: flatbuffers.Builder, fields: Callable[[], None], slots: int) -> int:
    builder.StartObject(slots)
    fields()
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, members: Sequence[int]) -> int:
    builder.StartVector(4, len(members), 4)
    for member in reversed(members):
        builder.PrependUOffsetTRelative(member)
    return int(builder.EndVector())


def _child(table: Table, slot: int) -> Table | None:
    offset = table.Offset(4 + 2 * slot)
    return Table(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None


def _children(table: Table, slot: int) -> Iterator[Table]:
    offset = table.Offset(4 + 2 * slot)
    for index in range(table.VectorLen(offset) if offset else 0):
        yield Table(table.Bytes, table.Indirect(table.Vector(offset) + 4 * index))


def _string(table: Table, slot: int) -> bytes:
    offset = table.Offset(4 + 2 * slot)
    return bytes(table.String(table.Pos + offset)) if offset else b""
