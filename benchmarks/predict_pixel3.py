"""TFLite on the CPU of a Pixel 3 (float32, 4 threads): whole architecture families left out of the fit.

Used by ``python -m benchmarks.predict --pixel3``. The published table names its networks and gives no graphs, so the
amounts are sums over each network (multiply-adds by kind of convolution, elements, weights, ops) of equal networks. The
latency is a sum of amounts times costs, each near a guess that was made for ncnn. How near, and how noisy the table is,
is either chosen inside the training families, by leaving each of those out in turn ("chosen"), or left open: the mean
of the logarithms over all settings ("averaged"). That the second is better was seen on these families themselves.
"""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import BadInput

__all__ = ["pixel3_table"]

Floats = npt.NDArray[np.float64]

#: amount of the table -> (unit, guess of its milliseconds relative to the others), as in edgekit.profile.terms
_TERMS = {
    "mac_conv1x1": (1e8, 10.0), "mac_conv3x3": (1e8, 13.0), "mac_convkxk": (1e8, 14.0), "mac_dwconv": (1e7, 3.0),
    "mac_groupconv": (1e8, 13.0), "mac_fc": (1e6, 1.2), "act": (1e6, 0.6), "w": (1e6, 0.6), "nops": (1e2, 0.5),
    "act_dw": (1e6, 0.4),
}  # fmt: skip
_FAMILIES = ("mobilenet_v1", "mnasnet", "mobilenet_v2", "nasnet", "resnet_v2", "inception", "squeezenet", "densenet")
_SDS = (0.2, 0.3, 0.5, 0.8)
_NOISES = (0.05, 0.1)
_PAIRS = tuple(itertools.product(_SDS, _NOISES))
_FLAT_SD = 3.0
_DEGREES = 4.0
_STEPS = 60


def pixel3_table(tables: Path) -> dict[str, Any]:
    """Errors by network and in all; ``tables`` holds whole_tflite_hosted_pixel3.csv and model_features_timm_tv.json."""
    names, amounts, times = _read(tables)
    families = np.array([next(family for family in _FAMILIES if name.startswith(family)) for name in names])
    chosen, averaged = np.zeros(len(times)), np.zeros(len(times))
    for family in set(families):
        out = families == family
        guesses = {pair: _predict(amounts[out], _fit(amounts[~out], times[~out], *pair)) for pair in _PAIRS}
        chosen[out] = guesses[_settings(amounts[~out], times[~out], families[~out])]
        averaged[out] = np.exp(np.mean([np.log(guess) for guess in guesses.values()], axis=0))
    return {"networks": len(names), "chosen": _scores(chosen, times, families),
            "averaged": _scores(averaged, times, families)}


def _scores(predicted: Floats, times: Floats, families: npt.NDArray[np.str_]) -> dict[str, Any]:
    ape = np.abs(predicted / times - 1)
    return {
        "median_ape": float(np.median(ape)), "within_10": float(np.mean(ape <= 0.1)),
        "within_20": float(np.mean(ape <= 0.2)),
        "by_family": {str(family): float(np.median(ape[families == family])) for family in sorted(set(families))},
    }


def _read(tables: Path) -> tuple[list[str], Floats, Floats]:
    try:
        features = json.loads((tables / "model_features_timm_tv.json").read_text(encoding="utf-8"))["pixel3"]
        with (tables / "whole_tflite_hosted_pixel3.csv").open(encoding="utf-8") as file:
            rows = {row["model"]: float(row["latency_ms"]) for row in csv.DictReader(file)
                    if row["backend"] == "cpu" and row["precision"] in ("float", "float32", "fp32")}
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"The tables in {tables} cannot be read: {error!r}.") from error
    names = [name for name in features if name in rows or name.rsplit("_", 1)[0] in rows]
    times = [rows.get(name) or rows[name.rsplit("_", 1)[0]] for name in names]
    amounts = [[features[name][term] / unit for term, (unit, _) in _TERMS.items()] for name in names]
    return names, np.array(amounts, np.float64), np.array(times)


def _settings(amounts: Floats, times: Floats, families: npt.NDArray[np.str_]) -> tuple[float, float]:
    """The pair that leaves the smallest error on training families left out, each family counting the same."""

    def error(sd: float, noise: float) -> float:
        found = []
        for family in set(families):
            out = families == family
            guess = _predict(amounts[out], _fit(amounts[~out], times[~out], sd, noise))
            found.append(float(np.median(np.abs(np.log(guess / times[out])))))
        return float(np.mean(found))

    return min(_PAIRS, key=lambda pair: error(*pair))


def _guess() -> Floats:
    return np.log([guess for _, guess in _TERMS.values()])


def _predict(amounts: Floats, log_cost: Floats) -> Floats:
    return np.asarray(amounts @ np.exp(log_cost))


def _fit(amounts: Floats, times: Floats, sd: float, noise: float) -> Floats:
    """Logarithms of the costs: near the guess up to a common scale, with residuals of a Student distribution."""
    guess = _guess()
    start = float(np.median(np.log(times) - np.log(amounts @ np.exp(guess))))
    local = np.zeros(1 + len(guess))
    precision = np.diag([_FLAT_SD**-2, *[sd**-2] * len(guess)])
    for _ in range(_STEPS):
        parts = np.exp(guess + local[1:]) * amounts
        total = parts.sum(axis=1)
        residuals = np.log(times) - start - local[0] - np.log(total)
        near = np.column_stack([np.ones(len(times)), parts / total[:, None]])
        weights = (_DEGREES + 1) / (_DEGREES * noise**2 + residuals**2)
        pull = near.T @ (weights * residuals) - precision @ local
        local += 0.6 * np.linalg.solve((near * weights[:, None]).T @ near + precision, pull)
    return np.asarray(guess + local[1:] + local[0] + start)
