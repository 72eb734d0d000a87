"""``edgekit train continual`` as a person types it: from folders of pictures to signed bundles and deltas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Cli

CONFIG = """
data: {source: folder, path: pictures, tasks: 2, side: 12}
network: {name: resnet, stages: [4, 8]}
train:
  epochs: 2
  batch: 8
  buffer: 8
  masks: {sparsity: 0.5, unit: %s, every: 1, p_intra: 0.1, samples: 8}
bundles: [litert]
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    from PIL import Image

    random = np.random.default_rng(0)
    for name in "abcd":
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(10):
            pixels = random.integers(0, 60, (12, 12, 3)).astype(np.uint8) + 40 * "abcd".index(name)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / name / f"{index}.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["weights", "channels"])
def test_each_task_ends_with_a_signed_bundle_and_a_delta(cli: Cli, pictures: Path, unit: str) -> None:
    (pictures / "run.yaml").write_text(CONFIG % unit)
    assert cli("keygen", "k.pem", "k.pub").returncode == 0
    done = cli("train", "continual", "--config", "run.yaml", "-o", "out", "--seed", 7, "--key", "k.pem", "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["seeds"]
    assert [len(row) for row in run["matrix"]] == [1, 2]
    first, second = run["updates"]
    assert first["delta"] is None
    applied = cli("delta", "apply", first["bundle"], second["delta"], "-o", "new.edge", "--public-key", "k.pub",
                  "--require-signature")
    assert applied.returncode == 0, applied.stderr
    assert (pictures / "new.edge").read_bytes() == (pictures / second["bundle"]).read_bytes()
    assert {"checkpoint.pt", "log.jsonl", "matrix.svg", "task_matrix.svg", "weights.pt"} <= {
        path.name for path in (pictures / "out/seed7").iterdir()}
    answer = json.loads(cli("run", "new.edge", "pictures/a/0.png", "--json").stdout)
    assert answer


def test_refusals(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: {source: folder, path: nowhere}")
    done = cli("train", "continual", "--config", "run.yaml", "-o", "out")
    assert done.returncode == 1
    assert "'nowhere' has no folder for each class" in done.stderr
    assert not (tmp_path / "out").exists()
