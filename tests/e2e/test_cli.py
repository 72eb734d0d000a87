"""The verbs of the command line, each run as a person or a script runs it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Cli


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON object on stdout of a call that succeeded."""
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1, done.stdout
    value = json.loads(lines[0])
    assert isinstance(value, dict)
    return value


@pytest.fixture
def keys(cli: Cli, tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    assert cli("keygen", private, public).returncode == 0
    return private, public


@pytest.fixture(scope="module")
def bundle(edgekit_in: Cli, tmp_path_factory: pytest.TempPathFactory, small_onnx: Path) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "labels.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    done = edgekit_in(folder, "build", small_onnx, "-o", "m.edge", "--labels", "labels.txt", "--mean", "0,0,0", "--std",
                      "255,255,255")
    assert done.returncode == 0, done.stderr
    return folder / "m.edge"


@pytest.mark.parametrize(("engine", "name", "kind"), [
    ("litert", "m.tflite", "tflite"), ("ort", "m.onnx", "onnx"), ("ort", "m.ort", "ort"),
])
def test_convert_writes_exactly_the_output_and_verify_agrees(
    cli: Cli, tmp_path: Path, small_onnx: Path, engine: str, name: str, kind: str
) -> None:
    out = tmp_path / "out" / name
    out.parent.mkdir()
    got = answer(cli("convert", small_onnx, "--to", engine, "-o", out, "--json"))
    assert [path.name for path in out.parent.iterdir()] == [name]
    assert got["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert got["size_bytes"] == out.stat().st_size
    assert (got["engine"], got["format"]) == (engine, kind)
    assert [spec["name"] for spec in got["inputs"] + got["outputs"]] == ["image", "scores"]
    assert got["inputs"][0]["layout"] == ("nhwc" if engine == "litert" else "onnx")
    assert got["inputs"][0]["shape"][0] == -1
    assert got["verification"]["passed"] is True
    assert [node["node"] for node in got["nodes"]] == ["conv", "relu", "pool", "flatten", "head"]
    checked = answer(cli("verify", out, "--against", small_onnx, "--json"))
    assert checked["passed"] is True
    assert checked["reports"][0]["outputs"][0]["max_abs_diff"] < 1e-5


def test_convert_options_change_what_is_written(cli: Cli, tmp_path: Path, small_onnx: Path) -> None:
    got = answer(cli("convert", small_onnx, "--to", "litert", "-o", tmp_path / "m.tflite", "--io-layout", "onnx",
                     "--shape", "image=2,3,16,16", "--no-verify", "--json"))
    assert got["inputs"] == [{"name": "image", "dtype": "float32", "shape": [2, 3, 16, 16], "layout": "onnx"}]
    assert got["outputs"][0]["shape"] == [2, 5]
    assert got["verification"] is None


def test_a_bundle_is_built_verified_inspected_and_run(cli: Cli, tmp_path: Path, bundle: Path) -> None:
    verified = answer(cli("verify", bundle, "--json"))
    assert verified["passed"] is True
    assert verified["signature_checked"] is False
    assert len(verified["reports"]) == 2
    facts = answer(cli("inspect", bundle, "--json"))
    assert facts["format"] == "edge"
    assert facts["bundle"]["signed"] is False
    assert [variant[1] for variant in facts["bundle"]["variants"]] == ["litert", "ort"]
    image = np.random.default_rng(3).normal(0, 1, (1, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", image)
    both = {engine: answer(cli("run", bundle, tmp_path / "x.npy", "--engine", engine, "--top", 3, "--json"))
            for engine in ("litert", "ort")}
    assert both["litert"]["label"] == both["ort"]["label"] == both["ort"]["top"][0]["label"]
    assert [len(got["top"]) for got in both.values()] == [3, 3]
    np.testing.assert_allclose(both["litert"]["outputs"][0]["values"], both["ort"]["outputs"][0]["values"], atol=1e-5)
    assert both["ort"]["reason"] == "complete"


def test_run_takes_a_picture_and_saves_arrays(cli: Cli, tmp_path: Path, bundle: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(5).integers(0, 256, (40, 60, 3), np.uint8)
    image.fromarray(pixels).save(tmp_path / "picture.png")
    got = answer(cli("run", bundle, tmp_path / "picture.png", "--save", tmp_path / "out.npz", "--json"))
    assert got["resolution"] == [16, 16]
    with np.load(tmp_path / "out.npz") as saved:
        assert saved.files == ["scores"]
        np.testing.assert_allclose(saved["scores"], got["outputs"][0]["values"], rtol=1e-6)


def test_signing_and_every_way_a_signature_is_asked_for(
    cli: Cli, tmp_path: Path, bundle: Path, small_onnx: Path, keys: tuple[Path, Path]
) -> None:
    private, public = keys
    signed = tmp_path / "signed.edge"
    assert answer(cli("sign", bundle, "-o", signed, "--json", EDGEKIT_KEY=str(private)))["output"] == str(signed)
    asked = ("--require-signature", "--public-key", public)
    assert answer(cli("inspect", signed, *asked, "--json"))["signature_checked"] is True
    assert answer(cli("verify", signed, *asked, "--json"))["signature_checked"] is True
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    assert answer(cli("run", signed, tmp_path / "x.npy", *asked, "--json"))["signature_checked"] is True
    for verb, *more in (("inspect",), ("verify",), ("run", tmp_path / "x.npy"), ("bench",)):
        done = cli(verb, bundle, *more, *asked)
        assert done.returncode == 1
        assert "sign" in done.stderr
    built = tmp_path / "built.edge"
    assert answer(cli("build", small_onnx, "-o", built, "--key", private, "--json"))["signed"] is True
    assert answer(cli("inspect", built, *asked, "--json"))["signature_checked"] is True


def test_a_signature_of_another_key_is_refused(
    cli: Cli, tmp_path: Path, bundle: Path, keys: tuple[Path, Path]
) -> None:
    signed = tmp_path / "signed.edge"
    assert cli("sign", bundle, "-o", signed, "--key", keys[0]).returncode == 0
    assert cli("keygen", tmp_path / "b.pem", tmp_path / "b.pub").returncode == 0
    done = cli("verify", signed, "--public-key", tmp_path / "b.pub", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["type"] == "SignatureMismatch"


def test_keygen_never_overwrites_a_key(cli: Cli, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    before = keys[0].read_bytes()
    done = cli("keygen", keys[0], tmp_path / "new.pub")
    assert done.returncode == 1
    assert keys[0].read_bytes() == before
    assert not (tmp_path / "new.pub").exists()
    assert keys[0].stat().st_mode & 0o077 == 0


def test_the_same_build_gives_the_same_bytes(cli: Cli, tmp_path: Path, small_onnx: Path) -> None:
    digests = [answer(cli("build", small_onnx, "-o", tmp_path / f"{n}.edge", "--json"))["sha256"] for n in range(2)]
    assert digests[0] == digests[1]


def test_a_recipe_file_gives_what_options_do_not(cli: Cli, tmp_path: Path, small_onnx: Path) -> None:
    recipe = {"name": "from-file", "engines": ["ort"], "test_vectors": 2, "convert": {"tolerance": 0.001}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    got = answer(cli("build", small_onnx, "-o", tmp_path / "m.edge", "--recipe", tmp_path / "recipe.json", "--json"))
    manifest = got["manifest"]
    assert manifest["name"] == "from-file"
    assert [variant["engine"] for variant in manifest["variants"]] == ["ort"]
    assert [vector["tolerance"] for vector in manifest["test_vectors"]] == [0.001, 0.001]
    got = answer(cli("build", small_onnx, "-o", tmp_path / "n.edge", "--recipe", tmp_path / "recipe.json",
                     "--name", "typed", "--tolerance", "0.01", "--engine", "litert", "--json"))
    assert got["manifest"]["name"] == "typed"
    assert [variant["engine"] for variant in got["manifest"]["variants"]] == ["litert"]
    assert got["manifest"]["test_vectors"][0]["tolerance"] == 0.01


def test_bench_reports_times_and_starts_and_compares(cli: Cli, tmp_path: Path, bundle: Path, small_onnx: Path) -> None:
    got = answer(cli("bench", bundle, small_onnx, "--threads", 2, "--runs", 30, "--json"))
    first, second = got["results"]
    assert (first["engine"], second["engine"]) == ("litert", "ort")
    for each in got["results"]:
        assert each["runs"] == 30
        assert each["threads"] == 2
        for clock in ("wall_ms", "cpu_ms"):
            assert 0 < each[clock]["min"] <= each[clock]["median"] <= each[clock]["p90"] <= each[clock]["p99"]
        assert each["cold_start"]["total_ms"] > each["warm_start"]["total_ms"] > 0
    assert got["comparison"]["basis"] == "wall"
    assert got["comparison"]["low"] <= got["comparison"]["ratio"] <= got["comparison"]["high"]


def test_inspect_tells_the_same_names_for_every_format(cli: Cli, tmp_path: Path, small_onnx: Path) -> None:
    assert cli("convert", small_onnx, "--to", "litert", "-o", tmp_path / "m.tflite").returncode == 0
    assert cli("convert", small_onnx, "--to", "ort", "-o", tmp_path / "m.ort").returncode == 0
    for path, kind in ((small_onnx, "onnx"), (tmp_path / "m.tflite", "tflite"), (tmp_path / "m.ort", "ort")):
        got = answer(cli("inspect", path, "--json"))
        assert got["format"] == kind
        assert [spec["name"] for spec in got["inputs"] + got["outputs"]] == ["image", "scores"]
        assert got["loads"] is True
        assert got["size_bytes"] == path.stat().st_size


def test_doctor_names_every_extra_and_a_working_engine(cli: Cli) -> None:
    got = answer(cli("doctor", "--json"))
    assert {"litert", "ort", "convert", "train", "report", "all"} <= {extra["name"] for extra in got["extras"]}
    assert {engine["engine"] for engine in got["engines"] if engine["ok"]} == {"litert", "ort"}
    assert all(package["ok"] for package in got["base"])
    assert got["cpu"]["usable"] >= 1


@pytest.mark.slow
def test_export_then_convert_from_a_module_of_the_current_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n\n\nclass Small(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        print('building')\n"
        "        self.conv = nn.Conv2d(3, 4, 3)\n\n"
        "    def forward(self, x):\n        return self.conv(x).relu().mean((2, 3))\n")
    got = answer(cli("export", "my_nets:Small", "--example", "1,3,32,32", "--dynamic-batch", "--dynamic-hw",
                     "--input-name", "image", "-o", tmp_path / "small.onnx", "--json"))
    assert got["inputs"] == [{"name": "image", "dtype": "float32", "shape": [-1, 3, -1, -1], "layout": "onnx"}]
    assert [path.name for path in tmp_path.glob("small.onnx*")] == ["small.onnx"]
    converted = answer(cli("convert", "small.onnx", "--to", "litert", "-o", "small.tflite", "--json"))
    assert converted["inputs"][0]["shape"] == [-1, -1, -1, 3]
    assert all("my_nets.py:11" in node["source"] for node in converted["nodes"])


@pytest.mark.slow
@pytest.mark.parametrize(("source", "example", "kind", "text"), [
    ("no_such_module:f", "1,3", "BadModel", "no_such_module"),
    ("nets:missing", "1,3", "UnknownName", "Known: not_a_network, raises"),
    ("nets:not_a_network", "1,3", "BadModel", "returned a int"),
    ("nets:raises", "1,3", "BadModel", "ZeroDivisionError"),
    ("nets:raises", "1,x", "BadInput", "'1,x'"),
    ("nets", "1,3", "UsageError", "MODULE:CALLABLE"),
])
def test_export_says_what_is_wrong(
    cli: Cli, tmp_path: Path, source: str, example: str, kind: str, text: str
) -> None:
    (tmp_path / "nets.py").write_text("def not_a_network(): return 3\ndef raises(): return 1 / 0\n")
    done = cli("export", source, "--example", example, "-o", "x.onnx", "--json")
    error = json.loads(done.stdout)["error"]
    assert error["type"] == kind
    assert text in error["message"] + error["remedy"]
    assert done.returncode == error["exit_code"] != 0
    assert not (tmp_path / "x.onnx").exists()
