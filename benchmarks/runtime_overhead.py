"""What the runtime costs on top of the bare engine, for EfficientNet-Lite0 on one thread.

    python -m benchmarks.runtime_overhead [--onnx FILE] [--quick]

Run: ``Runtime.run`` against the engine called bare with the same tensor; the limit is 3 % + 50 us. Load:
``edgekit.load`` less the hashing of the entries that it uses, against the engine loading the same model from a file; the
limit is 1.2. Both are CPU times, interleaved, as medians of paired values with a 95 % interval (benchmarks/timing.py). A
first load in a fresh process (imports done) pays for untouched memory, a repeated one finds it touched already.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.timing import Run, Seconds, interleave, ratio
from edgekit.artifacts import Engine
from edgekit.bundle import Bundle
from edgekit.pipeline import build
from edgekit.recipe import BuildRecipe, ConvertRecipe
from edgekit.runtime import RuntimeOptions, load

__all__: list[str] = []

_SIDE = 224
_RUN_LIMIT_RATIO, _RUN_LIMIT_US = 1.03, 50.0
_LOAD_LIMIT_RATIO = 1.2
_SUBJECTS = ("load", "bare", "hash")
_OPTIONS = RuntimeOptions(resolution=(_SIDE, _SIDE), array_layout="stored")


class Case(NamedTuple):
    """One engine with one form of the network, in a bundle and as a bare model file."""

    title: str
    engine: Engine
    bundle: Path
    model: Path


def main() -> int:
    """Print both tables; the exit code is 1 when a limit is passed by more than the interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("EDGEKIT_SHARED", "../shared"))
    parser.add_argument("--onnx", type=Path, default=shared / "models" / "efficientnet_lite0_dyn.onnx")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--child", nargs=4, metavar=("SUBJECT", "ENGINE", "BUNDLE", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return _child(*arguments.child)
    rounds = 3 if arguments.quick else 10
    with tempfile.TemporaryDirectory() as folder:
        cases = _cases(arguments.onnx, Path(folder))
        runs = [_report_run(case, rounds) for case in cases]
        loads = [_report_load(case, rounds) for case in cases]
    return 0 if all(runs + loads) else 1


def _cases(onnx: Path, folder: Path) -> list[Case]:
    cases = []
    for form, shapes in (("dynamic", {}), ("fixed", {"image": (1, 3, _SIDE, _SIDE)})):
        bundle = folder / f"{form}.edge"
        build(onnx, bundle, BuildRecipe(convert=ConvertRecipe(shapes=shapes)))
        with Bundle.open(bundle) as opened:
            for variant in opened.manifest.variants:
                model = folder / f"{form}.{variant.format}"
                model.write_bytes(opened.read(variant.entry))
                cases.append(Case(f"{variant.engine} {form}", variant.engine, bundle, model))
    return cases


def _report_run(case: Case, rounds: int) -> bool:
    pixels = np.random.default_rng(0).standard_normal((1, _SIDE, _SIDE, 3)).astype(np.float32)
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    stored = pixels if case.engine == "litert" else planes
    seconds = interleave({
        "bare": lambda: _bare_run(case, stored),
        "stored": lambda: _our_run(case, stored, "stored"),
        "onnx": lambda: _our_run(case, planes, "onnx"),
    }, rounds, blocks=6, repeats=7)
    passed = True
    for name in ("stored", "onnx"):
        times = ratio(seconds[name], seconds["bare"])
        over_us = (seconds[name] - _RUN_LIMIT_RATIO * seconds["bare"]) * 1e6
        added_us = float(np.median(seconds[name] - seconds["bare"])) * 1e6
        passed &= float(np.median(over_us)) <= _RUN_LIMIT_US
        print(f"run   {case.title:15} {name:6} order: bare {np.median(seconds['bare']) * 1e3:6.2f} ms, ratio "
              f"{times.value:.4f} [{times.lower:.4f}, {times.upper:.4f}], adds {added_us:4.0f} us "
              f"(limit 3 % + 50 us: {'kept' if np.median(over_us) <= _RUN_LIMIT_US else 'PASSED OVER'})")
    return passed


def _bare_run(case: Case, array: np.ndarray[Any, Any]) -> Run:
    engine = _bare_load(case.engine, case.model)
    if case.engine == "ort":
        return lambda: engine.run(["logits"], {"image": array})
    index, out = engine.get_input_details()[0]["index"], engine.get_output_details()[0]["index"]

    def run() -> object:
        engine.set_tensor(index, array)
        engine.invoke()
        return engine.get_tensor(out)

    return run


def _our_run(case: Case, array: np.ndarray[Any, Any], layout: Any) -> Run:
    runtime = load(case.bundle, case.engine, RuntimeOptions(resolution=(_SIDE, _SIDE), array_layout=layout))
    return lambda: runtime.run(array)


def _bare_load(engine: str, model: Path) -> Any:
    if engine == "ort":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=1)
    details = interpreter.get_input_details()[0]
    if -1 in details["shape_signature"]:
        interpreter.resize_tensor_input(details["index"], (1, _SIDE, _SIDE, 3))
    interpreter.allocate_tensors()
    return interpreter


def _subject(name: str, engine: Any, bundle: Path, model: Path) -> Callable[[], object]:
    if name == "load":
        return lambda: load(bundle, engine, _OPTIONS)
    if name == "bare":
        return lambda: _bare_load(engine, model)
    data = model.read_bytes()
    return lambda: hashlib.sha256(data).hexdigest()


def _report_load(case: Case, rounds: int) -> bool:
    again = interleave({name: lambda name=name: _subject(name, case.engine, case.bundle, case.model)  # type: ignore[misc]
                        for name in _SUBJECTS}, rounds, blocks=2, repeats=3, clock=time.process_time)
    first = {name: np.empty((rounds, 1)) for name in _SUBJECTS}
    for number in range(rounds):
        for name in _SUBJECTS:
            first[name][number, 0] = _first_seconds(name, case)
    return _print_load(case, "first", first) & _print_load(case, "repeated", again)


def _print_load(case: Case, when: str, seconds: dict[str, Seconds]) -> bool:
    times = ratio(seconds["load"] - seconds["hash"], seconds["bare"])
    kept = times.lower <= _LOAD_LIMIT_RATIO
    millis = {name: float(np.median(values)) * 1e3 for name, values in seconds.items()}
    print(f"load  {case.title:15} {when:8}: {millis['load']:6.2f} ms of which hashing {millis['hash']:5.2f}, bare "
          f"{millis['bare']:6.2f}, ratio {times.value:.3f} [{times.lower:.3f}, {times.upper:.3f}] "
          f"(limit {_LOAD_LIMIT_RATIO}: {'kept' if kept else 'PASSED OVER'})")
    return kept


def _first_seconds(name: str, case: Case) -> float:
    command = [sys.executable, "-m", "benchmarks.runtime_overhead", "--child", name, case.engine, str(case.bundle),
               str(case.model)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["cpu_s"])


def _child(name: str, engine: str, bundle: str, model: str) -> int:
    # Imports are not what is compared: both sides need the engine's, and ours are measured in the tests.
    __import__("onnxruntime" if engine == "ort" else "ai_edge_litert.interpreter")
    run = _subject(name, engine, Path(bundle), Path(model))
    start = time.process_time()
    run()
    print(json.dumps({"cpu_s": time.process_time() - start}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
