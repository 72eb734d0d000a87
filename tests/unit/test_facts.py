"""``inspect_model``: right about good files, and no file can take the process down."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edgekit import isolate
from edgekit.bundle import Bundle
from edgekit.errors import BadBundle, BadModel, EdgeKitError, InternalError, MissingExtra
from edgekit.graph import facts
from edgekit.graph.facts import ModelFacts, inspect_model

if TYPE_CHECKING:
    from tests.unit.conftest import TFLiteMaker

SUFFIXES = (".onnx", ".tflite", ".ort", ".edge")


@pytest.fixture(scope="module")
def ort_file(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network in the .ort format, as ONNX Runtime itself writes it."""
    engine = pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("ort") / "small.ort"
    options = engine.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = engine.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.save_model_format", "ORT")
    engine.InferenceSession(str(small_onnx), options, providers=["CPUExecutionProvider"])
    return path


@pytest.fixture(scope="module")
def good_files(small_onnx: Path, ort_file: Path, rich_tflite: bytes, conformance: Path) -> dict[str, bytes]:
    """A good file for each suffix. The .tflite is the golden one, which LiteRT can load."""
    with Bundle.open(conformance / "golden.edge") as bundle:
        tflite = bundle.read("models/litert-fp32.tflite")
    return {".onnx": small_onnx.read_bytes(), ".tflite": tflite, ".ort": ort_file.read_bytes(),
            ".edge": (conformance / "golden.edge").read_bytes()}


def specs(found: tuple[Any, ...]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(spec.name, spec.dtype, spec.shape) for spec in found]


def test_onnx(small_onnx: Path) -> None:
    found = inspect_model(small_onnx)
    assert found.format == "onnx"
    assert specs(found.inputs) == [("image", "float32", (-1, 3, 16, 16))]
    assert specs(found.outputs) == [("scores", "float32", (-1, 5))]
    assert found.op_counts == {"Conv": 1, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1, "Relu": 1}
    assert found.opsets == {"ai.onnx": 17}
    assert found.parameter_count == 8 * 3 * 3 * 3 + 8 + 5 * 8 + 5
    assert found.weight_bytes == 4 * found.parameter_count
    assert found.size_bytes == small_onnx.stat().st_size
    assert found.loads is True


def test_tflite(good_files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(good_files[".tflite"])
    found = inspect_model(tmp_path / "m.tflite")
    assert found.format == "tflite"
    assert specs(found.inputs) == [("x", "float32", (1, 4))]
    assert specs(found.outputs) == [("scores", "float32", (1, 3))]
    assert found.op_counts == {"FULLY_CONNECTED": 1}
    assert (found.parameter_count, found.weight_bytes) == (12, 48)
    assert [signature.name for signature in found.signatures] == ["serving_default"]
    assert (found.loads, found.load_note) == (True, "")


def test_ort(ort_file: Path) -> None:
    found = inspect_model(ort_file)
    assert found.format == "ort"
    assert specs(found.inputs) == [("image", "float32", (-1, 3, 16, 16))]
    assert specs(found.outputs) == [("scores", "float32", (-1, 5))]
    assert found.loads is True
    assert found.op_counts is None


def test_edge(conformance: Path) -> None:
    found = inspect_model(conformance / "golden.edge")
    assert found.format == "edge"
    assert found.bundle is not None
    assert found.bundle.name == "golden"
    assert found.bundle.signed
    assert found.bundle.variants[0] == ("litert-fp32", "litert", "tflite", "fp32")
    assert ("labels.txt", 19) in found.bundle.entries
    assert specs(found.inputs) == [("x", "float32", (1, 4))]
    assert found.loads is None


def test_facts_are_json(good_files: dict[str, bytes], tmp_path: Path) -> None:
    for suffix, data in good_files.items():
        (tmp_path / f"m{suffix}").write_bytes(data)
        found = inspect_model(tmp_path / f"m{suffix}")
        encoded = msgspec.json.encode(found)
        assert json.loads(encoded)["format"] == suffix[1:]
        assert msgspec.json.decode(encoded, type=ModelFacts) == found


def test_without_a_known_suffix_the_content_decides(good_files: dict[str, bytes], tmp_path: Path) -> None:
    for suffix in (".tflite", ".ort", ".edge"):
        (tmp_path / "model").write_bytes(good_files[suffix])
        assert inspect_model(tmp_path / "model").format == suffix[1:]
    (tmp_path / "model").write_bytes(good_files[".onnx"])
    with pytest.raises(BadModel, match=r"no known suffix.*\.onnx, \.tflite, \.ort, \.edge"):
        inspect_model(tmp_path / "model")


# Bad input


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("make", "text"), [
    (Path.exists, "no file"),
    (Path.mkdir, "is a directory"),
    (os.mkfifo, "not a regular file"),
])
def test_what_is_no_file(tmp_path: Path, suffix: str, make: Callable[[Path], object], text: str) -> None:
    make(tmp_path / f"m{suffix}")
    with pytest.raises(BadModel, match=text) as caught:
        inspect_model(tmp_path / f"m{suffix}")
    assert f"m{suffix}" in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("size", "source"), [(0, "head"), (8, "head"), (8, "zeros"), (100, "head"), (100, "noise")])
