"""How fast a model or a bundle runs on this machine, and which of two is faster.

Everything is timed in a child process (a model that crashes its engine cannot take the caller down), with wall time and
CPU time side by side: on a machine that is shared, wall time says what was felt and CPU time what the model costs. Two
files are timed in turn, run by run, because a shared machine drifts by tens of percent within a minute; their ratio is
only ever formed between neighbouring runs.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit import isolate
from edgekit.artifacts import Array, Engine, TensorSpec
from edgekit.errors import BadInput, BadModel, BadRecipe, EngineError, InternalError, UnknownName
from edgekit.sample_inputs import random_inputs

if TYPE_CHECKING:
    from edgekit.runtime import Runtime
    from edgekit.runtime.engines import Session

__all__ = [
    "Bench", "BenchOptions", "BenchReport", "ColdStart", "Comparison", "Quantiles", "WarmStart", "bench",
    "paired_ratio", "quantiles",
]

_MIN_RUNS = 10
_ENGINE_OF: dict[str, Engine] = {".tflite": "litert", ".onnx": "ort", ".ort": "ort"}
_COLD_CODE = (
    "import time; start = time.perf_counter(); import sys; sys.path[:] = sys.argv[2:]; import edgekit.runtime; "
    "import_ms = (time.perf_counter() - start) * 1e3; from edgekit.measure import _cold; _cold(import_ms, sys.argv[1])"
)


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to measure. Impossible values raise BadRecipe.

    ``runs`` are timed after ``warmup`` untimed ones, fewer when they take more than ``max_seconds`` (never fewer than
    10). ``shapes`` gives a shape for inputs with dynamic dimensions by name: in the file's own order of axes for a
    model file, in the ONNX order for a bundle. ``engine`` chooses the variant of a bundle. ``cold_starts`` fresh
    processes are started, and the fastest is reported.
    """

    engine: Literal["auto", "litert", "ort"] = "auto"
    threads: int = 1
    runs: int = 100
    warmup: int = 10
    max_seconds: float = 30.0
    cold_starts: int = 3
    shapes: dict[str, tuple[int, ...]] = {}
    public_key: str | None = None
    require_signature: bool = False

    def __post_init__(self) -> None:
        for name, least in (("threads", 1), ("runs", _MIN_RUNS), ("warmup", 0), ("cold_starts", 1)):
            if getattr(self, name) < least:
                raise BadRecipe(f"{name} is {getattr(self, name)}.", f"It must be at least {least}.")
        if not self.max_seconds > 0:
            raise BadRecipe(f"max_seconds is {self.max_seconds}.", "It must be positive.")


class Quantiles(msgspec.Struct, frozen=True):
    """Of a list of times; between two of them the value is interpolated."""

    min: float
    median: float
    p90: float
    p99: float


class ColdStart(msgspec.Struct, frozen=True):
    """The first answer in a fresh process, from its first statement on (starting Python is not counted).

    ``import_ms``: importing ``edgekit.runtime``. ``load_ms``: reading and checking the file, importing the engine,
    loading the model. ``first_run_ms``: the first answer. The file is in the system's cache.
    """

    import_ms: float
    load_ms: float
    first_run_ms: float
    total_ms: float


class WarmStart(msgspec.Struct, frozen=True):
    """As ColdStart, in a process that has imported the engine and run the model before."""

    load_ms: float
    first_run_ms: float
    total_ms: float


class Bench(msgspec.Struct, frozen=True):
    """One file. ``cpu_ms`` counts the process's CPU time, all threads together; ``inputs`` have the shapes that ran."""

    subject: str
    engine: Engine
    engine_version: str
    threads: int
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    runs: int
    warmup: int
    wall_ms: Quantiles
    cpu_ms: Quantiles
    cold_start: ColdStart
    warm_start: WarmStart


class Comparison(msgspec.Struct, frozen=True):
    """Time of ``b`` over time of ``a``: the median over neighbouring runs, with its 95 % interval (bootstrap).

    ``basis`` is "cpu" with one thread; with several threads it is "wall", for there CPU time is not what is felt.
    """

    a: str
    b: str
    basis: Literal["cpu", "wall"]
    ratio: float
    low: float
    high: float


class BenchReport(msgspec.Struct, frozen=True):
    """The files in the order given; ``comparison`` when there are two."""

    results: tuple[Bench, ...]
    comparison: Comparison | None


