"""The judgement of the Lite0 comparison, on made-up figures."""

from __future__ import annotations

from benchmarks.lite0_parity import LogitRow, Result, TopRow, misses, table


def result(max_abs_diff: float = 5e-5, equal: int = 499) -> Result:
    return Result(
        logits=(LogitRow("litert", "dynamic", 128, 24, max_abs_diff, 40.0),),
        top1=(TopRow("ort", "fixed", 224, 500, equal, 1e-5, 430),),
        convert_seconds={"litert": 0.2, "ort": 0.8},
    )


def test_figures_within_the_bars_are_no_misses() -> None:
    assert misses(result()) == []


def test_each_bar_that_is_missed_is_named() -> None:
    assert misses(result(max_abs_diff=1.1e-4)) == ["litert, dynamic, 128: a logit is off by 1.10e-04"]
    assert misses(result(max_abs_diff=float("nan"))) == ["litert, dynamic, 128: a logit is off by nan"]
    assert misses(result(equal=498)) == ["ort, fixed, 224: top-1 differs on 2 of 500"]


def test_the_table_says_when_top1_was_left_out() -> None:
    assert "| ort | fixed | 224 | 499 of 500 | 1.0e-05 | 430 |" in table(result())
    assert "left out" in table(Result(result().logits, (), {"litert": 0.2}))
