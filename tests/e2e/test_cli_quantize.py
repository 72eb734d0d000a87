"""``edgekit quantize`` as a person or a script runs it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.converters.quantize.quality import sqnr_db
from edgekit.runtime.engines import open_session
from tests.conftest import Cli
from tests.quantize_models import images, litert, swish_classifier

pytest.importorskip("ai_edge_quantizer")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(swish_classifier(width=32).SerializeToString())
    return path


def answer(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def test_from_onnx_to_a_quantized_file_and_again_by_its_recipe(cli: Cli, tmp_path: Path, network: Path) -> None:
    np.savez(tmp_path / "data.npz", x=images(16))
    out, recipe = tmp_path / "out.tflite", tmp_path / "recipe.json"
    # the smallest file, since which is the fastest depends on the processor, and may be the float file
    got = answer(cli("quantize", network, "--calibration", "data.npz", "--min-sqnr-db", "24", "--max-seconds", "1",
                     "--objective", "size", "-o", out, "--save-recipe", recipe, "--json"))
    data = out.read_bytes()
    assert got["sha256"] == hashlib.sha256(data).hexdigest()
    assert got["size_bytes"] == len(data)
    assert got["float_size_bytes"] > 0
    assert got["inputs"][0]["layout"] == "nhwc"
    names = {each["name"] for each in got["candidates"]}
    assert len(names) == len(got["candidates"]) >= 6
    assert got["chosen"]["name"] in names
    assert got["chosen"]["sqnr_db"] >= 24
    assert got["layers"]
    assert answers_alike(out, network)

    again = tmp_path / "again.tflite"
    answer(cli("quantize", network, "--recipe", recipe, "-o", again, "--json"))
    assert again.read_bytes() == data


def answers_alike(out: Path, network: Path) -> bool:
    """Whether the file is within 20 dB of the float network on images that the search did not see."""
    model = litert(swish_classifier(width=32))
    assert network.exists()
    signal = error = 0.0
    with open_session("litert", model.data) as float_session, open_session("litert", out.read_bytes()) as session:
        for image in images(4, seed=9):
            feeds = {"x": np.ascontiguousarray(image[None].transpose(0, 2, 3, 1))}
            want = np.array(float_session.run(feeds)["scores"], np.float64)
            got = session.run(feeds)["scores"]
            signal, error = signal + float((want**2).sum()), error + float(((want - got) ** 2).sum())
    return sqnr_db(signal, error) > 20


@pytest.mark.slow
def test_a_tflite_file_and_random_data(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(litert(swish_classifier(width=8)).data)
    done = cli("quantize", "net.tflite", "--data", "random", "--max-seconds", "1", "-o", "out.tflite")
    assert done.returncode == 0, done.stderr
    assert "candidates" in done.stdout
    assert "random" in done.stdout
    assert (tmp_path / "out.tflite").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "data.npz"], "holds no sample"),
        (["--data", "nothing.npz"], "nothing.npz"),
        (["--data", "bad.npz"], "NaN"),
        (["--data", "shape.npz"], "shape"),
        ([], "--data"),
        (["--recipe", "broken.json"], "broken.json"),
        (["--data", "random", "--min-sqnr-db", "-3"], "SQNR"),
    ],
)
def test_bad_requests_leave_nothing_behind(
    cli: Cli, tmp_path: Path, network: Path, arguments: list[str], words: str
) -> None:
    np.savez(tmp_path / "data.npz", x=images(0))
    np.savez(tmp_path / "bad.npz", x=np.full((2, 3, 32, 32), np.nan, np.float32))
    np.savez(tmp_path / "shape.npz", x=np.zeros((2, 3, 31, 32), np.float32))
    (tmp_path / "broken.json").write_text('{"rules": [{"precision": "int3"}]}')
    done = cli("quantize", network, *arguments, "-o", "out.tflite", "--json")
    assert done.returncode == 1
    assert words in json.loads(done.stdout)["error"]["message"] + json.loads(done.stdout)["error"]["remedy"]
    assert not (tmp_path / "out.tflite").exists()


def test_a_file_that_is_no_model(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(b"TFL3" * 30)
    done = cli("quantize", "net.tflite", "--data", "random", "-o", "out.tflite")
    assert done.returncode == 1
    assert "net.tflite" in done.stderr
    assert "Traceback" not in done.stderr
