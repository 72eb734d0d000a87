"""One LiteRT file with several signatures: its size, and memory and load time with XNNPACK's weight cache and without.

    python -m benchmarks.signatures [--json signatures.json] [--rounds 5]

EfficientNet-Lite0 becomes three files: one resolution; three resolutions; and stage 1, stage 2 and the full network,
cut where a single tensor carries everything. Every signature must answer as ONNX Runtime does, and the two stages in a
row exactly as the full network. Then each file is loaded in fresh processes, every signature is run once, and the
process says what it cost: CPU time of the load, resident and private memory on top of what the imports take. Exit code
1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from benchmarks.costs import ROOT
from benchmarks.report import table
from edgekit import isolate
from edgekit.artifacts import Array, LiteRTModel, OnnxModel
from edgekit.atomic import write_atomically
from edgekit.errors import EdgeKitError, EngineError
from edgekit.recipe import ConvertRecipe

if TYPE_CHECKING:
    import onnx

__all__ = ["Cost", "FileResult", "main", "memory_mb", "middle_tensor", "misses", "section"]

_SIDES = (160, 192, 224)
_NET, _INPUT_CHANNELS = "efficientnet_lite0", 3
#: a file with three signatures may be this much larger than one with a single signature
_MAX_GROWTH = 1.1
_MODES = ("Interpreter", "CompiledModel", "cache, filled", "cache, again")


class Cost(msgspec.Struct, frozen=True):
    """Loading a file and running each signature once, on top of the imports. Medians over processes."""

    load_cpu_ms: float
    load_wall_ms: float
    resident_mb: float
    private_mb: float


class FileResult(msgspec.Struct, frozen=True):
    """One file. ``errors``: the largest difference to ONNX Runtime over the output's range, by signature.

    ``chain_equal``: whether the stages in a row give the very bits of the full network; None without stages.
    """

    name: str
    size_bytes: int
    errors: dict[str, float]
    chain_equal: bool | None
    costs: dict[str, Cost]


def middle_tensor(graph: onnx.GraphProto) -> str:
    """The tensor nearest to the middle of the graph that alone carries all that comes after it."""
    weights = {tensor.name for tensor in graph.initializer}
    last_use = {name: index for index, node in enumerate(graph.node) for name in node.input}
    last_use |= {value.name: len(graph.node) for value in graph.output}
    live: set[str] = {value.name for value in graph.input} - weights
    candidates = []
    for index, node in enumerate(graph.node):
        live |= set(node.output)
        live = {name for name in live if last_use.get(name, -1) > index}
        if len(live) == 1:
            candidates.append((abs(2 * index - len(graph.node)), next(iter(live))))
    return min(candidates)[1]


def make_files(folder: str) -> list[tuple[str, dict[str, float], bool | None]]:
    """Write the three files into ``folder``; (name, errors, chain_equal) of each, as FileResult has them."""
    from benchmarks.resizing import export_dynamic
    from edgekit.converters.fix_shapes import fix_shapes
    from edgekit.converters.onnx_model import describe, load_onnx, parse_onnx
    from edgekit.graph.cut import cut

    source = Path(folder) / "source.onnx"
    export_dynamic(_NET, str(source))
    model = load_onnx(source)
    name = model.inputs[0].name
    recipes = {side: ConvertRecipe(shapes={name: (1, _INPUT_CHANNELS, side, side)}) for side in _SIDES}
    proto = parse_onnx(model.data)
    fix_shapes(proto, recipes[_SIDES[-1]].shapes)
    fixed, middle = describe(proto), middle_tensor(proto.graph)
    plain = ConvertRecipe()
    files = {
        "one resolution": {"only": (model, recipes[_SIDES[-1]])},
        "three resolutions": {f"side_{side}": (model, recipe) for side, recipe in recipes.items()},
        "stages": {"stage_1": (cut(fixed, [], [middle]), plain), "stage_2": (cut(fixed, [middle], []), plain),
                   "full": (fixed, plain)},
    }
    return [(title, *_write_and_check(Path(folder) / f"{title}.tflite", parts)) for title, parts in files.items()]


def _write_and_check(path: Path, parts: Mapping[str, tuple[OnnxModel, ConvertRecipe]]) -> tuple[
        dict[str, float], bool | None]:
    from edgekit.converters.onnx_to_litert import pack_signatures
    from edgekit.parity import reference_sample
    from edgekit.runtime.inputs import to_onnx, to_stored

    packed = pack_signatures(parts).model
    assert isinstance(packed, LiteRTModel)
    path.write_bytes(packed.data)
    samples = {name: reference_sample(model, recipe.shapes) for name, (model, recipe) in parts.items()}
    feeds = {signature.name: to_stored(signature.inputs, samples[signature.name][0]) for signature in packed.signatures}
    runners = _runners(packed.data)
    errors = {}
    for signature in packed.signatures:
        answers = to_onnx(signature.outputs, runners[signature.name](**feeds[signature.name]))
        errors[signature.name] = max(
            float(np.abs(answers[name] - wanted).max() / np.ptp(wanted))
            for name, wanted in samples[signature.name][1].items())
    if "full" not in runners:
        return errors, None
    (start,), (middle,) = feeds["full"].values(), next(s for s in packed.signatures if s.name == "stage_2").inputs
    (handed_on,) = runners["stage_1"](**dict.fromkeys(feeds["stage_1"], start)).values()
    (chained,), (whole,) = (runners["stage_2"](**{middle.name: handed_on}).values(),
                            runners["full"](**feeds["full"]).values())
    return errors, bool(np.array_equal(chained, whole))


def _runners(data: bytes) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    return {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}


def _measure(path: Path, rounds: int) -> dict[str, Cost]:
    """Medians over fresh processes, the ways of loading in turn; each "filled" starts from an empty folder."""
    told: dict[str, list[Cost]] = {mode: [] for mode in _MODES}
    for number in range(rounds):
        cache = path.with_name(f"{path.stem}.{number}.xnnpack")
        for mode in _MODES:
            command = [sys.executable, "-m", "benchmarks.signatures", "--child", mode, str(path), str(cache)]
            done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
            if done.returncode != 0:
                raise EngineError(f"Loading '{path.name}' ({mode}) failed: {done.stderr.strip()[-500:]}")
            told[mode].append(msgspec.json.decode(done.stdout.splitlines()[-1], type=Cost))
    return {mode: Cost(*(float(np.median([getattr(cost, field) for cost in costs]))
                         for field in Cost.__struct_fields__)) for mode, costs in told.items()}


def _child(mode: str, path: str, cache: str) -> None:
    """The fresh process: print a Cost."""
    for module in ("ai_edge_litert.interpreter", "ai_edge_litert.compiled_model"):
        __import__(module)
    before = memory_mb()
    cpu, wall = time.process_time(), time.perf_counter()
    kept = _load_interpreter(path) if mode == "Interpreter" else _load_compiled(path, cache if "cache" in mode else "")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    for run in kept:
        run()
    after = memory_mb()
    print(json.dumps({"load_cpu_ms": cpu * 1e3, "load_wall_ms": wall * 1e3, "resident_mb": after[0] - before[0],
                      "private_mb": after[1] - before[1]}))


def _load_interpreter(path: str) -> list[Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    runs = []
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        feeds = {key: _noise(detail["shape"]) for key, detail in runner.get_input_details().items()}
        runs.append(lambda runner=runner, feeds=feeds: runner(**feeds))
    return runs


def _load_compiled(path: str, cache: str) -> list[Any]:
    from ai_edge_litert import compiled_model

    # without these paths it looks for the compiler plugins of every vendor and warns for each
    environment = compiled_model.Environment.create(compiler_plugin_path="/nonexistent",
                                                    dispatch_library_path="/nonexistent")
    cpu = compiled_model.CpuOptions(num_threads=1, **({"xnnpack_weight_cache_path": cache} if cache else {}))
    model: Any = compiled_model.CompiledModel.from_file(path, environment=environment,
                                                        options=compiled_model.Options(cpu_options=cpu))

    def run(index: int, name: str) -> None:
        inputs, outputs = model.create_input_buffers(index), model.create_output_buffers(index)
        for buffer, detail in zip(inputs, model.get_input_tensor_details(name).values(), strict=True):
            buffer.write(_noise(detail["shape"]))
        model.run_by_index(index, inputs, outputs)

    names = list(model.get_signature_list())
    return [lambda name=name: run(model.get_signature_index(name), name) for name in names]


def _noise(shape: Sequence[int]) -> Array:
    return np.random.default_rng(0).standard_normal(tuple(shape)).astype(np.float32)


def memory_mb() -> tuple[float, float]:
    """Resident memory of this process and the private part of it (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    resident, private = (int(re.findall(rf"{field}:\s+(\d+)", status)[0]) / 1024 for field in ("VmRSS", "RssAnon"))
    return resident, private


def section(results: Sequence[FileResult]) -> str:
    """The two tables, as Markdown."""
    one = results[0].size_bytes
    equal = {None: "", True: "yes", False: "NO"}
    sizes = [[result.name, f"{result.size_bytes:,}", f"{result.size_bytes / one:.3f}",
              f"{max(result.errors.values()):.1e}", equal[result.chain_equal]] for result in results]
    costs = [[result.name, mode, f"{cost.load_cpu_ms:.1f}", f"{cost.load_wall_ms:.1f}", f"{cost.resident_mb:.1f}",
              f"{cost.private_mb:.1f}"] for result in results for mode, cost in result.costs.items()]
    return "\n\n".join((
        "## Signatures in one file (EfficientNet-Lite0)",
        table(["file", "bytes", "x one", "error / range, worst", "stages bit-equal to full"], sizes),
        "Loading in a fresh process and running every signature once, on top of the imports:",
        table(["file", "how", "load, CPU ms", "load, wall ms", "resident MB", "private MB"], costs)))


def misses(results: Sequence[FileResult]) -> list[str]:
    """One line for each bar that is missed."""
    found = []
    for result in results:
        if result.size_bytes > _MAX_GROWTH * results[0].size_bytes:
            found.append(f"{result.name}: {result.size_bytes:,} bytes against {results[0].size_bytes:,}")
        found += [f"{result.name}, {name}: off by {error:.1e} of the range" for name, error in result.errors.items()
                  if not error <= ConvertRecipe().tolerance]
        if result.chain_equal is False:
            found.append(f"{result.name}: the stages in a row do not give the bits of the full network")
        plain, cached = result.costs["CompiledModel"], result.costs["cache, again"]
        if len(result.errors) > 1 and cached.private_mb >= plain.private_mb:
            found.append(f"{result.name}: the weight cache saves no memory ({cached.private_mb:.0f} MB private, "
                         f"{plain.private_mb:.0f} without)")
    return found


def main(arguments: Sequence[str]) -> int:
    """Print the tables; 1 when a bar is missed."""
    if arguments[:1] == ["--child"]:
        _child(*arguments[1:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signatures", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes for each figure; medians are shown")
    given = parser.parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        made = isolate.call("benchmarks.signatures:make_files", folder, subject=_NET)
        assert isinstance(made, list)
        for name, errors, chain_equal in made:
            path = Path(folder) / f"{name}.tflite"
            print(f"{name}: loading", file=sys.stderr, flush=True)
            results.append(FileResult(name, path.stat().st_size, errors, chain_equal, _measure(path, given.rounds)))
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
