"""Compression and distillation on digits on canvases: tests T12, T13 and T14, and distilled against plain training.

    python -m benchmarks.compress --out RUNS [--seeds 3] [--table]     about 8 minutes of CPU on one thread

Every arm has its own learning rate (or mixture), the best of those tried with seed 0 by 2,000 validation canvases. Test
canvases, 4,000 of digits that are in no other split, are seen once by what was chosen. RUNS/rows.json is continued;
--table prints what is in it. An epoch is 2,500 canvases of 48 x 48 pixels.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.compress_parts import SIDE, Row, Rows, accuracy, canvases, ghost_net, plain_net, train, vgg
from benchmarks.compress_table import table
from benchmarks.timing import measure_ratios
from edgekit.atomic import write_atomically
from edgekit.compress.plan import Compressor, mean_gradients
from edgekit.compress.recipe import CompressRecipe
from edgekit.compress.structure import count_macs
from edgekit.train.distill import DistillRecipe, MixRecipe, distilled, supervised
from edgekit.train.loop import TrainRecipe

__all__ = ["COMPRESSED", "main"]

Attempt = Callable[[str], tuple[nn.Module, float]]
_RATES = (0.03, 0.1, 0.3)
_PLAIN = DistillRecipe(mix=None, smoothing=0.05, bfloat16=True)
_MIXES: dict[str, MixRecipe | None] = {"none": None, "all": MixRecipe()}
_STUDENT = (6, 8, 12, 24)
_GHOST_WIDTHS = (16, 28, 38, 50)
#: T13 and T14: the same code, with parts of it off
COMPRESSED: dict[str, CompressRecipe] = {
    "CC": CompressRecipe(multiple=1, allocation="released"),
    "CC, exact allocation": CompressRecipe(multiple=1),
    "CC, uniform rate": CompressRecipe(multiple=1, allocation="uniform"),
    "channels only": CompressRecipe(multiple=1, units="channels"),
    "ranks only": CompressRecipe(multiple=1, units="ranks"),
}


def _schedule(epochs: int, rate: float, seed: int) -> TrainRecipe:
    return TrainRecipe(epochs=epochs, learning_rate=rate, seed=seed, weight_decay=5e-4, warmup_epochs=1.0)


def _chosen(rows: Rows, key: tuple[str, str, int], settings: Iterable[str], attempt: Attempt,
            more: Mapping[str, Any]) -> nn.Module | None:
    """Do one arm with one seed, unless it is done: the best setting of seed 0, on the test canvases."""
    part, arm, seed = key
    if rows.find(part, arm, seed) is not None:
        return None
    first = rows.find(part, arm, 0)
    begun = time.process_time()
    tried, best = {}, None
    for setting in settings if first is None else [str(first["setting"])]:
        network, validation = attempt(setting)
        if best is None or validation > max(tried.values()):
            best = (setting, network)
        tried[setting] = validation
    assert best is not None
    example = torch.zeros(1, 1, SIDE, SIDE)
    rows.add({"part": part, "arm": arm, "seed": seed, "setting": best[0], "tried": tried,
              "validation": tried[best[0]], "test": accuracy(best[1], "test"), "macs": count_macs(best[1], example),
              "parameters": sum(each.numel() for each in best[1].parameters()), **more,
              "cpu_s": round(time.process_time() - begun, 1)})
    return best[1]


def _base(rows: Rows, out: Path, seed: int) -> nn.Module:
    """The VGG-like network, trained."""
    def attempt(setting: str) -> tuple[nn.Module, float]:
        network = vgg(seed)
        return network, train(network, _schedule(14, float(setting), seed))

    path = out / f"base{seed}.pt"
    found = _chosen(rows, ("base", "VGG", seed), ["0.1"], attempt, {})
    if found is not None:
        torch.save(found.state_dict(), path)
    network = vgg(seed)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def _compression(rows: Rows, base: nn.Module, seed: int) -> None:
    """T13 and T14: half of the multiply-adds, five epochs."""
    images, labels = canvases("train", 2000, 50 + seed)
    loss = supervised(DistillRecipe(mix=None))
    pairs = zip(torch.split(images, 500), torch.split(labels, 500), strict=True)
    gradients = mean_gradients(base, pairs, loss)
    for arm, recipe in COMPRESSED.items():
        if rows.find("compress", arm, seed) is not None:
            continue
        begun = time.process_time()
        compressor = Compressor(base, images[:2], gradients, recipe)
        plan = compressor.plan(compressor.structure.macs // 2)
        smaller = compressor.apply(plan)
        more = {"planned_macs": plan.macs, "r2": [round(fit.r2, 3) for fit in compressor.fits],
                "splits": dict(plan.ranks), "loss": plan.loss, "before": accuracy(smaller, "validation"),
                "compress_s": round(time.process_time() - begun, 1)}

        def attempt(setting: str, smaller: nn.Module = smaller) -> tuple[nn.Module, float]:
            network = copy.deepcopy(smaller)
            return network, train(network, _schedule(5, float(setting), seed))

        _chosen(rows, ("compress", arm, seed), map(str, _RATES), attempt, more)


def _ghosts(rows: Rows, out: Path, seed: int) -> None:
    """T12: as many multiply-adds, one network of convolutions, one of ghost modules."""
    arms: dict[str, Callable[[], nn.Module]] = {"plain": lambda: plain_net(seed),
                                                "ghost": lambda: ghost_net(seed, _GHOST_WIDTHS)}
    for arm, make in arms.items():
        def attempt(setting: str, make: Callable[[], nn.Module] = make) -> tuple[nn.Module, float]:
            network = make()
            return network, train(network, _schedule(8, float(setting), seed))

        found = _chosen(rows, ("ghost", arm, seed), map(str, _RATES), attempt, {})
        if found is not None and seed == 0:
            _write_models(found, out / f"{arm}")
    if seed == 0 and rows.find("ghost ms", "both", 0) is None:
        rows.add({"part": "ghost ms", "arm": "both", "seed": 0, **_latencies(out)})


def _write_models(network: nn.Module, stem: Path) -> None:
    from edgekit.converters.torch_to_onnx import export
    from edgekit.pipeline import convert

    model = export(network, torch.zeros(1, 1, SIDE, SIDE))
    write_atomically(stem.with_suffix(".onnx"), model.data)
    convert(model, "litert", stem.with_suffix(".tflite"))


def _latencies(out: Path) -> Row:
    """CPU ms of both networks, interleaved, and the ratio ghost / plain with its interval."""
    from edgekit.measure import BenchOptions
    from edgekit.measure_subject import open_subject

    found: Row = {}
    for engine, suffix in (("LiteRT", ".tflite"), ("ONNX Runtime", ".onnx")):
        openers = {arm: (lambda path=out / f"{arm}{suffix}": open_subject(str(path), BenchOptions()).run)
                   for arm in ("plain", "ghost")}
        seconds, ratios = measure_ratios(openers, "ghost", ["plain"], max_seconds=20)
        ratio = ratios["plain"]
        found[engine] = {**{arm: round(1e3 * float(np.median(values)), 4) for arm, values in seconds.items()},
                         "ratio": [round(each, 3) for each in (ratio.value, ratio.lower, ratio.upper)]}
    return found


def _distillation(rows: Rows, teacher: nn.Module, seed: int) -> None:
    """The same small network from labels, and from the large one."""
    for arm in ("plain", "distilled"):
        def attempt(setting: str, arm: str = arm) -> tuple[nn.Module, float]:
            mix, rate = setting.split(", ")
            recipe = DistillRecipe(mix=_MIXES[mix], smoothing=0.05, bfloat16=True)
            network = vgg(seed, _STUDENT)
            loss = supervised(recipe) if arm == "plain" else distilled(teacher, recipe)
            return network, train(network, _schedule(10, float(rate), seed), loss)

        settings = [*(f"none, {rate}" for rate in _RATES), "all, 0.1"]
        _chosen(rows, ("distil", arm, seed), settings, attempt, {})


def main() -> None:
    """All parts with all seeds, or the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="Print the tables and do nothing.")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = Rows(arguments.out / "rows.json")
    if arguments.table:
        print(table(rows))
        return
    torch.set_num_threads(1)
    bases = []
    for seed in range(arguments.seeds):
        bases.append(_base(rows, arguments.out, seed))
        _compression(rows, bases[seed], seed)
    for seed, base in enumerate(bases):
        _distillation(rows, base, seed)
    for seed in range(arguments.seeds):
        _ghosts(rows, arguments.out, seed)


if __name__ == "__main__":
    main()
