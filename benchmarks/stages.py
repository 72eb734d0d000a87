"""A network in stages at several resolutions: its size on disk, what a stage saves in time, and memory.

    python -m benchmarks.stages [--json stages.json] [--rounds 40] [--precision fp32 int8]

EfficientNet-Lite0 gets three exits (untrained heads: nothing here depends on what they answer), and becomes a bundle
with 4 stages at 128, 160, 192 and 224 pixels, beside a bundle with 224 pixels only and .tflite files with the same
network, exits included, in one piece. Time: CPU time of the thread, stages 0 to k in a row against the one piece, in
turn, medians; hand-over through numpy included. Memory: fresh processes that open a file and run what is named, on top
of the imports. Exit code 1 when a bar is missed.
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
from edgekit.converters.onnx_to_litert import SIGNATURE
from edgekit.errors import EdgeKitError, EngineError
from edgekit.recipe import ConvertRecipe

__all__ = ["Result", "main", "misses", "section"]

_SIDES = (128, 160, 192, 224)
#: exits behind the ends of blocks, where little is handed on; the fourth is the network's own
_BLOCKS = ("_blocks.4", "_blocks.10", "_blocks.13")
_EXITS = len(_BLOCKS) + 1
#: how much larger than one network a bundle may be
_MAX_GROWTH = {"fp32": 1.1, "int8": 1.4}
#: all stages in a row may take this much longer than the network in one piece
_MAX_OVERHEAD = 1.03
_WARMUP = 3


class Result(msgspec.Struct, frozen=True):
    """One precision. Sizes in bytes, for four ladders and for the network, with its exits, at one resolution.

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


def make_files(folder: str, precision: str) -> None:
    """Write ladders.edge, one.edge (one resolution) and whole_SIDE.tflite (all exits, in one piece) into ``folder``."""
    import torch

    from edgekit.adaptive import AdaptiveRecipe, build_adaptive, export_exits
    from edgekit.adaptive.quantized import quantize_resolutions
    from edgekit.converters.onnx_to_litert import to_litert
    from edgekit.demo_network import load_lite0
    from edgekit.train.multi_exit import ExitRecipe, MultiExit

    torch.manual_seed(0)
    example = torch.zeros(1, 3, _SIDES[-1], _SIDES[-1])
    network = load_lite0()
    model = export_exits(MultiExit(network, _BLOCKS, example, ExitRecipe()), example)
    images = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    data = images if precision == "int8" else None
    recipe = AdaptiveRecipe(resolutions=tuple((side, side) for side in _SIDES), precision=precision)  # type: ignore[arg-type]
    build_adaptive(model, Path(folder) / "ladders.edge", recipe, calibration=data)
    last = msgspec.structs.replace(recipe, resolutions=recipe.resolutions[-1:])
    build_adaptive(model, Path(folder) / "one.edge", last, calibration=data)
    wholes: dict[tuple[int, int], Any] = {
        sides: to_litert(model, ConvertRecipe(shapes={model.inputs[0].name: (1, 3, *sides)})).model
        for sides in recipe.resolutions}
    if data is not None:
        wholes = dict(quantize_resolutions(wholes, recipe.quantize, data, None))
    for sides, whole in wholes.items():
        (Path(folder) / f"whole_{sides[0]}.tflite").write_bytes(whole.data)
    with Bundle.open(Path(folder) / "ladders.edge") as bundle:
        (Path(folder) / "ladders.tflite").write_bytes(bundle.read(bundle.manifest.ladders[0].stages[0].entry))


def _ladders(path: Path) -> tuple[Ladder, ...]:
    with Bundle.open(path) as bundle:
        return bundle.manifest.ladders


def _interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=path.read_bytes(), num_threads=1)


def _runner(interpreter: Any, signature: str, names: Sequence[str]) -> Callable[[dict[str, Array]], None]:
    """Runs a signature on a dictionary of values, to which its outputs are added."""
    runner = interpreter.get_signature_runner(signature)
    return lambda values: values.update(runner(**{name: values[name] for name in names}))


def _chain(interpreter: Any, ladder: Ladder) -> list[Callable[[dict[str, Array]], None]]:
    return [_runner(interpreter, stage.signature, [spec.name for spec in stage.inputs]) for stage in ladder.stages]


def _image(ladder: Ladder) -> dict[str, Array]:
    spec = ladder.stages[0].inputs[0]
    return {spec.name: np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32)}


def measure_times(folder: str, rounds: int) -> tuple[dict[int, float], dict[int, tuple[float, ...]]]:
    """``whole_ms`` and ``until_ms`` of a Result."""
    staged = _interpreter(Path(folder) / "ladders.tflite")
    whole_ms, until_ms = {}, {}
    for ladder in _ladders(Path(folder) / "ladders.edge"):
        side, stages = ladder.resolution[0], _chain(staged, ladder)
        alone = _interpreter(Path(folder) / f"whole_{side}.tflite")
        whole = [_runner(alone, SIGNATURE, [ladder.stages[0].inputs[0].name])]
        chains = [*(stages[:depth + 1] for depth in range(len(stages))), whole]
        taken: list[list[float]] = [[] for _ in chains]
        for number in range(rounds + _WARMUP):
            for chain, each in zip(chains, taken, strict=True):
                values = _image(ladder)
                start = time.thread_time()
                for run in chain:
                    run(values)
                if number >= _WARMUP:
                    each.append((time.thread_time() - start) * 1e3)
        *until, piece = (float(np.median(each)) for each in taken)
        whole_ms[side], until_ms[side] = piece, tuple(until)
    return whole_ms, until_ms


def _measure_memory(folder: Path) -> dict[str, tuple[float, float]]:
    """Resident and private MB of fresh processes."""
    cases = {"one piece at 224": ("whole", "224", "1"), "ladders: stage 0 at 224": ("ladders", "224", "1"),
             "ladders: all stages at 224": ("ladders", "224", str(_EXITS)),
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
    wanted = sides.split(",")
    ladders = [each for each in _ladders(Path(folder) / "ladders.edge") if str(each.resolution[0]) in wanted]
    before = memory_mb()
    interpreter = _interpreter(Path(folder) / ("ladders.tflite" if name == "ladders" else f"whole_{sides}.tflite"))
    for ladder in ladders:
        values = _image(ladder)
        chain = _chain(interpreter, ladder) if name == "ladders" else [_runner(interpreter, SIGNATURE, list(values))]
        for run in chain[:int(depth)]:
            run(values)
    print(json.dumps([after - start for after, start in zip(memory_mb(), before, strict=True)]))


def _result(folder: Path, precision: str, rounds: int) -> Result:
    times = isolate.call("benchmarks.stages:measure_times", str(folder), rounds)
    assert isinstance(times, tuple)
    whole_ms, until_ms = times
    last = _ladders(folder / "ladders.edge")[-1]
    carried = tuple(sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in stage.inputs)
                    for stage in last.stages[1:])
    size = {name: (folder / name).stat().st_size
            for name in ("ladders.tflite", "whole_224.tflite", "ladders.edge", "one.edge")}
    return Result(precision, size["ladders.tflite"], size["whole_224.tflite"], size["ladders.edge"], size["one.edge"],
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
            isolate.call("benchmarks.stages:make_files", folder, precision, subject="EfficientNet-Lite0")
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
