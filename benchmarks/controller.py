"""The latency controller of a planned bundle: budgets as 95th percentiles, and a device that becomes twice as slow.

    python -m benchmarks.controller --bundle PLANNED.edge --pack FILE.npz [--prefix test_] [--frames 5000] [--live]

A trace is recorded first: every stage of every ladder on the pictures of the pack, with its logits and its CPU time on
one thread, jitter included. It is then replayed frame by frame through the runtime's own policy, controller and
decisions (``edgekit.runtime.policy``, ``follow``) on a clock that the trace moves; pictures come again when the stream
is longer than the pack.

budget    for budgets between the 95th percentiles of the cheapest and the dearest route alone, that of a stream.
slowdown  all stages take twice as long from the middle of the stream on. Budget and deadline are 1.25 times what the
          whole network takes at full speed, so that it keeps them before and cannot afterwards.
live      (``--live``) the runtime itself, wall time, while a busy process comes to the same core half-way.

The exit code is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.packs import read_pack
from benchmarks.report import table
from edgekit.artifacts import Array
from edgekit.bundle import Bundle
from edgekit.bundle.adaptive import Plan, Route
from edgekit.runtime import AdaptiveRuntime, RuntimeOptions, load
from edgekit.runtime.adaptive import largest
from edgekit.runtime.follow import Answer, Walk, follow_one
from edgekit.runtime.policy import Policy
from edgekit.runtime.preprocess import ImageInput
from edgekit.runtime.stages import Seen, StagedNetwork

__all__ = ["Frame", "Trace", "main", "record", "replay_stream"]

Floats = npt.NDArray[np.float64]

_WARM_UP, _NOTICED = 20, 10
_BUDGETS = 6
_ROOM = 1.25  # of the whole network's time: budget and deadline of the slowdown
_SLOWER = 2.0
#: what must hold: 95th percentile to budget; share of misses once a slowdown could be noticed
_MAX_P95, _MAX_MISSES = 1.05, 0.02


class Trace(NamedTuple):
    """``logits[l][s]``: (pictures, classes); ``ms[l][s]``: (pictures,), of the stage alone."""

    logits: list[list[npt.NDArray[np.float32]]]
    ms: list[list[Floats]]
    labels: Array
    whole: int

    def whole_ms(self) -> Floats:
        """What the whole network takes for each picture."""
        found: Floats = np.sum(self.ms[self.whole], axis=0)
        return found


class Frame(NamedTuple):
    """One answer: how long it took, whether it was right, on which route, at which step, and why there."""

    ms: float
    right: bool
    route: int
    step: int
    reason: str


def record(bundle: Path, pictures: Sequence[Array], labels: Array) -> tuple[Plan, Trace]:
    """The plan of ``bundle``, and what all stages answer to ``pictures`` and take."""
    with contextlib.closing(StagedNetwork(opened := Bundle.open(bundle), "litert", threads=1)) as network:
        plan, preprocess = opened.plan(), opened.manifest.preprocess
        assert plan is not None
        assert preprocess is not None
        ladders = network.ladders
        prepare = [ImageInput(each.stages[0].inputs[0], preprocess, each.resolution) for each in ladders]
        logits: list[list[list[Array]]] = [[[] for _ in each.stages] for each in ladders]
        ms: list[list[list[float]]] = [[[] for _ in each.stages] for each in ladders]
        for number, picture in enumerate([*pictures[:_WARM_UP], *pictures]):
            for index, ladder in enumerate(ladders):
                known = {ladder.stages[0].inputs[0].name: np.ascontiguousarray(prepare[index](picture))}
                for place, stage in enumerate(ladder.stages):
                    start = time.thread_time_ns()
                    known |= network.execute(index, place, known)
                    taken = (time.thread_time_ns() - start) / 1e6
                    if number >= _WARM_UP:
                        ms[index][place].append(taken)
                        logits[index][place].append(known[stage.logits][0])
    return plan, Trace([[np.stack(stage) for stage in row] for row in logits],
                       [[np.array(stage) for stage in row] for row in ms], labels, largest(ladders))


def replay_stream(plan: Plan, trace: Trace, frames: int, *, budget_ms: float | None, deadline_ms: float | None = None,
                  slower: Callable[[int], float] = lambda _frame: 1.0) -> list[Frame]:
    """``frames`` answers of the runtime's policy on the trace; stages take ``slower(frame)`` times what they took."""
    policy = Policy(plan, touch_up=False)
    policy.limit(budget_ms, 0)
    found = []
    for frame in range(frames):
        index = policy.choose()
        walk = _Replay(policy, index, trace, frame % len(trace.labels), slower(frame))
        answer = walk.answer(deadline_ms)
        policy.finish(index, [answer], [walk.clock_ms], deadline_ms)
        policy.judge(walk.clock_ms, None if deadline_ms is None else walk.clock_ms > deadline_ms and answer.step > 0)
        right = int(np.argmax(answer.logits)) == trace.labels[walk.row]
        found.append(Frame(walk.clock_ms, bool(right), index, answer.step, answer.reason))
    return found


