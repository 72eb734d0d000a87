"""The TFLite schema as data: which field of which table holds what.

``tflite_schema.json`` is derived from the flatbuffer module that ships with ai-edge-litert, so that .tflite files can
be checked and described without an engine installed. After an update of ai-edge-litert run
``python -m edgekit.graph.tflite_schema`` to derive it again (a test compares the two).
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["Field", "Schema", "derive", "load_schema"]

Kind = Literal["scalar", "vector", "string", "strings", "table", "tables", "union"]

_FILE = Path(__file__).with_name("tflite_schema.json")
_SCALARS = {"Bool": "?", "Int8": "b", "Uint8": "B", "Int16": "h", "Uint16": "H", "Int32": "i", "Uint32": "I",
            "Int64": "q", "Uint64": "Q", "Float32": "f", "Float64": "d"}
_ENUMS = ("BuiltinOperator", "TensorType")


class Field(NamedTuple):
    """``slot``: its offset in the vtable. ``item``: struct code of a scalar, name of a table or of a union."""

    slot: int
    kind: Kind
    item: str


class Schema(NamedTuple):
    """Tables by name, then fields by name; unions as {type code: table}; enums as {value: name}."""

    tables: dict[str, dict[str, Field]]
    unions: dict[str, dict[int, str]]
    enums: dict[str, dict[int, str]]


@functools.cache
def load_schema() -> Schema:
    """The schema of ``tflite_schema.json``."""
    raw = json.loads(_FILE.read_text(encoding="ascii"))
    return Schema(
        {table: {name: Field(*field) for name, field in fields.items()} for table, fields in raw["tables"].items()},
        {union: {int(code): table for code, table in cases.items()} for union, cases in raw["unions"].items()},
        {enum: {int(value): name for value, name in values.items()} for enum, values in raw["enums"].items()},
    )


def derive(source: str) -> Schema:
    """The schema out of the text of ``ai_edge_litert.schema_py_generated``: whatever a Model can reach."""
    bodies = dict(re.findall(r"^class (\w+)\(object\):\n(.*?)(?=^\S)", source, re.M | re.S))
    # The object API tells the union's name where the reader does not: details = QuantizationDetailsCreator(...)
    union_of = {field: union for union, field in re.findall(r"(\w+)Creator\(self\.(\w+)Type\b", source)}
    tables: dict[str, dict[str, Field]] = {}
    unions: dict[str, dict[int, str]] = {}
    todo = ["Model"]
    while todo:
        name = todo.pop()
        if name in tables:
            continue
        tables[name] = {field_name: field._replace(item=union_of[field_name[0].lower() + field_name[1:]])
                        if field.kind == "union" else field for field_name, field in _fields(bodies[name]).items()}
        for field in tables[name].values():
            if field.kind in ("table", "tables"):
                todo.append(field.item)
            elif field.kind == "union":
                cases = _constants(bodies[field.item])
                unions[field.item] = {code: table for code, table in cases.items() if table != "NONE"}
                todo.extend(unions[field.item].values())
    return Schema(dict(sorted(tables.items())), dict(sorted(unions.items())),
                  {name: _constants(bodies[name]) for name in _ENUMS})


def _constants(body: str) -> dict[int, str]:
    return {int(value): name for name, value in re.findall(r"^    (\w+) = (-?\d+)$", body, re.M)}


def _fields(body: str) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    accessors = re.findall(r"^    def (\w+)\(self(?:, j)?\):\n(.*?)(?=^    (?:#|def |@)|\Z)", body, re.M | re.S)
    for name, accessor in accessors:
        slot = re.search(r"self\._tab\.Offset\((\d+)\)", accessor)
        field = _field(int(slot[1]), name, accessor) if slot else None
        if field:
            fields[name] = field
    return fields


def _field(slot: int, name: str, accessor: str) -> Field | None:
    if name.endswith(("AsNumpy", "IsNone", "Length")) and "_tab.Get(" not in accessor:
        return None
    inner = re.search(r"obj = (\w+)\(\)", accessor)
    many = "self._tab.Vector(o)" in accessor
    if "self._tab.Union(" in accessor:
        return Field(slot, "union", name)
    if inner:
        return Field(slot, "tables" if many else "table", inner[1])
    if "self._tab.String(" in accessor:
        return Field(slot, "strings" if many else "string", "B")
    scalar = re.search(r"self\._tab\.Get\(flatbuffers\.number_types\.(\w+)Flags", accessor)
    return Field(slot, "vector" if many else "scalar", _SCALARS[scalar[1]]) if scalar else None


def _write() -> None:
    from edgekit.atomic import write_atomically

    spec = importlib.util.find_spec("ai_edge_litert.schema_py_generated")
    assert spec is not None
    assert spec.origin is not None
    schema = derive(Path(spec.origin).read_text(encoding="utf-8"))
    lines = [f'"{part}": {{\n' + ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in content.items()) + "\n}"
             for part, content in schema._asdict().items()]
    write_atomically(_FILE, ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii"))


if __name__ == "__main__":
    _write()
