"""Real ONNX models through our converter and through onnx2tf: how many convert, and answer as ONNX Runtime does.

    python -m benchmarks.corpus [--json corpus.json] [--only NAME]

The models are those of the folder onnx_corpus in EDGEKIT_SHARED (default ../shared), listed in its manifest.json. Every
conversion and every run has a process of its own and a time limit. Ours gets the file as it is, dynamic axes included,
and once more with its inputs fixed to the sizes that are tried where it refuses that. onnx2tf gets copies: with and
without its simplifier (onnxsim), as they are and with fixed inputs, and the best result counts.
Both are judged by the rule of ``edgekit.parity.compare`` on the same random inputs. litert-torch reads torch networks
only, so it has no column. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.costs import ROOT, run_worker
from benchmarks.peer_file import of_allowed
from benchmarks.peers_setup import peer_python
from benchmarks.report import table
from edgekit import isolate
from edgekit.artifacts import OutputError, VerifyReport
from edgekit.atomic import write_atomically
from edgekit.errors import BadModel, EdgeKitError, UserError
from edgekit.parity import Sample, compare_on, reference_sample
from edgekit.recipe import ConvertRecipe

__all__ = ["Entry", "Outcome", "Result", "main", "misses", "tables"]

_MIN_PASSED = 19
_LIMIT_S = 300.0
Status = Literal["right", "fixed", "wrong", "refused", "failed"]
_GOOD = ("right", "fixed")
Shapes = dict[str, tuple[int, ...]]


class Entry(msgspec.Struct, frozen=True):
    """One model of the manifest. ``run_inputs`` gives a shape for each input; "ort" is "ok" unless it cannot run."""

    name: str
    file: str
    ort: str
    run_inputs: dict[str, tuple[int, ...]] = {}


class Outcome(msgspec.Struct, frozen=True):
    """What a converter made of a model.

    "right": answers as ONNX Runtime does; "fixed": does so once its inputs were given fixed sizes, ``reason`` says why.
    "wrong": answers otherwise. "refused": an error says what is not supported. "failed": any other error. ``error`` is
    the largest difference in units of what the rule allows, where there is one.
    """

    status: Status
    reason: str = ""
    seconds: float = 0.0
    error: float | None = None


class Result(msgspec.Struct, frozen=True):
    """One model; ``sound`` is what its manifest says. ``peer`` is onnx2tf."""

    name: str
    sound: bool
    ours: Outcome
    peer: Outcome


def measure(entry: Entry, folder: Path, limit_s: float) -> Result:
    """Both converters on one model of the corpus in ``folder``."""
    path, sound = folder / entry.file, entry.ort == "ok"
    sample = _reference(path, entry.run_inputs, limit_s) if sound else None
    ours = _attempt(lambda: _ours(path, {}, sample, limit_s))
    if ours.status == "refused" and sample:
        fixed = _attempt(lambda: _ours(path, entry.run_inputs, sample, limit_s))
        ours = msgspec.structs.replace(fixed, status="fixed", reason=ours.reason) if fixed.status == "right" else ours
    return Result(entry.name, sound, ours, _best_of_theirs(path, entry.run_inputs, sample, limit_s))


def _reference(path: Path, shapes: Shapes, limit_s: float) -> Sample:
    sample = isolate.call("benchmarks.corpus:reference", str(path), shapes, timeout_s=limit_s, subject=path.stem)
    assert isinstance(sample, tuple)
    return sample


def _best_of_theirs(path: Path, shapes: Shapes, sample: Sample | None, limit_s: float) -> Outcome:
    """The first right answer, with and without its simplifier; else the first that does not fail."""
    tried = []
    for simplify in (True, False):
        for given in ({}, shapes):
            tried.append(_attempt(lambda: _theirs(path, given, simplify, sample, limit_s)))  # noqa: B023 - called here
            if tried[-1].status == "right":
                return msgspec.structs.replace(tried[-1], status="fixed") if given else tried[-1]
    return min(tried, key=lambda outcome: outcome.status == "failed")


def reference(path: str, shapes: Shapes) -> Sample:
    """Random inputs of the given shapes and ONNX Runtime's answers to them, by name."""
    from edgekit.converters.onnx_model import load_onnx

    return reference_sample(load_onnx(Path(path)), shapes)


def convert_ours(path: str, shapes: Shapes, sample: Sample | None) -> tuple[float, VerifyReport | None]:
    """Seconds of our conversion with its reading, and the comparison on ``sample``."""
    from edgekit.converters.onnx_model import load_onnx
    from edgekit.converters.onnx_to_litert import to_litert

    start = time.perf_counter()
    conversion = to_litert(load_onnx(Path(path)), ConvertRecipe(shapes=shapes))
    seconds = time.perf_counter() - start
    if sample is None:
        return seconds, None
    return seconds, compare_on(conversion.model, sample, ConvertRecipe().tolerance)


