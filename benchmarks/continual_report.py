"""The table of benchmarks.continual, and whether the claims hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from benchmarks.continual import Row

__all__ = ["best_rate", "ranked_rates", "read_rows", "table"]

_WHOLE_CHANNELS = ("channels ", "convolutions ", "inside blocks ")
_LEAST_FACTOR = {"sparse .75": 4, "sparse .9": 7, "sparse .95": 10}
_DENSE = "dense"


def read_rows(out: Path, kind: type[Row]) -> list[Row]:
    """What has been stored so far."""
    path = out / "rows.json"
    return msgspec.json.decode(path.read_bytes(), type=list[kind]) if path.is_file() else []  # type: ignore[valid-type]


def best_rate(rows: Sequence[Row], arm: str) -> float:
    """By class-incremental accuracy on held-out pictures, among the rates that were tried with most seeds."""
    return ranked_rates(rows, arm)[0]


def ranked_rates(rows: Sequence[Row], arm: str) -> list[float]:
    """Those that were tried with most seeds first, by the mean over these; then the others."""
    found: dict[float, dict[int, float]] = {}
    for row in rows:
        if row.held_out and row.arm == arm:
            found.setdefault(row.rate, {})[row.seed] = row.class_incremental
    return sorted(found, key=lambda rate: (len(found[rate]), np.mean(list(found[rate].values()))), reverse=True)


def _held_out(rows: Sequence[Row], arm: str) -> dict[int, Row]:
    """With the best rate, by seed."""
    rate = best_rate(rows, arm)
    return {row.seed: row for row in rows if row.held_out and row.arm == arm and row.rate == rate}


def _tested(rows: Sequence[Row], arm: str) -> dict[int, Row]:
    """With the best rate, by seed; whatever was tested where no rates were compared."""
    rates = ranked_rates(rows, arm)[:1] or [row.rate for row in rows]
    return {row.seed: row for row in rows if row.arm == arm and not row.held_out and row.rate in rates}


def table(rows: Sequence[Row]) -> str:
    """Markdown: one line for each arm, then one for each criterion."""
    lines = ["| arm | rate | seeds | class-incremental, % | to dense, points | task-incremental, % "
             "| forgetting, points | GFLOPs, full | times fewer | paper's count | density |", "|---|" + "---:|" * 10]
    dense = _tested(rows, _DENSE)
    for arm in dict.fromkeys(row.arm for row in rows if not row.held_out):
        own = _tested(rows, arm)
        if not own:
            continue
        paired = _differences(rows, arm, _DENSE)
        first, base = next(iter(own.values())), next(iter(dense.values()))
        lines.append(
            f"| {arm} | {first.rate:g} | {len(own)} "
            f"| {_spread([100 * row.class_incremental for row in own.values()])} "
            f"| {np.mean(paired):+.1f} "
            f"| {100 * np.mean([row.task_incremental for row in own.values()]):.1f} "
            f"| {100 * np.mean([row.forgetting for row in own.values()]):.1f} | {_full(own) / 1e9:.1f} "
            f"| {_full(dense) / _full(own):.1f} | {base.paper_flops / first.paper_flops:.1f} | {first.density:.3f} |")
    return "\n".join([*lines, "", *_verdicts(rows)])


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def _full(rows: dict[int, Row]) -> float:
    return float(np.mean([row.full_flops for row in rows.values()]))


def _differences(rows: Sequence[Row], arm: str, other: str, field: str = "class_incremental",
                 of: Callable[[Sequence[Row], str], dict[int, Row]] = _tested) -> list[float]:
    """Points, for each seed that both have."""
    one, two = of(rows, arm), of(rows, other)
    return [100 * (getattr(one[seed], field) - getattr(two[seed], field)) for seed in one if seed in two]


def _verdicts(rows: Sequence[Row]) -> list[str]:
    lines = []
    dense = _tested(rows, _DENSE)
    for arm, least in _LEAST_FACTOR.items():
        own = _tested(rows, arm)
        if own:
            factor, wanted = _full(dense) / _full(own), 1 - float(arm.removeprefix("sparse "))
            off = max(abs(row.density - wanted) for row in own.values())
            lines.append(_line("T1", f"{arm}: {factor:.2f}x fewer FLOPs in full (at least {least}), density off by "
                                     f"{100 * off:.2f} points (at most 1)", factor >= least and off <= 0.01))
    both = [_differences(rows, "sparse .75", _DENSE, field) for field in ("class_incremental", "task_incremental")]
    if both[0]:
        lines.append(_line("T2", f"sparse .75 less dense: {_paired(both[0])} (at least -2), in its task "
                                 f"{np.mean(both[1]):+.2f} (at least -0.5)",
                           np.mean(both[0]) >= -2 and np.mean(both[1]) >= -0.5))
    for static in ("static mask", "static random mask"):
        gain = _differences(rows, "sparse .9, masks only", f"sparse .9, {static}")
        if gain:
            lines.append(_line("T3", f"dynamic less {static}: {_paired(gain)} (more in 4 of 5, and in the mean)",
                               np.mean(gain) > 0 and _wins(gain) >= 0.8))
    gain = _differences(rows, "sparse .9", "dense, 1/8 of the steps")
    if gain:
        lines.append(_line("T4", f"sparse .9 less dense with 1/8 of the steps: {_paired(gain)} (more in 4 of 5)",
                           _wins(gain) >= 0.8))
    cost = _differences(rows, "sparse .9", "sparse .9, masks only")
    if cost:
        lines.append(f"T5: removing data and masking gradients at .9 together: {_paired(cost)}; reported only")
    return lines + _channels(rows)


def _channels(rows: Sequence[Row]) -> list[str]:
    """The sparsest channels that lose a point at most on held-out pictures; what they lose on test ones."""
    densities = {row.arm: row.density for row in rows if row.arm.startswith(_WHOLE_CHANNELS) and row.held_out}
    arms = sorted(densities, key=densities.__getitem__, reverse=True)
    lost = {arm: _differences(rows, arm, _DENSE, of=_held_out) for arm in arms if _tested(rows, arm)}
    lines = [f"{arm} less dense, held out: {_paired(gaps)}" for arm, gaps in lost.items()]
    good = [arm for arm, gaps in lost.items() if np.mean(gaps) >= -1]
    if good:
        gaps = _differences(rows, good[-1], _DENSE)
        lines.append(_line("Channels", f"{good[-1]}, chosen on held-out pictures, less dense on test ones: "
                                       f"{_paired(gaps)} (at least -1)", np.mean(gaps) >= -1))
    elif lost:
        lines.append("Channels: none of them loses a point at most on held-out pictures: FAIL")
    return lines


def _wins(differences: Sequence[float]) -> float:
    return float(np.mean(np.asarray(differences) > 0))


def _paired(differences: Sequence[float]) -> str:
    values = " ".join(f"{value:+.1f}" for value in differences)
    return f"{np.mean(differences):+.2f} points ({values})"


def _line(test: str, what: str, passed: bool | np.bool_) -> str:
    return f"{test}: {what}: {'pass' if passed else 'FAIL'}"
