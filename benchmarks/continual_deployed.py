"""For benchmarks.continual: times of training and of the deployed file side by side, and the size of deltas."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.timing import Run, Seconds, interleave, ratio
from edgekit.bundle import generate_key_pair, load_private_key
from edgekit.measure import BenchOptions
from edgekit.measure_subject import open_subject
from edgekit.pipeline import convert
from edgekit.train.continual.learner import Learner
from edgekit.train.continual.streams import Stream
from edgekit.train.continual.updates import emit, to_onnx

__all__ = ["deltas", "times"]

_ROUNDS = 3


def times(out: Path, make: Callable[[str, Stream], Learner], stream: Stream, arms: Sequence[str]) -> str:
    """CPU time of training, and of the LiteRT file of what was trained, each over that of the first of ``arms``.

    Whole schedules on the first two tasks of ``stream``, without evaluation. ``make``: an untrained learner of an arm.
    """
    tasks = [task._replace(test_images=task.test_images[:1], test_labels=task.test_labels[:1])
             for task in stream.tasks[:2]]
    short = stream._replace(tasks=tuple(tasks))
    taken = {arm: np.empty((_ROUNDS, 1)) for arm in arms}
    learners = {}
    for index in range(_ROUNDS):
        first = index % len(arms)
        for arm in [*arms[first:], *arms[:first]]:
            learners[arm] = make(arm, short)
            start = time.process_time()
            learners[arm].run()
            taken[arm][index] = time.process_time() - start
    lines = ["| what | arm | CPU ms | times dense | 95 % interval |", "|---|---|---:|---:|---:|",
             *_compared("training", taken, arms[0])]
    files = {arm: out / f"{arm}.tflite" for arm in arms}
    for arm, path in files.items():
        convert(to_onnx(learners[arm].state.network, stream.image), "litert", path)

    def opener(path: Path) -> Callable[[], Run]:
        return lambda: open_subject(str(path), BenchOptions()).run

    found = interleave({arm: opener(path) for arm, path in files.items()}, rounds=8, blocks=2, repeats=30)
    return "\n".join([*lines, *_compared("LiteRT", found, arms[0])])


def _compared(what: str, seconds: Mapping[str, Seconds], against: str) -> list[str]:
    lines = []
    for arm, values in seconds.items():
        found = ratio(values, seconds[against])
        lines.append(f"| {what} | {arm} | {1e3 * float(np.median(values)):.3f} | {found.value:.2f} "
                     f"| {found.lower:.2f} to {found.upper:.2f} |")
    return lines


def deltas(out: Path, stream: Stream, make: Callable[[str], Learner]) -> str:
    """Signed LiteRT bundles after each task at sparsity .9, and their deltas beside the dense network's bundle."""
    folder = out / "updates"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    generate_key_pair(folder / "key.pem", folder / "key.pub")
    key = load_private_key(folder / "key.pem")
    dense = emit(make("dense").state.network, stream, 50, folder, ("litert",), key).bundle_bytes
    lines = [f"dense fp32 bundle: {dense} bytes", "| after task | delta, bytes | of the dense bundle, % |",
             "|---:|---:|---:|"]
    shares: list[float] = []

    def on_task(task: int, _: object) -> None:
        update = emit(learner.state.network, stream, task, folder, ("litert",), key)
        if update.delta is not None:
            shares.append(100 * update.delta_bytes / dense)
            lines.append(f"| {task + 1} | {update.delta_bytes} | {shares[-1]:.1f} |")

    learner = make("sparse .9")
    learner.run(on_task=on_task)
    verdict = "pass" if max(shares) <= 15 else "FAIL"
    return "\n".join([*lines, f"largest delta: {max(shares):.1f} % of the dense bundle (at most 15): {verdict}"])
