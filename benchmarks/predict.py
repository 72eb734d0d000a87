"""How far latency predictions are off for networks, and for boards, that the fit has not seen.

Usage: python -m benchmarks.predict [--measurements TABLE.csv.gz] [--graphs OPS.csv] [--tables FOLDER]
[--threads N] [--json]
       python -m benchmarks.predict --host [CONFIGURATION] [--cache FOLDER] [--seconds S] [--json]
       python -m benchmarks.predict --pixel3 [--tables FOLDER] [--json]

FOLDER (default: $EDGEKIT_SHARED/latency, else ../shared/latency) holds ncnn_benchmark.csv.gz and
ncnn_model_ops.csv. With --measurements the boards of that table are new ones: the population and the catalogue come
from FOLDER's ARM boards, and each new board is predicted from k of its networks, none of the family that is
predicted. Several threads: --threads.

With --host nothing of FOLDER is read: a profile of this machine is fitted and scored on networks of benchmarks.nets
(benchmarks.predict_host), for litert-float32, litert-int8, ort-float32, or one of them. Needs torch for the export.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.profile.baseline import least_squares
from edgekit.profile.holdout import HeldOut, Study, bands, leave_families_out
from edgekit.profile.ncnn import FAMILY, MULTI_THREAD_PRIORS, arm_runs, processor_key
from edgekit.profile.newboard import Shots, catalogue_shots, strict_shots
from edgekit.profile.population import ONE_CORE, Priors
from edgekit.profile.tables import BoardRun, read_graphs, read_runs

ROOT = Path(__file__).resolve().parent.parent
COUNTS = (1, 3, 5)
FOLDS = 6


def summary(ape: NDArray[np.float64], board: NDArray[np.int64]) -> dict[str, float]:
    """The figures of one method; ``board_median`` is the mean over boards of the median error."""
    medians = [np.median(ape[board == index]) for index in np.unique(board)]
    return {
        "board_median": float(np.mean(medians)), "within_10": float(np.mean(ape <= 0.1)),
        "within_20": float(np.mean(ape <= 0.2)), "p90": float(np.quantile(ape, 0.9)), "cells": len(ape),
    }


def unseen_families(study: Study, priors: Priors) -> dict[str, Any]:
    """Whole families left out on all boards: ours and least squares, band and domain, by board and by family."""
    held_out = leave_families_out(study, priors)
    found = bands(held_out)
    board = held_out.cells.board
    family = [
        {"family": name, "median": float(np.median(held_out.ape[rows])),
         "bias": float(np.median(np.exp(-held_out.log_ratio[rows]) - 1)),
         "inside": float(found.inside[rows].mean()), "covered": float(found.covered[rows].mean())}
        for index, name in enumerate(held_out.families) for rows in [held_out.family == index]
    ]
    return {
        "ours": summary(held_out.ape, board),
        "inside_domain": summary(held_out.ape[found.inside], board[found.inside]),
        "domain_share": float(found.inside.mean()),
        "band_coverage": float(found.covered[found.inside].mean()),
        "median_half_width": float(np.exp(np.median(found.half_width[found.inside])) - 1),
        **{f"least_squares_{count}": summary(_ape(least_squares(study, count), held_out), board) for count in (3, 10)},
        "families": family,
        "boards": [
            {"board": f"{run.device} ps{run.powersave}", "median": float(np.median(held_out.ape[board == index]))}
            for index, run in enumerate(study.runs)
        ],
    }


def _ape(predicted: NDArray[np.float64], held_out: HeldOut) -> NDArray[np.float64]:
    return np.asarray(np.abs(np.exp(predicted - held_out.cells.log_ms) - 1))


def unseen_boards(study: Study, priors: Priors) -> dict[str, Any]:
    """Boards left out with all others of the same processor."""
    keys = [processor_key(run.device) for run in study.runs]
    others = [[run for run, key in zip(study.runs, keys, strict=True) if key != own] for own in keys]
    known = catalogue_shots(study, study.runs, others, (0, *COUNTS))
    folds = {key: index % FOLDS for index, key in enumerate(sorted(set(keys)))}
    errors: dict[int, dict[int, list[float]]] = {count: {} for count in COUNTS}
    for fold in range(FOLDS):
        rest = [run for run, key in zip(study.runs, keys, strict=True) if folds[key] != fold]
        new = [run for run, key in zip(study.runs, keys, strict=True) if folds[key] == fold]
        shots = strict_shots(_with(study, rest), new, COUNTS, priors)
        for count in COUNTS:
            for number, values in shots.ape[count].items():
                errors[count][fold * 1000 + number] = values
    return {"catalogue": _shots(known), "strict": _shots(Shots(errors))}


def new_boards(study: Study, boards: Sequence[BoardRun], priors: Priors) -> dict[str, Any]:
    """Boards of another table, with the population and the catalogue of ``study``."""
    known = catalogue_shots(study, boards, [study.runs] * len(boards), (0, *COUNTS))
    strict = strict_shots(study, boards, COUNTS, priors)
    return {"catalogue": _shots(known), "strict": _shots(strict), "boards": [run.device for run in boards]}


def _with(study: Study, runs: Sequence[BoardRun]) -> Study:
    return Study(study.models, study.family, study.graphs, tuple(runs))


def _shots(shots: Shots) -> dict[str, dict[str, float]]:
    return {f"k={count}" if count else "all others": {
        "board_median": shots.board_mean(count), "within_10": shots.within(count, 0.1),
    } for count in shots.ape}


def show(results: dict[str, Any]) -> None:
    """Print every table."""
    for name, found in results.items():
        print(f"\n== {name}")
        for key, value in found.items():
            if isinstance(value, list):
                for row in value:
                    print("   ", row if isinstance(row, str) else "  ".join(_cell(k, v) for k, v in row.items()))
            elif isinstance(value, dict):
                print(f"{key:18s}", "  ".join(_cell(k, v) for k, v in value.items()))
            else:
                print(f"{key:18s} {_cell('', value)}")


def _cell(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"[{name}: " + " ".join(_cell(k, v) for k, v in value.items()) + "]"
    return f"{name} {value:.1%}" if isinstance(value, float) else f"{name} {value}"


def host(configuration: str, cache: Path, seconds: float) -> dict[str, Any]:
    """Tables of this machine, by configuration."""
    from benchmarks.predict_host import CONFIGURATIONS, host_table

    chosen = CONFIGURATIONS if configuration == "all" else (configuration,)
    return {each: host_table(each, cache, seconds) for each in chosen}


def show_host(found: dict[str, Any]) -> None:
    """A table for each configuration."""
    for name, table in found.items():
        print(f"\n{name}: median error {table['median_ape']:.1%}, within 15 % {table['within_15']:.0%}, "
              f"in the 90 % band {table['band_holds']:.0%}, own check {table['own_check_median_ape']:.1%}")
        for network, row in table["networks"].items():
            print(f"  {network:24s} measured {row['measured_ms']:8.3f} ms, predicted {row['predicted_ms']:8.3f} "
                  f"({row['predicted_ms'] / row['measured_ms'] - 1:+.1%}), covered {row['covered']:.0%}")


def main() -> None:
    """Score, print, and with --json print one object instead."""
    shared = Path(os.environ.get("EDGEKIT_SHARED", ROOT.parent / "shared")) / "latency"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measurements", type=Path)
    parser.add_argument("--graphs", type=Path)
    parser.add_argument("--tables", type=Path, default=shared)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--host", nargs="?", const="all", help="this machine: a configuration, or all")
    parser.add_argument("--pixel3", action="store_true", help="TFLite on a Pixel 3 instead")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "predict-host")
    parser.add_argument("--seconds", type=float, default=150.0)
    given = parser.parse_args()
    if given.pixel3:
        from benchmarks.predict_pixel3 import pixel3_table

        print(json.dumps(pixel3_table(given.tables), indent=None if given.json else 1))
        return
    if given.host:
        found = host(given.host, given.cache, given.seconds)
        print(json.dumps(found)) if given.json else show_host(found)
        return
    priors = ONE_CORE if given.threads == 1 else MULTI_THREAD_PRIORS
    graphs = read_graphs(given.tables / "ncnn_model_ops.csv")
    if given.graphs:
        graphs.update(read_graphs(given.graphs))
    runs = arm_runs(read_runs(given.tables / "ncnn_benchmark.csv.gz"), given.threads)
    study = Study.of(graphs, FAMILY, runs)
    if given.measurements:
        boards = arm_runs(read_runs(given.measurements), given.threads, least=6)
        named = {board.device for board in boards}  # a board of FOLDER would otherwise vouch for itself
        study = Study.of(graphs, FAMILY, [run for run in runs if run.device not in named])
        results = {"new boards": new_boards(study, boards, priors)}
    else:
        results = {"unseen families": unseen_families(study, priors), "unseen boards": unseen_boards(study, priors)}
    if given.json:
        print(json.dumps(results))
    else:
        show(results)


if __name__ == "__main__":
    main()
