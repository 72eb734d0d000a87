"""An own network with five exits on CIFAR-10 (JPEG), trained on one thread; about 20 minutes of CPU for a seed.

    python -m benchmarks.cifar_exits --seed 0 --out RUNS [--epochs 8]

Convolutions on 31, 15, 7 and 3 pixels, 170 million multiply-adds, with exits after 13, 32, 49 and 66 % of them and at
the end. The first layer whitens patches of 2 x 2 pixels (Jordan, arXiv 2404.00498) and is not trained. 5,000 of the
training images are held out for everything that is chosen (epochs, thresholds, slack); the test images are seen by
benchmarks.adaptive_cifar alone. The first half of the epochs sees crops of 24 x 24 pixels, which take less time.
RUNS/seed0.pt goes on where a killed run stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.packs import photographs
from edgekit.artifacts import Array
from edgekit.train.loop import Progress, TrainRecipe, fit
from edgekit.train.losses import joint
from edgekit.train.multi_exit import ExitRecipe, MultiExit

__all__ = ["MEAN", "STD", "Images", "load", "network", "prepared", "whiten"]

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
_HELD_OUT, _BATCH, _PAD, _CROP, _SMOOTHING = 5000, 128, 4, 24, 0.05
_EXITS = ("2", "3", "4", "5")
_PATCH = 3 * 2 * 2


class Images(NamedTuple):
    """uint8 (N, 32, 32, 3) and int64 (N,)."""

    images: Array
    labels: Array


def load(part: str) -> Images:
    """``train`` (45,000), ``validation`` (5,000 others of the training images) or ``test`` (5,000)."""
    pictures, labels = photographs("cifar10_jpeg.npz", "test_" if part == "test" else "train_")
    images = np.stack(pictures)
    if part == "test":
        return Images(images, labels)
    order = np.random.default_rng(0).permutation(len(labels))
    chosen = order[:_HELD_OUT] if part == "validation" else order[_HELD_OUT:]
    return Images(images[chosen], labels[chosen])


def prepared(images: Array) -> Tensor:
    """Normalised float32 (N, 3, 32, 32)."""
    values = (images.astype(np.float32) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(values).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


class _Conv(nn.Sequential):
    """A 3x3 convolution, with ``pool`` the larger of each 2 x 2 results, a norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool = False) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), *([nn.MaxPool2d(2)] if pool else []),
                         nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _Conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.conv(x)
        return found


def network(seed: int) -> MultiExit:
    """The untrained network, float32 (N, 3, 32, 32) -> five (N, 10)."""
    torch.manual_seed(seed)
    a, b, c = 64, 256, 384
    backbone = nn.Sequential(
        nn.Conv2d(3, 2 * _PATCH, 2, bias=False),
        _Conv(2 * _PATCH, a, pool=True), _Residual(a),
        _Conv(a, b, pool=True), _Residual(b), _Residual(b),
        _Conv(b, c, pool=True), _Residual(c),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(c, 10))
    backbone[0].requires_grad_(False)
    return MultiExit(backbone, _EXITS, torch.zeros(1, 3, 32, 32), ExitRecipe(head_width=96, head_convs=1))


def whiten(model: MultiExit, images: Tensor) -> None:
    """Sets the first layer to the principal components of patches of ``images`` (N, 3, H, W), both ways round."""
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, _PATCH)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + 5e-4).sqrt()).T.reshape(_PATCH, 3, 2, 2)
    first = next(model.backbone.children())
    assert isinstance(first, nn.Conv2d)
    with torch.no_grad():
        first.weight.copy_(torch.cat([filters, -filters]))


class _Epoch:
    """Shuffled, shifted and mirrored images: whole ones, shifted by up to 4 pixels, or crops of them."""

    def __init__(self, data: Images, seed: int, crops: bool) -> None:
        self._data = data
        self._random = np.random.default_rng(seed)
        self._side, self._pad = (_CROP, 0) if crops else (32, _PAD)

    def __len__(self) -> int:
        return len(self._data.labels) // _BATCH

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._random.permutation(len(self._data.labels))
        side, pad = self._side, self._pad
        padded = np.pad(self._data.images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
        for step in range(len(self)):
            chosen = order[step * _BATCH:(step + 1) * _BATCH]
            shifts = self._random.integers(0, padded.shape[1] - side + 1, (len(chosen), 2))
            images = np.stack([padded[i, y:y + side, x:x + side] for i, (y, x) in zip(chosen, shifts, strict=True)])
            mirrored = self._random.random(len(chosen)) < 0.5
            images[mirrored] = images[mirrored][:, :, ::-1]
            yield prepared(images), torch.from_numpy(self._data.labels[chosen])


def _loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    # bfloat16 halves the time where the processor multiplies it; the weights stay float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    return joint([each.float() for each in logits], labels, smoothing=_SMOOTHING)


def accuracies(model: nn.Module, data: Images) -> list[float]:
    """Of each exit, in percent."""
    right = []
    model.eval()
    with torch.no_grad():
        for start in range(0, len(data.labels), 500):
            logits = model(prepared(data.images[start:start + 500]))
            labels = torch.from_numpy(data.labels[start:start + 500])
            right.append([float((each.argmax(1) == labels).sum()) for each in logits])
    return [100 * float(each) / len(data.labels) for each in np.sum(right, axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = network(arguments.seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train, held_out = load("train"), load("validation")
    whiten(model, prepared(train.images[:5000]))

    def report(progress: Progress) -> None:
        print(f"epoch {progress.epoch}: loss {progress.loss:.3f}, "
              f"validation {[round(each, 1) for each in accuracies(model, held_out)]}", flush=True)
        model.train()

    recipe = TrainRecipe(epochs=arguments.epochs, learning_rate=arguments.learning_rate, warmup_epochs=1.0,
                         seed=arguments.seed)
    fit(model, lambda epoch: _Epoch(train, 1000 * arguments.seed + epoch, 2 * epoch < arguments.epochs), _loss, recipe,
        arguments.out / f"seed{arguments.seed}.pt", report)
    torch.save(model.state_dict(), arguments.out / f"seed{arguments.seed}.weights.pt")
    (arguments.out / f"seed{arguments.seed}.json").write_text(json.dumps({"validation": accuracies(model, held_out)}))


if __name__ == "__main__":
    main()
