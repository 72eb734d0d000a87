"""The bars of the table for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.quantize_ort import misses, rows
from benchmarks.quantize_report import Row, StockRow
from edgekit.converters.quantize import Quality, Speed

ROW = Row(
    name="unet", chosen="static8", float_ms=3.0, speed=Speed(1.5, 0.5, 0.45, 0.55), size_ratio=0.3, size_reason="",
    quality=Quality(16, 35.0), stock=StockRow(None, None, "failed"), search_seconds=30.0, trained=False,
    recipe_rebuilds=True, notes=(), pareto=(),
)


def test_a_good_row_misses_nothing() -> None:
    assert misses([ROW]) == []


@pytest.mark.parametrize(("changes", "text"), [
    ({"speed": Speed(4.0, 1.3, 1.2, 1.4)}, "slower than float32"),
    ({"quality": Quality(16, 29.0)}, "below 30"),
    ({"name": "convnext_tiny", "quality": Quality(16, 27.0)}, "below 28"),
    ({"chosen": "float32"}, "do not say so"),
    ({"trained": True, "quality": Quality(250, 20.0, 0.98, 0.8)}, "loses 0.8"),
    ({"recipe_rebuilds": False}, "same bytes"),
])
def test_what_is_missed_is_named(changes: dict[str, object], text: str) -> None:
    (miss,) = misses([msgspec.structs.replace(ROW, **changes)])
    assert text in miss
    assert miss.startswith(str(changes.get("name", "unet")))


def test_float32_with_a_reason_is_no_miss() -> None:
    note = "No candidate is both good enough and faster than the float file: the float file is kept."
    kept = msgspec.structs.replace(ROW, chosen="float32", speed=Speed(3.0, 1.01, 1.005, 1.02), notes=(note,))
    assert misses([kept]) == []


def test_a_network_without_an_onnx_file_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(rows("mlperf_tiny_resnet", tmp_path)) == []
    assert "left out" in capsys.readouterr().out
