"""The .tflite checker: what it accepts can be walked to the last byte by another reader; damage is refused."""

from __future__ import annotations

import importlib.util
import random
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgekit.errors import BadModel
from edgekit.graph.facts_tflite import describe_tflite
from edgekit.graph.tflite_check import check_tflite
from edgekit.graph.tflite_schema import Schema, derive, load_schema

if TYPE_CHECKING:
    from tests.unit.conftest import TFLiteMaker

WIDE = (0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 127, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0,
        0xFFFFFFFC, 0xFFFFFFFF)


def walk(tflite: TFLiteMaker, data: bytes) -> Any:
    """Everything in the file, read by the module that flatc generated; it raises when it runs over the end."""
    return tflite.schema.ModelT.InitFromObj(tflite.schema.Model.GetRootAs(data, 0))


def graph(tflite: TFLiteMaker, **changes: object) -> Any:
    fields: dict[str, object] = {"tensors": [tflite.tensor("x", [1, 4]), tflite.tensor("y", [1, 4])], "inputs": [0],
                                 "outputs": [1], "operators": [tflite.operator(0, [0], [1])], "name": "main"}
    return tflite.table("SubGraph", **fields | changes)


def test_the_schema_is_that_of_the_installed_package() -> None:
    spec = importlib.util.find_spec("ai_edge_litert.schema_py_generated")
    if spec is None or spec.origin is None:
        pytest.skip("needs ai-edge-litert")
    derived = derive(Path(spec.origin).read_text(encoding="utf-8"))
    assert derived == load_schema(), "derive it anew: python -m edgekit.graph.tflite_schema"


def test_the_schema_covers_each_kind_of_field() -> None:
    schema: Schema = load_schema()
    assert schema.tables["Tensor"]["Quantization"] == (12, "table", "QuantizationParameters")
    assert schema.tables["QuantizationParameters"]["ZeroPoint"] == (10, "vector", "q")
    assert schema.tables["Operator"]["BuiltinOptions"] == (12, "union", "BuiltinOptions")
    assert schema.tables["DimensionMetadata"]["ArraySegments"] == (10, "union", "SparseIndexVector")
    assert schema.tables["SubGraph"]["Name"] == (12, "string", "B")
    assert schema.tables["Model"]["Subgraphs"] == (8, "tables", "SubGraph")
    assert schema.unions["BuiltinOptions"][1] == "Conv2DOptions"
    assert schema.enums["TensorType"][17] == "INT4"
    assert len(schema.tables) > 160


def test_facts_of_a_sound_file(rich_tflite: bytes) -> None:
    facts = describe_tflite(rich_tflite, "m")
    assert [(spec.name, spec.dtype, spec.shape) for spec in facts.inputs] == [("image", "float32", (-1, 4))]
    assert [(spec.name, spec.dtype, spec.shape) for spec in facts.outputs] == [("scores", "float32", (2,))]
    assert facts.op_counts == {"CUSTOM:MyOp": 1, "FULLY_CONNECTED": 1, "RESHAPE": 1, "STABLEHLO_COMPOSITE": 1}
    assert facts.opsets == {"tflite": 3}
    assert facts.parameter_count == 8 + 16 + 3
    assert facts.weight_bytes == 8 + 24 + 2
    assert [signature.name for signature in facts.signatures] == ["serving_default"]
    assert facts.size_bytes == len(rich_tflite)


def test_without_a_signature_the_tensors_names_are_used(tflite: TFLiteMaker) -> None:
    facts = describe_tflite(tflite.pack(["RELU"], [b""], [graph(tflite)]), "m")
    assert ([spec.name for spec in facts.inputs], [spec.name for spec in facts.outputs]) == (["x"], ["y"])
    assert facts.signatures == ()


@pytest.mark.parametrize("data", [b"", bytes(8), bytes(100), b"TFL3" * 25, b"\x10\0\0\0TFL2" + bytes(92),
                                  b"\x10\0\0\0TFL3" + bytes(92), b"\xff\xff\xff\x7fTFL3" + bytes(92)])
