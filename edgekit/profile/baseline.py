"""The simple predictors that a better one has to beat: least squares on sums over the network, board by board."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit.graph.costs import OP_CLASSES
from edgekit.profile.holdout import Study
from edgekit.profile.terms import OpTable

__all__ = ["least_squares", "simple_sums"]

Floats = npt.NDArray[np.float64]

_ROUNDS = 400


def simple_sums(study: Study, count: int) -> Floats:
    """(models, count): with 3, multiply-adds, elements moved, ops; with 10, multiply-adds of eight classes instead."""
    table = OpTable(study.graphs)
    columns = [table.read + table.written + table.weights, np.ones_like(table.macs)]
    if count == 3:
        columns.insert(0, table.macs)
    else:
        conv, area = table.of("conv"), table.area
        kinds = (conv & (area == 1), conv & (area == 9), conv & (area != 1) & (area != 9))
        columns.extend(np.where(rows, table.macs, 0) for rows in kinds)
        for name in ("depthwise", "grouped", "fc", "matmul", "pool"):
            assert name in OP_CLASSES
            work = table.macs if name != "pool" else table.read + table.written
            columns.append(np.where(table.of(name), work, 0))
    return table.per_graph(np.stack(columns, axis=1))


def least_squares(study: Study, count: int = 10) -> Floats:
    """Log milliseconds for every cell, each family predicted by a fit without it, non-negative on relative error."""
    cells = study.cells()
    sums = simple_sums(study, count)
    sums = sums / np.maximum(sums.max(axis=0), 1e-9)
    families = np.array(study.family)[cells.model]
    predicted = np.empty(len(cells.log_ms))
    for family in np.unique(families):
        for board in range(len(study.runs)):
            own = cells.board == board
            train, test = own & (families != family), own & (families == family)
            if test.any():
                costs = _non_negative(sums[cells.model[train]] / np.exp(cells.log_ms[train])[:, None])
                predicted[test] = np.log(np.maximum(sums[cells.model[test]] @ costs, 1e-9))
    return predicted


def _non_negative(rows: Floats) -> Floats:
    """The x >= 0 that brings ``rows @ x`` closest to 1, by coordinate descent."""
    gram, right = rows.T @ rows, rows.sum(axis=0)
    found = np.zeros(rows.shape[1])
    for _ in range(_ROUNDS):
        for index in np.flatnonzero(np.diag(gram) > 0):
            rest = right[index] - gram[index] @ found + gram[index, index] * found[index]
            found[index] = max(rest / gram[index, index], 0.0)
    return found
