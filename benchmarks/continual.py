"""Sparse continual learning on Split-MNIST and Split-CIFAR-10: tests T1 to T5 and the channel-wise variant.

    python -m benchmarks.continual --out FOLDER            # trains what is not in FOLDER/rows.json yet
    python -m benchmarks.continual --out FOLDER --table    # prints the table and the verdicts
    python -m benchmarks.continual --out FOLDER --times    # training and LiteRT times, side by side
    python -m benchmarks.continual --out FOLDER --deltas   # a bundle after each task, and the deltas between them
    python -m benchmarks.continual --out FOLDER --flops    # what each arm costs, without training

Without --train 400 digits of each class are trained on, which is Split-MNIST-5k; deltas train, too, and times on a
quarter of it. With --data cifar it is Split-CIFAR-10 (JPEG files of EDGEKIT_SHARED, 150 pictures of each class) with a
small ResNet.

For each arm the learning rate is chosen on pictures that are held out of the training pictures: all with one seed, the
best two with three (on Split-CIFAR-10 with one). The channel-wise sparsity is chosen on the same pictures, with three
seeds. Then each seed is trained and tested once (on Split-MNIST with
the held-out digits among the training digits). The seeds set the first weights and the order of the data, the same for
all arms. Every run is stored when it ends, and a second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import msgspec
import torch

from benchmarks import continual_report as report
from benchmarks.continual_deployed import deltas, times
from benchmarks.continual_setups import ARMS, SETUPS, TIMED, Setup
from edgekit.atomic import write_atomically
from edgekit.errors import BadRecipe
from edgekit.train.continual.evaluate import average_accuracy, forgetting
from edgekit.train.continual.planned import planned_flops
from edgekit.train.continual.streams import Stream

__all__ = ["Row", "flops", "main"]

#: with which the best rates, and the sparsities of channels, are compared
_CHOOSING_SEEDS = (0, 1, 2)


class Row(msgspec.Struct, frozen=True):
    """One run. Accuracies and forgetting are from 0 to 1; ``density`` of the prunable weights at the end.

    ``held_out``: on the pictures for choosing settings. Zeros where the loss did not stay finite.
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


def _run(setup: Setup, name: str, data: Stream, rate: float, seed: int, held_out: bool) -> Row:
    start = time.process_time()
    student = setup.learner(ARMS[name], data, rate, seed)
    try:
        outcome = student.run()
    except BadRecipe as error:
        # a rate at which the loss is not finite is a rate that is not chosen; elsewhere it ends the benchmark
        if not held_out:
            raise
        print(f"{name}, rate {rate}, seed {seed}, held out: {error.message}", flush=True)
        return Row(name, rate, seed, held_out, 0.0, 0.0, 0.0, 0.0, 0.0, student.density, time.process_time() - start)
    matrix = [row.class_incremental for row in outcome.rows]
    row = Row(name, rate, seed, held_out, average_accuracy(matrix),
              average_accuracy([row.task_incremental for row in outcome.rows]), forgetting(matrix),
              outcome.paper_flops, outcome.full_flops, student.density, time.process_time() - start)
    print(f"{name}, rate {rate}, seed {seed}{', held out' if held_out else ''}: {row.class_incremental:.1%} of all, "
          f"{row.task_incremental:.1%} in its task, {row.full_flops / 1e9:.1f} GFLOPs, {row.cpu_s:.1f} s", flush=True)
    return row


def _train(setup: Setup, out: Path, arms: list[str], seeds: int, pictures: int) -> None:
    rows = report.read_rows(out, Row)

    def add(name: str, data: Stream, rate: float, seed: int, held_out: bool) -> None:
        if (name, rate, seed, held_out) not in {(row.arm, row.rate, row.seed, row.held_out) for row in rows}:
            rows.append(_run(setup, name, data, rate, seed, held_out))
            write_atomically(out / "rows.json", json.dumps([msgspec.to_builtins(row) for row in rows],
                                                           indent=1).encode())

    data = setup.stream(pictures, True)
    for name in arms:
        for rate in setup.rates:
            add(name, data, rate, 0, True)
        # one seed says little: the best of its rates are tried with more
        more = _CHOOSING_SEEDS if setup.compared_rates > 1 or name == "dense" or ARMS[name].whole_channels else ()
        for rate in report.ranked_rates([row for row in rows if row.seed == 0], name)[:setup.compared_rates]:
            for seed in more:
                add(name, data, rate, seed, True)
    data = setup.stream(pictures, False)
    for seed in range(seeds):
        for name in arms:
            add(name, data, report.best_rate(rows, name), seed, False)


def flops(setup: Setup, pictures: int) -> str:
    """T1: training FLOPs of the arms that mask no channels."""
    costs = {name: planned_flops(setup.network(), setup.image, setup.recipe_of(arm, 0.1, 0, 2 * pictures),
                                 [2 * pictures] * 5) for name, arm in ARMS.items() if not arm.whole_channels}
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
    parser.add_argument("--data", choices=list(SETUPS), default="mnist")
    parser.add_argument("--seeds", type=int, help="without it as many as the data's set-up has")
    parser.add_argument("--train", type=int, help="pictures of each class to train on; a folder for each")
    parser.add_argument("--arm", choices=list(ARMS), action="append", help="only these")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 in training")
    parser.add_argument("--rate", type=float, action="append", help="try only these")
    parser.add_argument("--clip", type=float, help="the largest norm of the gradient; a folder for each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    setup = SETUPS[options.data]
    setup = setup._replace(recipe=msgspec.structs.replace(
        setup.recipe, clip=options.clip, bfloat16=setup.recipe.bfloat16 and not options.float32),
        rates=tuple(options.rate or setup.rates))
    pictures = options.train or setup.pictures
    if options.table:
        print(report.table(report.read_rows(options.out, Row)))
    elif options.flops:
        print(flops(setup, pictures))
    elif options.times:
        # a quarter is enough: every arm takes as many steps of it
        data = setup.stream(options.train or pictures // 4, False)
        print(times(options.out, lambda name, short: setup.learner(TIMED[name], short, 0.05, 0), data,
                    options.arm or [name for name in TIMED if name not in ARMS or name in setup.arms()]))
    elif options.deltas:
        data = setup.stream(pictures, False)
        print(deltas(options.out, data, lambda name: setup.learner(ARMS[name], data, 0.1, 0)))
    else:
        _train(setup, options.out, options.arm or list(setup.arms()), options.seeds or setup.seeds, pictures)


if __name__ == "__main__":
    main()
