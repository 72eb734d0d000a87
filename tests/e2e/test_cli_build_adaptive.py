"""``edgekit build --resolutions``: an adaptive bundle from the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgekit.adaptive import AdaptiveRecipe
from edgekit.bundle import Bundle
from tests.conftest import Cli
from tests.unit.adaptive_nets import CLASSES, two_exits


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adaptive") / "two.onnx"
    path.write_bytes(two_exits().data)
    return path


def built(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_stages_at_each_resolution(cli: Cli, network: Path, tmp_path: Path) -> None:
    out, labels = tmp_path / "two.edge", tmp_path / "labels.txt"
    labels.write_text("".join(f"class {number}\n" for number in range(CLASSES)), encoding="utf-8")
    result = built(cli("build", network, "-o", out, "--resolutions", "16,20x24", "--exits", "exit0, exit1",
                       "--labels", labels, "--mean", "120,120,120", "--json"))
    ladders = result["manifest"]["ladders"]
    assert [ladder["resolution"] for ladder in ladders] == [[16, 16], [20, 24]]
    assert [[stage["logits"] for stage in ladder["stages"]] for ladder in ladders] == [["exit0", "exit1"]] * 2
    assert result["manifest"]["preprocess"]["mean"] == [120.0, 120.0, 120.0]
    with Bundle.open(out) as bundle:
        bundle.verify_all()
    shown = cli("build", network, "-o", out, "--resolutions", "16")
    assert shown.returncode == 0, shown.stderr
    assert "litert-fp32-16x16" in shown.stdout


def test_int8_from_a_file_of_images_and_a_recipe(cli: Cli, network: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), dtype=np.uint8))
    recipe = AdaptiveRecipe(resolutions=((16, 16),), precision="int8", name="from the recipe")
    (tmp_path / "r.json").write_bytes(msgspec.json.encode(recipe))
    result = built(cli("build", network, "-o", tmp_path / "two.edge", "--recipe", tmp_path / "r.json", "--resolutions",
                       "12", "--data", tmp_path / "images.npy", "--json"))
    (ladder,) = result["manifest"]["ladders"]
    assert (ladder["id"], result["manifest"]["name"]) == ("litert-int8-12x12", "from the recipe")


@pytest.mark.parametrize(("options", "words"), [
    (["--exits", "exit0"], "--exits is for adaptive bundles"),
    (["--data", "random"], "--data is for adaptive bundles"),
    (["--resolutions", "16", "--shape", "x=1,3,16,16"], "--shape is not for adaptive bundles"),
    (["--resolutions", "16", "--no-verify"], "--no-verify is not for adaptive bundles"),
    (["--resolutions", "16", "--exits", "exit0,nowhere"], "nowhere"),
    (["--resolutions", "16", "--precision", "int8"], "calibration data"),
    (["--resolutions", "16", "--precision", "int8", "--engine", "ort"], "LiteRT only"),
    (["--resolutions", "16", "--recipe", "none.json"], "none.json"),
])
def test_what_makes_no_sense_is_said(cli: Cli, network: Path, tmp_path: Path, options: list[str], words: str) -> None:
    done = cli("build", network, "-o", tmp_path / "two.edge", *options)
    assert done.returncode == 1, done.stdout
    assert words in done.stderr
    assert not (tmp_path / "two.edge").exists()


@pytest.mark.parametrize("sizes", ["16x", "0", "16,,20", "1x2x3", "a"])
def test_sizes_that_are_none_are_wrong_usage(cli: Cli, network: Path, tmp_path: Path, sizes: str) -> None:
    done = cli("build", network, "-o", tmp_path / "two.edge", "--resolutions", sizes)
    assert done.returncode == 2
    assert "is not a size" in done.stderr
