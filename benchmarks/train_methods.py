"""Training methods for exits, compared on digits: joint, joint with gradient rescaling, BoostNet, Be Your Own Teacher.

    python -m benchmarks.train_methods --out RUNS            runs what is missing in RUNS
    python -m benchmarks.train_methods --out RUNS --table    prints what is there

A network with five exits reads digits of 12 to 30 pixels on noisy canvases of 32 pixels. Every arm has its own
learning rate: the best of three or more on validation canvases, one seed and a short schedule, and the grid grows
while its best value is at an end. Test canvases are seen by finished networks alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.methods_data import SIDE, TESTED, VALIDATED, Epochs, Rows, backbone, canvases, prepared
from benchmarks.methods_tables import exits_table
from edgekit.train.hints import Hinted
from edgekit.train.loop import TrainRecipe, fit
from edgekit.train.losses import joint, self_distilled
from edgekit.train.multi_exit import ExitRecipe, MultiExit, cut_points
from edgekit.train.resolution import multiply_adds

__all__ = ["ARMS", "Arm", "network"]

_EXITS, _DEEPEST = ("1", "2", "3", "4"), "5"
_TUNING_EPOCHS, _EPOCHS, _WARMUP = 16, 40, 2.0
_RATES = (0.3, 0.9, 2.7)
_SEEDS = 5


class Arm(NamedTuple):
    """How one network is trained. ``carry``: t of BoostNet; ``own``: it is its own teacher, ``hints``: with that weight
    of the distance of the features.
    """

    carry: float = 0.0
    rescale: bool = False
    own: bool = False
    hints: float = 0.0


ARMS: dict[str, Arm] = {
    "joint": Arm(), "joint+rescale": Arm(rescale=True),
    **{f"boost {t}{'+rescale' if rescale else ''}": Arm(t, rescale) for t in (0.25, 0.5, 1.0)
       for rescale in (False, True)},
    "own teacher": Arm(own=True), "own teacher+rescale": Arm(rescale=True, own=True),
    "own teacher+hints": Arm(own=True, hints=1e-6),
}


def network(arm: Arm, seed: int) -> MultiExit:
    """Untrained, float32 (N, 1, 32, 32) -> five (N, 10); 0.9 million multiply-adds."""
    recipe = ExitRecipe(head_width=16, head_convs=1, carry=arm.carry, rescale=arm.rescale)
    return MultiExit(backbone(seed), _EXITS, torch.zeros(1, 1, SIDE, SIDE), recipe)


def exit_costs() -> list[float]:
    """Multiply-adds until each exit, with the heads before it, as shares of the whole."""
    model = network(Arm(), 0)
    example = torch.zeros(2, 1, SIDE, SIDE)
    model(example)
    heads = [multiply_adds(head, feature.detach()) / 2
             for head, feature in zip(model.heads, model.features, strict=True)]
    trunk = {point.name: point.share for point in cut_points(model.backbone, example[:1])}
    whole = multiply_adds(model.backbone, example[:1])
    done = [whole * trunk[name] + sum(heads[:at + 1]) for at, name in enumerate(_EXITS)] + [whole + sum(heads)]
    return [each / done[-1] for each in done]


def _loss(arm: Arm) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = [each.float() for each in model(images)]
        if not arm.own:
            return joint(logits, labels)
        found = self_distilled(logits, labels)
        return found + model.distance(arm.hints) if isinstance(model, Hinted) else found

    return loss


def _trained(arm: Arm, rate: float, epochs: int, seed: int, out: Path) -> MultiExit:
    model = network(arm, seed)
    recipe = TrainRecipe(epochs=epochs, learning_rate=rate, seed=seed, warmup_epochs=_WARMUP)
    trained = Hinted(model, _DEEPEST, torch.zeros(1, 1, SIDE, SIDE)) if arm.hints else model
    fit(trained, Epochs(out, seed), _loss(arm), recipe)
    return model


def _logits(model: nn.Module, pixels: Any) -> Any:
    """float32 (exits, N, 10)."""
    with torch.no_grad():
        parts = [torch.stack(model(prepared(part))) for part in np.array_split(pixels, 8)]
    return torch.cat(parts, dim=1).numpy()


def _accuracies(logits: Any, labels: Any) -> list[float]:
    return [round(100 * float((each.argmax(1) == labels).mean()), 2) for each in logits]


def tune(name: str, rows: Rows, out: Path) -> float:
    """The learning rate of an arm, by the mean accuracy of its exits on validation canvases."""
    rates = list(_RATES)
    validation = canvases(out, "validation", VALIDATED)
    while True:
        means = []
        for rate in rates:
            key = f"tune {name} {rate:.4g}"
            if key not in rows.by_key:
                start = time.process_time()
                found = _accuracies(_logits(_trained(ARMS[name], rate, _TUNING_EPOCHS, 0, out), validation.pixels),
                                    validation.labels)
                rows.add(key, arm=name, rate=rate, accuracies=found, seconds=round(time.process_time() - start, 1))
                print(key, found, flush=True)
            means.append(float(np.mean(rows.by_key[key]["accuracies"])))
        best = int(np.argmax(means))
        if 0 < best < len(rates) - 1 or len(rates) >= len(_RATES) + 2:
            return rates[best]
        rates = [round(rates[0] / 3, 4), *rates] if best == 0 else [*rates, round(rates[-1] * 3, 4)]


def run(name: str, rate: float, seed: int, rows: Rows, out: Path) -> None:
    """One whole training, its logits kept beside the rows."""
    key = f"run {name} {seed}"
    if key in rows.by_key:
        return
    start = time.process_time()
    model = _trained(ARMS[name], rate, _EPOCHS, seed, out)
    validation, test = canvases(out, "validation", VALIDATED), canvases(out, "test", TESTED)
    logits = {"validation": _logits(model, validation.pixels), "test": _logits(model, test.pixels)}
    np.savez(out / f"{key.replace(' ', '-')}.npz", **{split: each.astype(np.float16) for split, each in logits.items()})
    rows.add(key, arm=name, rate=rate, seed=seed, seconds=round(time.process_time() - start, 1),
             validation=_accuracies(logits["validation"], validation.labels),
             test=_accuracies(logits["test"], test.labels))
    print(key, rows.by_key[key]["test"], rows.by_key[key]["seconds"], flush=True)


def main() -> None:
    """Run what is missing, or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = Rows(arguments.out / "rows.jsonl")
    if arguments.table:
        print(exits_table(rows.by_key, arguments.out, exit_costs()))
        return
    rates = {name: tune(name, rows, arguments.out) for name in ARMS}
    for seed in range(_SEEDS):
        for name, rate in rates.items():
            run(name, rate, seed, rows, arguments.out)


if __name__ == "__main__":
    main()
