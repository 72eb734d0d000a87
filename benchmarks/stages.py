"""A network in stages at several resolutions: its size on disk, what a stage saves in time, and memory.

    python -m benchmarks.stages [--json stages.json] [--rounds 40] [--precision fp32 int8]

EfficientNet-Lite0 gets three exits (untrained heads: nothing here depends on what they answer), and becomes a bundle
with 4 stages at 128, 160, 192 and 224 pixels, beside a bundle with the same network in one piece at 224. Time: CPU time
of the thread, stages 0 to k in a row against the network in one piece, in turn, medians; hand-over through numpy
included. Memory: fresh processes that open a file and run what is named, on top of the imports. Exit code 1 when a bar
is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.costs import ROOT
from benchmarks.report import table
from benchmarks.signatures import memory_mb
from edgekit import isolate
from edgekit.artifacts import Array
from edgekit.atomic import write_atomically
from edgekit.bundle import Bundle, Ladder
from edgekit.errors import EdgeKitError, EngineError

__all__ = ["Result", "main", "misses", "section"]

_SIDES = (128, 160, 192, 224)
_EXITS = 4
#: how much larger than one network a bundle may be
_MAX_GROWTH = {"fp32": 1.1, "int8": 1.4}
#: all stages in a row may take this much longer than the network in one piece
_MAX_OVERHEAD = 1.03
_WARMUP = 3


class Result(msgspec.Struct, frozen=True):
    """One precision. Sizes in bytes, for four ladders and for one network in one piece.

    ``whole_ms`` by side; ``until_ms``: by side, of stages 0 to k in a row; ``carried_bytes``: what each stage but the
    first is given at 224. ``memory_mb``: by what was run, resident and private on top of the imports.
    """

    precision: str
    file_bytes: int
    one_file_bytes: int
    bundle_bytes: int
    one_bundle_bytes: int
    whole_ms: dict[int, float]
    until_ms: dict[int, tuple[float, ...]]
    carried_bytes: tuple[int, ...]
    memory_mb: dict[str, tuple[float, float]]


def make_bundles(folder: str, precision: str) -> None:
    """Write ladders.edge and one_SIDE.edge, and the model files inside them, into ``folder``."""
    import torch

    from edgekit.adaptive import AdaptiveRecipe, build_adaptive, export_exits
    from edgekit.demo_network import load_lite0
    from edgekit.train.multi_exit import ExitRecipe, MultiExit, suggest_exits

    torch.manual_seed(0)
    example = torch.zeros(1, 3, _SIDES[-1], _SIDES[-1])
    network = load_lite0()
    exits = suggest_exits(network, example, _EXITS - 1)
    model = export_exits(MultiExit(network, exits, example, ExitRecipe()), example)
    images = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    data = images if precision == "int8" else None
    recipe = AdaptiveRecipe(resolutions=tuple((side, side) for side in _SIDES), precision=precision)  # type: ignore[arg-type]
    build_adaptive(model, Path(folder) / "ladders.edge", recipe, calibration=data)
    for side in _SIDES:  # the last exit needs the network as it was, without the other heads
        one = msgspec.structs.replace(recipe, resolutions=((side, side),), exits=(model.outputs[-1].name,))
        build_adaptive(model, Path(folder) / f"one_{side}.edge", one, calibration=data)
    for path in Path(folder).glob("*.edge"):
        with Bundle.open(path) as bundle:
            path.with_suffix(".tflite").write_bytes(bundle.read(bundle.manifest.ladders[0].stages[0].entry))


def _ladders(path: Path) -> tuple[Ladder, ...]:
    with Bundle.open(path) as bundle:
        return bundle.manifest.ladders


def _runners(data: bytes, ladders: Sequence[Ladder]) -> dict[str, list[Callable[[dict[str, Array]], None]]]:
    """By ladder, what runs each stage on a dictionary of values, to which its outputs are added."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)

    def stage_of(signature: str, names: Sequence[str]) -> Callable[[dict[str, Array]], None]:
        runner = interpreter.get_signature_runner(signature)
        return lambda values: values.update(runner(**{name: values[name] for name in names}))

    return {ladder.id: [stage_of(stage.signature, [spec.name for spec in stage.inputs]) for stage in ladder.stages]
            for ladder in ladders}


def _image(ladder: Ladder) -> dict[str, Array]:
    spec = ladder.stages[0].inputs[0]
    return {spec.name: np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32)}


def measure_times(folder: str, rounds: int) -> tuple[dict[int, float], dict[int, tuple[float, ...]]]:
    """``whole_ms`` and ``until_ms`` of a Result."""
    ladders = _ladders(Path(folder) / "ladders.edge")
    stages = _runners((Path(folder) / "ladders.tflite").read_bytes(), ladders)
    whole_ms, until_ms = {}, {}
    for ladder in ladders:
        side = ladder.resolution[0]
        (one,) = _ladders(Path(folder) / f"one_{side}.edge")
        (whole,) = _runners((Path(folder) / f"one_{side}.tflite").read_bytes(), [one])[one.id]
        taken: list[list[float]] = [[] for _ in range(len(ladder.stages) + 1)]
        for number in range(rounds + _WARMUP):
            for depth, each in enumerate(taken):
                values = _image(ladder)
                chain = stages[ladder.id][:depth + 1] if depth < len(ladder.stages) else [whole]
                start = time.thread_time()
                for run in chain:
                    run(values)
                if number >= _WARMUP:
                    each.append((time.thread_time() - start) * 1e3)
        *until, alone = (float(np.median(each)) for each in taken)
        whole_ms[side], until_ms[side] = alone, tuple(until)
    return whole_ms, until_ms


