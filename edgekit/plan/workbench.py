"""Cross-fitted views of the observations: for each beginning of a chain, how sure and how right its combination is.

What is learned (weights, gates) is learned on all folds but one and applied to that one, so that no sample is judged by
what was fitted on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgekit.bundle.adaptive import Confidence
from edgekit.plan.ensemble import fit_gate, fit_weights, gate_scores
from edgekit.plan.observations import Observations, PlanRecipe, Point, Points

__all__ = ["BLOCKS", "Fitted", "View", "Workbench"]

Floats = npt.NDArray[np.floating]

#: the samples of a fold are dealt into so many blocks, whose sums are all that the choice between routes looks at
BLOCKS = 8
_CANDIDATES = 24  # classes of each sample that the fit of weights looks at: the rest has next to no probability
_FIT_ROWS = 2500  # for a handful of weights, more samples change the third digit only


@dataclass
class View:
    """A beginning of a chain. ``right``: (samples,); ``features``: (samples, 5), those of ``Gate`` in its order."""

    features: Floats
    right: npt.NDArray[np.bool_]
    top: npt.NDArray[np.intp]
    gate: npt.NDArray[np.float64] | None = field(default=None)


@dataclass(frozen=True)
class Fitted:
    """A beginning of a chain, fitted on all samples: what goes into the plan."""

    weights: tuple[float, ...]
    features: Floats
    right: npt.NDArray[np.bool_]


class Workbench:
    """Holds what is computed once: folds, the classes that matter for each sample, views of chains."""

    def __init__(self, observations: Observations, recipe: PlanRecipe) -> None:
        self.observations = observations
        self.points = observations.points
        random = np.random.default_rng(recipe.seed)
        order = random.permutation(observations.samples)
        self.blocks = np.empty(observations.samples, np.intp)
        self.blocks[order] = np.arange(observations.samples) % (recipe.folds * BLOCKS)
        self.folds = self.blocks % recipe.folds
        self._fold_count = recipe.folds
        self._fit_rows = order
        self._views: dict[Points, View] = {}
        dearest = observations.of(self.points[-1])
        self.truth = dearest.argmax(axis=1) if observations.labels is None else observations.labels
        self._classes = self._candidates()
        self._reduced = {point: np.take_along_axis(observations.of(point), self._classes, axis=1)
                         for point in self.points}
        self._targets = self._wanted()

    def _candidates(self) -> npt.NDArray[np.intp]:
        """The likeliest classes of each sample, (samples, up to 24), its label among them."""
        observations = self.observations
        classes, keep = observations.classes, min(observations.classes, _CANDIDATES)
        if keep == classes:
            return np.broadcast_to(np.arange(classes), (observations.samples, classes))
        total = np.zeros((observations.samples, classes), np.float32)
        for point in self.points:
            logits = observations.of(point)
            total += logits / max(float(logits.std()), 1e-6)
        total[np.arange(len(total)), self.truth] = np.inf
        likeliest: npt.NDArray[np.intp] = np.argpartition(-total, keep - 1, axis=1)[:, :keep]
        return likeliest

    def _wanted(self) -> Floats:
        """What the weights are fitted to: the labels, or without any what the dearest point thinks."""
        if self.observations.labels is not None:
            return np.asarray(self._classes == self.truth[:, None], np.float32)
        dearest = self._reduced[self.points[-1]]
        powers = np.exp(dearest - dearest.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def right(self, point: Point) -> npt.NDArray[np.bool_]:
        """Whether a single point answers each sample rightly."""
        return np.asarray(self.observations.of(point).argmax(axis=1) == self.truth)

    def view(self, chain: Points) -> View:
        """The cross-fitted view of a chain's combined logits; computed once."""
        known = self._views.get(chain)
        if known is None:
            earlier = self.view(chain[:-1]).top if len(chain) > 1 else None
            known = self._views[chain] = self._cross_fitted(chain, earlier)
        return known

    def _cross_fitted(self, chain: Points, earlier: npt.NDArray[np.intp] | None) -> View:
        weights = np.empty((self._fold_count, len(chain)))
        for fold in range(self._fold_count):
            rows = self._fit_rows[self.folds[self._fit_rows] != fold][:_FIT_ROWS]
            weights[fold] = self._weights(chain, rows)
        features, top = self._features(chain, weights[self.folds], earlier)
        return View(features, top == self.truth, top)

    def _weights(self, chain: Points, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        logits = np.stack([self._reduced[point][rows] for point in chain], axis=1)
        return fit_weights(logits, self._targets[rows])

    def _features(
        self, chain: Points, weights: npt.NDArray[np.float64], earlier: npt.NDArray[np.intp] | None
    ) -> tuple[Floats, npt.NDArray[np.intp]]:
        """Features (samples, 5) and answers (samples,) of the logits combined with ``weights`` (samples, steps)."""
        observations = self.observations
        combined = np.zeros((observations.samples, observations.classes), np.float32)
        for step, point in enumerate(chain):
            combined += observations.of(point) * weights[:, step, None].astype(np.float32)
        rows = np.arange(len(combined))
        top = combined.argmax(axis=1)
        combined -= combined[rows, top][:, None]
        chances = np.exp(combined)
        sums = chances.sum(axis=1)
        entropy = np.log(sums) - (chances * combined).sum(axis=1) / sums
        combined[rows, top] = -np.inf
        second = np.exp(combined.max(axis=1)) / sums
        agrees = np.full(len(top), 0.5) if earlier is None else (top == earlier).astype(np.float64)
        return np.stack([1 / sums - second, 1 / sums, second, entropy, agrees], axis=1), top

    def sure(self, chain: Points, measure: Confidence) -> npt.NDArray[np.float64]:
        """The confidences after each step but the last, (samples, steps - 1)."""
        columns = [self._measured(chain[:step], measure) for step in range(1, len(chain))]
        return np.stack(columns, axis=1) if columns else np.empty((self.observations.samples, 0))

    def _measured(self, chain: Points, measure: Confidence) -> npt.NDArray[np.float64]:
        view = self.view(chain)
        if measure != "gate":
            return np.asarray(view.features[:, 0 if measure == "margin" else 1], np.float64)
        if view.gate is None:
            view.gate = np.empty(len(view.right))
            for fold in range(self._fold_count):
                train = self.folds != fold
                gate = fit_gate(view.features[train], view.right[train])
                view.gate[~train] = gate_scores(view.features[~train], gate)
        return view.gate

    def fitted(self, chain: Points) -> tuple[Fitted, ...]:
        """Every beginning of a chain, fitted on all samples."""
        found: list[Fitted] = []
        earlier: npt.NDArray[np.intp] | None = None
        for step in range(1, len(chain) + 1):
            weights = self._weights(chain[:step], np.arange(self.observations.samples))
            features, top = self._features(chain[:step], np.tile(weights, (self.observations.samples, 1)), earlier)
            found.append(Fitted(tuple(float(each) for each in weights), features, top == self.truth))
            earlier = top
        return tuple(found)
