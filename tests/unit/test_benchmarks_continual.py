"""T1: what the arms of benchmarks.continual cost on all of Split-MNIST-5k, without training, and its verdicts."""

from __future__ import annotations

import pytest

from benchmarks.continual import ARMS, Row, recipe_of
from benchmarks.continual_report import table
from edgekit.train.continual.nets import SmallCnn
from edgekit.train.continual.planned import planned_flops


def _full(arm: str) -> float:
    return planned_flops(SmallCnn(), (1, 28, 28), recipe_of(ARMS[arm], 0.1, 0, 800), [800] * 5).full


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
