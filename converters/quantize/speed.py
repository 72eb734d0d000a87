"""How much CPU time files take against one another: run in turn in one child process, one thread, ratios of neighbours.

A shared machine drifts by tens of percent within a minute, so a time by itself says little; what is compared is what
ran side by side. Loading a file anew can move it by some percent as well (where its memory comes to lie), so every file
is loaded afresh several times.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit import isolate
from edgekit.artifacts import Array, Engine
from edgekit.errors import EdgeKitError, InternalError
from edgekit.report.placement import Placement

__all__ = ["Speed", "compare_speed", "probe", "try_files"]

_ROUNDS = 4
_MIN_BLOCKS = 3


class Speed(msgspec.Struct, frozen=True):
    """CPU time of one run: the median in milliseconds, and over that of the reference with its 95 % interval.

    ``ratio`` is the median over runs next to the reference's; ``low`` and ``high`` come from resampling them.
    """

    cpu_ms: float
    ratio: float
    low: float
    high: float


def compare_speed(
    files: Sequence[bytes], feeds: Mapping[str, Array], seconds: float, engine: Engine = "litert"
) -> tuple[Speed, ...]:
    """The speed of each of ``files`` against the first, on ``feeds`` (stored layout), within about ``seconds``.

    Raises EngineError or BadModel for a file that the engine refuses or dies of.
    """
    timed = isolate.call("edgekit.converters.quantize.speed:_timed", list(files), dict(feeds), seconds,
                         engine, timeout_s=60 + 20 * seconds, subject="Timing the model")
    if not isinstance(timed, list):
        raise InternalError("The child process sent no times.")
    return tuple(_speed(each, timed[0]) for each in timed)


def _speed(subject: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> Speed:
    """From arrays (rounds, blocks) of seconds that were taken in turn."""
    ratios = subject / reference
    rounds, blocks = ratios.shape
    rng = np.random.default_rng(0)
    picked = ratios[rng.integers(rounds, size=(1000, rounds, 1)), rng.integers(blocks, size=(1000, rounds, blocks))]
    low, high = np.quantile(np.median(picked.reshape(1000, -1), axis=1), (0.025, 0.975))
    return Speed(float(np.median(subject)) * 1e3, float(np.median(ratios)), float(low), float(high))


def _timed(
    files: list[bytes], feeds: dict[str, Array], seconds: float, engine: Engine
) -> list[npt.NDArray[np.float64]]:
    """In the child: CPU seconds of a run of each file, as arrays (rounds, blocks)."""
    from edgekit.runtime.engines import open_session

    taken: list[list[list[float]]] = [[] for _ in files]
    blocks = 0
    for number in range(_ROUNDS):
        sessions = [open_session(engine, data) for data in files]
        for session in sessions:
            session.run(feeds)
        for each in taken:
            each.append([])
        deadline = time.perf_counter() + seconds / _ROUNDS
        gc.disable()  # a collection in the middle of a run would be counted as the model's
        while len(taken[0][-1]) < blocks if number else (
                len(taken[0][-1]) < _MIN_BLOCKS or time.perf_counter() < deadline):
            order = list(range(len(files)))
            shift = len(taken[0][-1]) % len(files)
            for index in order[shift:] + order[:shift]:
                taken[index][-1].append(_block(sessions[index].run, feeds))
        gc.enable()
        blocks = len(taken[0][-1])
        for session in sessions:
            session.close()
    return [np.array(each) for each in taken]


def _block(run: object, feeds: dict[str, Array]) -> float:
    """The fastest of three runs, after one that brings the caches back to this file."""
    assert callable(run)
    run(feeds)
    seconds = []
    for _ in range(3):
        start = time.thread_time()
        run(feeds)
        seconds.append(time.thread_time() - start)
    return min(seconds)


def probe(files: Sequence[bytes], feeds: Mapping[str, Array]) -> list[Placement | EdgeKitError]:
    """What XNNPACK takes of each file, all of which have also been run once on ``feeds`` in a child process.

    In the place of a file that the engine refuses or dies of stands the error.
    """
    return try_files(f"{__name__}:_probe", files, feeds)


def try_files(target: str, files: Sequence[bytes], feeds: Mapping[str, Array]) -> list[Any]:
    """What ``target`` (as for ``isolate.call``) finds of each file in a child process, or the error in its place."""
    try:
        found = isolate.call(target, list(files), dict(feeds), subject="Trying the model")
    except EdgeKitError as error:
        if len(files) == 1:
            return [error]
        return [found for data in files for found in try_files(target, [data], feeds)]
    if not isinstance(found, list):
        raise InternalError("The child process sent no placements.")
    return found


def _probe(files: list[bytes], feeds: dict[str, Array]) -> list[Placement]:
    from edgekit.report.placement import _place
    from edgekit.runtime.engines import open_session

    placements = []
    for data in files:
        with open_session("litert", data) as session:
            session.run(feeds)
        placements.append(_place(data))
    return placements