def bench(paths: Sequence[Path], options: BenchOptions = BenchOptions()) -> BenchReport:
    """Measure one file (.edge, .tflite, .onnx or .ort), or two of them in turn.

    Raises BadRecipe unless there are one or two; BadModel and BadBundle for files that cannot be used (a model that
    crashes its engine is one of them); BadInput for dynamic dimensions without a shape; EngineError; MissingExtra.
    """
    if not 1 <= len(paths) <= 2:
        raise BadRecipe(f"{len(paths)} files were given.", "Give one, or two to compare.")
    texts = [str(path) for path in paths]
    subject = " and ".join(f"'{text}'" for text in texts)
    timeout_s = 60 + 10 * options.max_seconds
    timed = isolate.call("edgekit.measure:_timed", texts, options, timeout_s=timeout_s, subject=f"Running {subject}")
    assert isinstance(timed, list)
    colds = [min((_cold_start(text, options) for _ in range(options.cold_starts)), key=lambda cold: cold.total_ms)
             for text in texts]
    results = tuple(
        Bench(
            subject=text, engine=each.engine, engine_version=each.engine_version, threads=options.threads,
            size_bytes=Path(text).stat().st_size, inputs=each.inputs, runs=len(each.wall_ms), warmup=options.warmup,
            wall_ms=quantiles(each.wall_ms), cpu_ms=quantiles(each.cpu_ms), cold_start=cold, warm_start=each.warm_start,
        )
        for text, each, cold in zip(texts, timed, colds, strict=True)
    )
    return BenchReport(results, _comparison(texts, timed, options.threads) if len(texts) == 2 else None)


def quantiles(times: npt.ArrayLike) -> Quantiles:
    """Minimum, median, 90th and 99th percentile of ``times``."""
    return Quantiles(*(float(value) for value in np.quantile(np.asarray(times), (0, 0.5, 0.9, 0.99))))


def paired_ratio(a: npt.ArrayLike, b: npt.ArrayLike, draws: int = 2000) -> tuple[float, float, float]:
    """The median of ``b / a``, element by element, and its 95 % bootstrap interval (median, low, high).

    Arrays (pairs,), or (rounds, blocks) where the blocks of a round share its luck: rounds are resampled first then.
    """
    logs = np.log(np.asarray(b, np.float64)) - np.log(np.asarray(a, np.float64))
    logs = logs.reshape(len(logs), -1)
    rounds, blocks = logs.shape
    random = np.random.default_rng(0)
    picked_rounds = random.integers(rounds, size=(draws, rounds, 1))
    picked_blocks = random.integers(blocks, size=(draws, rounds, blocks))
    medians = np.median(logs[picked_rounds, picked_blocks].reshape(draws, -1), axis=1)
    low, high = np.exp(np.quantile(medians, (0.025, 0.975)))
    return float(np.exp(np.median(logs))), float(low), float(high)


class _Timed(msgspec.Struct, frozen=True):
    engine: Engine
    engine_version: str
    inputs: tuple[TensorSpec, ...]
    wall_ms: list[float]
    cpu_ms: list[float]
    warm_start: WarmStart


class _Subject(Protocol):
    """A loaded file and the inputs it is timed with."""

    engine: Engine
    engine_version: str
    feeds: dict[str, Array]

    def run(self) -> object:
        """One answer."""

    def close(self) -> None:
        """Free the engine."""


class _Model:
    """A model file, in an engine without anything around it."""

    def __init__(self, path: str, options: BenchOptions) -> None:
        from edgekit.runtime.engines import open_session

        engine = _ENGINE_OF[Path(path).suffix.lower()]
        if options.engine not in ("auto", engine):
            raise BadRecipe(f"'{path}' runs on the engine '{engine}' only.", "Leave out the choice of an engine.")
        self._session: Session = open_session(engine, Path(path).read_bytes(), options.threads)
        self.engine = engine
        self.engine_version = self._session.engine_version
        self.feeds = _random_feeds(path, self._session.inputs, options.shapes)

    def run(self) -> object:
        return self._session.run(self.feeds)

    def close(self) -> None:
        self._session.close()


class _Bundle:
    """A bundle in the runtime, as an app would run it; its inputs are those of its first test vector."""

    def __init__(self, path: str, options: BenchOptions) -> None:
        from edgekit.runtime import RuntimeOptions, load

        self._runtime: Runtime = load(path, options.engine, RuntimeOptions(
            threads=options.threads, public_key=options.public_key, require_signature=options.require_signature))
        self.engine = self._runtime.engine
        self.engine_version = self._runtime.engine_version
        feeds = {} if options.shapes else _vector_feeds(path)
        self.feeds = feeds or _random_feeds(path, self._runtime.inputs, options.shapes)

    def run(self) -> object:
        return self._runtime.run(self.feeds)

    def close(self) -> None:
        self._runtime.close()


def _open(path: str, options: BenchOptions) -> _Subject:
    suffix = Path(path).suffix.lower()
    if suffix == ".edge":
        return _Bundle(path, options)
    if suffix not in _ENGINE_OF:
        raise UnknownName.of("suffix of a model file", suffix, (".edge", *_ENGINE_OF))
    try:
        return _Model(path, options)
    except OSError as error:
        raise BadModel(f"'{path}' cannot be read: {error.strerror or error}.", "Check the path.") from error


