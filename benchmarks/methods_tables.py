"""Tables of the comparisons of training methods, from the rows that ``train_methods`` and ``train_resolution`` keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods_data import TESTED, canvases

__all__ = ["budgeted", "exits_table", "resolution_table"]

Row = Mapping[str, Any]
_POWERS = np.arange(1, 40) / 20
_BUDGETS = np.linspace(0.3, 0.6, 13)


def budgeted(validation: Any, test: Any, labels: Any, costs: Sequence[float]) -> float:
    """The mean accuracy, in percent, at 30 to 60 % of the full cost (MSDNet's budgeted batch, without flattening).

    ``validation``, ``test``: logits (exits, N, classes); ``labels`` of the latter. Exits are to be taken in the shares
    p^k; the thresholds on the largest probability that do this on validation are used on test, and accuracies between
    costs are interpolated.
    """
    sure = [_sure(each) for each in (validation, test)]
    found = []
    for power in _POWERS:
        thresholds = _thresholds(sure[0], power ** np.arange(1, len(costs) + 1))
        stops = (sure[1] >= thresholds[:, None]).argmax(axis=0)
        right = test.argmax(axis=2)[stops, np.arange(test.shape[1])] == labels
        found.append((float(np.mean(np.array(costs)[stops])), float(right.mean())))
    cost, accuracy = np.array(sorted(found)).T
    return 100 * float(np.interp(_BUDGETS, cost, accuracy).mean())


def _sure(logits: Any) -> Any:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=2, keepdims=True))
    return (powers / powers.sum(axis=2, keepdims=True)).max(axis=2)


def _thresholds(sure: Any, weights: Any) -> Any:
    left = np.ones(sure.shape[1], bool)
    thresholds = np.full(len(sure), -np.inf)
    for exit_, share in enumerate(weights[:-1] / weights.sum()):
        wanted = min(int(sure.shape[1] * share), int(left.sum()))
        ordered = np.sort(sure[exit_][left])[::-1]
        thresholds[exit_] = ordered[wanted - 1] if wanted else np.inf
        left &= sure[exit_] < thresholds[exit_]
    return thresholds


def exits_table(rows: Mapping[str, Row], out: Path, costs: Sequence[float]) -> str:
    """Accuracies of each arm, and what T6 and T11 ask, as far as both sides of a seed are there."""
    runs = {(row["arm"], row["seed"]): row for key, row in rows.items() if key.startswith("run ")}
    labels = canvases(out, "test", TESTED).labels
    budget = {}
    for arm, seed in runs:
        with np.load(out / f"run-{arm.replace(' ', '-')}-{seed}.npz") as found:
            budget[arm, seed] = budgeted(found["validation"], found["test"], labels, costs)
    lines = [f"exits at {', '.join(f'{100 * cost:.0f} %' for cost in costs)} of the cost", "",
             "| arm | rate | seeds | each exit | mean | at 30 to 60 % of the cost |", "|---|---|---|---|---|---|"]
    for arm in dict.fromkeys(arm for arm, _ in runs):
        own = [row["test"] for (name, _), row in runs.items() if name == arm]
        rate = next(row["rate"] for (name, _), row in runs.items() if name == arm)
        lines.append(f"| {arm} | {rate:g} | {len(own)} | {' '.join(f'{each:.1f}' for each in np.mean(own, axis=0))} "
                     f"| {np.mean(own):.2f} | {np.mean([budget[key] for key in runs if key[0] == arm]):.2f} |")
    lines += ["", "| against joint, same seed | mean of exits | better in | all but the last | at 30 to 60 % | last |",
              "|---|---|---|---|---|---|"]
    for arm in dict.fromkeys(arm for arm, _ in runs if arm != "joint"):
        both = [seed for name, seed in runs if name == arm and ("joint", seed) in runs]
        if both:
            apart = np.array([np.subtract(runs[arm, seed]["test"], runs["joint", seed]["test"]) for seed in both])
            spent = np.mean([budget[arm, seed] - budget["joint", seed] for seed in both])
            lines.append(f"| {arm} | {apart.mean():+.2f} | {int((apart.mean(axis=1) >= 0).sum())} of {len(both)} | "
                         f"{apart[:, :-1].mean():+.2f} | {spent:+.2f} | {apart[:, -1].mean():+.2f} |")
    tuned = [f"- {key[5:]}: {' '.join(map(str, row['accuracies']))}" for key, row in rows.items()
             if key.startswith("tune ")]
    return "\n".join([*lines, "", "Tuning, validation:", *tuned])


def resolution_table(rows: Mapping[str, Row]) -> str:
    """What the predictor does against its rivals, for each seed and as T8 to T10 ask."""
    lines = []
    for seed in sorted(int(key.split()[1]) for key in rows if key.startswith("fixed ")):
        lines += _seed_lines(rows, seed)
    if "ms" in rows:
        lines += ["", "CPU ms, float32 LiteRT: " + ", ".join(
            f"{name} {value}" for name, value in rows["ms"].items() if name != "key")]
    return "\n".join(lines)


def _seed_lines(rows: Mapping[str, Row], seed: int) -> list[str]:
    fixed = rows[f"fixed {seed}"]
    costs, accuracies = fixed["costs"], fixed["test"]
    lines = [f"seed {seed}: fixed " + ", ".join(f"{cost:.3f}: {each}" for cost, each in zip(costs, accuracies,
                                                                                         strict=True))]
    for name, title in (("own", "networks of their own"), ("shared", "shared norms")):
        if f"{name} {seed}" in rows:
            lines.append(f"  {title}: {rows[f'{name} {seed}']['test']}")
    lines.append("  cascade (cost, accuracy): " + ", ".join(f"{cost}: {each}" for each, cost in fixed["cascade"]))
    curve = sorted((cost, each) for each, cost in fixed["cascade"])
    lines += [
        "",
        "| learned by | accuracy | cost | ms | mix | entropy | Spearman | mix at random | fixed, mixed | cascade |",
        "|---|---|---|---|---|---|---|---|---|---|"]
    for key, row in rows.items():
        if key.startswith(f"predictor {seed} "):
            test = row["test"]
            entropy = "collapsed" if test["entropy"] is None else f"{test['entropy']:.2f}"
            rivals = np.interp(test["cost"], costs, accuracies), np.interp(test["cost"], *np.array(curve).T)
            cells = (key.split(maxsplit=2)[2], test["accuracy"], test["cost"], _ms(rows, test["mix"]), test["mix"],
                     entropy, test["spearman"], test["random"], *(f"{each:.2f}" for each in rivals))
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _ms(rows: Mapping[str, Row], mix: Sequence[float]) -> str:
    """The mean measured time of an image with the predictor, once it is measured."""
    if "ms" not in rows:
        return "-"
    times = [value for name, value in rows["ms"].items() if name not in ("key", "predictor")]
    return f"{float(np.dot(mix, times)) + rows['ms']['predictor']:.5f}"