class _Replay:
    """One picture on its way along a route, on a clock of its own."""

    def __init__(self, policy: Policy, index: int, trace: Trace, row: int, slower: float) -> None:
        self.clock_ms = 0.0
        self.row = row
        self._policy, self._index, self._trace, self._slower = policy, index, trace, slower
        self._route: Route = policy.plan.routes[index]
        self._done: dict[int, int] = {}
        self._seen: list[Seen] = []

    def answer(self, deadline_ms: float | None) -> Answer:
        found = follow_one(Walk(self._route, self._policy.thresholds(self._index), self._advance, self._next_ms,
                                lambda: self.clock_ms, deadline_ms))
        self._policy.observe(self._seen)
        return found

    def _advance(self, ladder: int, last: int) -> Array:
        for stage in range(self._done.get(ladder, -1) + 1, last + 1):
            taken = float(self._trace.ms[ladder][stage][self.row]) * self._slower
            self._seen.append((ladder, stage, taken))
            self.clock_ms += taken
        self._done[ladder] = last
        self.clock_ms += self._policy.plan.overhead_ms
        return self._trace.logits[ladder][last][self.row:self.row + 1]

    def _next_ms(self, step: int) -> float:
        self._policy.observe(self._seen)
        self._seen = []
        return self._policy.next_ms(self._index, step)


def budgets(plan: Plan, trace: Trace, frames: int) -> tuple[str, list[str]]:
    """The table, and a line for each bar that is missed."""
    low, high = (_alone_ms(plan, trace, index, frames) for index in (0, len(plan.routes) - 1))
    lines, missed = [], []
    for budget in np.geomspace(low, high, _BUDGETS):
        found = replay_stream(plan, trace, frames, budget_ms=float(budget))
        p95 = float(np.quantile([frame.ms for frame in found], 0.95))
        changes = sum(one.route != other.route for one, other in itertools.pairwise(found))
        lines.append([f"{budget:.3f}", f"{p95:.3f}", f"{p95 / budget:.3f}", _accuracy(found),
                      f"{np.mean([frame.ms for frame in found]):.3f}", str(changes)])
        if p95 > _MAX_P95 * budget:
            missed.append(f"budget {budget:.3f} ms: the 95th percentile is {p95:.3f} ms")
    return table(["budget, ms", "95th percentile", "to budget", "accuracy, %", "mean ms", "changes of route"],
                 lines), missed


def _alone_ms(plan: Plan, trace: Trace, index: int, frames: int) -> float:
    """The 95th percentile of a route that is taken whatever happens."""
    only = msgspec.structs.replace(plan, routes=(plan.routes[index],), default=0)
    return float(np.quantile([frame.ms for frame in replay_stream(only, trace, frames, budget_ms=None)], 0.95))


def slowdown(plan: Plan, trace: Trace, frames: int) -> tuple[str, list[str]]:
    """The same for the device that becomes slow."""
    whole = trace.whole_ms()
    limit = _ROOM * float(np.median(whole))
    half = frames // 2

    def slower(frame: int) -> float:
        return _SLOWER if frame >= half else 1.0

    found = replay_stream(plan, trace, frames, budget_ms=limit, deadline_ms=limit, slower=slower)
    fixed = [float(whole[frame % len(whole)]) * slower(frame) for frame in range(frames)]
    lines, missed = [], []
    spans = {"before": slice(0, half), f"first {_NOTICED} frames": slice(half, half + _NOTICED),
             "after": slice(half + _NOTICED, frames)}
    for name, span in spans.items():
        part = found[span]
        misses = float(np.mean([frame.ms > limit for frame in part]))
        fixed_misses = float(np.mean([each > limit for each in fixed[span]]))
        stopped = float(np.mean([frame.reason == "deadline" for frame in part]))
        at_once = float(np.mean([frame.ms > limit and frame.step == 0 for frame in part]))
        lines.append([name, f"{100 * misses:.2f}", f"{100 * at_once:.2f}", f"{100 * fixed_misses:.2f}", _accuracy(part),
                      f"{np.mean([frame.ms for frame in part]):.3f}", f"{100 * stopped:.1f}",
                      f"{np.mean([frame.route for frame in part]):.1f}"])
        if name == "after" and misses > _MAX_MISSES:
            missed.append(f"{100 * misses:.1f} % of the frames after the slowdown miss the deadline of {limit:.3f} ms")
    return f"Budget and deadline: {limit:.3f} ms.\n\n" + table(
        ["frames", "misses, %", "in the first step", "misses of the whole network, %", "accuracy, %", "mean ms",
         "stopped by deadline, %",
         "mean route"], lines), missed