def _vector_feeds(path: str) -> dict[str, Array]:
    from edgekit.bundle import Bundle

    with Bundle.open(Path(path)) as bundle:
        return {blob.name: np.frombuffer(bundle.read(blob.entry), np.dtype(blob.dtype)).reshape(blob.shape)
                for vector in bundle.manifest.test_vectors[:1] for blob in vector.inputs}


def _random_feeds(path: str, specs: Sequence[TensorSpec], given: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    names = [spec.name for spec in specs]
    for name in given:
        if name not in names:
            raise UnknownName.of(f"input of '{path}'", name, names)
    shapes = {}
    for spec in specs:
        one_at_a_time = (1, *spec.shape[1:]) if spec.shape[:1] == (-1,) else spec.shape
        shapes[spec.name] = given.get(spec.name, one_at_a_time)
        if -1 in shapes[spec.name]:
            raise BadInput(f"The input '{spec.name}' of '{path}' has dynamic dimensions: {list(spec.shape)}.",
                           f"Give its shape, such as --shape {spec.name}=1,224,224,3.")
    return random_inputs(specs, shapes)


def _timed(paths: list[str], options: BenchOptions) -> list[_Timed]:
    """In the child: every file loaded, warmed up and timed in turn."""
    subjects: list[_Subject] = []
    warm: list[WarmStart] = []
    for path in paths:
        subject = _open(path, options)
        subject.run()  # imports what the first run imports
        subject.close()
        started, subject = _start(path, options)
        warm.append(started)
        subjects.append(subject)
    for subject in subjects:
        for _ in range(options.warmup):
            subject.run()
    rounds = _rounds([subject.run for subject in subjects], options)
    return [
        _Timed(
            engine=subject.engine, engine_version=subject.engine_version, inputs=_as_run(subject.feeds),
            wall_ms=[wall[index] for wall, _ in rounds], cpu_ms=[cpu[index] for _, cpu in rounds],
            warm_start=warm[index],
        )
        for index, subject in enumerate(subjects)
    ]


def _rounds(runs: Sequence[Callable[[], object]], options: BenchOptions) -> list[tuple[list[float], list[float]]]:
    """For each round the wall and CPU milliseconds of each of ``runs``; every other round takes them backwards."""
    order = list(range(len(runs)))
    rounds: list[tuple[list[float], list[float]]] = []
    deadline = time.perf_counter() + options.max_seconds
    gc.disable()  # a collection in the middle of a run would be counted as the model's
    try:
        while len(rounds) < options.runs and (len(rounds) < _MIN_RUNS or time.perf_counter() < deadline):
            wall, cpu = [0.0] * len(runs), [0.0] * len(runs)
            for index in order:
                wall_start, cpu_start = time.perf_counter(), time.process_time()
                runs[index]()
                cpu[index] = (time.process_time() - cpu_start) * 1e3
                wall[index] = (time.perf_counter() - wall_start) * 1e3
            rounds.append((wall, cpu))
            order.reverse()
    finally:
        gc.enable()
    return rounds


def _start(path: str, options: BenchOptions) -> tuple[WarmStart, _Subject]:
    begin = time.perf_counter()
    subject = _open(path, options)
    loaded = time.perf_counter()
    subject.run()
    end = time.perf_counter()
    return WarmStart((loaded - begin) * 1e3, (end - loaded) * 1e3, (end - begin) * 1e3), subject


def _as_run(feeds: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, array.dtype.name, array.shape) for name, array in feeds.items())


def _cold_start(path: str, options: BenchOptions) -> ColdStart:
    """The start of a fresh process; the file has been run in a child process before, so it does not crash."""
    request = json.dumps([path, msgspec.to_builtins(options)])
    command = [sys.executable, "-P", "-c", _COLD_CODE, request, *sys.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise EngineError(f"Starting '{path}' in a fresh process failed (exit code {done.returncode}): "
                          f"{done.stderr.strip()[-500:]}")
    try:
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=ColdStart)
    except (IndexError, msgspec.MsgspecError) as error:
        raise InternalError(f"The fresh process that ran '{path}' gave no figures: {done.stdout[-200:]!r}.") from error


def _cold(import_ms: float, request: str) -> None:
    """The fresh process, once it has imported the runtime; prints a ColdStart."""
    path, fields = json.loads(request)
    warm, subject = _start(path, msgspec.convert(fields, BenchOptions))
    subject.close()
    cold = ColdStart(import_ms, warm.load_ms, warm.first_run_ms, import_ms + warm.total_ms)
    sys.stdout.write(msgspec.json.encode(cold).decode() + "\n")


def _comparison(texts: Sequence[str], timed: Sequence[_Timed], threads: int) -> Comparison:
    a, b = timed
    basis: Literal["cpu", "wall"] = "cpu" if threads == 1 else "wall"
    pairs = (a.cpu_ms, b.cpu_ms) if basis == "cpu" else (a.wall_ms, b.wall_ms)
    return Comparison(texts[0], texts[1], basis, *paired_ratio(*pairs))