def _measure_memory(folder: Path) -> dict[str, tuple[float, float]]:
    """Resident and private MB of fresh processes."""
    cases = {"one network at 224": ("one_224", "224", "1"), "ladders: stage 0 at 224": ("ladders", "224", "1"),
             "ladders: all stages at 224": ("ladders", "224", str(_EXITS)),
             "ladders: all stages at 128 and 224": ("ladders", "128,224", str(_EXITS)),
             "ladders: everything": ("ladders", ",".join(map(str, _SIDES)), str(_EXITS))}
    found = {}
    for title, arguments in cases.items():
        command = [sys.executable, "-m", "benchmarks.stages", "--child", str(folder), *arguments]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise EngineError(f"{title} failed: {done.stderr.strip()[-500:]}")
        resident, private = json.loads(done.stdout.splitlines()[-1])
        found[title] = resident, private
    return found


def _child(folder: str, name: str, sides: str, depth: str) -> None:
    """The fresh process: print resident and private MB."""
    __import__("ai_edge_litert.interpreter")
    ladders = _ladders(Path(folder) / f"{name}.edge")
    before = memory_mb()
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(str(Path(folder) / f"{name}.tflite"), num_threads=1)
    for ladder in ladders:
        if str(ladder.resolution[0]) in sides.split(","):
            values = _image(ladder)
            for stage in ladder.stages[:int(depth)]:
                runner = interpreter.get_signature_runner(stage.signature)
                values.update(runner(**{spec.name: values[spec.name] for spec in stage.inputs}))
    print(json.dumps([after - start for after, start in zip(memory_mb(), before, strict=True)]))


def _result(folder: Path, precision: str, rounds: int) -> Result:
    times = isolate.call("benchmarks.stages:measure_times", str(folder), rounds)
    assert isinstance(times, tuple)
    whole_ms, until_ms = times
    last = _ladders(folder / "ladders.edge")[-1]
    carried = tuple(sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in stage.inputs)
                    for stage in last.stages[1:])
    size = {name: (folder / name).stat().st_size
            for name in ("ladders.tflite", "one_224.tflite", "ladders.edge", "one_224.edge")}
    return Result(precision, size["ladders.tflite"], size["one_224.tflite"], size["ladders.edge"], size["one_224.edge"],
                  whole_ms, until_ms, carried, _measure_memory(folder))


def section(results: Sequence[Result]) -> str:
    """The tables, as Markdown."""
    sizes = [[each.precision, f"{each.file_bytes:,}", f"{each.file_bytes / each.one_file_bytes:.3f}",
              f"{each.bundle_bytes:,}", f"{each.bundle_bytes / each.one_bundle_bytes:.3f}",
              ", ".join(f"{size / 1024:.0f}" for size in each.carried_bytes)] for each in results]
    times = [[each.precision, str(side), f"{each.whole_ms[side]:.2f}",
              *(f"{taken:.2f}" for taken in until), f"{until[-1] / each.whole_ms[side]:.3f}"]
             for each in results for side, until in each.until_ms.items()]
    memory = [[each.precision, what, f"{resident:.1f}", f"{private:.1f}"]
              for each in results for what, (resident, private) in each.memory_mb.items()]
    return "\n\n".join((
        f"## EfficientNet-Lite0 in {_EXITS} stages at {', '.join(map(str, _SIDES))} pixels",
        table(["precision", "file, bytes", "x one", "bundle, bytes", "x one", "handed on at 224, KiB"], sizes),
        "CPU time in ms, 1 thread:",
        table(["precision", "side", "one piece", *(f"stages 0-{k}" for k in range(_EXITS)), "all / one"], times),
        "Memory on top of the imports:",
        table(["precision", "what was run", "resident MB", "private MB"], memory)))


def misses(results: Sequence[Result]) -> list[str]:
    """One line for each bar that is missed."""
    found = []
    for each in results:
        if each.bundle_bytes > _MAX_GROWTH[each.precision] * each.one_bundle_bytes:
            found.append(f"{each.precision}: the bundle is {each.bundle_bytes / each.one_bundle_bytes:.2f} times as "
                         f"large as one network's, more than {_MAX_GROWTH[each.precision]}")
        for side, until in each.until_ms.items():
            if until[-1] > _MAX_OVERHEAD * each.whole_ms[side]:
                found.append(f"{each.precision} at {side}: all stages take {until[-1]:.2f} ms, one piece "
                             f"{each.whole_ms[side]:.2f} ms")
            if not all(a < b for a, b in itertools.pairwise(until)):
                found.append(f"{each.precision} at {side}: a further stage takes no time: {until}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Print the tables; 1 when a bar is missed."""
    if arguments[:1] == ["--child"]:
        _child(*arguments[1:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--rounds", type=int, default=40, help="runs for each median")
    parser.add_argument("--precision", nargs="+", choices=sorted(_MAX_GROWTH), default=["fp32", "int8"])
    given = parser.parse_args(arguments)
    results = []
    for precision in given.precision:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{precision}: building", file=sys.stderr, flush=True)
            isolate.call("benchmarks.stages:make_bundles", folder, precision, subject="EfficientNet-Lite0")
            results.append(_result(Path(folder), precision, given.rounds))
    if given.json:
        write_atomically(given.json, msgspec.json.format(msgspec.json.encode(results)))
    print(section(results))
    missed = misses(results)
    print("\nMissed:\n" + "\n".join(f"- {line}" for line in missed) if missed else "\nEvery bar is met.")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EdgeKitError as error:
        sys.exit(str(error))
