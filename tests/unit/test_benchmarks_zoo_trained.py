"""T16's digits and verdicts, and one network from training to the judgement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.zoo_trained import NETS, Digits, Judged, judged, prepared, trained, verdict
from edgekit.zoo import ZOO, find


@pytest.mark.parametrize("side", [32, 64])
def test_digits_are_enlarged_and_framed(side: int) -> None:
    digit = np.zeros((1, 28, 28), np.uint8)
    digit[0, 14, 0] = 255
    found = prepared(digit, np.array([3]), side, masks=False)
    assert found.images.shape == (1, 3, side, side)
    assert found.labels.tolist() == [3]
    lit = np.argwhere(found.images[0, 0] > 0)
    factor, frame = side // 28, (side - 28 * (side // 28)) // 2
    assert len(lit) == factor**2
    assert lit[0].tolist() == [frame + 14 * factor, frame]


def test_masks_are_of_the_ink_and_not_of_the_noise() -> None:
    digit = np.zeros((2, 28, 28), np.uint8)
    digit[:, 10:12] = 255
    found = prepared(digit, np.array([3, 4]), 32, masks=True)
    assert found.labels.shape == (2, 32, 32)
    assert found.labels.sum() == 2 * 2 * 28
    assert found.images[0].std() > found.labels[0].std(), "there is noise"


def test_every_architecture_has_its_network() -> None:
    assert {find(name).family for name in NETS} == {entry.family for entry in ZOO}


@pytest.mark.parametrize(("accuracy", "agreement", "size", "missed"), [
    (0.96, 0.97, 0.3, ""), (0.94, 0.96, 0.31, "accuracy, agreement, size"), (0.96, 0.99, 0.4, "size")])
def test_the_verdict_names_what_is_missed(accuracy: float, agreement: float, size: float, missed: str) -> None:
    said = verdict(Judged(0.96, accuracy, agreement), size)
    assert said == (f"FAIL ({missed})" if missed else "pass")


@pytest.mark.slow
def test_a_network_is_trained_and_its_file_judged(tmp_path: Path) -> None:
    from edgekit.converters.quantize import read_model
    from edgekit.pipeline import convert
    from edgekit.recipe import ExportRecipe
    from edgekit.zoo.to_onnx import to_onnx

    labels = np.arange(480) % 2
    bright = np.where(labels, 200, 20).astype(np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
    digits = prepared(bright, labels, 32, masks=False)
    network = trained("resnet20_cifar", 0.25, digits)
    path = tmp_path / "net.tflite"
    convert(to_onnx(network, find("resnet20_cifar"), 32, ExportRecipe(input_names=("image",))), "litert", path)
    model = read_model(path.read_bytes())
    wrong = Digits(digits.images, 1 - digits.labels)
    found = judged(model, model.data, digits)
    assert found.accuracy > 0.8
    assert (found.lost, found.agreement) == (0, 1)
    assert judged(model, model.data, wrong).accuracy < 0.2
