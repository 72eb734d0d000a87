"""Fit the shipped device profiles from the public latency tables. The profiles hold the fitted numbers, not the tables.

Usage: python scripts/fit_profiles.py TABLES [--out device_profiles]

TABLES holds ncnn_benchmark.csv.gz (ncnn's benchmark/README.md as rows), ncnn_model_ops.csv (its graphs) and
whole_tflite_hosted_pixel3.csv. The same tables give byte-identical files.
"""

from __future__ import annotations

import argparse
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgekit.atomic import write_atomically
from edgekit.device_profiles import Accuracy, Confidence, DeviceProfile, FittedCosts, PopulationFile, Source
from edgekit.profile.catalogue import fit_catalogue
from edgekit.profile.domain import domain_limit, novelty, spreads, term_shares
from edgekit.profile.holdout import Bands, HeldOut, Study, bands, leave_families_out
from edgekit.profile.ncnn import FAMILY, MULTI_THREAD_PRIORS, arm_runs
from edgekit.profile.population import Board, Population, Priors
from edgekit.profile.tables import BoardRun, read_graphs, read_runs
from edgekit.profile.terms import SHAPE_NAMES, TERMS

__all__ = ["device_slug", "main"]

_LICENCE = "BSD-3-Clause"
_DIGITS = 5
#: (part of the source's heading, id, device, system on chip)
_DEVICES = (
    ("Jetson AGX Orin", "jetson-agx-orin", "NVIDIA Jetson AGX Orin", "NVIDIA Orin (Cortex-A78AE)"),
    ("Jetson Orin Nano", "jetson-orin-nano", "NVIDIA Jetson Orin Nano", "NVIDIA Orin (Cortex-A78AE)"),
    ("Jetson Nano", "jetson-nano", "NVIDIA Jetson Nano", "NVIDIA Tegra X1 (Cortex-A57)"),
    ("Jetson TX2 NX", "jetson-tx2-nx", "NVIDIA Jetson TX2 NX", "NVIDIA Tegra X2 (Denver2, Cortex-A57)"),
    ("Jetson AGX Xavier", "jetson-agx-xavier", "NVIDIA Jetson AGX Xavier", "NVIDIA Xavier (Carmel)"),
    ("Raspberry Pi 3 Model B+", "raspberry-pi-3", "Raspberry Pi 3 Model B+", "Broadcom BCM2837B0 (Cortex-A53)"),
    ("Raspberry Pi 4 Model B", "raspberry-pi-4", "Raspberry Pi 4 Model B", "Broadcom BCM2711B0 (Cortex-A72)"),
    ("Raspberry Pi 5 Broadcom BCM2712 Overclock", "raspberry-pi-5-overclocked", "Raspberry Pi 5 at 2.9 GHz",
     "Broadcom BCM2712 (Cortex-A76)"),
    ("Raspberry Pi 5", "raspberry-pi-5", "Raspberry Pi 5", "Broadcom BCM2712 (Cortex-A76)"),
    ("Raspberry Pi Zero 2 W", "raspberry-pi-zero-2-w", "Raspberry Pi Zero 2 W", "Broadcom BCM2710A1 (Cortex-A53)"),
    ("HUAWEI KunPeng 920 2251K", "kunpeng-920-2251k", "Huawei KunPeng 920 2251K", "HiSilicon KunPeng 920 (TSV110)"),
    ("HUAWEI KunPeng 920 3211K", "kunpeng-920-3211k", "Huawei KunPeng 920 3211K", "HiSilicon KunPeng 920 (TSV110)"),
    ("HUAWEI Kunpeng 920 7260", "kunpeng-920-7260", "Huawei Kunpeng 920 7260", "HiSilicon KunPeng 920 (TSV110)"),
    ("MacBook Pro (13-inch, M1", "macbook-pro-m1", "MacBook Pro (13-inch, M1, 2020)", "Apple M1"),
    ("MacBook Air (13-inch, M3", "macbook-air-m3", "MacBook Air (13-inch, M3, 2024)", "Apple M3"),
    ("iPhone 5S", "iphone-5s", "iPhone 5S", "Apple A7"),
    ("Dimensity 9300", "dimensity-9300", "MediaTek Dimensity 9300", "MediaTek MT6989 (Cortex-X4, A720)"),
    ("D64ps v6", "azure-cobalt-100", "Microsoft Azure D64ps v6", "Microsoft Cobalt 100"),
    ("Arduino UNO Q", "arduino-uno-q", "Arduino UNO Q", "Qualcomm QRB2210 (Cortex-A53)"),
)  # fmt: skip


