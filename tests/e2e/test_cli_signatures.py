"""``edgekit convert`` with --signature and --cut: one LiteRT file with several entry points."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array
from tests.conftest import Cli

_SMALL, _LARGE = "small:image=1x3x24x24", "large:image=1x3x32x40"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``image`` (batch, 3, h, w) to ``logits`` (batch, 10), 0.3 MB; flattened by the size of the batch, as exported."""
    rng = np.random.default_rng(3)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.standard_normal(shape) * 0.1).astype(np.float32), name)

    constants = {"zero": np.array(0, np.int64), "first": np.array([0], np.int64), "rest": np.array([-1], np.int64)}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["early"], "relu1"),
        helper.make_node("Conv", ["early", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["late"], "relu2"),
        helper.make_node("Conv", ["late", "w3"], ["c3"], "conv3"),
        helper.make_node("Add", ["c3", "late"], ["sum"], "add"),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"], "pool"),
        helper.make_node("Shape", ["image"], ["sizes"], "shape"),
        helper.make_node("Gather", ["sizes", "zero"], ["batch"], "gather"),
        helper.make_node("Unsqueeze", ["batch", "first"], ["batches"], "unsqueeze"),
        helper.make_node("Concat", ["batches", "rest"], ["flat_shape"], "concat", axis=0),
        helper.make_node("Reshape", ["pooled", "flat_shape"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w4"], ["logits"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [weight("w1", 64, 3, 3, 3), weight("w2", 96, 64, 3, 3), weight("w3", 96, 96, 1, 1), weight("w4", 10, 96),
         *(numpy_helper.from_array(data, name) for name, data in constants.items())],
    )
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def by_name(got: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {signature["name"]: signature for signature in got["signatures"]}


def run(path: Path, signature: str, **feeds: Array) -> dict[str, Array]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path), num_threads=1).get_signature_runner(signature)
    return {name: np.array(value) for name, value in runner(**feeds).items()}


