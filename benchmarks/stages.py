"""A network in stages at several resolutions: its size on disk, what a stage saves in time, what stages cost, memory.

    python -m benchmarks.stages [--json stages.json] [--rounds 40] [--precision fp32 int8] [--network lite0 cifar]

EfficientNet-Lite0 gets three exits (untrained heads: nothing here depends on what they answer), and becomes a bundle
with 4 stages at 128, 160, 192 and 224 pixels, beside a bundle with 224 pixels only and .tflite files with the same
network, exits included, in one piece. ``cifar``: the network of benchmarks.cifar_exits, 5 stages at 32 pixels. Time:
CPU time of the thread in the runtime's own sessions, stages 0 to k in a row against the one piece, in turn, medians;
"planned" is ``AdaptiveRuntime.run`` on a route through every exit that stops at none, with all that it decides and
counts, and its check of the input, which the one piece has as well. Memory: fresh processes that open a file and run
what is named, on top of the imports. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
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
from edgekit.bundle import Bundle, Ladder, ladders_sha256
from edgekit.bundle.adaptive import Plan, Promise, Route, Step
from edgekit.converters.onnx_to_litert import SIGNATURE
from edgekit.errors import EdgeKitError, EngineError
from edgekit.planning import store_plan
from edgekit.recipe import ConvertRecipe
from edgekit.runtime import RuntimeOptions, load
from edgekit.runtime.adaptive import AdaptiveRuntime
from edgekit.runtime.engines.litert import LiteRTSession
from edgekit.runtime.stages import StagedNetwork

__all__ = ["Result", "main", "misses", "section"]

_SIDES = {"lite0": (128, 160, 192, 224), "cifar": (32,)}
#: exits behind the ends of blocks, where little is handed on; the fourth is the network's own
_BLOCKS = ("_blocks.4", "_blocks.10", "_blocks.13")
#: how much larger than one network a bundle may be
_MAX_GROWTH = {"fp32": 1.1, "int8": 1.4}
#: all stages, with decisions after each, may take this much longer than the network in one piece
_MAX_OVERHEAD = 1.03
_WARMUP = 3


class Result(msgspec.Struct, frozen=True):
    """One network in one precision. Sizes in bytes, for all ladders and for the network, with its exits, at one
    resolution.

    Milliseconds by side: ``until_ms`` of stages 0 to k in a row, over and over; ``whole_ms`` of all exits in one piece,
    ``row_ms`` of all stages and ``planned_ms`` of all stages with a decision after each, in turn. ``carried_bytes``:
    what each stage but the first is given at the largest side. ``memory_mb``: by what was run, resident and private on
    top of the imports.
    """

    network: str
    precision: str
    file_bytes: int
    one_file_bytes: int
    bundle_bytes: int
    one_bundle_bytes: int
    whole_ms: dict[int, float]
    until_ms: dict[int, tuple[float, ...]]
    row_ms: dict[int, float]
    planned_ms: dict[int, float]
    carried_bytes: tuple[int, ...]
    memory_mb: dict[str, tuple[float, float]]


def _network(name: str) -> Any:
    """Its ONNX form, exits untrained."""
    import torch

    from benchmarks import cifar_exits
    from edgekit.adaptive import export_exits
    from edgekit.demo_network import load_lite0
    from edgekit.train.multi_exit import ExitRecipe, MultiExit

    torch.manual_seed(0)
    example = torch.zeros(1, 3, _SIDES[name][-1], _SIDES[name][-1])
    if name == "cifar":
        return export_exits(cifar_exits.network(0).eval(), example)
    return export_exits(MultiExit(load_lite0(), _BLOCKS, example, ExitRecipe()), example)


def make_files(folder: str, name: str, precision: str) -> None:
    """Write ladders.edge, one.edge (one resolution) and whole_SIDE.tflite (all exits, in one piece) into ``folder``."""
    from edgekit.adaptive import AdaptiveRecipe, build_adaptive
    from edgekit.adaptive.quantized import quantize_resolutions
    from edgekit.converters.onnx_to_litert import to_litert

    model = _network(name)
    images = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    data = images if precision == "int8" else None
    recipe = AdaptiveRecipe(resolutions=tuple((side, side) for side in _SIDES[name]), precision=precision)  # type: ignore[arg-type]
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


def _plan(folder: Path, index: int) -> Path:
    """A bundle whose plan runs all stages of a ladder, deciding after each."""
    with Bundle.open(folder / "ladders.edge") as bundle:
        manifest = bundle.manifest
    count = len(manifest.ladders[index].stages)
    steps = tuple(Step(index, stage, (0.3,) * stage + (1.0,), "margin", None if stage + 1 == count else 2.0)
                  for stage in range(count))
    route = Route(steps, Promise(0.5, (0.0, 1.0), 1.0, 1.0, (0.0,) * (count - 1) + (1.0,), 1))
    times = tuple((1.0,) * len(ladder.stages) for ladder in manifest.ladders)
    store_plan(folder / "ladders.edge", folder / f"planned{index}.edge", Plan(
        "any", "litert", "predicted", times, 0.0, (route,), 0, "all stages", (), ladders_sha256(manifest, "litert")))
    return folder / f"planned{index}.edge"


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


def _runners(interpreter: Any, ladder: Ladder) -> list[Callable[[dict[str, Array]], None]]:
    return [_runner(interpreter, stage.signature, [spec.name for spec in stage.inputs]) for stage in ladder.stages]


def _image(ladder: Ladder) -> dict[str, Array]:
    spec = ladder.stages[0].inputs[0]
    return {spec.name: np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32)}


def measure_times(
    folder: str, rounds: int
) -> tuple[dict[int, float], dict[int, tuple[float, ...]], dict[int, float], dict[int, float]]:
    """``whole_ms``, ``until_ms``, ``row_ms`` and ``planned_ms`` of a Result."""
    whole_ms: dict[int, float] = {}
    until_ms: dict[int, list[float]] = {}
    row_ms: dict[int, float] = {}
    planned_ms: dict[int, float] = {}
    for index, ladder in enumerate(_ladders(Path(folder) / "ladders.edge")):
        side = ladder.resolution[0]
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(contextlib.closing(
                StagedNetwork(Bundle.open(Path(folder) / "ladders.edge"), "litert", threads=1)))
            whole = stack.enter_context(LiteRTSession((Path(folder) / f"whole_{side}.tflite").read_bytes()))
            planned = stack.enter_context(load(_plan(Path(folder), index),
                                               options=RuntimeOptions(array_layout="stored")))
            chain = [partial(_chain, network, index, depth) for depth in range(1, len(ladder.stages) + 1)]
            image = _image(ladder)
            until_ms[side] = _medians(chain, image, rounds)
            # Both after the piece, on the same copy of the weights: what a run finds in the cache is worth 10 %.
            assert isinstance(planned, AdaptiveRuntime)
            own = partial(_chain, planned._network, index, len(ladder.stages))
            first, row_ms[side], second, planned_ms[side] = _medians([
                whole.run, own, whole.run,
                lambda image, planned=planned, ladder=ladder: planned.run(  # type: ignore[misc]
                    {ladder.id: next(iter(image.values()))})], image, rounds)
            whole_ms[side] = (first + second) / 2
    return whole_ms, {side: tuple(each) for side, each in until_ms.items()}, row_ms, planned_ms


def _chain(network: StagedNetwork, index: int, depth: int, image: dict[str, Array]) -> None:
    known = dict(image)
    for stage in range(depth):
        known |= network.execute(index, stage, known)


def _medians(subjects: Sequence[Callable[[dict[str, Array]], object]], image: dict[str, Array],
             rounds: int) -> list[float]:
    taken: list[list[float]] = [[] for _ in subjects]
    for number in range(rounds + _WARMUP):
        for offset in range(len(subjects)):
            each = (number + offset) % len(subjects)
            start = time.thread_time_ns()
            subjects[each](image)
            if number >= _WARMUP:
                taken[each].append((time.thread_time_ns() - start) / 1e6)
    return [float(np.median(each)) for each in taken]


def _measure_memory(folder: Path, sides: Sequence[int], exits: int) -> dict[str, tuple[float, float]]:
    """Resident and private MB of fresh processes."""
    last = str(sides[-1])
    cases = {f"one piece at {last}": ("whole", last, "1"), f"ladders: stage 0 at {last}": ("ladders", last, "1"),
             f"ladders: all stages at {last}": ("ladders", last, str(exits)),
             "ladders: everything": ("ladders", ",".join(map(str, sides)), str(exits))}
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
        chain = _runners(interpreter, ladder) if name == "ladders" else [_runner(interpreter, SIGNATURE, list(values))]
        for run in chain[:int(depth)]:
            run(values)
    print(json.dumps([after - start for after, start in zip(memory_mb(), before, strict=True)]))


def _result(folder: Path, network: str, precision: str, rounds: int) -> Result:
    times = isolate.call("benchmarks.stages:measure_times", str(folder), rounds)
    assert isinstance(times, tuple)
    whole_ms, until_ms, row_ms, planned_ms = times
    last = _ladders(folder / "ladders.edge")[-1]
    carried = tuple(sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in stage.inputs)
                    for stage in last.stages[1:])
    whole = f"whole_{_SIDES[network][-1]}.tflite"
    size = {name: (folder / name).stat().st_size for name in ("ladders.tflite", whole, "ladders.edge", "one.edge")}
    return Result(network, precision, size["ladders.tflite"], size[whole], size["ladders.edge"], size["one.edge"],
                  whole_ms, until_ms, row_ms, planned_ms, carried,
                  _measure_memory(folder, _SIDES[network], len(last.stages)))


def section(results: Sequence[Result]) -> str:
    """The tables, as Markdown."""
    sizes = [[each.network, each.precision, f"{each.file_bytes:,}", f"{each.file_bytes / each.one_file_bytes:.3f}",
              f"{each.bundle_bytes:,}", f"{each.bundle_bytes / each.one_bundle_bytes:.3f}",
              ", ".join(f"{size / 1024:.0f}" for size in each.carried_bytes)] for each in results]
    times = [[each.network, each.precision, str(side), " ".join(f"{taken:.3f}" for taken in until),
              f"{whole:.3f}", f"{each.row_ms[side] / whole:.3f}", f"{each.planned_ms[side] / whole:.3f}",
              f"{each.planned_ms[side] - each.row_ms[side]:.3f}"]
             for each in results for side, until in each.until_ms.items() for whole in (each.whole_ms[side],)]
    memory = [[each.network, each.precision, what, f"{resident:.1f}", f"{private:.1f}"]
              for each in results for what, (resident, private) in each.memory_mb.items()]
    return "\n\n".join((
        table(["network", "precision", "file, bytes", "x one", "bundle, bytes", "x one", "handed on, KiB"], sizes),
        "CPU time in ms, 1 thread:",
        table(["network", "precision", "side", "stages 0 to k", "one piece", "stages / one", "with decisions / one",
               "decisions"], times),
        "Memory on top of the imports:",
        table(["network", "precision", "what was run", "resident MB", "private MB"], memory)))


def misses(results: Sequence[Result]) -> list[str]:
    """One line for each bar that is missed."""
    found = []
    for each in results:
        name = f"{each.network} {each.precision}"
        if each.bundle_bytes > _MAX_GROWTH[each.precision] * each.one_bundle_bytes:
            found.append(f"{name}: the bundle is {each.bundle_bytes / each.one_bundle_bytes:.2f} times as "
                         f"large as one network's, more than {_MAX_GROWTH[each.precision]}")
        for side, until in each.until_ms.items():
            if each.planned_ms[side] > _MAX_OVERHEAD * each.whole_ms[side]:
                found.append(f"{name} at {side}: all stages with decisions take {each.planned_ms[side]:.3f} ms, one "
                             f"piece {each.whole_ms[side]:.3f} ms")
            if not all(a < b for a, b in itertools.pairwise(until)):
                found.append(f"{name} at {side}: a further stage takes no time: {until}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Print the tables; 1 when a bar is missed."""
    if arguments[:1] == ["--child"]:
        _child(*arguments[1:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--rounds", type=int, default=40, help="runs for each median")
    parser.add_argument("--network", nargs="+", choices=sorted(_SIDES), default=["lite0"])
    parser.add_argument("--precision", nargs="+", choices=sorted(_MAX_GROWTH), default=["fp32", "int8"])
    given = parser.parse_args(arguments)
    results = []
    for network, precision in itertools.product(given.network, given.precision):
        with tempfile.TemporaryDirectory() as folder:
            print(f"{network} {precision}: building", file=sys.stderr, flush=True)
            isolate.call("benchmarks.stages:make_files", folder, network, precision, subject=network)
            results.append(_result(Path(folder), network, precision, given.rounds))
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
