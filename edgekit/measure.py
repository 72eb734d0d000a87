"""How fast a model or a bundle runs on this machine, and which of two is faster.

Everything is timed in a child process (a model that crashes its engine cannot take the caller down), with wall time and
CPU time side by side: on a machine that is shared, wall time says what was felt and CPU time what the model costs. Two
files are timed in turn, run by run, because a shared machine drifts by tens of percent within a minute; their ratio is
only ever formed between neighbouring runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit import isolate
from edgekit.artifacts import Array, Engine, TensorSpec
from edgekit.errors import BadRecipe, EngineError, InternalError
from edgekit.measure_subject import Subject, open_subject
from edgekit.remote.timing import Watch, time_rounds
from edgekit.stability import MAX_SPREAD, Reading, Sustained, refusal, spread_of, sustained_of

__all__ = [
    "MIN_RUNS", "Bench", "BenchOptions", "BenchReport", "Board", "ColdStart", "Comparison", "Quantiles", "Timed",
    "WarmStart", "bench", "paired_ratio", "quantiles", "report_of",
]

#: fewer runs have no percentiles
MIN_RUNS = 10
_COLD_CODE = (
    "import time; start = time.perf_counter(); import sys; sys.path[:] = sys.argv[2:]; import edgekit.runtime; "
    "import_ms = (time.perf_counter() - start) * 1e3; from edgekit.measure import _cold; _cold(import_ms, sys.argv[1])"
)


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to measure. Impossible values raise BadRecipe.

    ``runs`` are timed after ``warmup`` untimed ones, fewer when they take more than ``max_seconds`` (never fewer than
    10). ``shapes`` gives a shape for inputs with dynamic dimensions by name: in the file's own order of axes for a
    model file, in the ONNX order for a bundle. ``engine`` chooses the variant of a bundle. ``cold_starts`` fresh
    processes are started, and the fastest is reported. With ``sustain_s`` the timed runs go on for so many seconds
    without a pause, and ``runs`` and ``max_seconds`` do not count. A figure whose spread is above ``max_spread`` is
    refused (see ``edgekit.stability``).
    """

    engine: Literal["auto", "litert", "ort"] = "auto"
    threads: int = 1
    runs: int = 100
    warmup: int = 10
    max_seconds: float = 30.0
    cold_starts: int = 3
    sustain_s: float | None = None
    max_spread: float = MAX_SPREAD
    shapes: dict[str, tuple[int, ...]] = {}
    public_key: str | None = None
    require_signature: bool = False

    def __post_init__(self) -> None:
        for name, least in (("threads", 1), ("runs", MIN_RUNS), ("warmup", 0), ("cold_starts", 1)):
            if getattr(self, name) < least:
                raise BadRecipe(f"{name} is {getattr(self, name)}.", f"It must be at least {least}.")
        for name in ("max_seconds", "sustain_s", "max_spread"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise BadRecipe(f"{name} is {value}.", "It must be positive and finite.")


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


class Board(msgspec.Struct, frozen=True):
    """The machine that measured, when it was another one, as it describes itself; "" is unknown.

    ``cores``: those that the process may use; ``governor``: of the clock of the first core.
    """

    address: str
    name: str
    machine: str
    system: str
    python: str
    cores: int
    governor: str


class Bench(msgspec.Struct, frozen=True):
    """One file. ``cpu_ms`` counts the process's CPU time, all threads together; ``inputs`` have the shapes that ran.

    ``spread``: how wide the middle 80 % of wall times are, as a part of their median. ``trusted`` is False where no
    single figure stands for the times; ``refused`` says why, and what to do. ``board``: None for this machine.
    """

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
    spread: float
    trusted: bool
    refused: str = ""
    sustained: Sustained | None = None
    board: Board | None = None


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
    timeout_s = 60 + 10 * options.max_seconds + 2 * (options.sustain_s or 0)
    timed = isolate.call("edgekit.measure:_timed", texts, options, timeout_s=timeout_s, subject=f"Running {subject}")
    assert isinstance(timed, list)
    colds = [min((_cold_start(text, options) for _ in range(options.cold_starts)), key=lambda cold: cold.total_ms)
             for text in texts]
    return report_of(paths, options, timed, colds)


def report_of(
    paths: Sequence[Path], options: BenchOptions, timed: Sequence[Timed], colds: Sequence[ColdStart],
    board: Board | None = None,
) -> BenchReport:
    """What was timed, as a report. Raises OSError when a file is gone."""
    texts = [str(path) for path in paths]
    results = tuple(
        _finished(text, options, each, cold, board) for text, each, cold in zip(texts, timed, colds, strict=True)
    )
    return BenchReport(results, _comparison(texts, timed, options.threads) if len(texts) == 2 else None)


def _finished(text: str, options: BenchOptions, timed: Timed, cold: ColdStart, board: Board | None) -> Bench:
    sustained = None if options.sustain_s is None else sustained_of(timed.at_s, timed.wall_ms, timed.readings)
    refused = refusal(timed.wall_ms, timed.cpu_ms, options.max_spread, sustained)
    return Bench(
        subject=text, engine=timed.engine, engine_version=timed.engine_version, threads=options.threads,
        size_bytes=Path(text).stat().st_size, inputs=timed.inputs, runs=len(timed.wall_ms), warmup=options.warmup,
        wall_ms=quantiles(timed.wall_ms), cpu_ms=quantiles(timed.cpu_ms), cold_start=cold,
        warm_start=timed.warm_start, spread=spread_of(timed.wall_ms), trusted=not refused, refused=refused,
        sustained=sustained, board=board,
    )


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


class Timed(msgspec.Struct, frozen=True):
    """The runs of one subject: when each began (seconds), its wall and CPU time, and how the machine was meanwhile."""

    engine: Engine
    engine_version: str
    inputs: tuple[TensorSpec, ...]
    at_s: list[float]
    wall_ms: list[float]
    cpu_ms: list[float]
    readings: list[Reading]
    warm_start: WarmStart


def _timed(paths: list[str], options: BenchOptions) -> list[Timed]:
    """In the child: every file loaded, warmed up and timed in turn."""
    subjects: list[Subject] = []
    warm: list[WarmStart] = []
    for path in paths:
        subject = open_subject(path, options)
        subject.run()  # imports what the first run imports
        subject.close()
        started, subject = _start(path, options)
        warm.append(started)
        subjects.append(subject)
    for subject in subjects:
        for _ in range(options.warmup):
            subject.run()
    watch = Watch()
    at_s, walls, cpus = _rounds([subject.run for subject in subjects], options, watch)
    return [
        Timed(
            engine=subject.engine, engine_version=subject.engine_version, inputs=_as_run(subject.feeds),
            at_s=at_s, wall_ms=[wall[index] for wall in walls], cpu_ms=[cpu[index] for cpu in cpus],
            readings=watch.readings, warm_start=warm[index],
        )
        for index, subject in enumerate(subjects)
    ]


def _rounds(
    runs: Sequence[Callable[[], object]], options: BenchOptions, watch: Watch
) -> tuple[list[float], list[list[float]], list[list[float]]]:
    if options.sustain_s is not None:
        return time_rounds(list(runs), sys.maxsize, options.sustain_s, MIN_RUNS, watch)
    return time_rounds(list(runs), options.runs, options.max_seconds, MIN_RUNS, watch)


def _start(path: str, options: BenchOptions) -> tuple[WarmStart, Subject]:
    begin = time.perf_counter()
    subject = open_subject(path, options)
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


def _comparison(texts: Sequence[str], timed: Sequence[Timed], threads: int) -> Comparison:
    a, b = timed
    basis: Literal["cpu", "wall"] = "cpu" if threads == 1 else "wall"
    pairs = (a.cpu_ms, b.cpu_ms) if basis == "cpu" else (a.wall_ms, b.wall_ms)
    return Comparison(texts[0], texts[1], basis, *paired_ratio(*pairs))
