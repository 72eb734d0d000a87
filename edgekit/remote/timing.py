"""What times a model on a board. This file is copied there: it needs Python 3.8, numpy and an engine, not EdgeKit.

``measure FOLDER`` does what FOLDER/request.json says and leaves the outcome in FOLDER/result.json, written in one step.
``edgekit.measure`` uses ``time_rounds`` and ``Watch`` for the machine at hand.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Watch", "main", "time_rounds"]

_LITERT = (("ai_edge_litert.interpreter", "ai-edge-litert"), ("tflite_runtime.interpreter", "tflite-runtime"),
           ("tensorflow.lite.python.interpreter", "tensorflow"))
_ORT_DTYPES = {"float": "float32", "double": "float64"}
_KEPT_ROUNDS = 50_000
_WATCH_EVERY_S = 1.0
_SYS = Path("/sys")


def time_rounds(
    runs: list[Callable[[], object]], count: int, seconds: float, least: int, watch: Watch | None = None
) -> tuple[list[float], list[list[float]], list[list[float]]]:
    """Up to ``count`` rounds within ``seconds``, at least ``least``; each runs every one of ``runs`` once.

    Every other round takes them backwards. Returns for each round when it began (seconds), and the wall and the CPU
    milliseconds of each run. Of very many rounds every second, fourth... is kept.
    """
    at_s: list[float] = []
    walls: list[list[float]] = []
    cpus: list[list[float]] = []
    order = list(range(len(runs)))
    done, stride = 0, 1
    begin = time.perf_counter()
    gc.disable()  # a collection in the middle of a run would be counted as the model's
    try:
        while done < count and (done < least or time.perf_counter() - begin < seconds):
            wall, cpu = [0.0] * len(runs), [0.0] * len(runs)
            started = time.perf_counter() - begin
            for index in order:
                wall_start, cpu_start = time.perf_counter(), time.process_time()
                runs[index]()
                cpu[index] = (time.process_time() - cpu_start) * 1e3
                wall[index] = (time.perf_counter() - wall_start) * 1e3
            order.reverse()
            if done % stride == 0:
                at_s.append(started)
                walls.append(wall)
                cpus.append(cpu)
            done += 1
            if len(at_s) >= _KEPT_ROUNDS:
                at_s, walls, cpus, stride = at_s[::2], walls[::2], cpus[::2], stride * 2
            if watch is not None:
                watch.sample(started)
    finally:
        gc.enable()
    return at_s, walls, cpus


class Watch:
    """Temperature and clock of the machine about once a second, where the system tells them."""

    def __init__(self) -> None:
        self.readings: list[tuple[float, float | None, float | None]] = []  # seconds, hottest deg C, fastest MHz
        self._next = 0.0
        self._zones = sorted(_SYS.glob("class/thermal/thermal_zone*/temp"))
        self._clocks = sorted(_SYS.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))

    def sample(self, at_s: float) -> None:
        """Read both, unless it is too early to do so again."""
        if at_s < self._next:
            return
        self._next = at_s + _WATCH_EVERY_S
        hottest, fastest = _highest(self._zones), _highest(self._clocks)
        # Kernels give thousandths of a degree and kHz; values out of reason are sensors that are not connected.
        celsius = None if hottest is None or not 0 < hottest < 200_000 else hottest / 1e3
        self.readings.append((at_s, celsius, None if fastest is None else fastest / 1e3))


def _highest(files: list[Path]) -> float | None:
    found = []
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # a sensor that is asleep cannot be read
            found.append(float(file.read_text()))
    return max(found) if found else None


class _LiteRT:
    def __init__(self, data: bytes, threads: int) -> None:
        self.version, problem = "", ""
        interpreter = None
        for module, package in _LITERT:
            try:
                interpreter = importlib.import_module(module).Interpreter
            except Exception as error:  # noqa: BLE001 - a binary package for another machine fails in many ways
                problem = problem or str(error)
                continue
            parent = sys.modules[module.partition(".")[0]]
            self.version = f"{package} {getattr(parent, '__version__', '(unknown version)')}"
            break
        if interpreter is None:
            raise RuntimeError(f"no LiteRT package can be imported: {problem}")
        self._interpreter = interpreter(model_content=data, num_threads=threads)
        details = self._interpreter.get_input_details()
        self._index = {detail["name"]: detail["index"] for detail in details}
        self.inputs = {}
        for detail in details:
            signature = detail.get("shape_signature", ())
            shape = detail["shape"] if len(signature) != len(detail["shape"]) else signature
            self.inputs[detail["name"]] = (detail["dtype"]().dtype.name, [int(size) for size in shape])
        self._names_of_signature()

    def _names_of_signature(self) -> None:
        """Inputs go by the names of the signature where there is one: those are what a caller writes."""
        signatures = self._interpreter.get_signature_list() or {}
        if len(signatures) != 1:
            return
        runner = self._interpreter.get_signature_runner(next(iter(signatures)))
        if not hasattr(runner, "get_input_details"):
            return
        by_index = {detail["index"]: name for name, detail in runner.get_input_details().items()}
        names = {name: by_index.get(index, name) for name, index in self._index.items()}
        self._index = {names[name]: index for name, index in self._index.items()}
        self.inputs = {names[name]: facts for name, facts in self.inputs.items()}

    def feed(self, arrays: dict[str, Any]) -> None:
        for name, (_, shape) in self.inputs.items():
            if list(arrays[name].shape) != shape:
                self._interpreter.resize_tensor_input(self._index[name], list(arrays[name].shape))
        self._interpreter.allocate_tensors()
        self._arrays = arrays
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def run(self) -> None:
        for name, array in self._arrays.items():
            self._interpreter.set_tensor(self._index[name], array)
        self._interpreter.invoke()
        for index in self._outputs:
            self._interpreter.get_tensor(index)


class _Ort:
    def __init__(self, data: bytes, threads: int) -> None:
        ort = importlib.import_module("onnxruntime")
        self.version = f"onnxruntime {ort.__version__}"
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.inputs = {}
        for node in self._session.get_inputs():
            kind = node.type[len("tensor("):-1]
            shape = [size if isinstance(size, int) and size >= 0 else -1 for size in node.shape]
            self.inputs[node.name] = (_ORT_DTYPES.get(kind, kind), shape)

    def feed(self, arrays: dict[str, Any]) -> None:
        self._arrays = arrays

    def run(self) -> None:
        self._session.run(None, self._arrays)


_ENGINES: dict[str, Any] = {"litert": _LiteRT, "ort": _Ort}


def _arrays(inputs: dict[str, tuple[str, list[int]]], given: dict[str, list[int]]) -> dict[str, Any]:
    """Random inputs of the kinds that EdgeKit uses on the machine at hand."""
    numpy = importlib.import_module("numpy")
    for name in given:
        if name not in inputs:
            raise ValueError(f"there is no input '{name}'; known: {', '.join(inputs)}")
    random = numpy.random.default_rng(0)
    found = {}
    for name, (dtype, stored) in inputs.items():
        shape = given.get(name) or [1 if axis == 0 and size < 0 else size for axis, size in enumerate(stored)]
        if min(shape, default=1) < 0:
            raise ValueError(f"the input '{name}' has dynamic dimensions: {stored}; give its shape with --shape")
        kind = numpy.dtype(dtype)
        if kind.kind == "f":
            found[name] = random.standard_normal(shape).astype(kind)
        elif kind.itemsize == 1 and kind.kind in "iu":
            limits = numpy.iinfo(kind)
            found[name] = random.integers(limits.min, limits.max + 1, shape).astype(kind)
        else:
            found[name] = random.integers(0, 2 if kind.kind == "b" else 3, shape).astype(kind)
    return found


def _open(folder: Path, request: dict[str, Any], model: dict[str, Any]) -> tuple[Any, float, float]:
    """The subject, and the milliseconds of loading it and of its first run."""
    begin = time.perf_counter()
    data = (folder / model["file"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != model["sha256"]:
        raise ValueError("the model file arrived damaged")
    subject = _ENGINES[model["engine"]](data, request["threads"])
    subject.feed(_arrays(subject.inputs, request["shapes"]))
    loaded = time.perf_counter()
    subject.run()
    return subject, (loaded - begin) * 1e3, (time.perf_counter() - loaded) * 1e3


def _measure(folder: Path) -> dict[str, Any]:
    request = json.loads((folder / "request.json").read_text())
    colds = [[_cold_start(folder, index) for _ in range(request["cold_starts"])]
             for index in range(len(request["models"]))]
    subjects, warm = [], []
    for model in request["models"]:
        _open(folder, request, model)  # imports what the first run imports
        subject, load_ms, first_run_ms = _open(folder, request, model)
        subjects.append(subject)
        warm.append((load_ms, first_run_ms))
    for subject in subjects:
        for _ in range(request["warmup"]):
            subject.run()
    watch = Watch()
    at_s, walls, cpus = time_rounds(
        [subject.run for subject in subjects], request["runs"], request["seconds"], request["least"], watch)
    return {
        "at_s": at_s, "watch": watch.readings,
        "subjects": [
            {
                "engine_version": subject.version,
                "inputs": [[name, array.dtype.name, list(array.shape)] for name, array in subject._arrays.items()],
                "wall_ms": [wall[index] for wall in walls], "cpu_ms": [cpu[index] for cpu in cpus],
                "warm": warm[index], "cold": min(colds[index], key=sum),
            }
            for index, subject in enumerate(subjects)
        ],
    }


def _cold_start(folder: Path, index: int) -> list[float]:
    """Import, load and first run, in milliseconds, of a fresh process."""
    done = subprocess.run([sys.executable, __file__, "cold", str(folder), str(index)],
                          capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"a fresh process failed (exit code {done.returncode}): {done.stderr[-500:]!r}")
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _cold(folder: Path, index: int) -> list[float]:
    begin = time.perf_counter()
    request = json.loads((folder / "request.json").read_text())
    model = request["models"][index]
    importlib.import_module("numpy")
    modules = [name for name, _ in _LITERT] if model["engine"] == "litert" else ["onnxruntime"]
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001, S112 - as in _LiteRT, which says so when there is none
            continue
        break
    import_ms = (time.perf_counter() - begin) * 1e3
    _, load_ms, first_run_ms = _open(folder, request, model)
    return [import_ms, load_ms, first_run_ms]


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def main(arguments: list[str]) -> int:
    """Do what ``arguments`` say; the exit code."""
    verb, folder = arguments[0], Path(arguments[1])
    if verb == "cold":
        sys.stdout.write(json.dumps(_cold(folder, int(arguments[2]))) + "\n")
        return 0
    outcome: dict[str, Any]
    try:
        outcome = {"ok": _measure(folder)}
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
        outcome = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:2000]}"}
    _write(folder / "result.json", json.dumps(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
