"""The statistics of the side-by-side timings, on series whose true ratio is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.timing import Seconds, interleave, measure_ratios, ratio


def series(rng: np.random.Generator, true_ratio: float, rounds: int = 12, blocks: int = 4) -> tuple[Seconds, Seconds]:
    """Two subjects under a load that drifts by tens of per cent, with noise of rounds and of blocks."""
    load = np.exp(np.cumsum(rng.normal(0, 0.1, (rounds * blocks))).reshape(rounds, blocks))
    noise = [np.exp(rng.normal(0, 0.01, (rounds, 1)) + rng.normal(0, 0.02, (rounds, blocks))) for _ in range(2)]
    return true_ratio * load * noise[0], load * noise[1]


def test_a_common_drift_cancels() -> None:
    load = np.linspace(1.0, 3.0, 40).reshape(10, 4)
    result = ratio(1.5 * load, load)
    assert result.value == pytest.approx(1.5)
    assert result.lower == pytest.approx(1.5)
    assert result.upper == pytest.approx(1.5)
    assert result.blocks == 40


@pytest.mark.parametrize("true_ratio", [0.8, 1.0, 1.25])
def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says(true_ratio: float) -> None:
    rng = np.random.default_rng(7)
    results = [ratio(*series(rng, true_ratio), draws=400) for _ in range(200)]
    covered = sum(r.lower <= true_ratio <= r.upper for r in results)
    assert covered >= 170  # 190 is the nominal figure; with 12 rounds the bootstrap falls a little short of it
    assert np.median([r.half_width for r in results]) < 0.02


def test_rounds_count_as_the_unit_of_noise() -> None:
    """Blocks of one round share its luck: many blocks in few rounds must not narrow the interval to nothing."""
    rng = np.random.default_rng(3)
    luck = np.exp(rng.normal(0, 0.05, (6, 1))) * np.ones((6, 50))
    result = ratio(luck, np.ones((6, 50)))
    assert result.half_width > 0.02


def test_one_slow_block_does_not_move_the_ratio() -> None:
    ours = np.ones((8, 4))
    ours[3, 2] = 40.0
    result = ratio(ours, np.ones((8, 4)))
    assert (result.value, result.upper) == (1.0, 1.0)


class FakeMachine:
    """A clock that only the subjects move: each call of a subject costs its seconds, and every call is noted."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.opened: list[str] = []

    def opener(self, name: str, seconds: float, cold: float = 0.0) -> Callable[[], Callable[[], None]]:
        def open_it() -> Callable[[], None]:
            self.opened.append(name)

            def run() -> None:
                switched = not self.calls or self.calls[-1] != name
                self.calls.append(name)
                self.now += seconds + (cold if switched else 0.0)
            return run
        return open_it


def test_interleave_times_every_subject_in_every_block_and_not_its_first_call() -> None:
    machine = FakeMachine()
    openers = {"a": machine.opener("a", 1.0, cold=9.0), "b": machine.opener("b", 2.0, cold=9.0)}
    seconds = interleave(openers, rounds=3, blocks=2, repeats=5, clock=lambda: machine.now)
    assert {name: values.tolist() for name, values in seconds.items()} == {"a": [[1.0] * 2] * 3, "b": [[2.0] * 2] * 3}
    assert machine.opened.count("a") == machine.opened.count("b") == 3
    assert machine.calls.count("a") == machine.calls.count("b") == 3 * 2 * 6


def test_interleave_rotates_who_comes_first() -> None:
    machine = FakeMachine()
    openers = {name: machine.opener(name, 1.0) for name in "abc"}
    interleave(openers, rounds=1, blocks=3, repeats=1, clock=lambda: machine.now)
    turns = "".join(machine.calls[::2])  # each turn is a warm-up call and a timed one
    assert turns == "abc" + "bca" + "cab"


def spin(units: int) -> Callable[[], Callable[[], None]]:
    def open_it() -> Callable[[], None]:
        def run() -> None:
            for _ in range(units * 2000):
                pass
        return run
    return open_it


def test_measure_ratios_finds_real_ratios_of_real_work() -> None:
    _, ratios = measure_ratios({"twice": spin(2), "once": spin(1), "four": spin(4)}, "twice", ["once", "four"],
                               half_width=0.1, max_seconds=10.0)
    assert 1.5 < ratios["once"].lower <= ratios["once"].upper < 2.6
    assert 0.4 < ratios["four"].lower <= ratios["four"].upper < 0.65


def test_measuring_stops_at_the_time_limit_even_when_the_interval_stays_wide() -> None:
    rng = np.random.default_rng(0)

    def noisy() -> Callable[[], None]:
        def run() -> None:
            spin(int(rng.integers(1, 40)))()()
        return run

    seconds, ratios = measure_ratios({"a": noisy, "b": noisy}, "a", ["b"], half_width=1e-6, max_seconds=0.2)
    assert seconds["a"].shape == seconds["b"].shape
    assert ratios["b"].half_width > 1e-6
