"""What adaptive inference saves: EfficientNet-Lite0 on Tiny-ImageNet tasks, and any planned bundle on any pack.

    python -m benchmarks.adaptive --tasks RUNS/lite0_0.edge RUNS/lite0_1.edge RUNS/lite0_2.edge --out RESULTS.json
    python -m benchmarks.adaptive --pack FILE.npz [--prefix val_] [--bundle PLANNED.edge ...] [--json]
    python -m benchmarks.adaptive --table RESULTS.json
    python -m benchmarks.adaptive --fixed RUNS/lite0_0.edge      # every exit by itself

``--tasks``: bundles of benchmarks.lite0_heads, one for each seed. All exits of all resolutions are run in int8 on the
5,000 validation images, timed on one thread; then logits are restricted to random groups of classes, plans are made on
one half of the images and judged on the other. The opponent is the hull of all fixed points, random mixing included.
Results are added to RESULTS.json one by one, and what is there is not run again.

``--pack``: accuracy and CPU time of bundles that hold a plan on the images of a pack of JPEG files, beside their whole
network and their fixed points.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.adaptive_score import score, score_line
from benchmarks.adaptive_tasks import Judged, Task, blind_halves, judge, restricted
from benchmarks.lite0_features import PACK
from benchmarks.packs import read_pack
from edgekit.atomic import write_atomically
from edgekit.plan import Observations
from edgekit.planning import observe

__all__ = ["main"]

TASKS = (Task("20 classes", 20), Task("10 classes", 10), Task("50 classes", 50), Task("200 classes", None))
#: task -> (least part of the hull's time that is to be saved, the aim)
BARS = {"10 classes": (0.30, 0.45), "20 classes": (0.25, 0.38), "50 classes": (0.12, 0.20), "200 classes": (0.0, 0.10)}
_DROPS = (0.0, 0.5)


class Row(msgspec.Struct, frozen=True):
    """One plan: seed of the heads and the groups, number of the half, what was allowed to be lost."""

    task: str
    seed: int
    half: int
    drop: float
    judged: Judged


def observed(bundle: Path, cache: Path) -> Observations:
    """All exits on the validation images, kept in ``cache``."""
    if cache.exists():
        return msgspec.msgpack.decode(cache.read_bytes(), type=_Kept).observations()
    pictures, labels = read_pack(PACK, "val_")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "val.npz"
        np.savez(data, images=np.stack(pictures), labels=labels)
        found = observe(bundle, data)
    write_atomically(cache, msgspec.msgpack.encode(_Kept.of(found)))
    return found


class _Kept(msgspec.Struct, frozen=True):
    """Observations as bytes."""

    logits: list[list[bytes]]
    shape: tuple[int, int]
    labels: list[int]
    stage_ms: list[list[float]]
    overhead_ms: float
    device: str
    sha256: str

    @classmethod
    def of(cls, found: Observations) -> _Kept:
        assert found.labels is not None
        return cls([[each.tobytes() for each in row] for row in found.logits], (found.samples, found.classes),
                   found.labels.tolist(), [list(row) for row in found.stage_ms], found.overhead_ms, found.device,
                   found.ladders_sha256)

    def observations(self) -> Observations:
        logits = tuple(tuple(np.frombuffer(each, np.float32).reshape(self.shape) for each in row)
                       for row in self.logits)
        return Observations(logits, np.array(self.labels), tuple(map(tuple, self.stage_ms)), self.overhead_ms,
                            self.device, "litert", "measured", self.sha256)


def run_tasks(bundles: Sequence[Path], out: Path, halves: int, tasks: Sequence[Task]) -> list[Row]:
    """A plan for every task, seed, half and drop; ``halves`` for each seed."""
    rows = msgspec.json.decode(out.read_bytes(), type=list[Row]) if out.exists() else []
    done = {(row.task, row.seed, row.half, row.drop) for row in rows}
    for half in range(0, halves, 2):  # breadth first, so that an early end has something of everything
        for task in tasks:
            for seed, bundle in enumerate(bundles):
                if all((task.name, seed, half + way, drop) in done for drop in _DROPS for way in (0, 1)):
                    continue
                seen = restricted(observed(bundle, bundle.with_suffix(".seen")), task, 1000 * seed + half)
                new = [Row(task.name, seed, half + way, drop, found)
                       for way, (first, second) in enumerate(blind_halves(seen, 77 * seed + half))
                       for drop, found in zip(_DROPS, judge(first, second, _DROPS), strict=True)]
                rows += new
                write_atomically(out, msgspec.json.encode(rows))
                print(task.name, seed, half, [f"{row.drop:g}: {row.judged.saved:.3f}" for row in new], flush=True)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Means over seeds and halves with the 95 % interval over seeds (t) and the spread over halves."""
    lines = ["| task | allowed | plans | best fixed | realised | of the hull's time saved | 10 to 90 % of plans | "
             "by seed | of a hull chosen on the same half | "
             "accuracy at equal time | realised less promised | a fixed point chosen | bar | aim |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for task in TASKS:
        for drop in _DROPS:
            chosen = [row for row in rows if row.task == task.name and row.drop == drop]
            if not chosen:
                continue
            judged = [row.judged for row in chosen]
            saved = np.array([each.saved for each in judged])
            seeds = [float(np.mean([row.judged.saved for row in chosen if row.seed == seed]))
                     for seed in sorted({row.seed for row in chosen})]
            kept = np.array([each.realised - each.promised for each in judged])
            error = 1.96 * kept.std(ddof=1) / np.sqrt(len(kept)) if len(kept) > 1 else 0.0
            bar, aim = BARS[task.name]
            lines.append(
                f"| {task.name} | {drop:g} | {len(judged)} | {_percent([each.best_fixed for each in judged])} in "
                f"{np.mean([each.best_fixed_ms for each in judged]):.2f} ms | "
                f"{_percent([each.realised for each in judged])} in "
                f"{np.mean([each.mean_ms for each in judged]):.2f} ms | "
                f"**{100 * saved.mean():.1f} %** | {100 * np.quantile(saved, 0.1):.0f} to "
                f"{100 * np.quantile(saved, 0.9):.0f} % | {', '.join(f'{100 * each:.1f}' for each in seeds)} | "
                f"{100 * np.mean([each.saved_chosen for each in judged]):.1f} % | "
                f"{100 * np.mean([each.gained for each in judged]):+.2f} | {100 * kept.mean():+.2f} "
                f"(+-{100 * error:.2f}) | {sum(each.fixed_is_better for each in judged)} | {100 * bar:.0f} % | "
                f"{100 * aim:.0f} % |")
    return "\n".join(lines)


def _percent(values: Sequence[float]) -> str:
    return f"{100 * float(np.mean(values)):.1f} %"


def fixed_table(bundle: Path) -> str:
    """Accuracy on the validation images, and milliseconds, of every exit; one row for each resolution."""
    seen = observed(bundle, bundle.with_suffix(".seen"))
    lines = ["| ladder | answers of each exit, % | until each exit, ms |", "|---|---|---|"]
    for number, (row, stage_ms) in enumerate(zip(seen.logits, seen.stage_ms, strict=True)):
        right = [f"{100 * float(np.mean(each.argmax(axis=1) == seen.labels)):.1f}" for each in row]
        until = [f"{each:.2f}" for each in np.cumsum(stage_ms)]
        lines.append(f"| {number} | {' '.join(right)} | {' '.join(until)} |")
    return "\n".join(lines)


def score_pack(pack: Path, prefix: str, bundles: Sequence[Path], count: int | None, as_json: bool) -> None:
    """Print what bundles do on a pack."""
    pictures, labels = read_pack(pack, prefix, count)
    found = {str(bundle): score(bundle, pictures, labels) for bundle in bundles}
    if as_json:
        print(json.dumps({name: msgspec.to_builtins(each) for name, each in found.items()}))
        return
    print("| bundle | whole network | adaptive | difference, points | realised less promised | "
          "saved against the whole | against fixed points |")
    print("|---|---|---|---|---|---|---|")
    for name, each in found.items():
        print(score_line(Path(name).name, each))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("adaptive.json"))
    parser.add_argument("--halves", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=[task.name for task in TASKS])
    parser.add_argument("--table", type=Path)
    parser.add_argument("--fixed", type=Path, metavar="BUNDLE")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--prefix", default="val_")
    parser.add_argument("--bundle", nargs="+", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if given.pack is not None:
        if not given.bundle:
            parser.error("give --bundle with --pack")
        score_pack(given.pack, given.prefix, given.bundle, given.count, given.json)
    elif given.tasks:
        tasks = [task for task in TASKS if not given.only or task.name in given.only]
        print(table(run_tasks(given.tasks, given.out, given.halves, tasks)))
    elif given.fixed is not None:
        print(fixed_table(given.fixed))
    elif given.table is not None:
        print(table(msgspec.json.decode(given.table.read_bytes(), type=list[Row])))
    else:
        parser.error("give --tasks, --pack, --fixed or --table")


if __name__ == "__main__":
    main()