def _ours(path: Path, shapes: Shapes, sample: Sample | None, limit_s: float) -> Outcome:
    done = isolate.call("benchmarks.corpus:convert_ours", str(path), shapes, sample, timeout_s=limit_s,
                        subject=path.stem)
    assert isinstance(done, tuple)
    seconds, report = done
    return _judged(report.outputs if report else (), seconds)


def _theirs(path: Path, shapes: Shapes, simplify: bool, sample: Sample | None, limit_s: float) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "model.tflite")
        cost = run_worker(peer_python("onnx2tf"), "onnx2tf", {
            "net": path.stem, "weights": "", "onnx": str(path), "out": out, "report": str(Path(folder) / "parts.json"),
            "shapes": {name: list(shape) for name, shape in shapes.items()}, "simplify": simplify,
        }, limit_s)
        errors = isolate.call("benchmarks.peer_file:verdict", out, *(sample or ({}, {})), ConvertRecipe().tolerance,
                              timeout_s=limit_s, subject="The file")
    assert isinstance(errors, tuple)
    return _judged(errors, cost.wall_s)


def _judged(errors: Sequence[OutputError], seconds: float) -> Outcome:
    bad = [error for error in errors if not error.passed]
    worst = max(map(of_allowed, errors), default=None)
    if bad:
        text = "; ".join(f"'{error.name}': {error.problem or f'off by {error.max_abs_diff:.3g}'}" for error in bad)
        return Outcome("wrong", text, seconds, None if worst == float("inf") else worst)
    return Outcome("right", "", seconds, worst)


def _attempt(run: Callable[[], Outcome]) -> Outcome:
    try:
        return run()
    except EdgeKitError as error:
        refused = isinstance(error, UserError)
        kind = f"{type(error).__name__}: " if refused else ""
        reason = error.message.strip() if refused else error.message.strip().splitlines()[-1]
        return Outcome("refused" if refused else "failed", kind + reason)


def misses(results: Sequence[Result], least: int = _MIN_PASSED) -> list[str]:
    """One line for each bar that is missed."""
    sound = [result for result in results if result.sound]
    passed = sum(result.ours.status in _GOOD for result in sound)
    found = []
    if passed < min(least, len(sound)):
        found.append(f"{passed} of {len(sound)} models convert and match; the bar is {least}")
    for result in results:
        if result.ours.status in ("wrong", "failed"):
            found.append(f"{result.name}: {result.ours.status}: {result.ours.reason}")
        if not result.sound and not result.ours.reason.startswith(f"{BadModel.__name__}:"):
            found.append(f"{result.name} is malformed and gave: {result.ours.status} {result.ours.reason}")
    return found


def tables(results: Sequence[Result]) -> str:
    """The table, the counts and the reasons, as Markdown."""
    header = ["model", "ours", "error / allowed", "s", "onnx2tf", "error / allowed", "s"]
    rows = [[result.name, *_cells(result.ours), *_cells(result.peer)] for result in results]
    sound = [result for result in results if result.sound]
    counts = {name: sum(getattr(result, name).status in _GOOD for result in sound) for name in ("ours", "peer")}
    lines = [table(header, rows), "", f"Of {len(sound)} sound models convert and answer as ONNX Runtime does: ours "
             f"{counts['ours']}, onnx2tf {counts['peer']}; litert-torch 0, for it cannot read ONNX files."]
    for who in ("ours", "peer"):
        for result in results:
            outcome: Outcome = getattr(result, who)
            if outcome.reason:
                lines.append(f"- {'ours' if who == 'ours' else 'onnx2tf'}, {result.name}: {outcome.reason}")
    return "\n".join(lines)


def _cells(outcome: Outcome) -> list[str]:
    error = "" if outcome.error is None else f"{outcome.error:.1e}"
    return [outcome.status, error, f"{outcome.seconds:.1f}" if outcome.seconds else ""]


def main(arguments: Sequence[str]) -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--only", action="append", help="only this model; may be repeated")
    parser.add_argument("--limit", type=float, default=_LIMIT_S, help="seconds allowed for one conversion or run")
    given = parser.parse_args(arguments)
    folder = Path(os.environ.get("EDGEKIT_SHARED", ROOT.parent / "shared")) / "onnx_corpus"
    try:
        entries = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=list[Entry])
    except OSError as error:
        raise BadModel(f"The corpus is not at {folder}.", "Set EDGEKIT_SHARED to the folder that holds it.") from error
    results = []
    for entry in entries:
        if not given.only or entry.name in given.only:
            print(entry.name, file=sys.stderr, flush=True)
            results.append(measure(entry, folder, given.limit))
    if given.json:
        write_atomically(given.json, msgspec.json.format(msgspec.json.encode(results)))
    print(tables(results))
    missed = misses(results)
    print("\nMissed:\n" + "\n".join(f"- {line}" for line in missed) if missed else "\nEvery bar is met.")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EdgeKitError as error:
        sys.exit(str(error))
