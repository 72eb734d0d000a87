from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import BadInput, BadModel, BadRecipe, UnknownName
from edgekit.measure import BenchOptions, bench, paired_ratio, quantiles
from edgekit.pipeline import convert

QUICK = BenchOptions(runs=10, warmup=1, cold_starts=1)


def test_quantiles_interpolate_between_times() -> None:
    found = quantiles(range(101))
    assert (found.min, found.median, found.p90, found.p99) == (0, 50, 90, 99)
    assert quantiles([3.0]).p99 == 3.0


def test_a_ratio_is_formed_between_neighbours_so_that_drift_cancels() -> None:
    random = np.random.default_rng(1)
    drift = np.linspace(1, 5, 200)
    a = drift * random.normal(1, 0.02, 200)
    b = 1.3 * drift * random.normal(1, 0.02, 200)
    ratio, low, high = paired_ratio(a, b)
    assert ratio == pytest.approx(1.3, rel=0.01)
    assert low < 1.3 < high
    assert high - low < 0.03


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        _, low, high = paired_ratio(random.normal(1, 0.1, 60), random.normal(1.1, 0.1, 60), draws=400)
        hits += low <= 1.1 <= high
    assert hits >= 176  # 88 %: an interval that is too narrow misses this


@pytest.mark.parametrize("wrong", [
    {"threads": 0}, {"runs": 9}, {"warmup": -1}, {"cold_starts": 0}, {"max_seconds": 0.0},
    {"max_seconds": float("nan")},
])
def test_options_that_make_no_sense_cannot_be_made(wrong: dict[str, float]) -> None:
    with pytest.raises(BadRecipe, match=next(iter(wrong))):
        BenchOptions(**wrong)  # type: ignore[arg-type]


def test_a_bench_of_a_model_file(small_onnx: Path) -> None:
    (found,) = bench([small_onnx], QUICK).results
    assert found.engine == "ort"
    assert found.engine_version.startswith("onnxruntime ")
    assert found.inputs[0].shape == (1, 3, 16, 16)
    assert (found.runs, found.warmup, found.threads) == (10, 1, 1)
    assert found.size_bytes == small_onnx.stat().st_size
    cold = found.cold_start
    assert cold.total_ms == pytest.approx(cold.import_ms + cold.load_ms + cold.first_run_ms)
    assert cold.import_ms > 1  # numpy alone takes longer


def test_time_runs_out_before_the_runs_do(small_onnx: Path) -> None:
    options = BenchOptions(runs=10_000_000, max_seconds=0.2, cold_starts=1)
    (found,) = bench([small_onnx], options).results
    assert 10 <= found.runs < 10_000_000


def test_two_files_are_compared(small_onnx: Path, tmp_path: Path) -> None:
    convert(small_onnx, "litert", tmp_path / "m.tflite")
    report = bench([small_onnx, tmp_path / "m.tflite"], QUICK)
    assert [each.engine for each in report.results] == ["ort", "litert"]
    assert report.comparison is not None
    assert report.comparison.basis == "cpu"
    assert report.comparison.low <= report.comparison.ratio <= report.comparison.high


def test_shapes_are_used_checked_and_asked_for(small_onnx: Path, tmp_path: Path) -> None:
    import onnx

    (found,) = bench([small_onnx], BenchOptions(runs=10, cold_starts=1, shapes={"image": (4, 3, 16, 16)})).results
    assert found.inputs[0].shape == (4, 3, 16, 16)
    with pytest.raises(UnknownName, match="image"):
        bench([small_onnx], BenchOptions(shapes={"picture": (1, 3, 16, 16)}))
    with pytest.raises(BadInput, match="image"):
        bench([small_onnx], BenchOptions(shapes={"image": (1, 4, 16, 16)}))
    proto = onnx.load(small_onnx)
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(proto, tmp_path / "dynamic.onnx")
    with pytest.raises(BadInput, match="--shape image="):
        bench([tmp_path / "dynamic.onnx"], QUICK)


def test_what_cannot_be_benched_is_refused(small_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match="0 files"):
        bench([], QUICK)
    with pytest.raises(BadRecipe, match="runs on the engine 'ort' only"):
        bench([small_onnx], BenchOptions(engine="litert"))
    with pytest.raises(UnknownName, match=r"\.tflite"):
        bench([tmp_path / "m.pt"], QUICK)
    with pytest.raises(BadModel, match="cannot be read"):
        bench([tmp_path / "none.onnx"], QUICK)
