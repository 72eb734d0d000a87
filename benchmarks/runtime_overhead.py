"""What the runtime costs on top of the bare engine, for EfficientNet-Lite0 on one thread.

    python -m benchmarks.runtime_overhead [--onnx FILE] [--quick]

run    ``Runtime.run`` against the engine called bare with the same tensor. Limit: 3 % + 50 us.
load   ``edgekit.load`` less the hashing of the entries that it uses, against the bare engine given the same model as
       bytes that were read from a file. Limit: 1.2. For comparison also against the engine that reads the file itself:
       LiteRT maps it, whose pages are in the system's cache; bytes that nobody can change after the check are a copy.
       "first" is in a fresh process (imports done), where memory has not been touched yet; "repeated" in one process.
cache  the first load with a cache folder of prepared weights and the one without, and the process's memory in MB.

Figures are CPU times, interleaved, as medians of paired values with a 95 % interval (benchmarks/timing.py). The exit
code is 1 when a limit lies below the interval of what it limits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.timing import Run, Seconds, interleave, ratio
from edgekit.artifacts import Array, Engine
from edgekit.bundle import Bundle
from edgekit.pipeline import build
from edgekit.recipe import BuildRecipe, ConvertRecipe
from edgekit.runtime import RuntimeOptions, load

__all__: list[str] = []

_SIDE = 224
_RUN_RATIO, _RUN_US, _LOAD_RATIO = 1.03, 50.0, 1.2
_LOADS = ("edgekit", "bytes", "file", "hash")


class Case(NamedTuple):
    """One engine with one form of the network, in a bundle and as a bare model file."""

    title: str
    engine: Engine
    bundle: Path
    model: Path


def main() -> int:
    """Print the three tables."""
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
        for case in cases:
            if case.title == "litert fixed":
                _report_cache(case, rounds)
    return 0 if all(runs + loads) else 1


def _cases(onnx: Path, folder: Path) -> list[Case]:
    cases = []
    forms: dict[str, dict[str, tuple[int, ...]]] = {"dynamic": {}, "fixed": {"image": (1, 3, _SIDE, _SIDE)}}
    for form, shapes in forms.items():
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
    seconds = interleave({"bare": lambda: _bare_run(case, stored), "stored": lambda: _our_run(case, stored, "stored"),
                          "onnx": lambda: _our_run(case, planes, "onnx")}, rounds, blocks=6, repeats=7)
    bare_ms = float(np.median(seconds["bare"])) * 1e3
    limit = _RUN_RATIO + _RUN_US / 1e3 / bare_ms
    passed = True
    for layout in ("stored", "onnx"):
        times = ratio(seconds[layout], seconds["bare"])
        added_us = float(np.median(seconds[layout] - seconds["bare"])) * 1e6
        passed &= times.lower <= limit
        print(f"run    {case.title:15} arrays in {layout:6} order: bare {bare_ms:6.2f} ms, ours {added_us:+5.0f} us, "
              f"ratio {times.value:.4f} [{times.lower:.4f}, {times.upper:.4f}], limit {limit:.4f}")
    return passed


def _bare_run(case: Case, array: Array) -> Run:
    engine = _bare_load("bytes", case.engine, case.model)
    if case.engine == "ort":
        return lambda: engine.run(["logits"], {"image": array})
    index, out = engine.get_input_details()[0]["index"], engine.get_output_details()[0]["index"]

    def run() -> object:
        engine.set_tensor(index, array)
        engine.invoke()
        return engine.get_tensor(out)

    return run


def _our_run(case: Case, array: Array, layout: Any) -> Run:
    runtime = load(case.bundle, case.engine, RuntimeOptions(resolution=(_SIDE, _SIDE), array_layout=layout))
    return lambda: runtime.run(array)


def _bare_load(how: str, engine: str, model: Path) -> Any:
    if engine == "ort":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        source = model.read_bytes() if how == "bytes" else str(model)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    from ai_edge_litert.interpreter import Interpreter

    given = {"model_content": model.read_bytes()} if how == "bytes" else {"model_path": str(model)}
    interpreter = Interpreter(**given, num_threads=1)
    details = interpreter.get_input_details()[0]
    if -1 in details["shape_signature"]:
        interpreter.resize_tensor_input(details["index"], (1, _SIDE, _SIDE, 3))
    interpreter.allocate_tensors()
    return interpreter


def _subject(name: str, engine: Any, bundle: Path, model: Path) -> Callable[[], object]:
    if name in ("bytes", "file"):
        return lambda: _bare_load(name, engine, model)
    if name == "hash":
        data = model.read_bytes()
        return lambda: hashlib.sha256(data).hexdigest()
    cache = bundle.with_suffix(".cache") if name == "cached" else None
    options = RuntimeOptions(resolution=(_SIDE, _SIDE), array_layout="stored", cache_dir=cache)
    return lambda: load(bundle, engine, options)


def _opener(name: str, case: Case) -> Callable[[], Run]:
    return lambda: _subject(name, case.engine, case.bundle, case.model)


def _report_load(case: Case, rounds: int) -> bool:
    again = interleave({name: _opener(name, case) for name in _LOADS}, rounds, blocks=2, repeats=3,
                       clock=time.process_time)
    first = {name: np.empty((rounds, 1)) for name in _LOADS}
    for number in range(rounds):
        for name in _LOADS:
            first[name][number, 0] = _in_new_process(name, case)["cpu_s"]
    return _print_load(case, "first", first) & _print_load(case, "repeated", again)


def _print_load(case: Case, when: str, seconds: dict[str, Seconds]) -> bool:
    ours = np.maximum(seconds["edgekit"] - seconds["hash"], 1e-6)
    times, from_file = ratio(ours, seconds["bytes"]), ratio(ours, seconds["file"])
    millis = {name: float(np.median(values)) * 1e3 for name, values in seconds.items()}
    print(f"load   {case.title:15} {when:8}: {millis['edgekit']:6.2f} ms, hashing {millis['hash']:5.2f} of it; bare "
          f"{millis['bytes']:6.2f}, ratio {times.value:.3f} [{times.lower:.3f}, {times.upper:.3f}], limit "
          f"{_LOAD_RATIO}; bare from file {millis['file']:6.2f}, ratio {from_file.value:.3f}")
    return times.lower <= _LOAD_RATIO


def _report_cache(case: Case, rounds: int) -> None:
    filling = _in_new_process("cached", case)
    told = {name: [_in_new_process(name, case) for _ in range(rounds)] for name in ("edgekit", "cached")}
    for name, values in (*told.items(), ("cached, when it is filled", [filling])):
        median = {key: float(np.median([value[key] for value in values])) for key in filling}
        print(f"cache  {case.title:15} {name:25}: first load {median['cpu_s'] * 1e3:6.2f} ms, after a run "
              f"{median['private_mb']:.0f} MB private, {median['resident_mb']:.0f} MB resident")


def _in_new_process(name: str, case: Case) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.runtime_overhead", "--child", name, case.engine, str(case.bundle),
               str(case.model)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _child(name: str, engine: str, bundle: str, model: str) -> int:
    # Both sides need the engine's import, and a comparison of first loads is not about ours.
    for module in ("onnxruntime", "edgekit.runtime.engines.ort") if engine == "ort" else (
            "ai_edge_litert.interpreter", "ai_edge_litert.compiled_model", "edgekit.runtime.engines.compiled",
            "edgekit.runtime.engines.litert"):
        __import__(module)
    load_it = _subject(name, engine, Path(bundle), Path(model))
    start = time.process_time()
    loaded: Any = load_it()
    told = {"cpu_s": time.process_time() - start, "private_mb": 0.0, "resident_mb": 0.0}
    if name in ("edgekit", "cached") and engine == "litert":
        loaded.run(np.zeros((1, _SIDE, _SIDE, 3), np.float32))
        status = Path("/proc/self/status").read_text(encoding="ascii")
        for key, field in (("private_mb", "RssAnon"), ("resident_mb", "VmRSS")):
            told[key] = int(re.findall(rf"{field}:\s+(\d+)", status)[0]) / 1024
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
