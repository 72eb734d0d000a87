"""``edgekit compress`` from a module in the current folder to a smaller file, and what it says when it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

Cli = Callable[..., Any]
NETS = """
import torch
from torch import nn

from edgekit.compress import rebuild


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1),
                         nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3))


def small():
    return rebuild(net(), "small.pt")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A module with a network, and a task that it can learn: which third of the picture is bright."""
    (tmp_path / "my_nets.py").write_text(NETS, encoding="utf-8")
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    images = random.integers(0, 60, (300, 12, 12, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * label:4 * label + 4] += 120
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    return tmp_path


@pytest.mark.slow
def test_a_smaller_network_is_written_rebuilt_and_exported(cli: Cli, folder: Path) -> None:
    done = cli("compress", "my_nets:net", "--data", "data.npz", "--target-macs", "50%", "--device", "raspberry-pi-4",
               "--epochs", "15", "-o", "small.pt", "--onnx", "small.onnx", "--json")
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    before, after = got["before"], got["after"]
    assert 0.2 * before["macs"] < after["macs"] <= 0.5 * before["macs"]
    assert after["parameters"] < before["parameters"]
    assert after["latency_ms"] < before["latency_ms"]
    assert after["accuracy"] > before["accuracy"] + 25  # the network was not trained before; a third is chance
    again = cli("export", "my_nets:small", "--example", "1,1,12,12", "-o", "again.onnx", "--json")
    assert again.returncode == 0, again.stderr
    image = np.random.default_rng(0).normal(size=(1, 1, 12, 12)).astype(np.float32)
    answers = []
    for name in ("again.onnx", "small.onnx"):
        session = onnxruntime.InferenceSession(folder / name)
        answers.append(session.run(None, {session.get_inputs()[0].name: image})[0])
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)
    told = cli("profile", "small.onnx", "--device", "raspberry-pi-4", "--json")
    assert json.loads(told.stdout)["macs"] == after["macs"]


@pytest.mark.slow
def test_a_latency_is_kept_or_named_as_impossible(cli: Cli, folder: Path) -> None:
    arguments = ("compress", "my_nets:net", "--data", "data.npz", "--device", "raspberry-pi-4", "--epochs", "0",
                 "-o", "small.pt", "--json")
    refused = cli(*arguments, "--target-latency", "0.0001ms")
    error = json.loads(refused.stdout)["error"]
    assert error["type"] == "BudgetImpossible"
    assert "ms" in error["message"]
    assert not (folder / "small.pt").exists()
    whole = json.loads(cli(*arguments, "--target-macs", "99%").stdout)["before"]["latency_ms"]
    kept = json.loads(cli(*arguments, "--target-latency", f"{0.8 * whole}ms").stdout)
    assert kept["after"]["latency_ms"] <= 0.8 * whole


@pytest.mark.slow
@pytest.mark.parametrize(("options", "kind", "text"), [
    ((), "UsageError", "--target-macs"),
    (("--target-latency", "3ms"), "UsageError", "--device"),
    (("--target-macs", "half"), "UsageError", "50%"),
    (("--target-macs", "10"), "BadRecipe", "are left when"),
])
def test_what_cannot_be_done_is_said(
    cli: Cli, folder: Path, options: tuple[str, ...], kind: str, text: str
) -> None:
    done = cli("compress", "my_nets:net", "--data", "data.npz", "-o", "small.pt", "--json", *options)
    error = json.loads(done.stdout)["error"]
    assert error["type"] == kind
    assert text in error["message"] + error["remedy"]
    assert not (folder / "small.pt").exists()
