"""How far a prediction can be trusted: what it is made of, compared with the networks of the fit.

``novelty`` is the share of the predicted time that the most similar network of the fit spends on other terms: 0 for a
network of the same mixture, 1 for one that shares nothing. Errors grow with it, and so does the band.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["BASE_NOVELTY", "NOVELTY_POWER", "domain_limit", "half_widths", "novelty", "spreads", "term_shares"]

Floats = npt.NDArray[np.float64]

#: networks that are like one of the fit still differ by a tenth of the time, so to say
BASE_NOVELTY = 0.1
#: with costs of a population, errors grow faster than novelty does
NOVELTY_POWER = 1.7
_LIMIT_QUANTILE = 0.8
_LIMIT_FACTOR = 1.25
_SHRINKAGE_CELLS = 10.0


def term_shares(log_cost: Floats, amounts: Floats) -> Floats:
    """(graphs, terms): the part of the predicted time that goes into each term."""
    parts = amounts * np.exp(log_cost)
    return np.asarray(parts / parts.sum(axis=1, keepdims=True))


def novelty(shares: Floats, reference: Floats) -> Floats:
    """(graphs,): distance of each mixture to the nearest of ``reference`` (half the sum of absolute differences)."""
    return np.asarray(0.5 * np.abs(shares[:, None, :] - reference[None, :, :]).sum(axis=2).min(axis=1))


def domain_limit(novelties: Floats) -> float:
    """The novelty beyond which nothing was calibrated, from those of the networks of the fit (own family left out)."""
    return float(_LIMIT_FACTOR * np.quantile(novelties, _LIMIT_QUANTILE))


def spreads(log_ratio: Floats, novelties: Floats, board: npt.NDArray[np.int64], family: npt.NDArray[np.int64],
            coverage: float = 0.94) -> Floats:
    """For each board the spread s with which ``half_widths`` of NOVELTY_POWER hold |log ratio|.

    ``coverage``: of the residuals given. It is above the 90 % that the band states, because residuals of a dozen
    families say little about the next one.

    ``log_ratio`` are residuals of networks whose family was not in the fit. Boards are drawn towards one another, and
    each family counts the same however many networks it has.
    """
    scaled = np.abs(log_ratio) / (BASE_NOVELTY + novelties) ** NOVELTY_POWER
    common = float(np.median(scaled))
    boards = int(board.max()) + 1
    typical = np.empty(boards)
    for index in range(boards):
        own = scaled[board == index]
        typical[index] = np.exp((np.log(np.maximum(own, 0.05)).sum() + _SHRINKAGE_CELLS * np.log(common))
                                / (len(own) + _SHRINKAGE_CELLS)) if len(own) else common
    relative = scaled / typical[board]
    weights = 1.0 / np.bincount(family)[family]
    order = np.argsort(relative)
    reached = np.cumsum(weights[order])
    return np.asarray(typical * relative[order][min(np.searchsorted(reached, coverage * reached[-1]), len(order) - 1)])


def half_widths(spread: float | Floats, novelties: Floats, power: float = 1.0) -> Floats:
    """Of the band, in logarithms: the latency is within exp(-w) and exp(w) times the prediction."""
    return np.asarray(spread * (BASE_NOVELTY + novelties) ** power)
