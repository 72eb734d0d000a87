"""``bench_on``: ``edgekit.measure.bench`` on a board. The board needs Python, numpy and an engine, not EdgeKit.

The measurement runs in a process of its own there and leaves its result in a file, so it does not care whether the
connection lasts: a lost one is made again, a bounded number of times. The folder on the board is removed in the end,
by us or, when the board cannot be reached any more, by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from edgekit.artifacts import Engine, TensorSpec
from edgekit.errors import BadModel, BadRecipe, EngineError, RemoteError, UnknownName
from edgekit.measure import MIN_RUNS, BenchOptions, BenchReport, Board, ColdStart, Timed, WarmStart, report_of
from edgekit.measure_subject import ENGINE_OF
from edgekit.remote.transport import Answer, LostConnection, Transport

__all__ = ["RemoteOptions", "bench_on"]

T = TypeVar("T")

_PYTHON = re.compile(r"[A-Za-z0-9_./~+-]+\Z")
_FOLDER = re.compile(r"/[A-Za-z0-9_./+-]+\Z")
_STEP_S = 30.0
_SLACK_S = 30.0
_LONGEST_PAUSE_S = 30.0
_SLOW_LINK_BYTES_PER_S = 50_000
_MOST_RESULT_BYTES = 100_000_000
_ENGINES: tuple[Engine, ...] = ("litert", "ort")
_PACKAGE = {"litert": "ai-edge-litert", "ort": "onnxruntime", "numpy": "numpy"}


class RemoteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to work there. ``python``: the board's interpreter. ``attempts``: to reach it again after a lost connection,
    the pauses between them growing from ``pause_s``. ``keep_s``: how long a result waits there for us.
    """

    python: str = "python3"
    attempts: int = 8
    pause_s: float = 1.0
    keep_s: float = 900.0

    def __post_init__(self) -> None:
        if not _PYTHON.match(self.python):
            raise BadRecipe(f"'{self.python}' is not a plain path of a Python interpreter.",
                            "Name it without blanks and quotes, such as /opt/venv/bin/python.")
        if self.attempts < 1 or not self.pause_s >= 0 or not self.keep_s > 0:
            raise BadRecipe("attempts must be at least 1, pause_s not negative and keep_s positive.")


_DEFAULT = RemoteOptions()


class _Check(msgspec.Struct, frozen=True):
    board: dict[str, str | int]
    engines: dict[str, str]
    problems: dict[str, str]


class _Subject(msgspec.Struct, frozen=True):
    engine_version: str
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    wall_ms: list[float]
    cpu_ms: list[float]
    warm: tuple[float, float]
    cold: tuple[float, float, float]


class _Times(msgspec.Struct, frozen=True):
    at_s: list[float]
    watch: list[tuple[float, float | None, float | None]]
    subjects: tuple[_Subject, ...]


class _Outcome(msgspec.Struct, frozen=True):
    ok: _Times | None = None
    error: str = ""


class _Model(NamedTuple):
    engine: Engine
    data: bytes


def bench_on(
    transport: Transport, paths: Sequence[Path], options: BenchOptions = BenchOptions(),
    remote: RemoteOptions = _DEFAULT,
) -> BenchReport:
    """Measure one file (.edge, .tflite, .onnx or .ort) on the board, or two of them in turn.

    Of a bundle, the model of an engine that the board has is sent, after its hash was checked here; it runs without the
    bundle's preprocessing. Raises RemoteError, EngineError when the board's engine fails, BadRecipe, BadModel,
    BadBundle, UnknownName.
    """
    if not 1 <= len(paths) <= 2:
        raise BadRecipe(f"{len(paths)} files were given.", "Give one, or two to compare.")
    for path in paths:
        if path.suffix.lower() not in (".edge", *ENGINE_OF):
            raise UnknownName.of("suffix of a model file", path.suffix, (".edge", *ENGINE_OF))
        if not path.is_file():
            raise BadModel(f"There is no file '{path}'.", "Check the path.")
    link = _Link(transport, remote)
    with _folder(link) as folder:
        found = _check(link, folder, {ENGINE_OF.get(path.suffix.lower()) for path in paths})
        models = [_chosen(path, options, found, link) for path in paths]
        _send(link, folder, models, options)
        times = _outcome(link, folder, _limit_s(options, len(paths)))
    timed = [_timed(model, subject, times) for model, subject in zip(models, times.subjects, strict=True)]
    colds = [ColdStart(*subject.cold, sum(subject.cold)) for subject in times.subjects]
    return report_of(paths, options, timed, colds, _board(transport.address, found))