def test_what_is_no_tflite_file(data: bytes) -> None:
    with pytest.raises(BadModel, match="The model 'm'") as caught:
        check_tflite(data, "The model 'm'")
    assert caught.value.remedy


@pytest.mark.parametrize(("changes", "text"), [
    ({"inputs": [2]}, "Inputs of subgraph 0 is 2, but there are 2"),
    ({"outputs": [-2]}, "Outputs of subgraph 0 is -2"),
    ({"operators": ("op", 1, [0], [1])}, "op code of an op in subgraph 0 is 1, but there are 1"),
    ({"operators": ("op", 0, [5], [1])}, "Inputs of an op in subgraph 0 is 5"),
    ({"operators": ("op", 0, [0], [-2])}, "Outputs of an op in subgraph 0 is -2"),
    ({"tensors": ("x", [1, 4], 7)}, "buffer of tensor 'x' of subgraph 0 is 7, but there are 2"),
    ({"tensors": ("x", [1, -4], 0)}, r"tensor 'x' of subgraph 0 has the shape \[1, -4\]"),
    ({"tensors": ("x", [1000, 1000], 1)}, "constant 'x' of subgraph 0 needs 4000000 bytes but has 16"),
    ({"tensors": ("x", [2**30, 2**30, 4], 1)}, "needs 18446744073709551616 bytes but has 16"),
])
def test_references_that_cannot_be(tflite: TFLiteMaker, changes: dict[str, Any], text: str) -> None:
    if "operators" in changes:
        changes = {"operators": [tflite.operator(*changes["operators"][1:])]}
    if "tensors" in changes:
        changes = {"tensors": [tflite.tensor(*changes["tensors"]), tflite.tensor("y", [1, 4])]}
    with pytest.raises(BadModel, match=text):
        check_tflite(tflite.pack(["RELU"], [b"", bytes(16)], [graph(tflite, **changes)]))


def test_wrong_whole_models(tflite: TFLiteMaker) -> None:
    good = [graph(tflite)]
    signature = tflite.table("SignatureDef", signatureKey="a", subgraphIndex=1)
    far = tflite.table("SignatureDef", signatureKey="a", subgraphIndex=0,
                       inputs=[tflite.table("TensorMap", name="x", tensorIndex=9)])
    unknown_type = tflite.tensor("x", [1, 4])
    unknown_type.type = 99
    behind = tflite.table("Buffer", offset=5000, size=100)
    for data, text in (
        (tflite.pack(["RELU"], [b""], []), "no subgraph"),
        (tflite.pack(["RELU"], [b""], good, signatureDefs=[signature]), "subgraph of the signature 'a' is 1"),
        (tflite.pack(["RELU"], [b""], good, signatureDefs=[far]), "tensor of the signature 'a' is 9"),
        (tflite.pack(["RELU"], [b""], good, metadata=[tflite.table("Metadata", name="m", buffer=5)]), "metadata"),
        (tflite.pack(["RELU"], [b""], [graph(tflite, tensors=[unknown_type, unknown_type])]), "type 99"),
        (tflite.pack(["RELU"], [b"", behind], good), "behind the flatbuffer"),
        (tflite.pack(["RELU"], [b""], good, version=4), "schema version 4, not 3"),
        (tflite.pack(["RELU"], [b""], [graph(tflite, tensors=[tflite.tensor("x", [2**30] * 5000)])]), "has the shape"),
    ):
        with pytest.raises(BadModel, match=text):
            check_tflite(data)


def test_every_truncation_is_refused(rich_tflite: bytes) -> None:
    check_tflite(rich_tflite)
    accepted = []
    for size in range(len(rich_tflite)):
        try:
            check_tflite(rich_tflite[:size])
        except BadModel:
            continue
        accepted.append(size)
    # Trailing bytes that only align the last object may be missing.
    assert all(size > len(rich_tflite) - 4 for size in accepted), accepted


