"""Fitting many boards at once: what kernels cost in general, and how each board differs.

    log t(d, m) = scale_d + log sum_j exp(cost_j + half_d shift_j + delta_dj) amount_j(m; shape) + offset_m + noise

``half`` is 1/2 on boards that compute in half precision and -1/2 on others. ``cost`` is near a physical guess,
``shift`` and ``delta`` near zero, so that a term which few networks use stays sensible on every board; ``offset`` takes
up what the terms cannot express about a network, so that it does not bend the costs. The noise is Student's t with 4
degrees of freedom: one bad measurement does not bend a fit either. The result is the most probable one, by
Levenberg-Marquardt; boards only meet in the common parameters, so each step costs little.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.graph.costs import OpCost
from edgekit.profile.terms import SHAPE_PRIOR, TERM_GUESS_MS, TERMS, OpTable, term_amounts

__all__ = ["ONE_CORE", "Board", "Cells", "Population", "Priors", "fit_board", "fit_population", "log_latency"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_STEP = 1e-3
_FLAT_SD = 3.0
_DEGREES = 4.0


class Priors(msgspec.Struct, frozen=True):
    """Standard deviations, in logarithms, of what the fit may change; ``noise`` is the scale of the residuals."""

    cost: float = 0.8
    shift: float = 0.4
    delta: float = 0.4
    offset: float = 0.03
    shape: float = 1.0
    noise: float = 0.12
    iterations: int = 15
    factors: dict[str, float] = {}

    def guess_ms(self) -> Floats:
        """The guess for one unit of each term; ``factors`` of some terms say how it differs from that for one core."""
        return np.asarray(TERM_GUESS_MS * [self.factors.get(term, 1.0) for term in TERMS])


#: for one thread on a CPU
ONE_CORE = Priors()


class Cells(msgspec.Struct, frozen=True):
    """Measurements: row i is board ``board[i]``, graph ``model[i]``, log milliseconds ``log_ms[i]``."""

    board: Ints
    model: Ints
    log_ms: Floats


class Population(msgspec.Struct, frozen=True):
    """What all boards share. ``log_cost``: of one unit of each term; ``delta_cov``: how boards differ from it.

    ``shift``: what half precision changes of ``log_cost``, which is midway between boards with and without it.
    """

    log_cost: Floats
    shape: Floats
    delta_cov: Floats
    shift: Floats

    def typical(self, half: float) -> Floats:
        """Log cost on a board that has half precision (1), has not (0), or of which it is not known (0.5)."""
        return np.asarray(self.log_cost + (half - 0.5) * self.shift)


class Board(msgspec.Struct, frozen=True):
    """One board: ``log_cost`` of one unit of each term, in log milliseconds."""

    log_cost: Floats


def log_latency(board: Board, amounts: Floats) -> Floats:
    """Natural logarithm of the milliseconds for (graphs, terms)."""
    return np.log(amounts @ np.exp(board.log_cost))


class _Fit:
    """The parameters during a fit: common ones (cost, offset, shape, shift), and scale and delta of each board."""

    def __init__(
        self, graphs: Sequence[Sequence[OpCost]], cells: Cells, priors: Priors, precision: Floats, half: Floats
    ) -> None:
        self.table = OpTable(graphs)
        self.cells, self.priors, self.half = cells, priors, half - 0.5
        self.boards = int(cells.board.max()) + 1
        self.rows = [np.flatnonzero(cells.board == board) for board in range(self.boards)]
        terms, models, shapes = len(TERMS), len(graphs), len(SHAPE_PRIOR)
        sizes = [terms, models, shapes, terms]
        self.common = np.zeros(sum(sizes))
        self.common_precision = np.repeat([priors.cost, priors.offset, priors.shape, priors.shift], sizes) ** -2.0
        self.local = np.zeros((self.boards, 1 + terms))
        self.local_precision = np.zeros((1 + terms, 1 + terms))
        self.local_precision[0, 0], self.local_precision[1:, 1:] = _FLAT_SD**-2.0, precision
        self.guess = np.log(priors.guess_ms())
        guess = np.log(self._amounts(SHAPE_PRIOR) @ np.exp(self.guess))[cells.model]
        self.start = np.array([np.median((cells.log_ms - guess)[rows]) for rows in self.rows])

    def _amounts(self, shape: Floats) -> Floats:
        return self.table.per_graph(term_amounts(self.table, shape))

    def evaluate(self, common: Floats, local: Floats) -> tuple[float, Floats, Floats, Floats]:
        """Objective, residuals, share of each term in each cell, and d log t / d amount."""
        terms = len(TERMS)
        model, board = self.cells.model, self.cells.board
        amounts = self._amounts(SHAPE_PRIOR + common[terms + self.models : -terms])
        costs = np.exp(self.guess + common[:terms] + self.half[:, None] * common[-terms:] + local[:, 1:])[board]
        parts = costs * amounts[model]
        total = parts.sum(axis=1)
        fitted = self.start[board] + local[board, 0] + np.log(total) + common[terms : terms + self.models][model]
        residuals = self.cells.log_ms - fitted
        tails = np.log1p(residuals**2 / (_DEGREES * self.priors.noise**2)).sum() * (_DEGREES + 1)
        penalty = (self.common_precision * common**2).sum() + ((local @ self.local_precision) * local).sum()
        return float(tails + penalty), residuals, parts / total[:, None], costs / total[:, None]

    @property
    def models(self) -> int:
        """How many graphs there are."""
        return len(self.table.starts)

    def jacobian(self, common: Floats, shares: Floats, slopes: Floats) -> Floats:
        """(cells, common parameters); the local ones have the columns 1 and ``shares``."""
        terms = len(TERMS)
        shape = SHAPE_PRIOR + common[terms + self.models : -terms]
        base = self._amounts(shape)
        onehot = np.eye(self.models)[self.cells.model]
        columns = []
        for index in range(len(shape)):
            moved = shape.copy()
            moved[index] += _STEP
            columns.append((slopes * ((self._amounts(moved) - base) / _STEP)[self.cells.model]).sum(axis=1))
        return np.hstack([shares, onehot, np.stack(columns, axis=1), shares * self.half[self.cells.board, None]])

    def step(self, jacobian: Floats, shares: Floats, residuals: Floats, damping: float) -> tuple[Floats, Floats]:
        """The damped Gauss-Newton step (common, local), boards eliminated first."""
        weights = (_DEGREES + 1) / (_DEGREES * self.priors.noise**2 + residuals**2)
        size = len(self.common)
        left, right = np.diag(self.common_precision), -self.common_precision * self.common
        back = []
        for board, rows in enumerate(self.rows):
            near, far = np.column_stack([np.ones(len(rows)), shares[rows]]), jacobian[rows]
            heavy = near * weights[rows, None]
            own = heavy.T @ near + self.local_precision
            own[np.diag_indices_from(own)] *= 1 + damping
            cross = heavy.T @ far
            pull = heavy.T @ residuals[rows] - self.local_precision @ self.local[board]
            solved = np.linalg.solve(own, np.column_stack([cross, pull]))
            left = left + (far * weights[rows, None]).T @ far - cross.T @ solved[:, :size]
            right = right + far.T @ (weights[rows] * residuals[rows]) - cross.T @ solved[:, size]
            back.append(solved)
        left[np.diag_indices_from(left)] *= 1 + damping
        common = np.asarray(np.linalg.solve(left, right), np.float64)
        return common, np.stack([solved[:, size] - solved[:, :size] @ common for solved in back])

    def run(self) -> None:
        """Improve ``common`` and ``local`` until the objective stands still."""
        damping = 1e-3
        current, residuals, shares, slopes = self.evaluate(self.common, self.local)
        for _ in range(self.priors.iterations):
            jacobian = self.jacobian(self.common, shares, slopes)
            for _ in range(8):
                common, local = self.step(jacobian, shares, residuals, damping)
                trial = self.evaluate(self.common + common, self.local + local)
                if trial[0] < current:
                    break
                damping *= 5
            else:
                return
            gain = current - trial[0]
            self.common, self.local = self.common + common, self.local + local
            (current, residuals, shares, slopes), damping = trial, max(damping / 5, 1e-7)
            if gain < 1e-3:
                return


def fit_population(
    graphs: Sequence[Sequence[OpCost]], cells: Cells, priors: Priors = ONE_CORE, *, half: Floats | None = None
) -> tuple[Population, list[Board]]:
    """The common parameters and the boards, in order. ``half``: (boards,) as ``cores.half_precision`` says."""
    terms, count = len(TERMS), int(cells.board.max()) + 1
    halves = np.full(count, 0.5) if half is None else half
    fit = _Fit(graphs, cells, priors, np.eye(terms) * priors.delta**-2.0, halves)
    fit.run()
    log_cost, shift = fit.guess + fit.common[:terms], fit.common[-terms:]
    boards = [Board(log_cost + x * shift + local[1:] + local[0] + start)
              for x, local, start in zip(fit.half, fit.local, fit.start, strict=True)]
    shape = SHAPE_PRIOR + fit.common[terms + fit.models : -terms]
    return Population(log_cost, shape, _delta_cov(fit.local[:, 1:], priors.delta), shift), boards


def _delta_cov(deltas: Floats, prior_sd: float, strength: float = 20.0) -> Floats:
    """The covariance of the deltas, drawn towards the prior as if it had been seen on ``strength`` boards."""
    centred = deltas - deltas.mean(axis=0)
    total = centred.T @ centred + strength * prior_sd**2 * np.eye(deltas.shape[1])
    return np.asarray(total / (len(deltas) + strength))


def fit_board(
    population: Population, amounts: Floats, log_ms: Floats, noise: float | Floats = 0.08, half: float = 0.5
) -> Board:
    """A board that was not in the fit, from measured graphs: ``amounts`` (graphs, terms) with ``population.shape``.

    ``noise``: of all, or of each; ``half`` as ``Population.typical`` has it.
    """
    terms = len(TERMS)
    precision = np.zeros((1 + terms, 1 + terms))
    precision[0, 0], precision[1:, 1:] = _FLAT_SD**-2.0, np.linalg.inv(population.delta_cov)
    typical = population.typical(half)
    start = float(np.median(log_ms - np.log(amounts @ np.exp(typical))))
    local = np.zeros(1 + terms)
    for _ in range(20):
        parts = np.exp(typical + local[1:]) * amounts
        total = parts.sum(axis=1)
        residuals = log_ms - start - local[0] - np.log(total)
        near = np.column_stack([np.ones(len(log_ms)), parts / total[:, None]])
        weights = (_DEGREES + 1) / (_DEGREES * noise**2 + residuals**2)
        left = (near * weights[:, None]).T @ near + precision
        step = np.linalg.solve(left, near.T @ (weights * residuals) - precision @ local)
        local += 0.7 * step
        if np.abs(step).max() < 1e-6:
            break
    return Board(typical + local[1:] + local[0] + start)
