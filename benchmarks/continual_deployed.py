"""For benchmarks.continual: times of training and of the deployed file side by side, and the size of deltas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks.timing import Run, interleave, ratio
from edgekit.bundle import generate_key_pair, load_private_key
from edgekit.measure import BenchOptions
from edgekit.measure_subject import open_subject
from edgekit.pipeline import convert
from edgekit.train.continual.learner import Learner
from edgekit.train.continual.nets import SmallCnn
from edgekit.train.continual.streams import Stream
from edgekit.train.continual.updates import emit, to_onnx

__all__ = ["deltas", "times"]

_SHOWN = ("dense", "sparse .9", "channels .5")


def times(out: Path, make: Callable[[str], Learner], image: tuple[int, ...]) -> str:
    """CPU time of whole runs, and of the LiteRT file of what was learned, each over dense's, with intervals.

    ``make``: an untrained learner of an arm.
    """

    def training(arm: str) -> Callable[[], Run]:
        return lambda: lambda: make(arm).run()

    lines = ["| what | arm | CPU ms | times dense | 95 % interval |", "|---|---|---:|---:|---:|"]
    lines += _compared("training", {arm: training(arm) for arm in _SHOWN}, rounds=3, repeats=1)
    files = {}
    for arm in _SHOWN:
        learner = make(arm)
        learner.run()
        files[arm] = out / f"{arm}.tflite"
        convert(to_onnx(learner.state.network, image), "litert", files[arm])

    def opener(path: Path) -> Callable[[], Run]:
        return lambda: open_subject(str(path), BenchOptions()).run

    lines += _compared("LiteRT", {arm: opener(path) for arm, path in files.items()}, rounds=8, repeats=30)
    return "\n".join(lines)


def _compared(what: str, openers: Mapping[str, Callable[[], Run]], rounds: int, repeats: int) -> list[str]:
    seconds = interleave(openers, rounds=rounds, blocks=2, repeats=repeats)
    lines = []
    for arm, values in seconds.items():
        found = ratio(values, seconds["dense"])
        lines.append(f"| {what} | {arm} | {1e3 * float(torch.tensor(values).median()):.3f} | {found.value:.2f} "
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
    dense = emit(SmallCnn(), stream, 50, folder, ("litert",), key).bundle_bytes
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
