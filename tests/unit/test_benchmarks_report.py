"""The verdicts and tables of the converter comparison, on figures made up to miss one bar at a time."""

from __future__ import annotations

import msgspec
import pytest

from benchmarks.costs import Cost, Part, median_cost
from benchmarks.files import FileFacts, RatioFacts, Timing
from benchmarks.report import NetResult, best_peer, misses, summary, tables

MEGABYTE = 1_000_000


def cost(cpu_s: float, peak_mb: int, converted_s: float = 0.1) -> Cost:
    parts = {"imported": Part(cpu_s - converted_s, cpu_s), "converted": Part(converted_s, converted_s)}
    return Cost(cpu_s, cpu_s * 1.1, peak_mb * MEGABYTE, parts)


def facts(transposes: int = 0, diff: float = 1e-6) -> FileFacts:
    ops = {"CONV_2D": 10, "PAD": 2} | ({"TRANSPOSE": transposes} if transposes else {})
    return FileFacts(1234567, ops, 1, diff, 2.0)


def result(**changes: object) -> NetResult:
    verified = Cost(3.0, 3.0, 300 * MEGABYTE, {"verified": Part(2.125, 2.25)})
    good = NetResult(
        net="toy",
        files={"edgekit": facts(), "litert_torch": facts(), "onnx2tf": facts(transposes=9)},
        costs={"edgekit": cost(1, 100), "litert_torch": cost(30, 700, 20.0), "onnx2tf": cost(2, 200, 0.9)},
        command=cost(1.5, 120, 0.2), export=cost(5, 400), verified=verified,
        timing=Timing({"edgekit": 2.0, "litert_torch": 2.0, "onnx2tf": 2.2}, {
            "litert_torch": RatioFacts(1.0, 0.99, 1.01, 96), "onnx2tf": RatioFacts(0.91, 0.9, 0.92, 96)}),
    )
    return msgspec.structs.replace(good, **changes)


def test_a_result_that_meets_every_bar_misses_nothing() -> None:
    assert misses(result()) == []


@pytest.mark.parametrize(("changes", "words"), [
    ({"files": {"edgekit": facts(transposes=2)}}, "2 TRANSPOSE ops are left"),
    ({"files": {"edgekit": facts(diff=1e-3)}}, "max |d| is 1.0e-03 on a range of 2"),
    ({"timing": Timing({}, {"onnx2tf": RatioFacts(1.01, 0.98, 1.04, 24)})},
     "CPU time over onnx2tf is 1.010 [0.980, 1.040]"),
    ({"timing": Timing({"edgekit": 1.0}, {})}, "no peer made a file to compare with"),
    ({"costs": {"edgekit": cost(2.5, 100), "onnx2tf": cost(2, 200, 0.9)}},
     "the library call takes 2.50 CPU seconds, not fewer than the 2.00 of onnx2tf"),
    ({"costs": {"edgekit": cost(1, 100, 0.95), "onnx2tf": cost(2, 200, 0.9)}},
     "without imports, converting takes 0.95 CPU seconds, onnx2tf 0.90"),
    ({"command": cost(1, 200)}, "the command needs 200 MB, not less than the 200 of onnx2tf"),
])
def test_each_bar_is_named_when_it_is_missed(changes: dict[str, object], words: str) -> None:
    assert misses(result(**changes)) == [f"toy: {words}"]


def test_an_interval_that_reaches_over_the_bar_misses_it_although_the_value_does_not() -> None:
    timing = Timing({}, {"onnx2tf": RatioFacts(1.0, 0.9, 1.1, 8)})
    assert len(misses(result(timing=timing))) == 1


def test_the_best_peer_is_the_fastest_one() -> None:
    assert best_peer(result()) == "litert_torch"
    assert best_peer(result(timing=Timing({"edgekit": 1.0}, {}))) is None


def test_the_summary_gives_the_bound_against_the_best_peer() -> None:
    assert summary([result()]) == ["toy: 1.000 x litert_torch, upper bound 1.010"]


def test_tables_hold_every_converter_and_the_check_apart() -> None:
    text = tables([result(failures={"other": "exit code 1"})])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert ["toy", "onnx2tf", "9", "21", "1", "1,234,567", "1.0e-06", "2"] in rows
    assert ["toy", "litert_torch", "2.000", "1.000", "0.990 to 1.010", "96"] in rows
    assert ["toy", "onnx2tf", "2.00", "2.20", "1.10", "2.00", "0.90", "0.90", "200"] in rows
    assert ["toy", "edgekit: verify", "", "", "", "", "2.12", "2.25", "300"] in rows
    assert any(row[1:3] == ["other", "failed: exit code 1"] for row in rows)
    assert len({len(line) for line in text.splitlines() if line.startswith("| network | converter    |")}) <= 2


def test_results_survive_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(result()), type=NetResult) == result()


def test_median_cost_takes_the_median_of_each_figure() -> None:
    middle = median_cost([cost(1, 300), cost(9, 100), cost(2, 200)])
    assert (middle.cpu_s, middle.peak_rss_bytes) == (2, 200 * MEGABYTE)
    assert middle.parts["imported"].wall_s == 2
