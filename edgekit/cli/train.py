"""``edgekit train``: networks that learn a stream of tasks and stay small."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from edgekit.cli.draw import Drawing, Table
from edgekit.cli.files import megabytes
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, key_option, load_key
from edgekit.errors import MissingExtra

if TYPE_CHECKING:
    from edgekit.train.continual.run import SeedResult

__all__ = ["Train", "TrainedSeed", "TrainedUpdate", "train"]


class TrainedUpdate(msgspec.Struct, frozen=True):
    """The bundle of a task and the delta from the one before; no delta after the first."""

    bundle: str
    bundle_bytes: int
    delta: str | None
    delta_bytes: int


class TrainedSeed(msgspec.Struct, frozen=True):
    """One run. Accuracies, forgetting and density are from 0 to 1; ``matrix`` has a row for each task."""

    seed: int
    matrix: tuple[tuple[float, ...], ...]
    average_accuracy: float
    average_task_accuracy: float
    forgetting: float
    density: float
    paper_flops: float
    full_flops: float
    updates: tuple[TrainedUpdate, ...]


class Train(msgspec.Struct, frozen=True):
    """What was trained, and where it lies: a folder ``seedN`` in ``output`` for each seed."""

    config: str
    output: str
    seeds: tuple[TrainedSeed, ...]


def _draw(result: Train) -> Drawing:

    table = Table(">seed", ">of all classes", ">of the task's", ">forgetting", ">density", ">TFLOPs, full",
                 ">last delta")
    for each in result.seeds:
        last = each.updates[-1] if each.updates else None
        table.add_row(str(each.seed), f"{each.average_accuracy:.1%}", f"{each.average_task_accuracy:.1%}",
                      f"{100 * each.forgetting:.1f} points", f"{each.density:.3f}", f"{each.full_flops / 1e12:.3g}",
                      megabytes(last.delta_bytes) if last and last.delta else "")
    return table


@verb("train", draw=_draw)
@click.argument("method", type=click.Choice(["continual"]))
@click.option("--config", type=PATH, required=True, help="A .yaml, .json or .toml file; docs/train.md has every field.")
@click.option("-o", "--output", type=PATH, required=True, help="The folder for what comes out; a run there goes on.")
@click.option("--seed", type=int, multiple=True, help="In place of the seeds of the file; may be given several times.")
@key_option
def train(frame: Frame, method: str, config: Path, output: Path, seed: tuple[int, ...], key: Path | None) -> Train:
    """Train a network on a stream of tasks, sparsely if wanted.

    continual: replay with ER or DER++, and SparCL's masks. A run that was killed goes on from its last epoch when the
    same command is given again, and ends with the same weights.
    """
    assert method == "continual"
    try:
        from edgekit.train.continual.run import make_stream, read_config, run_seed
    except ImportError as error:
        raise MissingExtra.of(error.name or "torch", "train") from error
    what = read_config(config)
    if seed:
        what = msgspec.structs.replace(what, seeds=seed)
    signing = load_key(key)
    stream = make_stream(what.data)
    with frame.working("Training") as show:
        # a run says most things only while it is watched, and what it cannot do in any case
        def say(text: str) -> None:
            show(text)
            if text.startswith("TensorBoard"):
                frame.say(text)

        done = tuple(_result(run_seed(what, stream, number, output / f"seed{number}", signing, say))
                     for number in what.seeds)
    return Train(config=str(config), output=str(output), seeds=done)


def _result(found: SeedResult) -> TrainedSeed:
    updates = tuple(TrainedUpdate(str(each.bundle), each.bundle_bytes, str(each.delta) if each.delta else None,
                                  each.delta_bytes) for each in found.updates)
    return TrainedSeed(found.seed, found.matrix, found.average_accuracy, found.average_task_accuracy, found.forgetting,
                       found.density, found.paper_flops, found.full_flops, updates)
