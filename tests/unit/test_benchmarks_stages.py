"""benchmarks.stages: its bars and tables, on made-up figures."""

from __future__ import annotations

import msgspec

from benchmarks.stages import Result, misses, section

GOOD = Result("lite0", "fp32", 105, 100, 109, 100, {128: 4.0, 224: 10.0},
              {128: (1.0, 2.0, 3.0, 4.1), 224: (2.0, 5.0, 8.0, 10.2)}, {128: 4.05, 224: 10.2},
              {128: 4.11, 224: 10.25}, (4096, 2048),
              {"one network at 224": (40.0, 30.0)})


def test_good_figures_meet_every_bar() -> None:
    assert misses([GOOD]) == []


def test_each_bar_is_seen_to_be_missed() -> None:
    large = msgspec.structs.replace(GOOD, bundle_bytes=111)
    assert misses([msgspec.structs.replace(large, precision="int8")]) == []
    (line,) = misses([large])
    assert "1.11 times" in line
    (line,) = misses([msgspec.structs.replace(GOOD, planned_ms={128: 4.2, 224: 10.0})])
    assert "4.200 ms" in line
    (line,) = misses([msgspec.structs.replace(GOOD, until_ms={128: (1.0, 4.0, 4.0, 4.0)})])
    assert "takes no time" in line


def test_the_tables_hold_every_figure() -> None:
    text = " ".join(section([GOOD]).split())
    for figure in ("1.050", "1.090", "| 4, 2 |", "10.200", "1.020", "0.050", "1.025", "| 40.0 | 30.0 |"):
        assert figure in text
