"""Frames from a source that does not wait, such as a camera: a thread takes them in, the caller gets the answers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple, get_args

from edgekit.artifacts import Array, Prediction
from edgekit.errors import BadRecipe, UnknownName

__all__ = ["DropPolicy", "Streamed", "stream_answers"]

DropPolicy = Literal["newest", "oldest", "block"]
_POLL_S = 0.1


class Streamed(NamedTuple):
    """The answer for frame number ``frame`` (from 0), and how many frames were dropped until it was taken up."""

    frame: int
    prediction: Prediction
    dropped: int


class _End(NamedTuple):
    error: BaseException | None


def stream_answers(
    run: Callable[[Array], Prediction], frames: Iterable[Array], drop: DropPolicy, size: int
) -> Iterator[Streamed]:
    """The answers of ``run``, in the order of the frames; at most ``size`` frames wait.

    When ``size`` wait already, "newest" drops the frame that comes, "oldest" the one that waits longest, and "block"
    lets the source wait. ``frames`` is read by a thread of its own; what it raises is raised here, after the answers
    for the frames before. Closing the iterator ends the thread once the source has given its next frame.

    Raises BadRecipe, UnknownName, and what ``run`` raises.
    """
    if drop not in get_args(DropPolicy):
        raise UnknownName.of("drop policy", drop, get_args(DropPolicy))
    if size < 1:
        raise BadRecipe(f"The length of the queue is {size}.", "At least one frame must be able to wait.")
    return _answers(run, _Source(frames, drop, size))


def _answers(run: Callable[[Array], Prediction], source: _Source) -> Iterator[Streamed]:
    source.start()
    try:
        while not isinstance(item := source.take(), _End):
            yield Streamed(item[0], run(item[1]), source.dropped)
        if item.error is not None:
            raise item.error
    finally:
        source.stop()


class _Source:
    """The thread that reads the frames, and the queue between it and the caller."""

    def __init__(self, frames: Iterable[Array], drop: DropPolicy, size: int) -> None:
        self.dropped = 0
        self._frames = frames
        self._drop = drop
        self._queue: queue.Queue[tuple[int, Array]] = queue.Queue(size)
        self._end: _End | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="edgekit-frames", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self) -> tuple[int, Array] | _End:
        while True:
            # Looked at before the queue: what was put before the end is still taken out.
            end = self._end
            try:
                return self._queue.get(timeout=None if end is None and self._drop is None else 0.0 if end else _POLL_S)
            except queue.Empty:
                if end is not None:
                    return end

    def stop(self) -> None:
        self._stopped.set()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for number, frame in enumerate(self._frames):
                if self._stopped.is_set():
                    break
                self._put((number, frame))
        except BaseException as raised:  # noqa: BLE001 - whatever the source raises belongs to the caller's thread
            error = raised
        self._end = _End(error)

    def _put(self, item: tuple[int, Array]) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_POLL_S if self._drop == "block" else 0.0)
            except queue.Full:
                if self._drop == "newest":
                    self.dropped += 1
                    return
                if self._drop == "oldest":
                    self._drop_oldest()
            else:
                return

    def _drop_oldest(self) -> None:
        try:
            self._queue.get_nowait()
        except queue.Empty:  # the caller has just taken it
            return
        self.dropped += 1