def device_slug(heading: str) -> tuple[str, str, str]:
    """Id, device and system on chip for a heading of the source."""
    for part, slug, device, soc in _DEVICES:
        if part in heading:
            return slug, device, soc
    device, _, rest = heading.partition("(")
    device = device.strip().rstrip(",")
    snapdragon = re.search(r"Snapdragon (\d+\+?(?: Gen \d)?|X Elite)", heading)
    if snapdragon:
        device = f"Qualcomm Snapdragon {snapdragon[1]}"
    name = device.removeprefix("Qualcomm ").replace("+", " plus")
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return (
        re.sub(r"[^a-z0-9]+", "-", plain).strip("-"),
        device,
        f"{device} ({rest.rpartition(')')[0]})" if rest else device,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _matrix(values: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(_rounded(value) for value in row) for row in values)


def _population_file(name: str, study: Study, population: Population, spread: float) -> PopulationFile:
    shares = term_shares(population.log_cost, study.amounts(population.shape))
    family = np.array(study.family)
    new = np.array([novelty(shares[i : i + 1], shares[family != family[i]])[0] for i in range(len(family))])
    limit = domain_limit(new)
    # Alone in its family, a network that nothing else resembles was never predicted well: it vouches for none.
    vouching = {model: row for model, row, far in zip(study.models, shares, new > limit, strict=True) if not far}
    catalogue = fit_catalogue(study.models, [run.latency_ms for run in study.runs])
    first = study.runs[0]
    return PopulationFile(
        id=name,
        source=_source(first, "Tables of all ARM boards with the same threads and backend."),
        boards=len(study.runs),
        shape=dict(zip(SHAPE_NAMES, map(_rounded, population.shape), strict=True)),
        costs_ms=dict(zip(TERMS, map(_rounded, np.exp(population.log_cost)), strict=True)),
        delta_cov=_matrix(population.delta_cov),
        mixtures={model: tuple(map(_rounded, row)) for model, row in vouching.items()},
        novelty_limit=_rounded(limit),
        spread=_rounded(spread),
        catalogue=catalogue.models,
        catalogue_mean=tuple(map(_rounded, catalogue.mean)),
        catalogue_cov=_matrix(catalogue.cov),
    )


def _source(run: BoardRun, note: str) -> Source:
    page = re.sub(r"#L\d+$", "", run.url)
    return Source(url=page, licence=_LICENCE, note=note)


def _accuracy(held_out: HeldOut, found: Bands, rows: Any) -> Accuracy:
    ape, inside = held_out.ape[rows], found.inside[rows]
    covered = found.covered[rows][inside]
    return Accuracy(
        networks=len(ape),
        families=len(set(held_out.family[rows])),
        median_ape=_rounded(np.median(ape)),
        p90_ape=_rounded(np.quantile(ape, 0.9)),
        within_10=_rounded(np.mean(ape <= 0.1)),
        within_20=_rounded(np.mean(ape <= 0.2)),
        band_coverage=_rounded(covered.mean() if len(covered) else 0.0),
        inside_domain=_rounded(inside.mean()),
    )


def _profile(
    study: Study, index: int, board: Board, spread: float, accuracy: Accuracy, how: dict[str, Any]
) -> DeviceProfile:
    run = study.runs[index]
    little = " The slow cluster of cores." if run.powersave == "1" else ""
    gpu = run.backend != "cpu"
    return DeviceProfile(
        id=how["id"],
        device=how["device"],
        soc=how["soc"],
        os="not stated",
        runtime="ncnn",
        runtime_version=f"of {run.date} (last change of the rows)",
        backend="gpu" if gpu else "cpu",
        threads=run.threads,
        precision="mixed",
        confidence=how["confidence"],
        source=_source(run, f"Heading '{run.device}', run {run.run}, rows of commit {run.commit[:12]}.{little}"),
        fit=FittedCosts(
            population=how["population"],
            spread=_rounded(spread),
            accuracy=accuracy,
            costs_ms=dict(zip(TERMS, map(_rounded, np.exp(board.log_cost)), strict=True)),
        ),
    )


def _ids(runs: tuple[BoardRun, ...], suffix: str) -> list[tuple[str, str, str]]:
    """Unique ids: the slow cluster is named, and of several runs of one board all but the latest carry their date."""
    plain = []
    for run in runs:
        slug, device, soc = device_slug(run.device)
        plain.append((f"{slug}-little" if run.powersave == "1" and "RK3" in run.device else slug, device, soc))
    latest = {
        slug: max(run.date for run, (other, _, _) in zip(runs, plain, strict=True) if other == slug)
        for slug, _, _ in plain
    }
    seen: Counter[str] = Counter()
    found = []
    for run, (slug, device, soc) in zip(runs, plain, strict=True):
        name = slug if run.date == latest[slug] else f"{slug}-{run.date[:7]}"
        seen[name] += 1
        name = name if seen[name] == 1 else f"{name}-run{run.run}"
        found.append((f"{name}-{suffix}", device, soc))
    return found


def fit_group(
    graphs: dict[str, Any], runs: list[BoardRun], name: str, priors: Priors, confidence: Confidence
) -> tuple[PopulationFile, list[DeviceProfile]]:
    """The population and the profiles of the boards in ``runs``."""
    study = Study.of(graphs, FAMILY, runs)
    held_out = leave_families_out(study, priors)
    found = bands(held_out)
    population, boards = study.fit(priors)
    inside = found.inside
    family = np.unique(held_out.family[inside], return_inverse=True)[1]
    spread = spreads(held_out.log_ratio[inside], held_out.novelty[inside], held_out.cells.board[inside], family)
    shared = _population_file(name, study, population, float(np.median(spread)))
    profiles = []
    for index, (board, (slug, device, soc)) in enumerate(zip(boards, _ids(study.runs, name), strict=True)):
        accuracy = _accuracy(held_out, found, held_out.cells.board == index)
        how = {"id": slug, "device": device, "soc": soc, "confidence": confidence, "population": name}
        profiles.append(_profile(study, index, board, float(spread[index]), accuracy, how))
    return shared, profiles


def main() -> None:
    """Write the profiles and populations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "device_profiles")
    given = parser.parse_args()
    graphs = read_graphs(given.tables / "ncnn_model_ops.csv")
    runs = read_runs(given.tables / "ncnn_benchmark.csv.gz")
    groups: tuple[tuple[str, int, str, Priors, Confidence], ...] = (
        ("ncnn-cpu-1t", 1, "cpu", Priors(), "calibrated"),
        ("ncnn-cpu-4t", 4, "cpu", MULTI_THREAD_PRIORS, "low"),
        ("ncnn-vulkan", 1, "vulkan_gpu", MULTI_THREAD_PRIORS, "indicative"),
    )
    for name, threads, backend, priors, confidence in groups:
        shared, profiles = fit_group(graphs, arm_runs(runs, threads, backend), name, priors, confidence)
        _write(given.out / f"population-{name}.json", shared)
        for profile in profiles:
            _write(given.out / f"{profile.id}.json", profile)
        errors = [profile.fit.accuracy.median_ape for profile in profiles if profile.fit]
        print(f"{name}: {len(profiles)} profiles, mean over boards of the held-out median error {np.mean(errors):.1%}")


def _write(path: Path, content: msgspec.Struct) -> None:
    indent = 0 if isinstance(content, PopulationFile) else 1  # matrices, one number to a line, are no help to anyone
    write_atomically(path, msgspec.json.format(msgspec.json.encode(content), indent=indent) + b"\n")


if __name__ == "__main__":
    main()
