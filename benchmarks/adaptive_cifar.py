"""What early exits save on CIFAR-10 (JPEG): networks of benchmarks.cifar_exits in int8, planned, judged on test images.

    python -m benchmarks.adaptive_cifar --runs RUNS [--seeds 0 1 2] [--precision int8|fp32] [--json RESULTS.json]

For each seed: the bundle with four stages (no plan on the first seed's validation images stopped at the first exit, so
no stage ends there), int8 calibrated on training images, and the network alone, without exits, in
one piece; plans on the 5,000 validation images for several allowed losses; then every plan on the 5,000 test images, by
the real runtime, CPU time of one thread, beside the piece and beside fixed points (benchmarks.adaptive_score). What is
in RUNS already is not made again. The bundles with plans, RUNS/seed0.drop0.5.edge and so on, may be scored on any pack
by ``python -m benchmarks.adaptive --pack FILE.npz --prefix test_ --bundle RUNS/seed0.drop0.5.edge``. Float32 has files
and results of its own (RUNS/fp32.seed0.edge).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import torch

from benchmarks.adaptive_score import Score, score
from benchmarks.cifar_exits import MEAN, STD, load, network
from benchmarks.packs import photographs
from benchmarks.report import table
from edgekit.adaptive import AdaptiveRecipe, build_adaptive, export_exits
from edgekit.atomic import write_atomically
from edgekit.plan import PlanRecipe, plans_with_points
from edgekit.planning import observe, store_plan
from edgekit.recipe import Preprocess

__all__ = ["at_loss", "main"]

#: percentage points that a plan may lose; what is saved at another loss lies between two of them
DROPS = (0.0, 0.5, 1.0)
_CALIBRATION = 512
_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_T = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t for a 95 % interval of a mean of so many


class Subject(NamedTuple):
    """The bundles of a seed in a precision."""

    runs: Path
    seed: int
    precision: Literal["int8", "fp32"]

    def path(self, what: str = "") -> Path:
        """Of the bundle itself, of ``piece``, or of ``drop<points>``."""
        front = "" if self.precision == "int8" else f"{self.precision}."
        return self.runs / f"{front}seed{self.seed}{what and '.'}{what}.edge"


class Row(msgspec.Struct, frozen=True):
    """One plan on the test images; ``drop``: the points that it was allowed to lose."""

    seed: int
    drop: float
    found: Score


def build(subject: Subject) -> None:
    """The bundle with all exits but the first, and that with the last one, in one stage."""
    model = network(subject.seed)
    model.load_state_dict(torch.load(subject.runs / f"seed{subject.seed}.weights.pt", weights_only=True))
    source = export_exits(model.eval(), torch.zeros(1, 3, 32, 32), dynamic_hw=False)
    names = tuple(output.name for output in source.outputs)
    calibration = load("train").images[:_CALIBRATION] if subject.precision == "int8" else None
    for what, exits in (("", names[1:]), ("piece", names[-1:])):
        build_adaptive(source, subject.path(what), AdaptiveRecipe(
            resolutions=((32, 32),), exits=exits, name="cifar10-exits", precision=subject.precision, labels=_LABELS,
            preprocess=Preprocess(resize="stretch", crop_fraction=1.0, mean=MEAN, std=STD)), calibration=calibration)


def plan(subject: Subject) -> None:
    """A bundle with a plan for each allowed loss, by the validation images."""
    held_out = load("validation")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "validation.npz"
        np.savez(data, images=held_out.images, labels=held_out.labels)
        seen = observe(subject.path(), data)
    for drop, planned in zip(DROPS, plans_with_points(seen, [PlanRecipe(max_drop=drop) for drop in DROPS]),
                             strict=True):
        store_plan(subject.path(), subject.path(f"drop{drop:g}"), planned.plan)


def judge(subject: Subject) -> list[Row]:
    """Every plan of a seed on the test images."""
    pictures, labels = photographs("cifar10_jpeg.npz", "test_")
    return [Row(subject.seed, drop, score(subject.path(f"drop{drop:g}"), pictures, labels, piece=subject.path("piece")))
            for drop in DROPS]


def at_loss(rows: Sequence[Row], name: str, loss: float) -> float:
    """The field ``name`` at a realised loss of ``loss`` (a part of 1) against the whole network, by interpolation.

    ``rows``: of one seed. Between neighbours on the curve of plans; the outermost plan where the loss lies beyond all.
    """
    lost = [row.found.whole_accuracy - row.found.accuracy for row in rows]
    order = np.argsort(lost, kind="stable")
    values = [getattr(rows[index].found, name) for index in order]
    return float(np.interp(loss, np.array(lost)[order], values))


def report(rows: Sequence[Row]) -> str:
    """A row for each allowed loss, means over seeds with the 95 % interval (t), and one for a realised -0.5 point."""
    lines = []
    for drop in DROPS:
        found = [row.found for row in rows if row.drop == drop]
        lines.append([
            f"plan, {drop:g}", _mean([100 * each.whole_accuracy for each in found], "{:.2f}"),
            f"{np.mean([each.piece_ms or 0.0 for each in found]):.3f}",
            _mean([100 * each.accuracy for each in found], "{:.2f}"),
            f"{np.mean([each.mean_ms for each in found]):.3f}",
            _mean([100 * (each.accuracy - each.whole_accuracy) for each in found], "{:+.2f}"),
            _mean([100 * (each.accuracy - each.promised) for each in found], "{:+.2f}"),
            _mean([100 * (each.saved_piece or 0.0) for each in found], "{:.1f}"),
            _mean([100 * each.saved_fixed for each in found], "{:.1f}"),
            _mean([100 * each.gained for each in found], "{:+.2f}")])
    seeds = [[row for row in rows if row.seed == seed] for seed in sorted({row.seed for row in rows})]
    lines.append(["realised -0.5", "", "", "", "", "-0.50", "",
                  *(_mean([100 * at_loss(each, name, 0.005) for each in seeds], form)
                    for name, form in (("saved_piece", "{:.1f}"), ("saved_fixed", "{:.1f}"), ("gained", "{:+.2f}")))])
    return table(["allowed loss", "whole network, %", "one piece, ms", "adaptive, %", "ms", "difference",
                  "realised less promised", "saved of the piece, %", "saved of fixed points, %",
                  "accuracy at equal time"], lines)


def _mean(values: Sequence[float], form: str) -> str:
    mean = form.format(np.mean(values))
    if len(values) not in _T:
        return mean
    return f"{mean} +-{_T[len(values)] * np.std(values, ddof=1) / np.sqrt(len(values)):.2f}"


def main() -> None:
    """Build, plan and judge what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", choices=["int8", "fp32"], default="int8")
    parser.add_argument("--json", type=Path, help="rows of earlier runs, to which those of this one are added")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = given.json or given.runs / f"results-{given.precision}.json"
    rows = msgspec.json.decode(results.read_bytes(), type=list[Row]) if results.exists() else []
    for subject in [Subject(given.runs, seed, given.precision) for seed in given.seeds]:
        if any(row.seed == subject.seed for row in rows):
            continue
        if not subject.path("piece").exists():
            build(subject)
        if not all(subject.path(f"drop{drop:g}").exists() for drop in DROPS):
            plan(subject)
        rows += judge(subject)
        write_atomically(results, msgspec.json.encode(rows))
    print(report([row for row in rows if row.seed in given.seeds]))


if __name__ == "__main__":
    main()
