"""Streams of frames, with a network that is made up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgekit.artifacts import Array, Prediction
from edgekit.errors import BadRecipe, UnknownName
from edgekit.runtime.streaming import stream_answers

WAIT_S = 10.0


def answer(frame: Array) -> Prediction:
    return Prediction({"y": frame}, None, None, (), 0, None, 0.0, "last")


def frames(count: int) -> Iterator[Array]:
    yield from (np.array([number]) for number in range(count))


def test_blocking_answers_every_frame_in_order() -> None:
    found = list(stream_answers(answer, frames(50), "block", 2))
    assert [(each.frame, int(each.prediction.outputs["y"][0]), each.dropped) for each in found] == [
        (number, number, 0) for number in range(50)]


@pytest.mark.parametrize(("drop", "kept"), [("newest", [0, 1, 2]), ("oldest", [0, 8, 9])])
def test_what_does_not_wait_is_dropped(drop: Any, kept: list[int]) -> None:
    """The source gives all its frames while the first one is being answered."""
    running, given = threading.Event(), threading.Event()

    def source() -> Iterator[Array]:
        yield np.array([0])
        assert running.wait(WAIT_S)
        yield from (np.array([number]) for number in range(1, 10))
        given.set()

    def slow(frame: Array) -> Prediction:
        running.set()
        assert given.wait(WAIT_S)
        return answer(frame)

    found = list(stream_answers(slow, source(), drop, 2))
    assert [each.frame for each in found] == kept
    assert [int(each.prediction.outputs["y"][0]) for each in found] == kept
    assert found[-1].dropped == 7


def test_blocking_holds_the_source_back() -> None:
    given: list[int] = []

    def source() -> Iterator[Array]:
        for number in range(100):
            given.append(number)
            yield np.array([number])

    stream = stream_answers(answer, source(), "block", 3)
    next(stream)
    assert len(given) <= 6
    stream.close()  # type: ignore[attr-defined]


def test_what_the_source_raises_comes_after_the_frames_before() -> None:
    def source() -> Iterator[Array]:
        yield from frames(3)
        raise OSError("the camera is gone")

    stream = stream_answers(answer, source(), "block", 8)
    assert [next(stream).frame for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the camera is gone"):
        next(stream)


def test_what_the_network_raises_ends_the_stream_and_the_thread() -> None:
    def broken(_frame: Array) -> Prediction:
        raise ValueError("broken")

    before = threading.active_count()
    with pytest.raises(ValueError, match="broken"):
        list(stream_answers(broken, frames(1000), "block", 2))
    for thread in threading.enumerate():
        if thread.name == "edgekit-frames":
            thread.join(WAIT_S)
    assert threading.active_count() <= before


def test_closing_a_stream_ends_its_thread() -> None:
    stream = stream_answers(answer, frames(10**9), "block", 2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name == "edgekit-frames":
            thread.join(WAIT_S)
            assert not thread.is_alive()


def test_an_empty_source() -> None:
    assert list(stream_answers(answer, [], "newest", 1)) == []


def test_wrong_wishes() -> None:
    wrong: Any = "some"
    with pytest.raises(UnknownName, match="newest, oldest, block"):
        stream_answers(answer, [], wrong, 2)
    with pytest.raises(BadRecipe, match="queue"):
        stream_answers(answer, [], "block", 0)
