"""T1: what the arms of benchmarks.continual cost on all of Split-MNIST-5k, without training, and its verdicts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.continual import Row
from benchmarks.continual_deployed import times
from benchmarks.continual_report import table
from benchmarks.continual_setups import ARMS, SETUPS, TIMED
from edgekit.train.continual.learner import Learner
from edgekit.train.continual.nets import SmallCnn
from edgekit.train.continual.planned import planned_flops
from edgekit.train.continual.streams import Stream


def _full(arm: str) -> float:
    return planned_flops(SmallCnn(), (1, 28, 28), SETUPS["mnist"].recipe_of(ARMS[arm], 0.1, 0, 800), [800] * 5).full


@pytest.mark.parametrize(("arm", "least"), [("sparse .75", 4), ("sparse .9", 7), ("sparse .95", 10)])
def test_training_takes_fewer_flops(arm: str, least: float) -> None:
    assert _full("dense") / _full(arm) >= least


def test_the_steps_of_an_eighth() -> None:
    assert _full("dense") / _full("dense, 1/8 of the steps") == pytest.approx(8, rel=0.01)


def _row(arm: str, seed: int, accuracy: float) -> Row:
    return Row(arm, 0.1, seed, False, accuracy, 0.9, 0.1, 1e9, 2e9, 0.1, 1.0)


@pytest.mark.parametrize(("static", "verdict"), [((0.5, 0.6, 0.7, 0.8, 0.99), "pass"), ((0.5, 0.6, 0.7, 0.95, 0.95),
                                                                                        "FAIL")])
def test_the_verdict_wants_four_of_five(static: tuple[float, ...], verdict: str) -> None:
    rows = [_row("dense", seed, 0.9) for seed in range(5)]
    rows += [_row("sparse .9, masks only", seed, 0.9) for seed in range(5)]
    rows += [_row("sparse .9, static mask", seed, value) for seed, value in enumerate(static)]
    lines = [line for line in table(rows).splitlines() if line.startswith("T3")]
    assert len(lines) == 1
    assert lines[0].endswith(verdict)


def _held_out(arm: str, seed: int, accuracy: float) -> Row:
    return msgspec.structs.replace(_row(arm, seed, accuracy), held_out=True)


@pytest.mark.parametrize(("lost", "chosen"), [((0.0, 0.008), "channels .5"), ((0.008, 0.02), "channels .25"),
                                              ((0.02, 0.03), "none of them")])
def test_the_largest_sparsity_that_loses_a_point_on_held_out_pictures(lost: tuple[float, float], chosen: str) -> None:
    rows = []
    for arm, loss in (("dense", 0.0), ("channels .25", lost[0]), ("channels .5", lost[1])):
        for seed in range(3):
            rows += [_row(arm, seed, 0.8 - loss), _held_out(arm, seed, 0.9 - loss)]
    (line,) = [line for line in table(rows).splitlines() if line.startswith("Channels")]
    assert line.removeprefix("Channels: ").startswith(chosen)


@pytest.mark.slow
def test_times_are_of_short_schedules(tmp_path: Path) -> None:
    setup = SETUPS["mnist"]
    data = setup.stream(5, False)
    seen = []

    def make(name: str, short: Stream) -> Learner:
        seen.append(len(short.tasks))
        return setup.learner(TIMED[name]._replace(eighth=True), short, 0.1, 0)

    lines = times(tmp_path, make, data, ["dense", "channels .5"]).splitlines()
    assert set(seen) == {2}
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["dense", "channels .5"] * 2
    assert [line.split("|")[4].strip() for line in lines[2::2]] == ["1.00"] * 2
    assert (tmp_path / "channels .5.tflite").stat().st_size < 0.5 * (tmp_path / "dense.tflite").stat().st_size
