"""Make the look-up profiles: Qualcomm AI Hub's figures for NPUs, and TFLite's for the GPU of a Pixel 3.

Usage: python scripts/lookup_profiles.py TABLES [--out device_profiles]

TABLES holds whole_qai_hub_models_0.65.0.csv.gz (the perf.yaml files of that version as rows) and
whole_tflite_hosted_pixel3.csv. Of AI Hub's devices those of DEVICES, models of one part whose ops all run on the NPU.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from edgekit.atomic import write_atomically
from edgekit.device_profiles import DeviceProfile, MeasuredLatency, Precision, Source

__all__ = ["main", "npu_profiles", "pixel3_gpu_profile"]

_VERSION = "0.65.0"
#: AI Hub's name -> (id, device, system on chip)
DEVICES = {
    "Samsung Galaxy S22 5G": ("samsung-galaxy-s22", "Samsung Galaxy S22 5G", "Qualcomm Snapdragon 8 Gen 1"),
    "Samsung Galaxy S24": ("samsung-galaxy-s24", "Samsung Galaxy S24", "Qualcomm Snapdragon 8 Gen 3"),
    "Samsung Galaxy S25": ("samsung-galaxy-s25", "Samsung Galaxy S25", "Qualcomm Snapdragon 8 Elite"),
    "Snapdragon X Elite CRD": ("snapdragon-x-elite-crd", "Snapdragon X Elite CRD", "Qualcomm Snapdragon X Elite"),
    "Dragonwing RB3 Gen 2 Vision Kit": ("rb3-gen-2", "Dragonwing RB3 Gen 2 Vision Kit", "Qualcomm QCS6490"),
    "Dragonwing IQ-9075 EVK": ("iq-9075-evk", "Dragonwing IQ-9075 EVK", "Qualcomm QCS9075"),
}
_RUNTIMES = {"tflite": "tflite", "onnx": "onnxruntime", "qnn_dlc": "qnn"}
_PRECISIONS: dict[str, Precision] = {"float": "float16", "w8a8": "int8"}
_SLOWEST_MS = 1000.0


def npu_profiles(rows: Iterable[Mapping[str, str]]) -> list[DeviceProfile]:
    """One for each device, runtime and precision of the tables above that has at least ten models."""
    table = list(rows)
    parts: dict[str, set[str]] = defaultdict(set)
    for row in table:
        parts[row["model_id"]].add(row["component"])
    found: dict[tuple[str, str, str], list[Mapping[str, str]]] = defaultdict(list)
    for row in table:
        known = row["device"] in DEVICES and row["runtime"] in _RUNTIMES and row["precision"] in _PRECISIONS
        whole = len(parts[row["model_id"]]) == 1 and row["compute_unit"] == "NPU"
        elsewhere = any(row[name] not in ("", "0") for name in ("layers_gpu", "layers_cpu"))
        if known and whole and not elsewhere and 0 < float(row["latency_ms"]) <= _SLOWEST_MS:
            found[row["device"], row["runtime"], row["precision"]].append(row)
    return [_npu_profile(key, each) for key, each in sorted(found.items()) if len(each) >= 10]


def _npu_profile(key: tuple[str, str, str], rows: list[Mapping[str, str]]) -> DeviceProfile:
    slug, device, soc = DEVICES[key[0]]
    runtime, precision = _RUNTIMES[key[1]], _PRECISIONS[key[2]]
    versions = Counter(row["tool_versions"] for row in rows)
    usual = versions.most_common(1)[0][0]
    same = {row["model_id"]: float(row["latency_ms"]) for row in rows if row["tool_versions"] == usual}
    return DeviceProfile(
        id=f"{slug}-{runtime}-npu-{precision}", device=device, soc=soc, os="not stated", runtime=runtime,
        runtime_version=usual or None, backend="npu", threads=None, precision=precision,
        source=Source(
            f"https://pypi.org/project/qai-hub-models/{_VERSION}/", "BSD-3-Clause",
            f"perf.yaml files of qai_hub_models {_VERSION}, precision '{key[2]}', models of one part that run on the "
            "NPU alone. Between two versions of the same table half of the figures changed by more than 4 to 7 %."),
        measured=tuple(MeasuredLatency(model.lower(), ms) for model, ms in sorted(same.items())),
    )


def pixel3_gpu_profile(rows: Iterable[Mapping[str, str]]) -> DeviceProfile:
    """The GPU column of TFLite's table."""
    wanted = [row for row in rows if row["backend"] == "gpu" and row["precision"] == "float32"]
    return DeviceProfile(
        id="google_pixel_3-tflite-gpu-float32", device="Google Pixel 3", soc="Qualcomm Snapdragon 845", os="Android 10",
        runtime="tflite", runtime_version=None, backend="gpu", threads=None, precision="float32",
        source=Source(wanted[0]["source"], "Apache-2.0", "'Hosted models', columns 'GPU'. The runtime's version is not "
                      "stated; TFLite's GPU delegate computes float32 models in float16 unless told otherwise."),
        measured=tuple(MeasuredLatency(row["model"].lower(), float(row["latency_ms"]))
                       for row in sorted(wanted, key=lambda each: each["model"])),
    )


def main() -> None:
    """Write the profiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "device_profiles")
    given = parser.parse_args()
    with gzip.open(given.tables / f"whole_qai_hub_models_{_VERSION}.csv.gz", "rt", encoding="utf-8") as file:
        profiles = npu_profiles(csv.DictReader(file))
    with (given.tables / "whole_tflite_hosted_pixel3.csv").open(encoding="utf-8") as file:
        profiles.append(pixel3_gpu_profile(csv.DictReader(file)))
    for profile in profiles:
        # One line: there are thousands of figures, and the installation has a limit.
        write_atomically(given.out / f"{profile.id}.json", msgspec.json.encode(profile) + b"\n")
        print(f"{profile.id}: {len(profile.measured)} models")


if __name__ == "__main__":
    main()
