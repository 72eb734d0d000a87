"""Known networks on a new board: what a few measured ones say about the others.

The logarithms of the latencies of the catalogue's networks on one board, and facts about the board, are jointly
Gaussian, apart from a scale of the board about which nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.errors import UnknownName

__all__ = ["Catalogue", "fit_catalogue", "predict_known"]

Floats = npt.NDArray[np.float64]

_FLAT_VARIANCE = 100.0
_ROUNDS = 30
#: facts in the unit of the logarithms, about which boards differ by as much
_FACT_SCALE = 0.3
_FACT_NOISE = 0.01


class Catalogue(msgspec.Struct, frozen=True):
    """``mean``: log ms of each of ``models`` on a typical board; ``cov``: how boards differ, scale removed.

    Behind the models, both have the facts that the boards of the fit came with, until ``given`` takes them off.
    """

    models: tuple[str, ...]
    mean: Floats
    cov: Floats

    def given(self, facts: Sequence[float]) -> Catalogue:
        """The catalogue of boards of which the same facts are known."""
        count = len(self.models)
        models, behind = slice(count), slice(count, None)
        noise = _FACT_NOISE**2 * np.eye(len(facts))
        gain = np.linalg.solve(self.cov[behind, behind] + noise, self.cov[behind, models]).T
        mean = self.mean[models] + gain @ (np.asarray(facts) * _FACT_SCALE - self.mean[behind])
        return Catalogue(self.models, mean, self.cov[models, models] - gain @ self.cov[behind, models])


def fit_catalogue(
    models: Sequence[str], boards: Sequence[Mapping[str, float]], facts: Sequence[Sequence[float]] | None = None, *,
    shrinkage: float = 0.1, noise: float = 0.02,
) -> Catalogue:
    """From latencies in ms by model, some missing, by expectation maximisation. ``noise``: of one measurement.

    ``facts``: of each board the same ones, such as ``BoardRun.facts``, of about -1/2 to 1/2.
    """
    index = {model: column for column, model in enumerate(models)}
    logs = np.full((len(boards), len(models)), np.nan)
    for row, board in enumerate(boards):
        for model, ms in board.items():
            if model in index:
                logs[row, index[model]] = np.log(ms)
    common = np.nanmean(logs - np.nanmean(logs, axis=1, keepdims=True), axis=0)
    logs -= np.nanmean(logs - common, axis=1, keepdims=True)
    logs = np.hstack([logs, np.reshape(facts or [[]] * len(boards), (len(boards), -1)) * _FACT_SCALE])
    size = logs.shape[1]
    mean, cov = np.nanmean(logs, axis=0), np.eye(size) * float(np.nanvar(logs - np.nanmean(logs, axis=0)))
    for _ in range(_ROUNDS):
        filled, unsure = np.empty_like(logs), np.zeros_like(cov)
        for row, values in enumerate(logs):
            seen = ~np.isnan(values)
            gain = np.linalg.solve(cov[np.ix_(seen, seen)] + noise**2 * np.eye(seen.sum()), cov[seen]).T
            filled[row] = mean + gain @ (values[seen] - mean[seen])
            filled[row, seen] = values[seen]
            hidden = ~seen
            unsure[np.ix_(hidden, hidden)] += (cov - gain @ cov[seen])[np.ix_(hidden, hidden)]
        mean = filled.mean(axis=0)
        centred = filled - mean
        cov = (centred.T @ centred + unsure) / len(boards)
        cov = (1 - shrinkage) * cov + shrinkage * np.diag(np.diag(cov)) + 1e-5 * np.eye(size)
    return Catalogue(tuple(models), mean, cov)


def predict_known(
    catalogue: Catalogue, measured: Mapping[str, float], wanted: Sequence[str], noise: float = 0.03
) -> dict[str, tuple[float, float]]:
    """Model -> (log milliseconds, standard deviation) for ``wanted``, given milliseconds of other models.

    Raises UnknownName for a model that is not in the catalogue.
    """
    index = {model: column for column, model in enumerate(catalogue.models)}
    for model in (*measured, *wanted):
        if model not in index:
            raise UnknownName.of("network of the catalogue", model, catalogue.models)
    seen = [index[model] for model in measured]
    asked = [index[model] for model in wanted]
    cov = catalogue.cov + _FLAT_VARIANCE
    gain = np.linalg.solve(cov[np.ix_(seen, seen)] + noise**2 * np.eye(len(seen)), cov[np.ix_(seen, asked)]).T
    mean = catalogue.mean[asked] + gain @ (np.log(list(measured.values())) - catalogue.mean[seen])
    var = cov[asked, asked] - np.einsum("ij,ji->i", gain, cov[np.ix_(seen, asked)])
    return {
        model: (float(value), float(np.sqrt(max(spread, 0))))
        for model, value, spread in zip(wanted, mean, var, strict=True)
    }