def share(tflite: TFLiteMaker, data: bytes, table: Any, slot: int, count: int) -> bytes:
    """``data`` with a vector of ``count`` offsets, all to the first element of the vector field ``slot`` of ``table``.

    The new vector is put at the end, and the field is pointed to it.
    """
    field = table._tab.Offset(slot) + table._tab.Pos
    first = table._tab.Indirect(table._tab.Vector(table._tab.Offset(slot)))
    padded = bytearray(data + bytes(-len(data) % 4))
    # Offsets count forwards only, so a copy of the whole file goes behind the vector: its tables refer within it.
    vector = len(padded)
    copy_at = (vector + 4 + 4 * count + 15) // 16 * 16
    padded[field:field + 4] = struct.pack("<I", vector - field)
    offsets = [copy_at + first - (vector + 4 + 4 * index) for index in range(count)]
    padded += struct.pack(f"<{count + 1}I", count, *offsets)
    return bytes(padded + bytes(copy_at - len(padded)) + data)


def test_shared_offsets_cannot_hang_the_reader(tflite: TFLiteMaker) -> None:
    """300,000 mentions of a subgraph that mentions a tensor 20,000 times: 6,000,000,000 reads for a trusting reader."""
    data = tflite.pack(["RELU"], [b""], [graph(tflite)])
    data = share(tflite, data, tflite.schema.Model.GetRootAs(data, 0).Subgraphs(0), 4, 20_000)
    check_tflite(data)
    data = share(tflite, data, tflite.schema.Model.GetRootAs(data, 0), 8, 300_000)
    begin = time.process_time()
    with pytest.raises(BadModel, match="refer to one another more often than makes sense"):
        check_tflite(data)
    assert time.process_time() - begin < 10


def test_a_long_shared_name_cannot_fill_the_memory(tflite: TFLiteMaker) -> None:
    main = graph(tflite, tensors=[tflite.tensor("n" * 100_000, [1])], inputs=[0] * 100_000, outputs=[0], operators=[])
    data = tflite.pack(["RELU"], [b""], [main])
    check_tflite(data)
    begin = time.process_time()
    with pytest.raises(BadModel, match="more often than makes sense"):
        describe_tflite(data, "m")
    assert time.process_time() - begin < 10


def mutate(pick: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(pick.choice((1, 1, 1, 2, 5))):
        at = pick.randrange(len(changed))
        way = pick.randrange(4)
        if way == 0:
            changed[at] ^= 1 << pick.randrange(8)
        elif way == 1:
            changed[at] = pick.choice((0, 1, 4, 0x7F, 0x80, 0xFF))
        elif way == 2:
            at -= at % 4
            changed[at:at + 4] = struct.pack("<I", pick.choice(WIDE))[:len(changed) - at]
        else:
            source = pick.randrange(len(changed)) & ~3
            changed[at & ~3:(at & ~3) + 4] = changed[source:source + 4]
    return bytes(changed)


@pytest.mark.parametrize("count", [4000, pytest.param(30_000, marks=pytest.mark.slow)])
def test_what_is_accepted_can_be_read_to_the_end(
        tflite: TFLiteMaker, rich_tflite: bytes, capsys: pytest.CaptureFixture[str], count: int) -> None:
    accepted = 0
    for number in range(count):
        data = mutate(random.Random(number), rich_tflite)
        try:
            facts = describe_tflite(data, "m")
        except BadModel:
            continue
        accepted += 1
        model = walk(tflite, data)
        assert len(model.subgraphs) >= 1, number
        assert facts.size_bytes == len(data)
    with capsys.disabled():
        sys.stdout.write(f"\n{count} mutated .tflite files: {count - accepted} refused, {accepted} read to the end\n")
    assert count / 20 < accepted < count * 0.95


def test_real_files_are_accepted(shared: Path) -> None:
    files = sorted((shared / "models").rglob("*.tflite"))
    if not files:
        pytest.skip("no .tflite files there")
    for file in files:
        assert describe_tflite(file.read_bytes(), str(file)).op_counts
