"""Small fits: how to weigh the logits of several exits (one exit: its temperature), and a learned gate.

All are convex with a handful of parameters, so Newton's method finds the optimum in a few steps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["fit_gate", "fit_weights", "gate_scores"]

Floats = npt.NDArray[np.float64]

_STEPS = 25
_RIDGE = 1e-3  # towards a weight of 1 in all: decides only where the data do not
_GATE_RIDGE = 1e-2


def fit_weights(logits: npt.NDArray[np.floating], targets: npt.NDArray[np.floating]) -> Floats:
    """Weights, none negative, that minimise the cross entropy of ``sum_j weights[j] * logits[:, j]``.

    ``logits``: (samples, exits, classes); ``targets``: (samples, classes), each row a distribution. Returns (exits,).
    """
    free = list(range(logits.shape[1]))
    weights = np.zeros(logits.shape[1])
    while True:
        found = _newton(logits[:, free], targets)
        if found.min() >= 0 or len(free) == 1:
            weights[free] = np.maximum(found, 1e-3)
            return weights
        del free[int(found.argmin())]


def _newton(logits: npt.NDArray[np.floating], targets: npt.NDArray[np.floating]) -> Floats:
    samples, exits, _ = logits.shape
    prior = np.full(exits, 1 / exits)
    wanted = np.einsum("njc,nc->j", logits, targets) / samples
    weights = prior.copy()
    loss, chances = _loss(logits, targets, weights, prior)
    for _ in range(_STEPS):
        means = np.einsum("njc,nc->nj", logits, chances)
        gradient = means.sum(axis=0) / samples - wanted + _RIDGE * (weights - prior)
        second = np.einsum("njc,nkc->jk", logits * chances[:, None], logits, optimize=True) - means.T @ means
        step = np.linalg.solve(second / samples + _RIDGE * np.eye(exits), gradient)
        length = 1.0
        while True:  # halve the step until the loss falls
            trial, trial_chances = _loss(logits, targets, weights - length * step, prior)
            if trial <= loss + 1e-12 or length < 1e-4:
                break
            length /= 2
        weights = weights - length * step
        gained, loss, chances = loss - trial, trial, trial_chances
        if gained < 1e-7:
            break
    return np.asarray(weights, np.float64)


def _loss(
    logits: npt.NDArray[np.floating], targets: npt.NDArray[np.floating], weights: Floats, prior: Floats
) -> tuple[float, npt.NDArray[np.floating]]:
    combined = np.einsum("njc,j->nc", logits, weights.astype(logits.dtype))
    combined -= combined.max(axis=1, keepdims=True)
    powers = np.exp(combined)
    sums = powers.sum(axis=1, keepdims=True)
    likelihood = float((targets * (combined - np.log(sums))).sum()) / len(logits)
    return -likelihood + _RIDGE / 2 * float(((weights - prior) ** 2).sum()), powers / sums


def fit_gate(features: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> Floats:
    """Logistic regression of ``right`` (samples,) on ``features`` (samples, 5). Returns 5 weights and the bias.

    The ridge acts on standardised features, so that it means the same for each; the result is for the raw ones.
    """
    values = features.astype(np.float64)
    centre, spread = values.mean(axis=0), values.std(axis=0)
    spread[spread < 1e-9] = np.inf  # a feature that never changes gets no weight
    design = np.hstack([(values - centre) / spread, np.ones((len(values), 1))])
    ridge = np.diag([*([_GATE_RIDGE] * values.shape[1]), 1e-6])
    found = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        gradient = design.T @ (chances - right) / len(right) + ridge @ found
        second = (design * (chances * (1 - chances))[:, None]).T @ design / len(right) + ridge
        step = np.linalg.solve(second, gradient)
        found -= step / max(1.0, float(np.abs(step).max()) / 2)
        if float(np.abs(step).max()) < 1e-6:
            break
    weights = found[:-1] / spread
    return np.append(weights, found[-1] - float(weights @ centre))


def gate_scores(features: npt.NDArray[np.floating], gate: Floats) -> Floats:
    """The gate's chances, (samples,), of ``features`` (samples, 5)."""
    return np.asarray(1 / (1 + np.exp(-np.clip(features @ gate[:-1] + gate[-1], -700, 700))), np.float64)
