"""The ``onnx`` package's own backend tests on our converter and LiteRT.

    python -m benchmarks.onnx_backend --json backend.json           # all five kinds, some minutes
    python -m benchmarks.onnx_backend --kind node --filter pad      # the node tests with "pad" in their name

Each test runs in a process of its own. "refused" is an error of ours that says why; "wrong" are other values, shapes or
dtypes than expected; "crash" is the death of the process; "error" any other exception. A graph input stays an input:
one that carries a shape is honoured at run time, never read off the test's data. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.onnx_backend_case import KINDS, STATUSES, Outcome, judge, load_tests, op_of

if TYPE_CHECKING:
    from onnx.backend.test.case.test_case import TestCase

__all__ = ["Result", "main", "run_tests"]

#: fewest tests that must pass, by kind
_BARS = {"node": 1100, "pytorch-converted": 75, "real": 9}
_LOG_TAIL_BYTES = 600


@dataclass(frozen=True, slots=True)
class Result:
    """One test: ``op`` is what the table counts it under, ``seconds`` include the start of its process."""

    kind: str
    name: str
    op: str
    status: str
    reason: str
    seconds: float
    ops: dict[str, int] = field(default_factory=dict)


class Job(NamedTuple):
    """A test still to run."""

    kind: str
    op: str
    test: TestCase


def run_tests(jobs: Sequence[Job], workers: int, limit_s: float, xnnpack: bool = True) -> Iterator[Result]:
    """The results as they come, from at most ``workers`` processes at a time, each stopped after ``limit_s``."""
    waiting = list(reversed(jobs))
    running: dict[Connection, _Running] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            started = _Running(waiting.pop(), limit_s, xnnpack)
            running[started.channel] = started
        for channel in wait(list(running), timeout=0.5):
            assert isinstance(channel, Connection)
            if running[channel].heard():
                yield running.pop(channel).result()
        for channel in [channel for channel, one in running.items() if one.overdue()]:
            yield running.pop(channel).result()


class _Running:
    """A test in its process: a fork, so that the packages need not be imported again."""

    def __init__(self, job: Job, limit_s: float, xnnpack: bool) -> None:
        self.job = job
        self.start = time.monotonic()
        self.limit_s = limit_s
        self.stage = "starting"
        self.outcome: Outcome | None = None
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in ``result``
        context = multiprocessing.get_context("fork")
        self.channel, theirs = context.Pipe(duplex=False)
        arguments = (job.test, theirs, self.log.fileno(), xnnpack)
        self.process: BaseProcess = context.Process(target=_child, args=arguments)
        self.process.start()
        theirs.close()

    def heard(self) -> bool:
        """Take one message; whether it was the last."""
        try:
            message = self.channel.recv()
        except EOFError:
            return True
        if isinstance(message, Outcome):
            self.outcome = message
            return True
        self.stage = message
        return False

    def overdue(self) -> bool:
        """Whether the time is over; the process is then stopped."""
        if time.monotonic() - self.start < self.limit_s:
            return False
        self.outcome = Outcome("error", f"not done within {self.limit_s:g} s, while {self.stage}")
        self.process.kill()
        return True

    def result(self) -> Result:
        """What came of it."""
        self.process.join()
        self.channel.close()
        outcome = self.outcome or Outcome("crash", self._death())
        self.log.close()
        took = time.monotonic() - self.start
        return Result(self.job.kind, self.job.test.name, self.job.op, outcome.status, outcome.reason, round(took, 3),
                      dict(outcome.ops))

    def _death(self) -> str:
        code = self.process.exitcode or 0
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            size = self.log.seek(0, os.SEEK_END)
            self.log.seek(max(0, size - _LOG_TAIL_BYTES))
            tail = " ".join(self.log.read().decode(errors="replace").split())
            return f"{name} while {self.stage}: {tail}"
        return f"exit code {code} while {self.stage}"


def _child(test: TestCase, channel: Connection, log: int, xnnpack: bool) -> None:
    for stream in (1, 2):
        os.dup2(log, stream)
    try:
        channel.send(judge(test, channel.send, xnnpack))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the test's result
        channel.send(Outcome("error", f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"))
    channel.close()
    os._exit(0)  # no exit handlers: some engines crash while they are torn down


# -- report ----------------------------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """Counts by op, then by kind."""
    lines = [f"{'op':<44}{''.join(f'{status:>9}' for status in STATUSES)}"]
    for key in ("op", "kind"):
        groups: dict[str, Counter[str]] = {}
        for result in results:
            groups.setdefault(getattr(result, key), Counter())[result.status] += 1
        if key == "kind":
            groups["all"] = sum(groups.values(), Counter())
            lines.append("-" * len(lines[0]))
        for name in groups if key == "kind" else sorted(groups):
            cells = "".join(f"{groups[name][status] or '.':>9}" for status in STATUSES)
            lines.append(f"{name[:43]:<44}{cells}")
    return "\n".join(lines)


def misses(results: Sequence[Result], whole: Sequence[str]) -> list[str]:
    """The bars that are missed; those on counts hold for the kinds in ``whole``, which ran completely."""
    found = [f"{result.status}: {result.name} ({result.reason[:160]})"
             for result in results if result.status in ("wrong", "crash", "error")]
    for kind, bar in _BARS.items():
        passed = sum(result.kind == kind and result.status == "passed" for result in results)
        if kind in whole and passed < bar:
            found.append(f"{kind}: {passed} passed, fewer than {bar}")
    return found


def _jobs(kinds: Sequence[str], pattern: str) -> list[Job]:
    jobs = []
    for kind in kinds:
        by_name: dict[str, str] = {}
        for test in load_tests(kind):
            op = op_of(test, by_name)
            if pattern.lower() in test.name.lower():
                jobs.append(Job(kind, op, test))
    return jobs


def _import_once() -> None:
    """What every child needs, so that it comes with the fork; no interpreter is made here, so no thread is started."""
    for name in ("ai_edge_litert.interpreter", "ai_edge_litert.schema_py_generated", "flatbuffers", "onnx_ir",
                 "onnx_ir.passes.common", "onnx.reference", "onnx.reference.ops"):
        importlib.import_module(name)
    gc.freeze()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx_backend", description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", action="append", choices=KINDS, help="run only this kind (may be repeated)")
    parser.add_argument("--filter", default="", help="run only tests whose name contains this")
    parser.add_argument("--json", type=Path, help="write every result to this file")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one test")
    parser.add_argument("--no-xnnpack", action="store_true", help="run on LiteRT's own kernels alone")
    options = parser.parse_args(arguments)
    kinds = options.kind or list(KINDS)
    _import_once()
    results = []
    for result in run_tests(_jobs(kinds, options.filter), options.workers, options.limit, not options.no_xnnpack):
        results.append(result)
        if options.filter or result.status in ("wrong", "crash", "error"):
            print(f"{result.status:8} {result.name} [{result.op}] {result.reason[:300]}", flush=True)
    results.sort(key=lambda result: (KINDS.index(result.kind), result.name))
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    print(table(results))
    missed = misses(results, [] if options.filter else kinds)
    print("\n".join(["", f"{len(missed)} bars missed:", *missed] if missed else ["", "No bar is missed."]))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
