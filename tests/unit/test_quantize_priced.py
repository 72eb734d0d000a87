"""The search with predicted times: its choice follows the profiles, not this machine."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from edgekit.artifacts import LiteRTModel
from edgekit.converters.quantize import Goal, open_samples
from edgekit.converters.quantize.priced import search_for
from edgekit.device_profiles import Corrections, DeviceProfile, KernelAccuracy, KernelCosts, Source, resolve
from edgekit.errors import BadRecipe
from edgekit.profile.mixed import MixedProfile, mixed_profile
from edgekit.recipe import QuantRecipe
from tests.conftest import Cli
from tests.quantize_models import images, litert, swish_classifier

pytest.importorskip("ai_edge_quantizer")

KINDS = ("first", "dense", "pointwise", "depthwise", "depthwise_strided", "fc", "ADD", "MUL", "HARD_SWISH", "MEAN",
         "QUANTIZE", "DEQUANTIZE", "RESHAPE", "AVERAGE_POOL_2D", "SUM")


def profile(precision: str, ms_per_mega: float, soc: str = "chip") -> DeviceProfile:
    """A machine on which everything costs in proportion to its multiply-adds and elements."""
    costs: dict[str, float] = {"network/run": 0.001}
    corrections = {}
    for kind in KINDS:
        for bits in (8, 32):
            costs |= {f"{kind}.{bits}/{term}": ms_per_mega for term in ("call", "macs", "read", "written")}
            corrections[f"{kind}.{bits}"] = Corrections(((0.0,) * 7,), (0.0,))
    accuracy = KernelAccuracy(fitted=9, checked=3, median_ape=0.05, p90_ape=0.1, within_15=1.0, bias=1.0)
    return DeviceProfile(
        id=f"board-{precision}", device="board", soc=soc, os="", runtime="litert", runtime_version="2", backend="cpu",
        threads=1, precision=precision, source=Source("", ""), confidence="calibrated",  # type: ignore[arg-type]
        kernels=KernelCosts(costs, 1.0, corrections, 1.0, accuracy))


@pytest.fixture(scope="module")
def model() -> LiteRTModel:
    return litert(swish_classifier())


def found(model: LiteRTModel, int8_ms: float) -> object:
    pair = mixed_profile([profile("int8", int8_ms), profile("float32", 1.0)])
    samples = open_samples(images(12), model.inputs)
    return search_for(pair, model, samples, Goal(min_sqnr_db=15.0, max_seconds=4), QuantRecipe(()))


def test_where_integers_are_fast_there_they_are_chosen(model: LiteRTModel) -> None:
    result = found(model, 0.3)
    assert result.chosen is not None  # type: ignore[attr-defined]
    assert "static8" in result.chosen.plan.kinds.values()  # type: ignore[attr-defined]
    assert result.chosen.speed.ratio < 0.6  # type: ignore[attr-defined]
    assert result.chosen.speed.low < result.chosen.speed.ratio < result.chosen.speed.high  # type: ignore[attr-defined]
    assert any("predicted by 'board-float32' and 'board-int8'" in note for note in result.notes)  # type: ignore[attr-defined]


def test_where_they_are_slow_there_they_are_not(model: LiteRTModel) -> None:
    result = found(model, 3.0)
    kinds = () if result.chosen is None else result.chosen.plan.kinds.values()  # type: ignore[attr-defined]
    assert "static8" not in kinds
    assert any("No int8 file is faster" in note for note in result.notes)  # type: ignore[attr-defined]


def test_a_price_adds_up_what_each_precision_costs(model: LiteRTModel, tmp_path: Path) -> None:
    from edgekit.profile.host.estimate import estimate
    from edgekit.profile.host.timing import costs_of

    (tmp_path / "m.tflite").write_bytes(model.data)
    costs = costs_of(tmp_path / "m.tflite")
    pair = MixedProfile(profile("float32", 1.0), profile("int8", 7.0))
    price = pair.price(costs)
    assert pair.floats.kernels is not None
    assert price.latency_ms == pytest.approx(estimate(costs, pair.floats.kernels).total_ms)
    assert price.half_width > 0
    assert 0 <= price.covered <= 1


def test_a_third_profile_prices_what_quantizes_at_run_time(model: LiteRTModel) -> None:
    three = mixed_profile([profile("int8", 3.0), profile("float32", 1.0), profile("dynamic8", 0.2)])
    result = search_for(three, model, open_samples(images(12), model.inputs), Goal(min_sqnr_db=15.0, max_seconds=4),
                        QuantRecipe(()))
    assert result.chosen is not None
    assert "dynamic8" in result.chosen.plan.kinds.values()
    assert not any("no profile of dynamic8" in note for note in result.notes)


def test_profiles_that_do_not_belong_together() -> None:
    with pytest.raises(BadRecipe, match="do not belong together"):
        mixed_profile([profile("int8", 1.0), profile("float32", 1.0, soc="another")])
    with pytest.raises(BadRecipe, match="do not belong together"):
        mixed_profile([profile("float32", 1.0), profile("float32", 1.0)])
    with pytest.raises(BadRecipe, match="no costs of int8 kernels"):
        mixed_profile([resolve("raspberry-pi-4")])
    with pytest.raises(BadRecipe, match="no profile of float32 kernels"):
        mixed_profile([profile("int8", 1.0, soc="unheard of")])


@pytest.mark.slow
def test_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    onnx.save(swish_classifier(), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", image=images(12))
    for precision, cost in (("float32", 1.0), ("int8", 0.3)):
        (tmp_path / f"{precision}.json").write_bytes(msgspec.json.encode(profile(precision, cost)))
    both = ("--device", tmp_path / "float32.json", "--device", tmp_path / "int8.json")
    base = ("quantize", tmp_path / "net.onnx", "--data", "random", "-o", tmp_path / "out.tflite", "--min-sqnr-db", "10",
            "--max-seconds", "4", "--json")
    done = cli(*base, *both)
    result = json.loads(done.stdout)
    assert result["chosen"]["ratio"] < 0.6, done.stderr
    assert any("predicted" in note for note in result["notes"])
    refused = cli(*base, "--device", tmp_path / "float32.json")
    assert refused.returncode == 1
    assert "no profile of int8 kernels" in refused.stderr
    assert "edgekit devices fit --host" in refused.stderr
    assert cli(*base[:5], tmp_path / "o.onnx", *both).returncode == 1
