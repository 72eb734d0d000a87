"""The arithmetic of the comparisons of training methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.methods_data import Rows
from benchmarks.methods_tables import budgeted, resolution_table


def test_budgeted_accuracy_lies_between_the_exits() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 400)
    exits = []
    for strength in (1.0, 4.0):  # the second exit is the better one
        logits = random.standard_normal((400, 4))
        logits[np.arange(400), labels] += strength
        exits.append(logits)
    both = np.stack(exits)
    first, last = (float((each.argmax(1) == labels).mean()) * 100 for each in exits)
    found = budgeted(both, both, labels, (0.2, 1.0))
    assert first < found < last
    # sure answers are right more often, so leaving early by confidence beats leaving by chance
    assert found > first + (last - first) * (0.45 - 0.2) / 0.8


def test_rows_are_kept_and_printed(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl")
    rows.add("fixed 0", costs=[0.25, 1.0], predictor=0.02, test=[80.0, 90.0], cascade=[[80.0, 0.25], [90.0, 1.0]])
    rows.add("predictor 0 gumbel 0.5", test={
        "accuracy": 88.0, "random": 85.0, "cost": 0.645, "mix": [0.5, 0.5], "entropy": 1.0, "spearman": -0.5})
    rows.add("ms", **{"16": 1.0, "32": 3.0, "predictor": 0.5})
    assert Rows(tmp_path / "rows.jsonl").by_key == rows.by_key
    line = next(line for line in resolution_table(rows.by_key).splitlines() if line.startswith("| gumbel"))
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert float(cells[3]) == pytest.approx(2.5)
    assert float(cells[-2]) == pytest.approx(80 + 10 * (0.645 - 0.25) / 0.75, abs=0.01)
