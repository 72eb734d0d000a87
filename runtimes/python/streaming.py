"""Frames from a source that does not wait, such as a camera: a thread takes them in, the caller gets the answers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

from edgekit.artifacts import Prediction
from edgekit.errors import BadRecipe, UnknownName

__all__ = ["DropPolicy", "Streamed", "stream_answers"]

DropPolicy = Literal["newest", "oldest", "block"]
_Frame = TypeVar("_Frame")


class Streamed(NamedTuple):
    """The answer for frame number ``frame`` (from 0), and how many frames were dropped until it was taken up."""

    frame: int
    prediction: Prediction
    dropped: int


class _End(NamedTuple):
    error: BaseException | None


def stream_answers(
    run: Callable[[_Frame], Prediction], frames: Iterable[_Frame], drop: DropPolicy, size: int
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


def _answers(run: Callable[[_Frame], Prediction], source: _Source[_Frame]) -> Iterator[Streamed]:
    source.start()
    try:
        while not isinstance(item := source.take(), _End):
            yield Streamed(item[0], run(item[1]), item[2])
        if item.error is not None:
            raise item.error
    finally:
        source.stop()


class _Source(Generic[_Frame]):
    """The thread that reads the frames, and the queue between it and the caller."""

    def __init__(self, frames: Iterable[_Frame], drop: DropPolicy, size: int) -> None:
        self._frames = frames
        self._drop = drop
        self._size = size
        self._waiting: deque[tuple[int, _Frame]] = deque()
        self._changed = threading.Condition()
        self._dropped = 0
        self._end: _End | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._read, name="edgekit-frames", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self) -> tuple[int, _Frame, int] | _End:
        """The frame that waits longest, its number, and how many were dropped by now; at last the end."""
        with self._changed:
            while not self._waiting and self._end is None:
                self._changed.wait()
            if not self._waiting and self._end is not None:
                return self._end
            item = self._waiting.popleft()
            self._changed.notify_all()
            return *item, self._dropped

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for number, frame in enumerate(self._frames):
                if not self._put((number, frame)):
                    break
        except BaseException as raised:  # noqa: BLE001 - whatever the source raises belongs to the caller's thread
            error = raised
        with self._changed:
            self._end = _End(error)
            self._changed.notify_all()

    def _put(self, item: tuple[int, _Frame]) -> bool:
        """Whether to go on reading."""
        with self._changed:
            while self._drop == "block" and len(self._waiting) >= self._size and not self._stopped:
                self._changed.wait()
            full = len(self._waiting) >= self._size
            self._dropped += full
            if full and self._drop == "oldest":
                self._waiting.popleft()
            if not full or self._drop == "oldest":
                self._waiting.append(item)
            self._changed.notify_all()
            return not self._stopped
