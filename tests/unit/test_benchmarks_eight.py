"""The table of the eight families, on figures made up to miss one bar at a time."""

from __future__ import annotations

import math

import msgspec
import pytest

from benchmarks.costs import Cost, Part
from benchmarks.eight import EIGHT, geometric_mean, misses, section
from benchmarks.files import FileFacts, RatioFacts, Timing
from benchmarks.report import NetResult, allowed_moves

TWICE = {"Interpreter": "same", "CompiledModel": "same"}


def facts(diff: float = 1e-6, **ops: int) -> FileFacts:
    return FileFacts(1234, ops, 1, diff, 2.0, TWICE)


def cost(cpu_s: float, peak_mb: int) -> Cost:
    return Cost(cpu_s, cpu_s, peak_mb * 1_000_000, {"converted": Part(0.1, 0.1), "verified": Part(0.5, 0.5)})


def result(net: str, ours: FileFacts, ratio: RatioFacts, **changes: object) -> NetResult:
    good = NetResult(
        net=net, files={"edgekit": ours, "litert_torch": facts(CONV_2D=20, TRANSPOSE=14)},
        costs={"edgekit": cost(1, 100), "litert_torch": cost(30, 700), "onnx2tf": cost(2, 200)},
        command=cost(1, 100), export=cost(5, 400), verified=cost(2, 200),
        timing=Timing({"edgekit": 1.0}, {"litert_torch": ratio}), failures={"onnx2tf": "no kernel"})
    return msgspec.structs.replace(good, **changes)


LEVEL = RatioFacts(0.99, 0.98, 1.0, 40)


def test_a_vit_with_few_transposes_that_is_faster_misses_nothing() -> None:
    assert misses([result("vit_tiny", facts(CONV_2D=20, TRANSPOSE=4), LEVEL)]) == []


@pytest.mark.parametrize(("net", "ours", "ratio", "words"), [
    ("vit_tiny", facts(TRANSPOSE=15), LEVEL, "15 TRANSPOSE ops, the best peer has 14"),
    ("vit_tiny", facts(TRANSPOSE=4), RatioFacts(1.001, 0.99, 1.01, 40),
     "10 TRANSPOSE ops fewer than litert_torch, but not faster"),
    ("shufflenet_v2", facts(TRANSPOSE=14, GATHER=3), LEVEL, "17 TRANSPOSE and GATHER ops; the bar is 16"),
    ("lstm", facts(WHILE=1, ADD=24), LEVEL, "25 ops over all subgraphs; the bar is 24"),
])
def test_each_bar_is_named_when_it_is_missed(net: str, ours: FileFacts, ratio: RatioFacts, words: str) -> None:
    assert misses([result(net, ours, ratio)]) == [f"{net}: {words}"]


def test_an_lstm_that_one_engine_does_not_repeat_is_missed() -> None:
    ours = msgspec.structs.replace(facts(WHILE=1), repeats={"Interpreter": "same", "CompiledModel": "differs"})
    assert misses([result("lstm", ours, LEVEL)]) == ["lstm: CompiledModel run twice: differs"]


def test_a_peer_with_wrong_answers_sets_no_bar() -> None:
    wrong = {"edgekit": facts(TRANSPOSE=4), "litert_torch": facts(diff=1.0)}
    assert misses([result("vit_tiny", facts(), LEVEL, files=wrong, timing=Timing({"edgekit": 1.0}, {}))]) == []


def test_the_mean_is_geometric_and_its_interval_narrows_with_the_number_of_networks() -> None:
    ratios = [RatioFacts(value, value * 0.98, value * 1.02, 10) for value in (0.5, 2.0, 1.0, 1.0)]
    mean = geometric_mean([result("unet", facts(), ratio) for ratio in ratios])
    assert mean.value == pytest.approx(1.0)
    # four networks, each with a wider side of -log 0.98: half of it is left
    assert math.log(mean.upper) == pytest.approx(-math.log(0.98) / 2)
    assert mean.blocks == 40


def test_a_mean_whose_bound_is_over_the_bar_is_missed() -> None:
    files = {"edgekit": facts(), "litert_torch": facts()}
    slow = result("unet", facts(), RatioFacts(1.015, 1.0, 1.03, 10), files=files)
    assert misses([slow]) == ["the geometric mean of the CPU times' ratios is 1.0150, upper bound 1.0302"]


def test_the_table_says_which_peer_does_not_run() -> None:
    text = section([result("unet", facts(CONV_2D=3, TRANSPOSE=1), LEVEL), result("mlp", facts(), LEVEL)])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["unet"]  # mlp is none of the eight
    assert rows[2][1:7] == ["1", "14", "does not run", "4", "34", "does not run"]
    assert "Geometric mean" in text
    assert section([result("mlp", facts(), LEVEL)]) == ""


def test_the_bars_on_moves_are_those_of_known_networks() -> None:
    assert {net: allowed_moves(net) for net in EIGHT if allowed_moves(net)} == {
        "vit_tiny": 8, "convnext_tiny": 1, "shufflenet_v2": 16, "lstm": 2}
