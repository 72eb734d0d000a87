"""The search with predicted times against the search with measured ones, on the machine that the profiles are of.

    edgekit devices fit --host --precision float32 -o float.json
    edgekit devices fit --host --precision int8 -o int8.json
    edgekit devices fit --host --precision dynamic8 -o dynamic8.json
    python -m benchmarks.quantize_device float.json int8.json dynamic8.json [--network NAME ...]

Both searches see the same calibration data. The two files that they choose are then timed side by side, with the float
file; and the ratio that the profiles predict is compared with the measured one over all candidates of both searches.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.quantize_cases import Case, cases
from edgekit.converters.quantize import Search, search
from edgekit.converters.quantize.priced import search_for
from edgekit.converters.quantize.speed import compare_speed
from edgekit.device_profiles import resolve
from edgekit.profile.mixed import MixedProfile, mixed_profile
from edgekit.recipe import QuantRecipe

_SECONDS = 6.0
_DEFAULT = ("mobilenet_v3_small", "convnext_tiny", "efficientnet_lite0")


def _row(case: Case, pair: MixedProfile) -> str:
    priced = search_for(pair, case.model, case.seen, case.goal, QuantRecipe(()))
    timed = search(case.model, case.seen, case.goal)
    feeds = next(iter(case.seen))
    found = compare_speed([case.model.data, priced.model.data, timed.model.data], feeds, _SECONDS)
    ratios = [(1 / each.ratio) for each in found[1:]]
    rank, error, count = _agreement(priced, timed)
    return (f"| {case.name} | {_name(priced)} | {_name(timed)} | {ratios[0]:.2f} | {ratios[1]:.2f} | "
            f"{_predicted(priced):.2f} | {rank:.2f} | {100 * error:.0f} % | {count} | {priced.seconds:.0f} | "
            f"{timed.seconds:.0f} |")


def _name(found: Search) -> str:
    return "float32" if found.chosen is None else found.chosen.name


def _predicted(found: Search) -> float:
    return 1.0 if found.chosen is None or found.chosen.speed is None else 1 / found.chosen.speed.ratio


def _agreement(priced: Search, timed: Search) -> tuple[float, float, int]:
    """Rank correlation and median error of predicted ratios, over the candidates that both searches made."""
    ours = {trial.name: trial.speed.ratio for trial in priced.trials if trial.speed is not None}
    theirs = {trial.name: trial.speed.ratio for trial in timed.trials if trial.speed is not None}
    names = sorted(ours.keys() & theirs.keys())
    predicted, measured = np.array([ours[name] for name in names]), np.array([theirs[name] for name in names])
    return _spearman(predicted, measured), float(np.median(np.abs(predicted / measured - 1))), len(names)


def _spearman(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profiles", nargs="+")
    parser.add_argument("--network", action="append", default=[])
    arguments = parser.parse_args()
    pair = mixed_profile([resolve(name) for name in arguments.profiles])
    print("| network | chosen by prediction | chosen by timing | faster than float | faster than float | predicted | "
          "rank correlation | median error of ratios | candidates | search s | search s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(arguments.network or _DEFAULT, Path(folder)):
            print(_row(case, pair), flush=True)


if __name__ == "__main__":
    main()