class _Link:
    """The board, reached again when the connection was lost."""

    def __init__(self, transport: Transport, remote: RemoteOptions) -> None:
        self.transport, self.remote = transport, remote
        self.address = transport.address
        self.python = remote.python

    def shell(self, script: str, timeout_s: float = 60, attempts: int | None = None) -> Answer:
        for pause in self._pauses(attempts):
            try:
                return self.transport.shell(script, timeout_s)
            except LostConnection as lost:
                self._again(pause, lost)
        raise AssertionError("the last pause raises")

    def put(self, data: bytes, path: str) -> None:
        timeout_s = 60 + len(data) / _SLOW_LINK_BYTES_PER_S
        for pause in self._pauses(None):
            try:
                return self.transport.put(data, path, timeout_s)
            except LostConnection as lost:
                self._again(pause, lost)
        raise AssertionError("the last pause raises")

    def _pauses(self, attempts: int | None) -> Iterator[float | None]:
        count = attempts or self.remote.attempts
        for number in range(count - 1):
            yield min(self.remote.pause_s * 2**number, _LONGEST_PAUSE_S)
        yield None

    def _again(self, pause: float | None, lost: LostConnection) -> None:
        if pause is None:
            raise RemoteError(f"{self.address} cannot be reached: {lost}.",
                              "Is it switched on, and in this network? Its folder there removes itself.") from lost
        time.sleep(pause)


@contextlib.contextmanager
def _folder(link: _Link) -> Iterator[str]:
    """A folder of ours on the board, which is gone afterwards; what runs in it ends."""
    name = f"edgekit-{secrets.token_hex(8)}"
    make = (f"for d in \"$TMPDIR\" /tmp /data/local/tmp /var/tmp; do if [ -n \"$d\" ] && [ -d \"$d\" ]; then "
            f"if [ -O \"$d/{name}\" ] || mkdir -m 700 \"$d/{name}\" 2>/dev/null; then echo \"$d/{name}\"; exit 0; fi; "
            "fi; done; exit 1")
    answer = link.shell(make, attempts=2)
    folder = answer.out.decode(errors="replace").strip()
    if answer.code != 0 or not _FOLDER.match(folder):
        raise RemoteError(f"No temporary folder can be made on {link.address}: {answer.last_words}.",
                          "Set TMPDIR there to a folder that can be written, without blanks in its name.")
    # -P is newer than some boards' Python, and -I would hide packages that are installed for the user.
    stop = f"{link.python} {folder}/supervise.py stop {folder} >/dev/null 2>&1; rm -rf {folder}; [ ! -e {folder} ]"
    try:
        yield folder
    except BaseException as error:
        try:
            link.shell(stop, attempts=3)
        except RemoteError:
            error.add_note(f"{folder} on {link.address} could not be removed; it goes by itself if a run had begun.")
        raise
    if link.shell(stop).code != 0:
        raise RemoteError(f"{folder} on {link.address} could not be removed.", "Remove it by hand.")


def _check(link: _Link, folder: str, engines: set[Engine | None]) -> _Check:
    """What the board has; None among ``engines`` stands for a bundle, which may use any."""
    asked = _ENGINES if None in engines else [engine for engine in _ENGINES if engine in engines]
    for name in ("supervise.py", "timing.py"):
        link.put((Path(__file__).parent / name).read_bytes(), f"{folder}/{name}")
    answer = link.shell(f"{link.python} {folder}/supervise.py check {' '.join(asked)}", timeout_s=180)
    if answer.code in (126, 127):
        raise RemoteError(f"There is no Python '{link.python}' on {link.address}: {answer.last_words}.",
                          "Install Python 3.8 or later there, or name it: --remote-python PATH")
    if answer.code != 0:
        raise RemoteError(f"'{link.python}' on {link.address} failed: {answer.last_words}.",
                          "It must be Python 3.8 or later: --remote-python PATH")
    return _decoded(answer, _Check, link)


def _decoded(answer: Answer, kind: type[T], link: _Link) -> T:
    try:
        return msgspec.json.decode(answer.out, type=kind)
    except msgspec.MsgspecError as error:
        raise RemoteError(f"{link.address} answered something else than expected: {answer.out[:200]!r}.",
                          "Does a program there write into what others print?") from error


def _chosen(path: Path, options: BenchOptions, found: _Check, link: _Link) -> _Model:
    """The bytes to send and their engine; only engines that the board has."""
    suffix = path.suffix.lower()
    if suffix != ".edge":
        engine = ENGINE_OF[suffix]
        if options.engine not in ("auto", engine):
            raise BadRecipe(f"'{path}' runs on the engine '{engine}' only.", "Leave out the choice of an engine.")
        _need((engine,), found, link)
        return _Model(engine, path.read_bytes())
    from edgekit.bundle import Bundle

    key = None if options.public_key is None else Path(options.public_key)
    with Bundle.open(path, public_key=key, require_signature=options.require_signature) as bundle:
        variants = {variant.engine: variant for variant in reversed(bundle.manifest.variants)}
        wanted = [engine for engine in _ENGINES if engine in variants and options.engine in ("auto", engine)]
        if not wanted:
            raise UnknownName.of(f"engine of '{path}'", options.engine, sorted(variants))
        engine = _need(wanted, found, link)
        return _Model(engine, bundle.read(variants[engine].entry))


