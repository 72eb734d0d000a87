from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgekit.measure import BenchOptions, bench
from edgekit.remote import timing
from edgekit.remote.timing import Watch, time_rounds
from edgekit.stability import refusal, spread_of, sustained_of


def course(slower: float = 1.0, noise: float = 0.01, runs: int = 6000) -> tuple[list[float], list[float]]:
    """Runs of 10 ms that get ``slower`` over a minute."""
    random = np.random.default_rng(3)
    wall = 10 * np.linspace(1, slower, runs) * np.exp(random.normal(0, noise, runs))
    return list(np.cumsum(wall) / 1e3 - wall / 1e3), list(wall)


def test_a_steady_run_is_trusted() -> None:
    at_s, wall = course()
    found = sustained_of(at_s, wall, [])
    assert found.seconds == pytest.approx(60, rel=0.01)
    assert len(found.windows) == 10
    assert sum(window.runs for window in found.windows) == 6000
    assert found.drift_low < 1 < found.drift_high
    assert found.throttled is None
    assert refusal(wall, wall, 0.25, found) == ""


def test_a_machine_that_slows_down_is_refused_with_both_figures() -> None:
    at_s, wall = course(slower=1.5)
    clock = [(at, 40 + at / 2, 2000 - at * 12) for at in range(74)]
    found = sustained_of(at_s, wall, clock)
    assert found.drift == pytest.approx(1.45, rel=0.03)
    assert found.drift_low < found.drift < found.drift_high
    assert found.throttled is True
    assert found.hottest_c == pytest.approx(76.5)
    assert found.first_mhz is not None
    assert found.last_mhz is not None
    assert found.last_mhz < found.first_mhz
    text = refusal(wall, wall, 0.5, found)
    assert re.search(r"it drifts: 10\.\d ms at first, 14\.\d ms at last, because the clock fell", text), text


def test_slower_with_a_steady_clock_is_not_called_throttling() -> None:
    at_s, wall = course(slower=1.5)
    found = sustained_of(at_s, wall, [(float(at), None, 2000.0) for at in range(75)])
    assert found.throttled is False
    assert found.hottest_c is None


def test_a_long_run_is_seen_by_the_minute() -> None:
    at_s = [float(each) for each in range(1200)]
    assert len(sustained_of(at_s, [900.0] * 1200, []).windows) == 20


def test_a_wide_spread_is_refused_and_says_whether_cpu_time_is_better() -> None:
    random = np.random.default_rng(4)
    wall = 10 * np.exp(random.normal(0, 0.3, 500))
    assert spread_of(wall) > 0.5
    steady = [10.0] * 500
    assert "other programs take turns" in refusal(wall, steady, 0.25)
    assert "measure for longer" in refusal(wall, wall, 0.25)
    assert refusal(wall, wall, 2.0) == ""
    assert refusal(steady, wall, 0.25) == ""


def test_the_spread_ignores_a_few_outliers() -> None:
    assert spread_of([10.0] * 95 + [100.0] * 5) == 0


def test_very_many_rounds_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_KEPT_ROUNDS", 64)
    calls = []
    at_s, walls, cpus = time_rounds([lambda: calls.append(1)], 1000, 60, 10)
    assert len(calls) == 1000
    assert 32 <= len(at_s) == len(walls) == len(cpus) <= 64
    assert at_s == sorted(at_s)


def test_the_machine_is_watched_where_it_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone, cpu = tmp_path / "class/thermal/thermal_zone0", tmp_path / "devices/system/cpu/cpu0/cpufreq"
    zone.mkdir(parents=True)
    cpu.mkdir(parents=True)
    (zone / "temp").write_text("48500\n")
    (cpu / "scaling_cur_freq").write_text("1500000\n")
    monkeypatch.setattr(timing, "_SYS", tmp_path)
    watch = Watch()
    watch.sample(0.0)
    (zone / "temp").write_text("-40000\n")  # a sensor that is not connected
    watch.sample(0.5)  # too early
    watch.sample(1.5)
    assert watch.readings == [(0.0, 48.5, 1500.0), (1.5, None, 1500.0)]


def test_a_bench_that_is_sustained(small_onnx: Path) -> None:
    options = BenchOptions(sustain_s=2.0, warmup=1, cold_starts=1, max_spread=1e-9)
    (found,) = bench([small_onnx], options).results
    assert found.sustained is not None
    assert 1.9 <= found.sustained.seconds < 6  # of very many runs not each is kept
    assert found.runs > 100
    assert len(found.sustained.windows) == 10
    assert not found.trusted  # no clock is that even
    assert "limit 0%" in found.refused
    (found,) = bench([small_onnx], BenchOptions(runs=10, warmup=1, cold_starts=1, max_spread=1e9)).results
    assert found.trusted
    assert found.sustained is None
