"""The resolution predictor (DRNet) on digits, against chance, fixed resolutions, networks of their own and a cascade.

    python -m benchmarks.train_resolution --out RUNS [--seeds 3]      runs what is missing in RUNS
    python -m benchmarks.train_resolution --out RUNS --table          prints what is there

One network at 16, 24 and 32 pixels with norms of its own for each; then a predictor on the frozen network, for several
targets of the mean cost and both ways of learning, the best chosen on validation canvases among those that did not
collapse. Against: the same mix drawn at random, the network at fixed resolutions, one network for each resolution,
shared norms, and the margin cascade that ``edgekit.plan`` makes of the same network. The cost of the predictor is
counted. Test canvases are seen by finished networks alone.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.methods_data import SIDE, TESTED, VALIDATED, Epochs, Images, Rows, backbone, canvases, prepared
from benchmarks.methods_tables import resolution_table
from benchmarks.timing import interleave
from edgekit.adaptive import export_exits
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.errors import BadModel
from edgekit.plan import Observations, PlanRecipe, make_plan
from edgekit.recipe import ConvertRecipe
from edgekit.replay import replay
from edgekit.train.loop import TrainRecipe, fit
from edgekit.train.private_norms import deployed
from edgekit.train.resolution import (
    DynamicResolution,
    Predictor,
    ResolutionRecipe,
    every_resolution,
    mix_of,
    predictor_loss,
    require_choice,
)

__all__ = ["SIDES"]

SIDES = (16, 24, 32)
_EPOCHS, _PREDICTOR_EPOCHS = 24, 6
_RATE = 0.1  # of 0.1 and 0.5, by validation canvases after 12 epochs
_TARGETS = (0.4, 0.55, 0.7)
_EXAMPLE = torch.zeros(1, 1, SIDE, SIDE)
#: chosen on validation: what is added to the target to make the images differ
_RECIPES = {"gumbel": ResolutionRecipe(rate=1.0), "expected": ResolutionRecipe(method="expected", rate=1.0, price=0.1)}


class _Last(nn.Module):
    """One exit, as ``export_exits`` takes it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.network(image),)


def _dynamic(network: nn.Module, seed: int, private: bool = True) -> DynamicResolution:
    torch.manual_seed(seed)
    return DynamicResolution(network, Predictor(1, len(SIDES), width=6), SIDES, _EXAMPLE, private)


def _schedule(seed: int, epochs: int = _EPOCHS, rate: float = _RATE) -> TrainRecipe:
    return TrainRecipe(epochs=epochs, learning_rate=rate, seed=seed, warmup_epochs=1.0)


def _logits(model: DynamicResolution, images: Images) -> Any:
    """float32 (options, N, 10)."""
    parts = [model.eval().all_logits(prepared(part)) for part in np.array_split(images.pixels, 8)]
    return torch.cat(parts, dim=1).numpy()


def _percent(right: Any) -> float:
    return round(100 * float(np.mean(right)), 2)


def _fixed(model: DynamicResolution, images: Images) -> list[float]:
    return [_percent(each.argmax(1) == images.labels) for each in _logits(model, images)]


def _own_network(side: int, seed: int, out: Path, test: Images) -> float:
    """A network trained at one resolution alone: the accuracy on ``test``."""
    model = _dynamic(backbone(seed), seed, private=False)
    at = SIDES.index(side)

    def loss(_: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model.at(pixels, at), labels)

    fit(model, Epochs(out, seed), loss, _schedule(seed), out / f"own-{side}-{seed}.pt")
    return _fixed(model, test)[at]


def _several(seed: int, private: bool, out: Path) -> DynamicResolution:
    model = _dynamic(backbone(seed), seed, private)
    fit(model, Epochs(out, seed), every_resolution(), _schedule(seed),
        out / f"{'private' if private else 'shared'}-{seed}.pt")
    return model


def _predicted(base: nn.Module, recipe: ResolutionRecipe, seed: int, out: Path) -> DynamicResolution:
    """A predictor on the frozen network."""
    model = _dynamic(base.requires_grad_(False), seed, private=False)
    fit(model, Epochs(out, seed + 100), predictor_loss(recipe), _schedule(seed, _PREDICTOR_EPOCHS))
    return model


