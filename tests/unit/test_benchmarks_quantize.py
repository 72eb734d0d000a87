"""The bookkeeping of benchmarks/quantize.py on made-up rows, and one whole row of a tiny network."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit.converters.quantize import Goal, Quality, Speed, open_samples
from edgekit.errors import BadModel, UnknownName
from tests.quantize_models import images, litert, swish_classifier

pytest.importorskip("ai_edge_quantizer")

from benchmarks.quantize import merged, read_rows, run
from benchmarks.quantize_cases import NAMES, Case, make
from benchmarks.quantize_report import Point, Row, StockRow, misses, pareto_lines, size_reason, table


def speed(times: float) -> Speed:
    return Speed(cpu_ms=1 / times, ratio=1 / times, low=0.9 / times, high=1.1 / times)


GOOD = Row(
    name="unet", chosen="static8", float_ms=10.0, speed=speed(2.5), size_ratio=0.28, size_reason="", trained=False,
    quality=Quality(16, 31.0), stock=StockRow(speed(1.0), Quality(16, 20.0), ""), search_seconds=100.0,
    recipe_rebuilds=True, notes=(), pareto=(Point("other", speed(1.2), 0.3, Quality(16, 40.0)),),
)
TRAINED = msgspec.structs.replace(
    GOOD, name="mlperf_tiny_resnet", trained=True,
    quality=Quality(1000, 20.0, agreement=0.98, drop_points=0.2, drop_low=-0.5, drop_high=0.9, float_accuracy=0.85))


def test_rows_that_meet_every_bar() -> None:
    assert misses([GOOD, TRAINED]) == []
    assert pareto_lines([GOOD, TRAINED]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"speed": speed(1.2)}, "1.20 times as fast"),
        ({"size_ratio": 0.4, "size_reason": "why"}, "40.0 % of float32's size, above 32 % (why)"),
        ({"search_seconds": 200.0}, "200 s"),
        ({"recipe_rebuilds": False}, "same bytes"),
        ({"quality": Quality(16, 29.0)}, "29.0 dB, below 30"),
        ({"name": "mobilenet_v3_small_fitted", "quality": Quality(16, 29.0)}, "below 30"),
    ],
)
def test_a_missed_bar_is_named_with_what_can_be_had_instead(change: dict[str, object], words: str) -> None:
    row = msgspec.structs.replace(GOOD, **change)
    assert any(words in miss and miss.startswith(row.name) for miss in misses([row]))
    assert any("other" in line for line in pareto_lines([row]))


def test_trained_networks_are_judged_by_accuracy_and_agreement() -> None:
    for quality, words in (
        (msgspec.structs.replace(TRAINED.quality, drop_points=0.6), "loses 0.60"),
        (msgspec.structs.replace(TRAINED.quality, agreement=0.96), "96.0 %"),
        (Quality(16, 60.0), "not judged"),
    ):
        (miss,) = misses([msgspec.structs.replace(TRAINED, quality=quality)])
        assert words in miss
    assert "-0.20 points (-0.90 to +0.50), 98.0 % of 1000" in table([TRAINED])


def test_floor_of_convnext_and_the_means() -> None:
    convnext = msgspec.structs.replace(GOOD, name="convnext_tiny", quality=Quality(16, 28.5), speed=speed(2.0))
    assert misses([convnext]) == []  # 2.0 times the stock recipe
    slow = msgspec.structs.replace(convnext, speed=speed(1.5))
    assert [miss.split(",")[0] for miss in misses([slow])] == [
        "geometric mean of the speed-up 1.50", "geometric mean against the stock recipe 1.50"]
    fitted = msgspec.structs.replace(GOOD, name="mobilenet_v3_small_fitted", speed=speed(1.4))
    assert misses([GOOD, fitted]) == []  # the second variant is not in the mean
    assert "nan" in table([GOOD]).splitlines()[-1]  # no network that is compared with the stock recipe


def test_rows_are_kept_replaced_and_ordered(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    assert read_rows(path) == read_rows(None) == []
    first = merged(merged([], TRAINED), GOOD)
    assert [row.name for row in first] == ["unet", "mlperf_tiny_resnet"]
    path.write_bytes(msgspec.json.encode(first))
    again = merged(read_rows(path), msgspec.structs.replace(GOOD, chosen="float16"))
    assert [(row.name, row.chosen) for row in again] == [("unet", "float16"), ("mlperf_tiny_resnet", "static8")]
    path.write_text('[{"name": "unet"}]')
    with pytest.raises(BadModel, match=r"rows\.json"):
        read_rows(path)


def test_an_unknown_network_is_refused(tmp_path: Path) -> None:
    assert {"mobilenet_v3_small", "mobilenet_v3_small_fitted", "efficientnet_lite0"} <= set(NAMES)
    with pytest.raises(UnknownName, match="mobilenet_v9"):
        make("mobilenet_v9", tmp_path)


def test_what_a_file_consists_of_adds_up() -> None:
    data = litert(swish_classifier()).data
    words = size_reason(data, len(data))
    assert "float32 constants" in words
    assert sum(float(part.split(" %")[0]) for part in words.split(", ")[:2]) > 50
    assert "graph" in words


@pytest.mark.slow
def test_one_row_from_search_to_rebuilt_recipe() -> None:
    model = litert(swish_classifier(width=32))
    seen = open_samples({"x": images(8), "labels": np.zeros(8, np.int64)}, model.inputs)
    unseen = open_samples({"x": images(6, seed=5), "labels": np.zeros(6, np.int64)}, model.inputs)
    row = run(Case("tiny", model, seen, unseen, Goal(max_drop_points=100.0, max_seconds=1), trained=True), seconds=1)
    assert row.recipe_rebuilds
    assert row.quality.samples == 6
    assert row.quality.drop_points is not None
    assert row.stock.failure == ""
    assert row.stock.quality is not None
    assert row.pareto
    assert row == msgspec.json.decode(msgspec.json.encode(row), type=Row)