def _need(engines: Sequence[Engine], found: _Check, link: _Link) -> Engine:
    """The first of ``engines`` that the board has; with numpy."""
    here = next((engine for engine in engines if engine in found.engines), None)
    if here is not None and "numpy" in found.engines:
        return here
    missing = [_PACKAGE[name] for name in ("numpy", engines[0]) if name not in found.engines]
    broken = "; ".join(f"{name}: {problem}" for name, problem in found.problems.items())
    raise RemoteError(
        f"{link.address} has no {' and no '.join(missing)} for {link.python}"
        f" (Python {found.board.get('python')}, {found.board.get('machine')}){f'; {broken}' if broken else ''}.",
        f"There: {link.python} -m pip install {' '.join(missing)}   (on 32-bit ARM, LiteRT is in tflite-runtime and "
        "numpy in Debian's python3-numpy); or name another Python: --remote-python PATH",
    )


def _send(link: _Link, folder: str, models: Sequence[_Model], options: BenchOptions) -> None:
    entries = []
    for index, model in enumerate(models):
        link.put(model.data, f"{folder}/{index}.model")
        entries.append({"file": f"{index}.model", "engine": model.engine,
                        "sha256": hashlib.sha256(model.data).hexdigest()})
    sustained = options.sustain_s is not None
    request = {
        "models": entries, "threads": options.threads, "warmup": options.warmup, "shapes": options.shapes,
        "runs": 10**9 if sustained else options.runs, "least": MIN_RUNS, "cold_starts": options.cold_starts,
        "seconds": options.sustain_s if sustained else options.max_seconds, "keep_s": link.remote.keep_s,
        "limit_s": _limit_s(options, len(models)),
    }
    link.put(json.dumps(request).encode(), f"{folder}/request.json")
    answer = link.shell(f"{link.python} {folder}/supervise.py start {folder}")
    if answer.code != 0:
        raise RemoteError(f"The measurement could not be started on {link.address}: {answer.last_words}.")


def _limit_s(options: BenchOptions, models: int) -> float:
    """How long it may take: boards are slow at loading, and a slow model exceeds its seconds by its last run."""
    return 300 * models + 10 * options.max_seconds + 2 * (options.sustain_s or 0)


def _outcome(link: _Link, folder: str, limit_s: float) -> _Times:
    deadline = time.monotonic() + limit_s + _SLACK_S
    state = "running"
    while state == "running" and time.monotonic() < deadline:
        # The board waits, so that few connections disturb what it measures.
        answer = link.shell(f"{link.python} {folder}/supervise.py wait {folder} {_STEP_S}", _STEP_S + _SLACK_S)
        state = str(_decoded(answer, dict[str, object], link).get("state")) if answer.code == 0 else "dead"
    if state != "done":
        words = {"running": f"did not finish within {limit_s:.0f} s", "absent": "is gone: its folder was removed"}
        raise RemoteError(f"The measurement on {link.address} {words.get(state, 'was ended from outside')}.",
                          "Was memory short there, or was it restarted? Try again, with fewer --runs.")
    answer = link.shell(f"cat {folder}/result.json", timeout_s=300)
    if answer.code != 0 or len(answer.out) > _MOST_RESULT_BYTES:
        raise RemoteError(f"The result on {link.address} cannot be fetched: {answer.last_words}.")
    result = _decoded(answer, _Outcome, link)
    if result.ok is None:
        raise EngineError(f"Measuring on {link.address} failed: {result.error.rstrip('.')}.",
                          "Does the same file run here: edgekit bench FILE")
    lengths = {len(times) for each in result.ok.subjects for times in (each.wall_ms, each.cpu_ms, result.ok.at_s)}
    if len(lengths) != 1 or min(lengths) < MIN_RUNS:
        raise RemoteError(f"{link.address} sent figures that do not belong together.")
    return result.ok


def _timed(model: _Model, subject: _Subject, times: _Times) -> Timed:
    return Timed(
        engine=model.engine, engine_version=subject.engine_version, at_s=times.at_s, wall_ms=subject.wall_ms,
        cpu_ms=subject.cpu_ms, readings=list(times.watch), warm_start=WarmStart(*subject.warm, sum(subject.warm)),
        inputs=tuple(TensorSpec(name, dtype, shape) for name, dtype, shape in subject.inputs),
    )


def _board(address: str, found: _Check) -> Board:
    facts = found.board
    return Board(
        address=address, cores=int(facts.get("cores", 0)),
        **{name: str(facts.get(name, "")) for name in ("name", "machine", "system", "python", "governor")},
    )