def _judged(model: DynamicResolution, logits: Any, images: Images) -> dict[str, Any]:
    """The chosen resolutions on ``images``: accuracy, cost with the predictor, mix, and what chance does with it."""
    chosen = model.eval().choose(prepared(images.pixels)).numpy()
    right = logits.argmax(2) == images.labels
    mix = mix_of(torch.from_numpy(chosen), len(SIDES))
    try:
        entropy = require_choice(mix)
    except BadModel:
        entropy = None
    ranks = _ranks(chosen), _ranks(images.sides)
    related = round(float(np.corrcoef(ranks[0], ranks[1])[0, 1]), 3) if max(mix) < 1 else None
    return {"accuracy": _percent(right[chosen, np.arange(len(chosen))]),
            "random": round(100 * float(np.dot(mix, right.mean(axis=1))), 2),
            "cost": round(float(np.dot(mix, model.costs)) + model.predictor_cost, 4),
            "mix": [round(part, 4) for part in mix], "entropy": entropy,
            "spearman": related}


def _ranks(values: Any) -> Any:
    """From 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _cascades(logits: Any, images: Images, test_logits: Any, test: Images, costs: Sequence[float]) -> list[Any]:
    """The plan's routes, made on validation canvases in units of cost: accuracy and cost on test canvases."""
    shared: dict[str, Any] = {
        "stage_ms": tuple((cost,) for cost in costs), "overhead_ms": 0.0, "device": "multiply-adds",
        "engine": "litert", "source": "predicted", "ladders_sha256": "0" * 64}
    plan = make_plan(Observations(logits=tuple((each,) for each in logits), labels=images.labels, **shared),
                     PlanRecipe(measures=("margin",)))
    seen = Observations(logits=tuple((each,) for each in test_logits), labels=test.labels, **shared)
    return [(_percent(found.right), round(found.mean_ms, 4))
            for found in (replay(plan, route, seen) for route in plan.routes)]


def run_seed(seed: int, rows: Rows, out: Path) -> None:
    """All arms of one seed."""
    validation, test = canvases(out, "validation", VALIDATED), canvases(out, "test", TESTED)
    model = _several(seed, True, out)
    logits, test_logits = _logits(model, validation), _logits(model, test)
    rows.add(f"fixed {seed}", costs=model.costs, predictor=model.predictor_cost,
             test=[_percent(each.argmax(1) == test.labels) for each in test_logits],
             cascade=_cascades(logits, validation, test_logits, test, model.costs))
    for way, recipe in _RECIPES.items():
        for target in _TARGETS:
            chooser = _predicted(model.network, dataclasses.replace(recipe, target=target), seed, out)
            rows.add(f"predictor {seed} {way} {target}", validation=_judged(chooser, logits, validation),
                     test=_judged(chooser, test_logits, test))
            print(rows.by_key[f"predictor {seed} {way} {target}"], flush=True)
    rows.add(f"shared {seed}", test=_fixed(_several(seed, False, out), test))
    rows.add(f"own {seed}", test=[_own_network(side, seed, out, test) for side in SIDES])
    print(rows.by_key[f"fixed {seed}"], rows.by_key[f"shared {seed}"], rows.by_key[f"own {seed}"], flush=True)


def measure(rows: Rows) -> None:
    """CPU milliseconds of the float32 LiteRT files: each resolution, and the predictor."""
    from ai_edge_litert.interpreter import Interpreter

    model = _dynamic(backbone(0), 0).eval()
    openers: dict[str, Any] = {}
    for name, part, at in (*((str(side), model.network, at) for at, side in enumerate(SIDES)),
                           ("predictor", model.predictor, 0)):
        with deployed(model.network, at, grid=False):
            image = torch.zeros(1, 1, SIDES[at], SIDES[at])
            onnx = export_exits(_Last(part), image, dynamic_hw=False)
        data = to_litert(onnx, ConvertRecipe()).model.data

        def opened(data: bytes = data) -> Any:
            interpreter = Interpreter(model_content=data, num_threads=1)
            interpreter.allocate_tensors()
            return interpreter.invoke

        openers[name] = opened
    seconds = interleave(openers, rounds=5, blocks=6, repeats=30)
    rows.add("ms", **{name: round(1000 * float(np.median(values)), 5) for name, values in seconds.items()})


def main() -> None:
    """Run what is missing, or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = Rows(arguments.out / "resolution.jsonl")
    if arguments.table:
        print(resolution_table(rows.by_key))
        return
    if "ms" not in rows.by_key:
        measure(rows)
    for seed in range(arguments.seeds):
        if f"own {seed}" not in rows.by_key:
            run_seed(seed, rows, arguments.out)


if __name__ == "__main__":
    main()
