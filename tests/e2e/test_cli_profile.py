"""``edgekit devices`` and ``edgekit profile`` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Cli


def test_devices_are_listed_filtered_and_shown(cli: Cli) -> None:
    rows = json.loads(cli("devices", "--json").stdout)["rows"]
    assert len(rows) > 90
    assert {row["confidence"] for row in rows} == {"calibrated", "low", "indicative", "measured"}
    pis = json.loads(cli("devices", "list", "raspberry", "--threads", "1", "--json").stdout)["rows"]
    assert {row["id"] for row in pis} == {f"raspberry-pi-{n}-ncnn-cpu-1t" for n in ("3", "4", "5", "zero-2-w")}
    shown = json.loads(cli("devices", "show", "raspberry-pi-4", "--json").stdout)["profile"]
    assert shown["source"]["url"].startswith("https://github.com/Tencent/ncnn/")
    assert shown["source"]["licence"] == "BSD-3-Clause"
    text = cli("devices", "list", "--filter", "pixel").stdout
    assert "google_pixel_3" in text


def test_a_prediction_has_a_band_the_covered_share_and_the_ops(cli: Cli, small_onnx: Path) -> None:
    done = cli("profile", small_onnx, "--device", "raspberry-pi-4", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    low, high = found["band_ms"]
    assert 0 < low < found["latency_ms"] < high
    assert 0 <= found["covered"] <= 1
    assert sum(op["latency_ms"] for op in found["ops"]) == pytest.approx(found["latency_ms"])
    assert {"conv"} <= {op["name"] for op in found["ops"]}
    text = cli("profile", small_onnx, "--device", "raspberry-pi-4-ncnn-cpu-1t").stdout
    assert "90 % band" in text
    assert "share" in text


@pytest.mark.parametrize(("arguments", "words"), [
    (("profile", "x.onnx", "--device", "raspbery-pi-4"), "raspberry-pi-4"),
    (("profile", "absent.onnx", "--device", "raspberry-pi-4"), "There is no file"),
    (("devices", "show"), "No device was named"),
])
def test_mistakes_are_named_with_a_remedy(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    done = cli(*arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_look_up_predicts_nothing(cli: Cli, small_onnx: Path) -> None:
    done = cli("profile", small_onnx, "--device", "google_pixel_3-tflite-cpu-4t-float32")
    assert done.returncode == 1
    assert "measured latencies only" in done.stderr
