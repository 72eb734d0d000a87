"""``edgekit quantize`` and ``verify`` on networks and data that the tool has never seen, sound and faulty."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array
from edgekit.cli.quantize import Request, quantize_file
from edgekit.converters.quantize import open_samples, quantize, read_model
from edgekit.errors import BadModel, EdgeKitError
from edgekit.recipe import Preprocess, QuantRecipe, QuantRule
from tests.conftest import Cli
from tests.quantize_models import images, litert, swish_classifier

pytest.importorskip("ai_edge_quantizer")

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RNG = np.random.default_rng(3)


def weight(*shape: int) -> Array:
    return RNG.normal(0, 0.3, shape).astype(np.float32)


def save(path: Path, nodes: list[onnx.NodeProto], inputs: Mapping[str, Any], outputs: Mapping[str, Any],
         weights: Mapping[str, Array]) -> None:
    taken, given = ([helper.make_tensor_value_info(name, *kind) for name, kind in each.items()]
                    for each in (inputs, outputs))
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", taken, given, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def text_network(path: Path) -> None:
    """``ids`` (1, 12) int64 below 50 and ``mask`` (1, 12) bool to ``scores`` (1, 7)."""
    save(path, [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Cast", ["mask"], ["m"], to=FLOAT),
        helper.make_node("Unsqueeze", ["m", "axis"], ["mu"]),
        helper.make_node("Mul", ["e", "mu"], ["em"]),
        helper.make_node("MatMul", ["em", "w0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["p"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["p", "w1"], ["scores"]),
    ], {"ids": (INT64, (1, 12)), "mask": (BOOL, (1, 12))}, {"scores": (FLOAT, (1, 7))},
        {"table": weight(50, 32), "w0": weight(32, 64), "w1": weight(64, 7), "axis": np.array([2])})


def quantized(cli: Cli, source: str, data: str, *more: str) -> dict[str, Any]:
    """The one object on stdout; nothing else may be there."""
    done = cli("quantize", source, "--calibration", data, "--objective", "latency", "--max-drop", "0.5",
               "--max-seconds", "1", "-o", "out.tflite", "--json", *more)
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    assert ("error" in value) == (done.returncode != 0)
    assert "Traceback" not in done.stderr
    return value


def refused(source: Path, data: Mapping[str, Any] | bytes) -> EdgeKitError:
    """The error that the work of the command raises here, without its child processes; nothing is written."""
    path, output = source.parent / "faulty.npz", source.parent / "faulty.tflite"
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        np.savez(path, **data)
    goal = {"objective": "latency", "max_drop_points": 0.5, "max_seconds": 1.0}
    with pytest.raises(EdgeKitError) as caught:
        quantize_file(Request(source, output, str(path), None, None, {}, Preprocess(), goal, QuantRecipe(()), "litert",
                              "host"))
    assert not output.exists()
    return caught.value


@pytest.mark.slow
def test_token_ids_and_a_mask(cli: Cli, tmp_path: Path) -> None:
    text_network(tmp_path / "text.onnx")
    ids, mask = RNG.integers(0, 50, (16, 12)), RNG.random((16, 12)) > 0.2
    np.savez(tmp_path / "data.npz", ids=ids, mask=mask)
    got = quantized(cli, "text.onnx", "data.npz")
    assert [(spec["name"], spec["dtype"]) for spec in got["inputs"]] == [("ids", "int64"), ("mask", "bool")]
    assert got["size_bytes"] < got["float_size_bytes"]
    assert any("16 samples cannot show" in note for note in got["notes"])


def test_faulty_token_ids_and_masks(tmp_path: Path) -> None:
    text_network(tmp_path / "text.onnx")
    ids, mask = RNG.integers(0, 50, (16, 12)), RNG.random((16, 12)) > 0.2
    for arrays, words in (
        ({"ids": ids + 40, "mask": mask}, "calibration data"),
        ({"ids": ids}, "no array 'mask'"),
        ({"ids": ids, "mask": mask.astype(np.float32)}, "'mask' is float32"),
        ({"ids": ids.astype(np.float32), "mask": mask}, "'ids' is float32"),
        ({"ids": ids, "mask": mask[:9]}, "different numbers"),
    ):
        assert words in refused(tmp_path / "text.onnx", arrays).message


@pytest.mark.slow
def test_several_outputs_are_judged_by_noise_and_labels_are_said_to_be_unused(cli: Cli, tmp_path: Path) -> None:
    proto = swish_classifier(width=32)
    proto.graph.output.append(helper.make_tensor_value_info("h1", FLOAT, (1, 32, 16, 16)))
    onnx.save(proto, tmp_path / "two.onnx")
    np.savez(tmp_path / "data.npz", x=images(8), labels=np.zeros(8, np.int64))
    got = quantized(cli, "two.onnx", "data.npz")
    assert [spec["name"] for spec in got["outputs"]] == ["scores", "h1"]
    assert any("labels" in note and "cannot be used" in note for note in got["notes"])
    if got["chosen"] is not None:
        assert got["chosen"]["agreement"] is None
        assert got["chosen"]["sqnr_db"] >= 30


@pytest.mark.slow
def test_a_fixed_batch_and_float64_data(cli: Cli, tmp_path: Path) -> None:
    onnx.save(swish_classifier(width=32, batch=1), tmp_path / "one.onnx")
    save(tmp_path / "four.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, (4, 64))},
         {"y": (FLOAT, (4, 32))}, {"w": weight(64, 32)})
    data = RNG.normal(0, 1, (10, 64))
    np.savez(tmp_path / "data.npz", x=data, labels=np.zeros(10, np.int64))
    got = quantized(cli, "four.onnx", "data.npz")
    judged = [each for each in got["candidates"] if not each["failure"]]
    assert {each["samples"] for each in judged} == {8}  # 10 entries are two batches of four
    assert "3 entries" in refused(tmp_path / "four.onnx", {"x": data[:3]}).message


@pytest.mark.slow
def test_one_sample_and_channels_of_zeros(cli: Cli, tmp_path: Path) -> None:
    proto = swish_classifier(width=32)
    for tensor in proto.graph.initializer:
        if tensor.name in ("w0", "b0"):
            values = numpy_helper.to_array(tensor).copy()
            values[:5] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, tmp_path / "zeros.onnx")
    np.savez(tmp_path / "data.npz", x=images(1))
    got = quantized(cli, "zeros.onnx", "data.npz")
    chosen = got["chosen"]
    assert chosen is None or (chosen["samples"] == 1 and chosen["sqnr_db"] > 10)
    assert all(np.isfinite(each["sqnr_db"]) for each in got["layers"])


@pytest.mark.parametrize(
    ("arrays", "kind", "words"),
    [
        ({"x": np.zeros((0, 3, 32, 32), np.float32)}, "BadInput", "no sample"),
        ({"x": np.full((2, 3, 32, 32), np.inf, np.float32)}, "BadInput", "Sample 0"),
        ({"x": np.full((2, 3, 32, 32), 1e300)}, "BadInput", "infinity"),
        ({"x": np.zeros((2, 3, 32, 32), np.uint8)}, "BadInput", "uint8"),
        ({"x": np.zeros((2, 3, 32), np.float32)}, "BadInput", "shape"),
        ({"x": np.float32(1)}, "BadInput", "shape []"),
        ({"x": np.array(["a", "b"])}, "BadInput", "'x'"),
        ({"image": images(2)}, "UnknownName", "image"),
        ({"x": images(2), "z": images(2)}, "UnknownName", "'z'"),
        ({}, "BadInput", "'x'"),
        ({"x": images(3), "labels": np.array([0, 1])}, "BadInput", "2 labels for 3"),
        ({"x": images(3), "labels": np.array([0, 1, 10])}, "BadInput", "label 10"),
        ({"x": images(3), "labels": np.array([0, -1, 1])}, "BadInput", "label -1"),
        ({"x": images(3), "labels": np.eye(10, dtype=np.int64)[:3]}, "BadInput", "[3, 10]"),
    ],
)
def test_faulty_data_is_named(tmp_path: Path, arrays: dict[str, Array], kind: str, words: str) -> None:
    onnx.save(swish_classifier(), tmp_path / "net.onnx")
    error = refused(tmp_path / "net.onnx", arrays)
    assert type(error).__name__ == kind
    assert words in error.message
    assert error.remedy


def test_a_file_that_is_no_archive_and_one_that_is_empty(cli: Cli, tmp_path: Path) -> None:
    onnx.save(swish_classifier(), tmp_path / "net.onnx")
    (tmp_path / "data.npz").write_bytes(b"")
    error = quantized(cli, "net.onnx", "data.npz")["error"]
    assert error["type"] == "BadInput"
    assert "data.npz" in error["message"]
    assert error["remedy"]
    assert not (tmp_path / "out.tflite").exists()
    assert "faulty.npz" in refused(tmp_path / "net.onnx", b"PK\x03\x04 not an archive").message


def test_nan_from_within_the_network(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Log", ["h"], ["y"])]
    save(tmp_path / "log.onnx", nodes, {"x": (FLOAT, (1, 8))}, {"y": (FLOAT, (1, 16))}, {"w": weight(8, 16)})
    error = refused(tmp_path / "log.onnx", {"x": RNG.normal(0, 1, (4, 8))})
    assert isinstance(error, BadModel)
    assert "NaN in the output 'y'" in error.message


def test_quantized_files_are_told_from_float16_ones(cli: Cli, tmp_path: Path) -> None:
    model = litert(swish_classifier())
    for precision in ("dynamic8", "float16"):
        made = quantize(model, QuantRecipe((QuantRule(precision),)))
        (tmp_path / f"{precision}.tflite").write_bytes(made.data)
    np.savez(tmp_path / "data.npz", x=images(4))
    error = quantized(cli, "dynamic8.tflite", "data.npz")["error"]
    assert error["type"] == "BadModel"
    assert "quantized already" in error["message"]
    got = quantized(cli, "float16.tflite", "data.npz")
    assert abs(got["float_size_bytes"] / len(model.data) - 1) < 0.1


def test_a_device_whose_profile_knows_no_int8(cli: Cli, tmp_path: Path) -> None:
    from edgekit.device_profiles import load_profiles

    onnx.save(swish_classifier(), tmp_path / "net.onnx")
    device = next(each.id for each in load_profiles() if each.precision != "int8")
    error = quantized(cli, "net.onnx", "random", "--device", device)["error"]
    assert error["type"] == "BadRecipe"
    assert device in error["message"]
    assert quantized(cli, "net.onnx", "random", "--device", "toaster")["error"]["type"] == "UnknownName"


def test_verify_shows_where_the_error_enters(cli: Cli, tmp_path: Path) -> None:
    proto = swish_classifier()
    onnx.save(proto, tmp_path / "net.onnx")
    model = litert(proto)
    (tmp_path / "net.tflite").write_bytes(model.data)
    made = quantize(model, QuantRecipe((QuantRule("static8"), QuantRule("float32", ("HARD_SWISH",)))),
                    open_samples(images(8), model.inputs))
    (tmp_path / "q.tflite").write_bytes(made.data)
    np.savez(tmp_path / "data.npz", x=images(4, seed=2))
    found = []
    for reference in ("net.onnx", "net.tflite"):
        done = cli("verify", "q.tflite", "--against", reference, "--data", "data.npz", "--json")
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout)["growth"])
    growth = found[0]
    assert found[1] == growth
    assert growth["samples"] == 4
    assert growth["compared"] == growth["ops"] == len(growth["layers"])
    first, last = growth["layers"][0], growth["layers"][-1]
    assert first["input_sqnr_db"] is None
    assert last["tensor"] == "scores"
    assert 5 < last["sqnr_db"] < first["sqnr_db"]
    for layer in growth["layers"]:  # noise that comes in and noise that is added make up what goes out, or less
        if layer["added_sqnr_db"] is not None and layer["input_sqnr_db"] is not None:
            parts = 10 ** (-layer["added_sqnr_db"] / 10) + 10 ** (-layer["input_sqnr_db"] / 10)
            assert layer["sqnr_db"] == pytest.approx(-10 * np.log10(parts), abs=0.01)
    shown = cli("verify", "q.tflite", "--against", "net.tflite")
    assert "added alone" in shown.stdout
    assert "random" in shown.stdout


def test_verify_refuses_what_it_cannot_compare(cli: Cli, tmp_path: Path) -> None:
    model = litert(swish_classifier())
    (tmp_path / "net.tflite").write_bytes(model.data)
    made = quantize(model, QuantRecipe((QuantRule("dynamic8"),)))
    (tmp_path / "q.tflite").write_bytes(made.data)
    assert read_model(made.data).outputs == model.outputs
    done = cli("verify", "net.tflite", "--against", "q.tflite")
    assert done.returncode == 1
    assert "reference 'q.tflite' is quantized already" in done.stderr
    save(tmp_path / "other.onnx", [helper.make_node("Relu", ["a"], ["b"])], {"a": (FLOAT, (1, 4))},
         {"b": (FLOAT, (1, 4))}, {})
    done = cli("verify", "q.tflite", "--against", "other.onnx")
    assert done.returncode == 1
    assert "['x'] -> ['scores']" in done.stderr