def live(bundle: Path, pictures: Sequence[Array], labels: Array, frames: int) -> str:
    """Wall time of the runtime and of the whole network, alone on a core and beside a busy process."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    with load(bundle, options=RuntimeOptions(array_layout="stored")) as loaded:
        runtime = cast(AdaptiveRuntime, loaded)
        whole, biggest = runtime.whole(), largest(runtime.ladders)
        inputs = [{each.id: runtime.prepared(index, picture) for index, each in enumerate(runtime.ladders)}
                  for picture in pictures]
        name = runtime.ladders[biggest].id
        alone = [whole.run(each[name]).latency_ms for each in inputs[:200]]
        limit = _ROOM * float(np.median(alone))
        runtime.limits(budget_ms=limit)
        lines = []
        busy: subprocess.Popen[bytes] | None = None
        try:
            for name_of_part in ("alone", "beside a busy process"):
                if name_of_part != "alone":
                    busy = subprocess.Popen([sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{core}}})\n"
                                             "while True: pass"])
                    time.sleep(0.5)
                lines.append([name_of_part, *_live_part(runtime, lambda x: whole.run(x[name]).latency_ms, inputs,
                                                        labels, (frames // 2, limit))])
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
    return f"Budget and deadline: {limit:.3f} ms.\n\n" + table(
        ["frames", "misses, %", "misses of the whole network, %", "accuracy, %", "median ms", "95th percentile"], lines)


def _live_part(runtime: AdaptiveRuntime, whole: Callable[[dict[str, Array]], float], inputs: Sequence[dict[str, Array]],
               labels: Array, how: tuple[int, float]) -> list[str]:
    frames, limit = how
    ms, fixed, right = [], [], []
    for frame in range(frames):
        row = frame % len(inputs)
        found = runtime.run(inputs[row], deadline_ms=limit)
        fixed.append(whole(inputs[row]))
        if frame >= _NOTICED:
            ms.append(found.latency_ms)
            right.append(int(found.outputs["logits"].argmax()) == labels[row])
    return [f"{100 * np.mean(np.array(ms) > limit):.2f}", f"{100 * np.mean(np.array(fixed[_NOTICED:]) > limit):.2f}",
            f"{100 * np.mean(right):.1f}", f"{np.median(ms):.3f}", f"{np.quantile(ms, 0.95):.3f}"]


def _accuracy(frames: Sequence[Frame]) -> str:
    return f"{100 * np.mean([frame.right for frame in frames]):.1f}"


def main(arguments: Sequence[str]) -> int:
    """Print the tables; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.controller",
                                     description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--prefix", default="test_")
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--count", type=int, help="pictures of the pack to use; all unless told otherwise")
    parser.add_argument("--live", action="store_true")
    given = parser.parse_args(arguments)
    pictures, labels = read_pack(given.pack, given.prefix, given.count)
    plan, trace = record(given.bundle, pictures, labels)
    whole = trace.whole_ms()
    print(f"{len(labels)} pictures recorded; all stages of the largest ladder take {np.median(whole):.3f} ms, 10 to "
          f"90 % {np.quantile(whole, 0.1):.3f} to {np.quantile(whole, 0.9):.3f}; {len(plan.routes)} routes.\n")
    missed = []
    for title, part in (("Budgets", budgets), ("Twice as slow half-way", slowdown)):
        text, lines = part(plan, trace, given.frames)
        print(f"{title}\n\n{text}\n")
        missed += lines
    if given.live:
        print(f"Live, wall time\n\n{live(given.bundle, pictures, labels, given.frames)}\n")
    print("Missed:\n" + "\n".join(f"- {line}" for line in missed) if missed else "Every bar is met.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
