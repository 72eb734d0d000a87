"""What each op of a model takes on this machine, and how the sum of them compares with the whole.

LiteRT's Python package has no profiler, so each op is cut out with its constants and run by itself, alike ones once;
only the engine's own work is timed, and what it takes to call the engine at all is subtracted. The whole network is
timed in turn with them. ONNX Runtime has a profiler, which tells the ops that are left after its fusions.

A sum and a whole differ. An op by itself finds its weights and inputs in the near caches (the sum is too small); ops of
a network leave their results in the layout that the next one wants, and some are computed inside their neighbour (the
sum is too large). ``factor`` says by how much.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from edgekit import isolate
from edgekit.artifacts import Array, Engine
from edgekit.errors import BadModel, BadRecipe, EdgeKitError, EngineError, UnknownName
from edgekit.measure import BenchOptions

__all__ = ["OpTiming", "PerOpReport", "measure_ops"]

_ROUNDS = 6
_BLOCK = 5
_BLOCK_SECONDS = 0.01


class OpTiming(msgspec.Struct, frozen=True):
    """Ops that are alike. ``ms``: of one of them; ``total_ms``: of all ``count``; ``share``: of the sum of all ops.

    ``shapes``: of the data inputs, and of the results. ``names``: of the first results, as in the file.
    """

    kind: str
    count: int
    ms: float
    total_ms: float
    share: float
    shapes: str
    names: tuple[str, ...]


class PerOpReport(msgspec.Struct, frozen=True):
    """``ops``: the slowest group first. ``factor``: the whole network over the sum of its ops.

    ``clock``: "cpu" for LiteRT, "wall" for the figures of ONNX Runtime's profiler. ``call_ms``: what calling the engine
    costs, which is in ``whole_ms`` and not in the ops. ``unmeasured``: ops that cannot run by themselves, and why.
    """

    subject: str
    engine: Engine
    engine_version: str
    clock: Literal["cpu", "wall"]
    ops: tuple[OpTiming, ...]
    sum_ms: float
    whole_ms: float
    call_ms: float
    factor: float
    unmeasured: tuple[str, ...]
    findings: tuple[str, ...]


def measure_ops(path: Path, options: BenchOptions = BenchOptions()) -> PerOpReport:
    """The ops of the .tflite, .onnx or .ort file at ``path``, with one thread.

    Raises BadRecipe for several threads and for a bundle, UnknownName for another suffix, BadModel, EngineError,
    BadInput for dynamic inputs without a shape, MissingExtra.
    """
    targets = {".tflite": "_litert", ".onnx": "_ort", ".ort": "_ort"}
    target = targets.get(path.suffix.lower())
    if path.suffix.lower() == ".edge":
        raise BadRecipe("Ops are timed in model files, and this is a bundle.", "Give the .tflite or .onnx file.")
    if target is None:
        raise UnknownName.of("suffix of a model file", path.suffix, targets)
    if options.threads != 1:
        raise BadRecipe(f"Ops are timed with one thread, not {options.threads}.", "Leave out --threads.")
    if not path.is_file():
        raise BadModel(f"There is no file '{path}'.", "Check the path.")
    found = isolate.call(f"edgekit.measure_ops:{target}", str(path), options, timeout_s=120 + 10 * options.max_seconds,
                         subject=f"Timing the ops of '{path}'")
    assert isinstance(found, PerOpReport)
    return found


def _report(subject: str, version: str, engine: Engine, timings: Sequence[tuple[str, float, str, tuple[str, ...]]],
            whole: tuple[float, float], unmeasured: Sequence[str]) -> PerOpReport:
    """``timings``: kind, ms of one, shapes, names; ``whole``: its ms, and those of a call."""
    whole_ms, call_ms = whole
    total = sum(ms * len(names) for _, ms, _, names in timings)
    ops = [OpTiming(kind, len(names), ms, ms * len(names), ms * len(names) / total if total else 0.0, shapes, names)
           for kind, ms, shapes, names in timings]
    factor = max(whole_ms - call_ms, 0.0) / total if total else float("inf")
    return PerOpReport(
        subject=subject, engine=engine, engine_version=version, clock="cpu" if engine == "litert" else "wall",
        ops=tuple(sorted(ops, key=lambda op: -op.total_ms)), sum_ms=total, whole_ms=whole_ms, call_ms=call_ms,
        factor=factor, unmeasured=tuple(unmeasured), findings=_findings(engine, factor, unmeasured))


def _findings(engine: Engine, factor: float, unmeasured: Sequence[str]) -> tuple[str, ...]:
    found = []
    if unmeasured:
        found.append(f"{len(unmeasured)} op(s) could not run by themselves and are missing from the sum.")
    elif engine == "litert" and factor > 1.1:
        found.append(f"The whole takes {factor:.2f} times its ops: by themselves they find weights and inputs in the "
                     "caches next to the core.")
    if engine == "litert" and factor < 0.9:
        found.append(f"The whole takes {factor:.2f} of its ops: in the network some are computed inside others, or "
                     "hand over results without copying them.")
    if engine == "ort" and factor > 1.1:
        found.append(f"The whole takes {factor:.2f} times its kernels: the rest is spent between them.")
    return tuple(found)


# -- LiteRT ------------------------------------------------------------------------------------------------------------


class _Loaded:
    """A model in LiteRT with random inputs in place; ``run`` is the engine's work alone."""

    def __init__(self, data: bytes, feeds: dict[int, Array] | None = None) -> None:
        from edgekit.artifacts import TensorSpec
        from edgekit.runtime.engines.litert import import_interpreter
        from edgekit.sample_inputs import random_inputs

        make, self.version = import_interpreter()
        try:
            self.interpreter: Any = make(model_content=data, num_threads=1)
            for index, array in (feeds or {}).items():
                self.interpreter.resize_tensor_input(index, array.shape)
            self.interpreter.allocate_tensors()
            for details in self.interpreter.get_input_details():
                shape = tuple(map(int, details["shape"]))
                spec = TensorSpec(str(details["index"]), np.dtype(details["dtype"]).name, shape)
                made = random_inputs([spec], {spec.name: shape})[spec.name]
                self.interpreter.set_tensor(details["index"], made)
            self.interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"{self.version} failed: {' '.join(str(error).split())}") from error
        self.run: Callable[[], object] = self.interpreter.invoke