def test_tiny_files(good_files: dict[str, bytes], tmp_path: Path, suffix: str, size: int, source: str) -> None:
    content = {"zeros": bytes(size), "noise": random.Random(1).randbytes(size), "head": good_files[suffix][:size]}
    (tmp_path / f"m{suffix}").write_bytes(content[source])
    with pytest.raises(BadBundle if suffix == ".edge" else BadModel) as caught:
        inspect_model(tmp_path / f"m{suffix}")
    assert f"m{suffix}" in caught.value.message


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("part", [0.3, 0.9, 0.99])
def test_truncated_files(good_files: dict[str, bytes], tmp_path: Path, suffix: str, part: float) -> None:
    data = good_files[suffix]
    (tmp_path / f"m{suffix}").write_bytes(data[:int(len(data) * part)])
    with pytest.raises(BadBundle if suffix == ".edge" else BadModel):
        inspect_model(tmp_path / f"m{suffix}")


def flips(data: bytes, count: int, seed: int) -> list[bytes]:
    """Copies with one to four bits flipped, the first half of them in the first 200 bytes, where structure is dense."""
    pick = random.Random(seed)
    made = []
    for number in range(count):
        changed = bytearray(data)
        for _ in range(pick.choice((1, 1, 2, 4))):
            changed[pick.randrange(min(200, len(data)) if number < count / 2 else len(data))] ^= 1 << pick.randrange(8)
        made.append(bytes(changed))
    return made


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flipped_bits(good_files: dict[str, bytes], tmp_path: Path, suffix: str, count: int,
                      capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"m{suffix}"
    results: Counter[str] = Counter()
    for data in flips(good_files[suffix], count, 5):
        path.write_bytes(data)
        try:
            found = inspect_model(path)
        except InternalError:
            raise
        except EdgeKitError as error:
            results[type(error).__name__] += 1
        else:
            assert found.size_bytes == len(data)
            results[f"loads: {found.loads}"] += 1
    with capsys.disabled():
        sys.stdout.write(f"\n{count} {suffix} files with flipped bits: {dict(results)}\n")
    assert set(results) <= {"BadModel", "BadBundle", "loads: True", "loads: False", "loads: None"}
    assert results.total() == count


def test_an_engine_that_crashes_is_a_fact(crashing_tflite: bytes, tmp_path: Path,
                                          capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.tflite").write_bytes(crashing_tflite)
    found = inspect_model(tmp_path / "m.tflite")
    assert found.loads is False
    assert "SIGSEGV" in found.load_note or "refused" in found.load_note
    assert found.op_counts == {"SPLIT": 1}
    assert capfd.readouterr() == ("", "")


def test_a_custom_op_is_a_fact(tflite: TFLiteMaker, rich_tflite: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(rich_tflite)
    found = inspect_model(tmp_path / "m.tflite")
    assert found.loads is False
    assert found.load_note
    assert found.op_counts is not None
    assert found.op_counts["CUSTOM:MyOp"] == 1


def changed_onnx(source: Path, target: Path, change: Callable[[Any], object]) -> Path:
    import onnx

    model = onnx.load(source)
    change(model)
    target.write_bytes(model.SerializeToString())
    return target


def test_onnx_without_opset_import(small_onnx: Path, tmp_path: Path) -> None:
    path = changed_onnx(small_onnx, tmp_path / "m.onnx", lambda model: model.ClearField("opset_import"))
    with pytest.raises(BadModel, match="opset_import"):
        inspect_model(path)


def test_onnx_with_an_op_of_a_custom_domain(small_onnx: Path, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.graph.node[1].domain = "com.acme"
        model.opset_import.add(domain="com.acme", version=1)

    found = inspect_model(changed_onnx(small_onnx, tmp_path / "m.onnx", change))
    assert found.op_counts is not None
    assert found.op_counts["com.acme.Relu"] == 1
    assert found.opsets == {"ai.onnx": 17, "com.acme": 1}
    assert found.loads is False
    assert "com.acme" in found.load_note


def test_onnx_whose_weights_are_elsewhere_is_described_without_opening_them(small_onnx: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(small_onnx)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    found = inspect_model(tmp_path / "m.onnx")
    assert found.weight_bytes == 4 * (8 * 3 * 3 * 3 + 8 + 5 * 8 + 5)
    assert found.loads is None
    assert "other files" in found.load_note


def test_a_missing_engine_is_named_and_no_error(
        good_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(target: str, *_: object, **__: object) -> object:
        raise MissingExtra.of("onnxruntime" if "ort" in target else "ai-edge-litert", "all")

    for suffix in (".tflite", ".ort"):
        (tmp_path / f"m{suffix}").write_bytes(good_files[suffix])
    monkeypatch.setattr(isolate, "call", missing)
    for suffix in (".tflite", ".ort"):
        found = inspect_model(tmp_path / f"m{suffix}")
        assert found.loads is None
        assert "pip install" in found.load_note


def test_the_negative_model(shared: Path) -> None:
    path = shared / "models" / "negative" / "person_detect.tflite"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    found = inspect_model(path)
    assert found.op_counts is not None
    assert found.op_counts["DEPTHWISE_CONV_2D"] == 14
    assert found.loads is False
    assert "quantized_dimension" in found.load_note


@pytest.mark.slow
def test_damaged_real_models(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results: Counter[str] = Counter()
    pick = random.Random(11)
    for file in sorted((shared / "models").rglob("*.tflite")):
        data = file.read_bytes()
        for changed in [*flips(data, 10, 3), *(data[:pick.randrange(len(data))] for _ in range(5))]:
            (tmp_path / "m.tflite").write_bytes(changed)
            try:
                found = inspect_model(tmp_path / "m.tflite")
            except BadModel:
                results["BadModel"] += 1
            else:
                results[f"loads: {found.loads}"] += 1
    if not results:
        pytest.skip("no .tflite files there")
    with capsys.disabled():
        sys.stdout.write(f"\n{results.total()} damaged real .tflite files: {dict(results)}\n")
    assert results["BadModel"] > 0


def test_every_name_is_exported() -> None:
    assert all(hasattr(facts, name) for name in facts.__all__)
