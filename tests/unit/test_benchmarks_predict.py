"""The parts of benchmarks/predict that need neither the shared tables nor torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.predict_pixel3 import pixel3_table
from edgekit.errors import BadInput


def write_tables(folder: Path, slow: str) -> None:
    """Networks of five families whose times follow from their amounts; those of ``slow`` take three times as long."""
    rng = np.random.default_rng(2)
    features, rows = {}, ["model,backend,precision,latency_ms"]
    for family in ("mobilenet_v1", "mnasnet", "mobilenet_v2", "inception", "squeezenet"):
        for number in range(4):
            size = float(rng.uniform(0.3, 3))
            amounts = {"mac_conv1x1": 3e8 * size, "mac_conv3x3": 1e8 * size * rng.uniform(0, 2), "mac_convkxk": 0.0,
                       "mac_dwconv": 2e7 * size * rng.uniform(0, 2), "mac_groupconv": 0.0, "mac_fc": 1e6,
                       "act": 8e6 * size, "w": 4e6, "nops": 50, "act_dw": 3e6 * size}
            ms = (amounts["mac_conv1x1"] * 2e-8 + amounts["mac_conv3x3"] * 2.6e-8 + amounts["mac_dwconv"] * 6e-7
                  + amounts["act"] * 1.2e-6 + amounts["w"] * 1.2e-6)
            features[f"{family}_{number}_224"] = amounts
            rows.append(f"{family}_{number},cpu,float32,{ms * (3 if family == slow else 1)}")
    (folder / "model_features_timm_tv.json").write_text(json.dumps({"pixel3": features}))
    (folder / "whole_tflite_hosted_pixel3.csv").write_text("\n".join(rows) + "\n")


def test_a_family_that_follows_the_others_is_predicted_and_another_is_not(tmp_path: Path) -> None:
    write_tables(tmp_path, slow="inception")
    found = pixel3_table(tmp_path)
    assert found["networks"] == 20
    for way in ("chosen", "averaged"):
        by_family = found[way]["by_family"]
        assert by_family["inception"] == pytest.approx(0.67, abs=0.1)
        assert np.median([error for family, error in by_family.items() if family != "inception"]) < 0.1
    with pytest.raises(BadInput, match="cannot be read"):
        pixel3_table(tmp_path / "absent")