def _litert(path: str, options: BenchOptions) -> PerOpReport:
    """In the child."""
    from edgekit.graph.tflite_check import check_tflite
    from edgekit.graph.tflite_pieces import cut_ops, idle_model

    data = Path(path).read_bytes()
    check_tflite(data, f"'{path}'")
    whole, shapes = _whole(path, data, options)
    loaded: list[tuple[Any, _Loaded]] = []
    unmeasured: list[str] = []
    for piece in cut_ops(data, shapes):
        try:
            if not piece.data:
                raise EngineError("it runs other graphs, keeps a state or reads no input")
            check_tflite(piece.data, piece.kind)
            loaded.append((piece, _Loaded(piece.data)))
        except EdgeKitError as error:
            unmeasured.append(f"{', '.join(piece.names)} ({piece.kind}): {error}")
    runs = [whole.run, _Loaded(idle_model()).run, *(each.run for _, each in loaded)]
    times = _in_turn(runs, options)
    timings = [(piece.kind, max(ms - times[1], 0.0), _shapes(piece.shapes), piece.names)
               for (piece, _), ms in zip(loaded, times[2:], strict=True)]
    return _report(path, whole.version, "litert", timings, (times[0], times[1]), unmeasured)


def _whole(path: str, data: bytes, options: BenchOptions) -> tuple[_Loaded, dict[int, tuple[int, ...]]]:
    """The network, and the shapes of its tensors where sizes are dynamic."""
    from edgekit.measure_subject import open_subject
    from edgekit.runtime.engines.litert import import_interpreter

    subject = open_subject(path, options)
    feeds = subject.feeds
    subject.close()
    make, _ = import_interpreter()
    probe = make(model_content=data, num_threads=1)
    signature = next(iter(probe._get_full_signature_list().values()), None)
    by_name = {str(each["name"]): int(each["index"]) for each in probe.get_input_details()}
    if signature is not None:
        by_name.update({name: int(index) for name, index in signature["inputs"].items()})
    given = {by_name[name]: array for name, array in feeds.items()}
    fixed = {int(each["index"]): tuple(map(int, each["shape"])) for each in probe.get_input_details()}
    if all(fixed[index] == array.shape for index, array in given.items()):
        return _Loaded(data), {}
    from edgekit.graph.costs_tflite import _shapes_of_engine

    return _Loaded(data, given), _shapes_of_engine(data, {index: array.shape for index, array in given.items()})


