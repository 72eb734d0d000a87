"""Sparse continual learning on Split-MNIST: tests T1 to T5 and the channel-wise variant.

    python -m benchmarks.continual --out FOLDER            # trains what is not in FOLDER/rows.json yet
    python -m benchmarks.continual --out FOLDER --table    # prints the table and the verdicts
    python -m benchmarks.continual --out FOLDER --times    # training and LiteRT times, side by side
    python -m benchmarks.continual --out FOLDER --deltas   # a bundle after each task, and the deltas between them
    python -m benchmarks.continual --out FOLDER --flops    # what each arm costs, without training

Without --train 400 digits of each class are trained on, which is Split-MNIST-5k; times and deltas train, too.

For each arm the learning rate is chosen on digits that are held out of the training digits, with one seed; then each
seed is trained on all training digits and tested once. The seeds set the first weights and the order of the data, the
same for all arms. Every run is stored when it ends, and a second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from benchmarks import continual_report as report
from benchmarks.continual_deployed import deltas, times
from edgekit.atomic import write_atomically
from edgekit.train.continual.evaluate import average_accuracy, forgetting
from edgekit.train.continual.learner import Learner
from edgekit.train.continual.nets import SmallCnn
from edgekit.train.continual.planned import planned_flops
from edgekit.train.continual.recipe import ContinualRecipe, GradientRecipe, MaskRecipe, RemovalRecipe
from edgekit.train.continual.streams import Stream, mnist_stream

__all__ = ["ARMS", "Arm", "Row", "flops", "learner", "main", "recipe_of"]

RATES = (0.05, 0.1, 0.2)
SEEDS = (0, 1, 2, 3, 4)
EPOCHS = 10
REMOVAL, GRADIENTS = RemovalRecipe(share=0.3, every=1, rounds=3), GradientRecipe()


class Arm(NamedTuple):
    """``masks``, ``removal``, ``gradients``: the parts of SparCL; ``eighth``: an eighth of the steps."""

    masks: MaskRecipe | None = None
    removal: RemovalRecipe | None = None
    gradients: GradientRecipe | None = None
    eighth: bool = False


def _masks(sparsity: float, *, dynamic: bool = True) -> MaskRecipe:
    return MaskRecipe(sparsity=sparsity, dynamic=dynamic, every=2, p_intra=min(0.02, (1 - sparsity) / 4), p_inter=0.01,
                      samples=32)


def _channels(sparsity: float) -> MaskRecipe:
    return MaskRecipe(sparsity=sparsity, unit="channels", every=2, p_intra=0.06, p_inter=0.06, samples=32)


#: in the order in which they are trained, for each seed
ARMS: dict[str, Arm] = {
    "dense": Arm(),
    "sparse .75": Arm(_masks(0.75), REMOVAL, GRADIENTS),
    "sparse .9": Arm(_masks(0.9), REMOVAL, GRADIENTS),
    "dense, 1/8 of the steps": Arm(eighth=True),
    "sparse .9, masks only": Arm(_masks(0.9)),
    "sparse .9, static mask": Arm(_masks(0.9, dynamic=False)),
    "sparse .95": Arm(_masks(0.95), REMOVAL, GRADIENTS),
    "channels .5": Arm(_channels(0.5), REMOVAL),
}


class Row(msgspec.Struct, frozen=True):
    """One run. Accuracies and forgetting are from 0 to 1; ``density`` of the prunable weights at the end.

    ``held_out``: on the digits for choosing settings.
    """

    arm: str
    rate: float
    seed: int
    held_out: bool
    class_incremental: float
    task_incremental: float
    forgetting: float
    paper_flops: float
    full_flops: float
    density: float
    cpu_s: float


def recipe_of(arm: Arm, rate: float, seed: int, samples: int) -> ContinualRecipe:
    """``samples``: of a task, for the number of steps."""
    steps = round(-(-samples // 32) * EPOCHS / 8) if arm.eighth else None
    return ContinualRecipe(epochs=EPOCHS, steps=steps, learning_rate=rate, seed=seed, masks=arm.masks,
                           removal=arm.removal, gradients=arm.gradients)


def learner(arm: Arm, data: Stream, rate: float, seed: int) -> Learner:
    """Ready to run."""
    torch.manual_seed(seed)
    return Learner(SmallCnn(), data, recipe_of(arm, rate, seed, len(data.tasks[0].train_labels)))


def _run(name: str, data: Stream, rate: float, seed: int, held_out: bool) -> Row:
    start = time.process_time()
    student = learner(ARMS[name], data, rate, seed)
    outcome = student.run()
    matrix = [row.class_incremental for row in outcome.rows]
    row = Row(name, rate, seed, held_out, average_accuracy(matrix),
              average_accuracy([row.task_incremental for row in outcome.rows]), forgetting(matrix),
              outcome.paper_flops, outcome.full_flops, student.density, time.process_time() - start)
    print(f"{name}, rate {rate}, seed {seed}{', held out' if held_out else ''}: {row.class_incremental:.1%} of all, "
          f"{row.task_incremental:.1%} in its task, {row.full_flops / 1e9:.1f} GFLOPs, {row.cpu_s:.1f} s", flush=True)
    return row


def _train(out: Path, arms: list[str], seeds: tuple[int, ...], digits: int) -> None:
    rows = report.read_rows(out, Row)
    done = {(row.arm, row.rate, row.seed, row.held_out) for row in rows}

    def add(name: str, data: Stream, rate: float, seed: int, held_out: bool) -> None:
        if (name, rate, seed, held_out) not in done:
            rows.append(_run(name, data, rate, seed, held_out))
            write_atomically(out / "rows.json", json.dumps([msgspec.to_builtins(row) for row in rows],
                                                           indent=1).encode())

    data = mnist_stream(train=digits, validation=True)
    for name in arms:
        for rate in RATES:
            add(name, data, rate, 0, True)
    data = mnist_stream(train=digits)
    for seed in seeds:
        for name in arms:
            add(name, data, report.best_rate(rows, name), seed, False)


def flops(digits: int) -> str:
    """T1: training FLOPs of the arms that mask no channels."""
    costs = {name: planned_flops(SmallCnn(), (1, 28, 28), recipe_of(arm, 0.1, 0, 2 * digits), [2 * digits] * 5)
             for name, arm in ARMS.items() if arm.masks is None or arm.masks.unit == "weights"}
    dense = costs["dense"]
    return "\n".join(["| arm | GFLOPs, full | times fewer | times fewer, paper's count |", "|---|---:|---:|---:|", *(
        f"| {name} | {cost.full / 1e9:.1f} | {dense.full / cost.full:.2f} | {dense.paper / cost.paper:.2f} |"
        for name, cost in costs.items())])


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for what in ("--table", "--times", "--deltas", "--flops"):
        parser.add_argument(what, action="store_true")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--train", type=int, default=400, help="digits of each class to train on; a folder for each")
    parser.add_argument("--arm", choices=list(ARMS), action="append", help="only these")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.table:
        print(report.table(report.read_rows(options.out, Row)))
    elif options.flops:
        print(flops(options.train))
    elif options.times or options.deltas:
        data = mnist_stream(train=options.train)

        def make(name: str) -> Learner:
            return learner(ARMS[name], data, 0.1, 0)

        print(times(options.out, make, data.image) if options.times else deltas(options.out, data, make))
    else:
        _train(options.out, options.arm or list(ARMS), SEEDS[:options.seeds], options.train)


if __name__ == "__main__":
    main()