def expected(path: Path, image: Array) -> Array:
    import onnxruntime

    (logits,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": image})
    return np.asarray(logits)


def image(height: int, width: int) -> Array:
    return np.random.default_rng(height).standard_normal((1, 3, height, width)).astype(np.float32)


def test_two_resolutions_share_their_weights(cli: Cli, tmp_path: Path, network: Path) -> None:
    one, both = tmp_path / "one.tflite", tmp_path / "both.tflite"
    assert cli("convert", network, "--to", "litert", "-o", one, "--shape", "image=1,3,32,40").returncode == 0
    got = answer(cli("convert", network, "--to", "litert", "-o", both, "--signature", _SMALL, "--signature", _LARGE,
                     "--json"))
    assert both.stat().st_size == got["size_bytes"] < 1.2 * one.stat().st_size
    found = by_name(got)
    assert {name: each["inputs"][0]["shape"] for name, each in found.items()} == {
        "small": [1, 24, 24, 3], "large": [1, 32, 40, 3]}
    assert got["inputs"] == found["small"]["inputs"]
    assert [each["verification"]["passed"] for each in found.values()] == [True, True]
    assert [output["name"] for output in got["verification"]["outputs"]] == ["small:logits", "large:logits"]
    assert got["report"] is None
    for name, (height, width) in {"small": (24, 24), "large": (32, 40)}.items():
        x = image(height, width)
        logits = run(both, name, image=np.moveaxis(x, 1, -1))["logits"]
        np.testing.assert_allclose(logits, expected(network, x), atol=1e-5)


def test_stages_in_a_row_are_bit_equal_to_the_whole(cli: Cli, tmp_path: Path, network: Path) -> None:
    path = tmp_path / "stages.tflite"
    got = answer(cli("convert", network, "--to", "litert", "-o", path, "--shape", "image=1,3,32,32", "--cut", "late",
                     "--cut", "early", "--report", "--json"))
    found = by_name(got)
    assert list(found) == ["stage1", "stage2", "stage3", "full"]
    shapes = [spec["shape"] for each in found.values() for spec in (*each["inputs"], *each["outputs"])]
    assert shapes[1:6] == [[1, 16, 16, 64], [1, 16, 16, 64], [1, 16, 16, 96], [1, 16, 16, 96], [1, 10]]
    assert all(each["verification"]["passed"] for each in found.values())
    assert all(each["report"]["first_off"] is None for each in found.values())
    assert [node["node"] for node in found["stage1"]["report"]["nodes"]] == ["conv1", "relu1"]
    assert {"add", "pool", "head"} <= {node["node"] for node in found["stage3"]["report"]["nodes"]}
    x = np.moveaxis(image(32, 32), 1, -1)
    early = run(path, "stage1", image=x)
    late = run(path, "stage2", **early)
    np.testing.assert_array_equal(run(path, "stage3", **late)["logits"], run(path, "full", image=x)["logits"])


def test_dynamic_stages_stay_dynamic(cli: Cli, tmp_path: Path, network: Path) -> None:
    """The second stage takes the image too, whose batch it reads."""
    path = tmp_path / "m.tflite"
    found = by_name(answer(cli("convert", network, "--to", "litert", "-o", path, "--cut", "late", "--json")))
    assert [(spec["name"], spec["shape"]) for spec in found["stage2"]["inputs"]] == [
        ("late", [-1, -1, -1, 96]), ("image", [-1, 3, -1, -1])]
    x = image(28, 20)
    late = run(path, "stage1", image=np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(run(path, "stage2", image=x, **late)["logits"], expected(network, x), atol=1e-5)


def test_stages_of_each_resolution(cli: Cli, tmp_path: Path, network: Path) -> None:
    path = tmp_path / "m.tflite"
    done = cli("convert", network, "--to", "litert", "-o", path, "--signature", _SMALL, "--signature", _LARGE, "--cut",
               "late")
    assert done.returncode == 0, done.stderr
    names = [f"{size}_{part}" for size in ("small", "large") for part in ("stage1", "stage2", "full")]
    assert [line.removeprefix("signature ") for line in done.stdout.splitlines() if line.startswith("signature ")] == (
        names)
    assert all(f"The signature '{name}'" in done.stdout for name in names)
    assert path.stat().st_size < 1.2 * network.stat().st_size
    x = image(32, 40)
    handed_on = run(path, "large_stage1", image=np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(run(path, "large_stage2", **handed_on)["logits"], expected(network, x), atol=1e-5)


def test_without_verification_nothing_is_run(cli: Cli, tmp_path: Path, network: Path) -> None:
    got = answer(cli("convert", network, "--to", "litert", "-o", tmp_path / "m.tflite", "--signature", _SMALL,
                     "--no-verify", "--json"))
    assert got["verification"] is None
    assert [each["verification"] for each in got["signatures"]] == [None]


@pytest.mark.parametrize(("options", "said"), [
    (("--cut", "lat"), ("'lat'", "late")),
    (("--cut", "image"), ("input of the network",)),
    (("--cut", "logits"), ("Nothing is computed behind", "logits")),
    (("--cut", "early", "--cut", "early"), ("twice",)),
    (("--cut", "c3", "--shape", "image=1,3,16,16"), ("'c3' does not carry all", "add", "late")),
    (("--signature", _SMALL, "--signature", _SMALL), ("Two signatures", "'small'")),
    (("--signature", "odd:image=1x4x24x24"), ("'odd'", "[1, 4, 24, 24]")),
    (("--signature", "odd:picture=1x3x24x24"), ("'odd'", "picture", "image")),
    (("--signature", "odd:image=1x3x8x8,image=1x3x9x9"), ("two shapes",)),
])  # fmt: skip
def test_what_does_not_fit_is_said(
    cli: Cli, tmp_path: Path, network: Path, options: tuple[str, ...], said: tuple[str, ...]
) -> None:
    out = tmp_path / "m.tflite"
    done = cli("convert", network, "--to", "litert", "-o", out, *options)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert [text for text in said if text not in done.stderr] == [], done.stderr
    assert not out.exists()


@pytest.mark.parametrize("options", [("--signature", _SMALL), ("--cut", "late")])
def test_onnx_runtime_has_no_signatures(cli: Cli, tmp_path: Path, network: Path, options: tuple[str, ...]) -> None:
    done = cli("convert", network, "--to", "ort", "-o", tmp_path / "m.ort", *options)
    assert done.returncode == 1
    assert options[0] in done.stderr
    assert "--shape" in done.stderr
    assert not (tmp_path / "m.ort").exists()


@pytest.mark.parametrize("value", ["small", "small:", ":image=1x3x4x4", "small:image=1,3,4,4", "small:image=1x0x4x4"])
def test_a_malformed_signature_is_wrong_usage(cli: Cli, tmp_path: Path, network: Path, value: str) -> None:
    done = cli("convert", network, "--to", "litert", "-o", tmp_path / "m.tflite", "--signature", value)
    assert done.returncode == 2
    assert value in done.stderr
