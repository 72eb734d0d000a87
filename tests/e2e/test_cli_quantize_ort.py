"""``edgekit quantize --to ort``, and graphs that are quantized already, as a person or a script runs it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.runtime.engines import open_session
from tests.conftest import Cli
from tests.quantize_models import images, swish_classifier
from tests.unit.test_quantized import Qdq, conv_block


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(swish_classifier(width=32).SerializeToString())
    return path


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A graph as quantization-aware training leaves it."""
    graph = Qdq()
    path = tmp_path / "qat.onnx"
    path.write_bytes(graph.model(conv_block(graph), (1, 3, 8, 8)).SerializeToString())
    return path


def answer(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


@pytest.mark.slow
def test_search_then_again_by_the_recipe(cli: Cli, tmp_path: Path, network: Path) -> None:
    np.savez(tmp_path / "data.npz", x=images(16))
    out, recipe, again = tmp_path / "out.onnx", tmp_path / "recipe.json", tmp_path / "again.onnx"
    got = answer(cli("quantize", network, "--data", "data.npz", "--to", "ort", "--objective", "size", "--min-sqnr-db",
                     "18", "--max-seconds", "1", "-o", out, "--save-recipe", recipe, "--json"))
    data = out.read_bytes()
    assert got["sha256"] == hashlib.sha256(data).hexdigest()
    assert got["inputs"][0] == {**got["inputs"][0], "name": "x", "shape": [1, 3, 32, 32], "dtype": "float32"}
    assert got["chosen"]["sqnr_db"] >= 18
    assert got["size_bytes"] < got["float_size_bytes"]
    assert len(got["candidates"]) >= 4
    with open_session("ort", network.read_bytes()) as reference, open_session("ort", data) as session:
        feeds = {"x": images(1, seed=9)}
        want, have = reference.run(feeds)["scores"], session.run(feeds)["scores"]
        assert np.linalg.norm(want - have) < 0.2 * np.linalg.norm(want)
    answer(cli("quantize", network, "--recipe", recipe, "-o", again, "--json"))
    assert again.read_bytes() == data


def test_a_recipe_by_hand_with_the_integers_of_another_cpu(cli: Cli, tmp_path: Path, network: Path) -> None:
    (tmp_path / "static.json").write_text('{"rules": [{"precision": "static8"}]}', encoding="utf-8")
    out = tmp_path / "out.onnx"
    answer(cli("quantize", network, "--data", "random", "--cpu", "arm", "--recipe", "static.json", "-o", out, "--json"))
    graph = onnx.load(str(out)).graph
    zeros = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert {zeros[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"} == {onnx.TensorProto.INT8}


@pytest.mark.parametrize(("out", "engine"), [("out.onnx", "ort"), ("out.tflite", "litert")])
def test_a_graph_that_is_quantized_already_is_kept(
    cli: Cli, tmp_path: Path, trained: Path, out: str, engine: str
) -> None:
    got = answer(cli("quantize", trained, "--data", "random", "-o", out, "--json"))
    assert got["chosen"] is None
    assert "quantized already" in got["notes"][0]
    data = (tmp_path / out).read_bytes()
    assert got["size_bytes"] == len(data)
    if engine == "ort":
        ops = {node.op_type for node in onnx.load_model_from_string(data).graph.node}
        assert ops & {"QuantizeLinear", "QLinearConv"}
        feeds = {"x": np.linspace(-2, 2, 3 * 64, dtype=np.float32).reshape(1, 3, 8, 8)}
        with open_session("ort", trained.read_bytes()) as reference, open_session("ort", data) as session:
            (want,), (have,) = reference.run(feeds).values(), session.run(feeds).values()
            assert np.abs(want - have).max() <= 0.26  # one step of the last scale
    else:
        assert answer(cli("inspect", out, "--json"))["op_counts"]["QUANTIZE"] >= 1


@pytest.mark.parametrize(("arguments", "text"), [
    (["--to", "ort", "-o", "out.tflite"], "ends in .onnx"),
    (["--io", "int8", "-o", "out.onnx"], "float32 inputs and outputs"),
])
def test_bad_requests_leave_nothing_behind(
    cli: Cli, tmp_path: Path, network: Path, arguments: list[str], text: str
) -> None:
    done = cli("quantize", network, "--data", "random", *arguments)
    assert done.returncode != 0
    assert text in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("out.*"))


def test_onnx_runtime_needs_the_onnx_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(b"anything")
    done = cli("quantize", "net.tflite", "--data", "random", "--to", "ort", "-o", "out.onnx")
    assert done.returncode != 0
    assert "not an .onnx file" in " ".join(done.stderr.split())