def _in_turn(runs: Sequence[Callable[[], object]], options: BenchOptions) -> list[float]:
    """CPU milliseconds of each: the median over rounds of the fastest of a few calls in a row."""
    rounds: list[list[float]] = []
    end = time.perf_counter() + options.max_seconds
    gc.disable()
    try:
        while len(rounds) < _ROUNDS and (len(rounds) < 2 or time.perf_counter() < end):
            rounds.append([_block(run) for run in runs])
    finally:
        gc.enable()
    return [float(value) for value in np.median(rounds, axis=0)]


def _block(run: Callable[[], object]) -> float:
    run()
    best, count, end = float("inf"), 0, time.perf_counter() + _BLOCK_SECONDS
    while count < _BLOCK or (time.perf_counter() < end and count < 20 * _BLOCK):
        start = time.thread_time()
        run()
        best = min(best, time.thread_time() - start)
        count += 1
    return best * 1e3


def _shapes(shapes: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]) -> str:
    sides = [", ".join("x".join(map(str, shape)) or "1" for shape in side) for side in shapes]
    return " -> ".join(sides)


# -- ONNX Runtime ------------------------------------------------------------------------------------------------------


def _ort(path: str, options: BenchOptions) -> PerOpReport:
    """In the child."""
    from edgekit.measure_subject import open_subject
    from edgekit.runtime.engines.ort import import_onnxruntime

    subject = open_subject(path, options)
    _, version, feeds = subject.run(), subject.engine_version, subject.feeds
    ort = import_onnxruntime()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads, settings.log_severity_level = 1, 1, 4
    settings.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="edgekit-ops-") as folder:
        settings.profile_file_prefix = str(Path(folder) / "ops")
        session = ort.InferenceSession(Path(path).read_bytes(), settings, providers=["CPUExecutionProvider"])
        whole: list[float] = []
        end = time.perf_counter() + options.max_seconds
        runs = 0
        while runs < options.runs + options.warmup and (runs < options.warmup + 10 or time.perf_counter() < end):
            session.run(None, feeds)
            start = time.thread_time()
            subject.run()
            whole.append((time.thread_time() - start) * 1e3)
            runs += 1
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    subject.close()
    return _report(path, version, "ort", _kernels(events, options.warmup),
                   (float(np.median(whole[options.warmup:])), 0.0), ())


def _kernels(events: Sequence[dict[str, Any]], warmup: int) -> list[tuple[str, float, str, tuple[str, ...]]]:
    """Kind, median milliseconds, shapes and names of each group of alike kernels."""
    times: dict[str, list[float]] = {}
    facts: dict[str, tuple[str, str]] = {}
    for event in events:
        name, arguments = str(event.get("name", "")), event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        name = name.removesuffix("_kernel_time")
        times.setdefault(name, []).append(float(event["dur"]) / 1e3)
        sides = [[next(iter(each.values())) for each in arguments.get(side, ())]
                 for side in ("input_type_shape", "output_type_shape")]
        facts[name] = str(arguments.get("op_name", "")), _shapes((sides[0], sides[1]))
    alike: dict[tuple[str, str], list[str]] = {}
    for name, fact in facts.items():
        alike.setdefault(fact, []).append(name)
    return [(kind, float(np.mean([np.median(times[name][warmup:] or times[name]) for name in names])), shapes,
             tuple(names)) for (kind, shapes), names in alike.items()]
