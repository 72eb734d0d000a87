from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgekit import device_profiles
from edgekit.device_profiles import DeviceProfile, MeasuredLatency, find, load_population, load_profiles, schema_json
from edgekit.errors import UnknownName
from tests.scripts import load_script

FOLDER = Path(device_profiles.__file__).parent
(LOOK_UP,) = find("Google Pixel 3", backend="cpu", precision="float32", threads=4)


def test_every_shipped_profile_loads_and_tells_its_source() -> None:
    profiles = load_profiles()
    others = [
        path for path in FOLDER.glob("*.json") if path.name == "schema.json" or path.name.startswith("population-")
    ]
    assert len(profiles) == len(list(FOLDER.glob("*.json"))) - len(others)
    for profile in profiles:
        assert profile.source.url.startswith("https://")
        assert profile.source.licence
        assert profile.measured or profile.fit
        if profile.fit:
            assert set(profile.fit.costs_ms) == set(load_population(profile.fit.population).costs_ms)


def test_a_figure_is_the_published_one() -> None:
    (profile,) = find("Google Pixel 3", backend="cpu", precision="float32", threads=4)
    assert profile.latency_ms("mobilenet_v1_1.0_224") == 24.0
    assert profile.latency_ms("mnasnet_1.0_96") == 5.6
    assert len(profile.measured) == 33


def test_a_wider_mobilenet_is_never_faster() -> None:
    (profile,) = find("Google Pixel 3", backend="cpu", precision="float32", threads=4)
    for side in (128, 160, 192, 224):
        times = [profile.latency_ms(f"mobilenet_v1_{width}_{side}") for width in ("0.25", "0.50", "0.75", "1.0")]
        assert times == sorted(times)


def test_another_configuration_of_a_known_device_is_an_empty_answer() -> None:
    assert find("Google Pixel 3", threads=1) == ()


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="Google Pixel 3"):
        find("Google Pixel 300")
    with pytest.raises(UnknownName, match="squeezenet"):
        LOOK_UP.latency_ms("efficientnet_lite0")


def test_the_schema_file_is_the_one_of_the_type() -> None:
    assert (FOLDER / "schema.json").read_text() == schema_json(), (
        "write it with: python -c 'from edgekit.device_profiles import schema_json; print(schema_json(), end=\"\")' "
        "> device_profiles/schema.json"
    )


@pytest.mark.parametrize("latency_ms", [0.0, -1.0, float("nan")])
def test_a_latency_that_is_not_positive_is_refused(latency_ms: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        MeasuredLatency("m", latency_ms)


def test_a_model_that_is_named_twice_or_an_unknown_field_is_refused() -> None:
    fields = msgspec.to_builtins(LOOK_UP)
    with pytest.raises(msgspec.ValidationError, match="twice"):
        msgspec.convert({**fields, "measured": fields["measured"] * 2}, DeviceProfile)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({**fields, "throughput": 1}, DeviceProfile)


def test_a_profile_must_hold_something_and_say_how_far_to_trust_it() -> None:
    fields = msgspec.to_builtins(LOOK_UP)
    with pytest.raises(msgspec.ValidationError, match="neither measurements nor a fit"):
        msgspec.convert({**fields, "measured": []}, DeviceProfile)
    with pytest.raises(msgspec.ValidationError, match="confidence"):
        msgspec.convert({**fields, "confidence": "calibrated"}, DeviceProfile)
    with pytest.raises(UnknownName, match="ncnn-cpu-1t"):
        load_population("ncnn-cpu-2t")


def test_npu_look_ups_leave_out_what_did_not_run_on_the_npu_or_is_a_part() -> None:
    def row(model: str, **changes: str) -> dict[str, str]:
        plain = {"model_id": model, "component": model, "device": "Samsung Galaxy S24", "runtime": "tflite",
                 "precision": "w8a8", "compute_unit": "NPU", "latency_ms": "1.5", "layers_gpu": "", "layers_cpu": "",
                 "tool_versions": "t=1"}
        return plain | changes

    rows = [row(f"M{index}") for index in range(10)]
    rows += [row("cpu", layers_cpu="3"), row("whole", compute_unit="GPU"), row("two", component="encoder"),
             row("two", component="decoder"), row("slow", latency_ms="5000"), row("other", tool_versions="t=2"),
             row("M1", device="a phone of nobody")]
    (found,) = load_script("lookup_profiles").npu_profiles(rows)
    assert [each.model for each in found.measured] == [f"m{index}" for index in range(10)]
    assert (found.backend, found.precision, found.confidence) == ("npu", "int8", "measured")


def test_shipped_npu_and_gpu_look_ups_are_the_published_figures() -> None:
    (gpu,) = find("Google Pixel 3", backend="gpu")
    assert gpu.latency_ms("mobilenet_v2_1.0_224") == 6.2
    assert {profile.precision for profile in find("Samsung Galaxy S24", backend="npu")} == {"float16", "int8"}
