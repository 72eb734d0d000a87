"""``edgekit zoo`` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.zoo import ZOO, build
from tests.conftest import Cli

SMALL = ("--width", 0.25, "--depth", 0.3, "--classes", 7)


def test_list_and_show(cli: Cli) -> None:
    rows = json.loads(cli("zoo", "list", "--json").stdout)["networks"]
    assert [row["name"] for row in rows] == [entry.name for entry in ZOO]
    assert cli("zoo", "--filter", "levit").stdout.count("LeViT-") == 5
    shown = json.loads(cli("zoo", "show", "resnet50", "--resolution", 192, "--json").stdout)
    assert shown["macs"] == pytest.approx(3.0e9, rel=0.02)
    assert [each["name"] for each in shown["exits"]] == ["stages.0", "stages.1", "stages.2"]
    assert shown["networks"][0]["macs"] is None, "what was published is about 224 pixels"


@pytest.mark.slow
def test_export_writes_the_network_with_given_weights(cli: Cli, tmp_path: Path) -> None:
    network = build("resnet20_cifar", width=0.25, depth=0.3, classes=7, seed=3).eval()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pt")
    done = cli("zoo", "export", "resnet20_cifar", *SMALL, "--weights", tmp_path / "w.pt", "-o", tmp_path / "m.onnx",
               "--dynamic-hw", "--json")
    assert done.returncode == 0, done.stderr
    export = json.loads(done.stdout)["export"]
    assert export["inputs"][0]["shape"] == [1, 3, -1, -1]
    image = np.random.default_rng(0).normal(size=(1, 3, 48, 40)).astype(np.float32)
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(session.run(["logits"], {"image": image})[0], expected, atol=1e-5)


def test_refusals(cli: Cli) -> None:
    assert "Known: ghostnet_050" in cli("zoo", "show", "alexnet").stderr
    assert cli("zoo", "export", "resnet18").returncode == 2
