"""The tables of benchmarks.compress. Pure: rows in, text out."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.compress_parts import Rows

__all__ = ["table"]

_BASELINES = {"compress": "CC", "ghost": "plain", "distil": "plain"}


def table(rows: Rows) -> str:
    """Markdown: each arm's accuracies, and its differences to the part's first arm, seed by seed."""
    lines = []
    for part in dict.fromkeys(row["part"] for row in rows.rows):
        if part == "ghost ms":
            lines += _latencies(rows.of(part, "both")[0])
            continue
        baseline = _BASELINES.get(part, "itself")
        lines += ["", f"| {part} | setting | M MACs | k parameters | test, % | mean | minus {baseline} |",
                  "|---|---|---|---|---|---|---|"]
        arms = list(dict.fromkeys(row["arm"] for row in rows.rows if row["part"] == part))
        against = {row["seed"]: row["test"] for row in rows.of(part, _BASELINES.get(part, arms[0]))}
        for arm in arms:
            own = rows.of(part, arm)
            gaps = [row["test"] - against[row["seed"]] for row in own if row["seed"] in against]
            macs = " ".join(f"{row['macs'] / 1e6:.2f}" for row in own)
            tests = " ".join(f"{row['test']:.1f}" for row in own)
            lines.append(f"| {arm} | {own[0]['setting']} | {macs} | {own[0]['parameters'] / 1e3:.1f} | {tests} | "
                         f"{statistics.mean(row['test'] for row in own):.2f} | {statistics.mean(gaps):+.2f} "
                         f"({' '.join(f'{gap:+.1f}' for gap in gaps)}) |")
        if part == "compress":
            lines += _fits(rows)
    return "\n".join(lines).strip()


def _fits(rows: Rows) -> list[str]:
    found: list[float] = [each for row in rows.of("compress", "CC") for each in row["r2"]]
    good = sum(each >= 0.8 for each in found)
    lines = ["", f"R2 of the exponential fit (CC): {min(found):.2f} to {max(found):.2f}, at least 0.8 on {good} of "
                 f"{len(found)} layers"]
    for arm in dict.fromkeys(row["arm"] for row in rows.rows if row["part"] == "compress"):
        own = rows.of("compress", arm)
        before = " ".join(str(row["before"]) for row in own)
        splits = " ".join(str(len(row["splits"])) for row in own)
        lines.append(f"{arm}: validation before fine-tuning {before}, layers split {splits}")
    return lines


def _latencies(row: dict[str, Any]) -> list[str]:
    return ["", *(f"{engine}: plain {row[engine]['plain']} ms, ghost {row[engine]['ghost']} ms, ratio "
                  f"{row[engine]['ratio']}" for engine in ("LiteRT", "ONNX Runtime"))]
