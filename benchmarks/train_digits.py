"""The adaptive network that comes with EdgeKit, from nothing: three resolutions, three exits, int8.

    python -m benchmarks.train_digits --out RUNS [--epochs 16]      about 15 minutes on one thread
    cp RUNS/digits.edge edgekit/data/digits.edge
    python -m benchmarks.train_digits --judge edgekit/data/digits.edge    accuracy of its plan, half a minute

It reads digits on canvases (edgekit.demo_digits). One set of weights serves 40, 64 and 96 pixels: every batch is seen
at a resolution drawn at random, and all exits are trained together. RUNS/seed0.pt goes on where a killed run stopped.
The settings were chosen on validation canvases, whose digits are in no training canvas; test canvases were seen by the
result alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.methods_data import Conv, Residual
from edgekit.adaptive import AdaptiveRecipe, build_adaptive, export_exits
from edgekit.artifacts import Array
from edgekit.demo_digits import draw_canvases
from edgekit.recipe import Preprocess
from edgekit.runtime import load
from edgekit.runtime.adaptive import AdaptiveRuntime
from edgekit.runtime.resize import resize
from edgekit.train.loop import Progress, TrainRecipe, fit
from edgekit.train.losses import joint
from edgekit.train.multi_exit import ExitRecipe, MultiExit

__all__ = ["CANVAS", "SIDES", "network"]

SIDES = (40, 64, 96)
CANVAS = 128
_MEAN, _STD = 80.0, 60.0
_COUNT, _BATCH, _EVALUATED, _CALIBRATION = 16_000, 128, 2000, 128
_EXITS = ("3", "6")
_JUDGED = (11, 12, 13, 14, 15)  # seeds of the draws


def network(seed: int) -> MultiExit:
    """The untrained network, float32 (N, 1, side, side) -> three (N, 10)."""
    torch.manual_seed(seed)
    a, b, c, d = 24, 48, 96, 160
    backbone = nn.Sequential(
        Conv(1, a, 2), Residual(a), Conv(a, b, 2), Residual(b), Residual(b), Conv(b, c, 2), Residual(c),
        Residual(c), Conv(c, d, 2), Residual(d), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(d, 10))
    return MultiExit(backbone, _EXITS, torch.zeros(1, 1, SIDES[-1], SIDES[-1]), ExitRecipe(head_width=64, head_convs=1))


def _prepared(images: Array) -> Tensor:
    values = (images.astype(np.float32) - np.float32(_MEAN)) / np.float32(_STD)
    return torch.from_numpy(values)[:, None]


def _resized(images: Array, side: int) -> Array:
    return images if images.shape[1] == side else np.stack([resize(each[..., None], side, side)[..., 0]
                                                            for each in images])


class _Epoch:
    """New canvases every epoch, each batch at one of the resolutions."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __len__(self) -> int:
        return _COUNT // _BATCH

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        drawn = draw_canvases("train", _COUNT, self._number, CANVAS)
        grey = drawn.images[..., 0]
        random = np.random.default_rng(self._number)
        for step in range(len(self)):
            rows = slice(step * _BATCH, (step + 1) * _BATCH)
            side = int(random.choice(SIDES))
            yield _prepared(_resized(grey[rows], side)), torch.from_numpy(drawn.labels[rows])


def _loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    return joint([each.float() for each in logits], labels, smoothing=0.05)


def accuracies(model: nn.Module, split: str) -> list[list[float]]:
    """In percent, of each exit, for each resolution."""
    drawn = draw_canvases("test" if split == "test" else "validation", _EVALUATED, side=CANVAS)
    model.eval()
    found = []
    for side in SIDES:
        with torch.no_grad():
            logits = model(_prepared(_resized(drawn.images[..., 0], side)))
        labels = torch.from_numpy(drawn.labels)
        found.append([round(100 * float((each.argmax(1) == labels).float().mean()), 1) for each in logits])
    return found


def main() -> None:
    """Train, build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--judge", type=Path, metavar="BUNDLE")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.judge is not None:
        judge(arguments.judge)
        return
    if arguments.out is None:
        parser.error("give --out or --judge")
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = network(arguments.seed)

    def report(progress: Progress) -> None:
        print(f"epoch {progress.epoch}: loss {progress.loss:.3f}, validation {accuracies(model, 'validation')}",
              flush=True)
        model.train()

    recipe = TrainRecipe(epochs=arguments.epochs, learning_rate=0.08, warmup_epochs=1.0, seed=arguments.seed)
    fit(model, _Epoch, _loss, recipe, arguments.out / f"seed{arguments.seed}.pt", report)
    torch.save(model.state_dict(), arguments.out / f"seed{arguments.seed}.weights.pt")
    print("test", accuracies(model, "test"))
    build(model, arguments.out / "digits.edge")


def judge(bundle: Path) -> None:
    """What the bundle's plan answers beside the whole network, on canvases of test digits that nothing else draws."""
    with load(bundle) as loaded:
        runtime = cast(AdaptiveRuntime, loaded)
        whole = runtime.whole()
        plan = runtime.plan
        assert plan is not None
        print(f"promised {plan.routes[plan.default].promise.accuracy:.2%}")
        for seed in _JUDGED:
            drawn = draw_canvases("test", _EVALUATED, seed, CANVAS)
            right = np.array([[int(each.run(image).label or -1) == label for each in (runtime, whole)]
                              for image, label in zip(drawn.images, drawn.labels, strict=True)], float)
            difference = right[:, 0] - right[:, 1]
            print(f"draw {seed}: adaptive {right[:, 0].mean():.2%}, whole {right[:, 1].mean():.2%}, difference "
                  f"{100 * difference.mean():+.2f} +- {196 * difference.std() / len(difference) ** 0.5:.2f} points")


def build(model: nn.Module, out: Path) -> None:
    """The int8 bundle, calibrated on training canvases, without a plan."""
    source = export_exits(model.eval(), torch.zeros(1, 1, SIDES[-1], SIDES[-1]))
    recipe = AdaptiveRecipe(
        resolutions=tuple((side, side) for side in SIDES), name="edgekit-digits", precision="int8",
        labels=tuple("0123456789"),
        preprocess=Preprocess(colour="gray", crop_fraction=1.0, mean=(_MEAN,), std=(_STD,)))
    build_adaptive(source, out, recipe, calibration=draw_canvases("train", _CALIBRATION, 99, CANVAS).images)


if __name__ == "__main__":
    main()
