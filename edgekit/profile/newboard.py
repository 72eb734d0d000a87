"""How well a board that was never seen is predicted from k measured networks of other families.

Unknown networks on it: the catalogue says from those k what its other networks would take, and the board's costs are
fitted to all of them, each weighted by how sure the catalogue is. So k measurements bear on every cost as far as other
boards show that it goes with them, and a network that the terms explain badly is outvoted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.profile.catalogue import Catalogue, fit_catalogue, predict_known
from edgekit.profile.holdout import Study
from edgekit.profile.population import ONE_CORE, Board, Population, Priors, fit_board, log_latency
from edgekit.profile.tables import BoardRun

__all__ = ["Shots", "board_from_few", "catalogue_shots", "choose_probes", "strict_shots"]

Floats = npt.NDArray[np.float64]

_MISFIT = 0.12


class Shots(msgspec.Struct, frozen=True):
    """Absolute errors, as parts of the measured time, by board and by number of measured networks."""

    ape: dict[int, dict[int, list[float]]]

    def board_mean(self, count: int) -> float:
        """Mean over boards of the median error with ``count`` measured networks."""
        return float(np.mean([np.median(errors) for errors in self.ape[count].values()]))

    def within(self, count: int, limit: float) -> float:
        """The part of all predictions that is off by at most ``limit``."""
        return float(np.mean([error <= limit for errors in self.ape[count].values() for error in errors]))


def choose_probes(catalogue: Catalogue, candidates: Sequence[str], count: int, noise: float = 0.03) -> tuple[str, ...]:
    """The networks to measure on a new board: one after the other, those that leave the rest least uncertain."""
    index = {model: column for column, model in enumerate(catalogue.models)}
    cov = catalogue.cov + 100.0
    chosen: list[str] = []
    for _ in range(min(count, len(candidates))):
        left = [model for model in candidates if model not in chosen]
        best = min(left, key=lambda model: _remaining(cov, [index[name] for name in (*chosen, model)], noise))
        chosen.append(best)
    return tuple(chosen)


def _remaining(cov: Floats, seen: list[int], noise: float) -> float:
    gain = np.linalg.solve(cov[np.ix_(seen, seen)] + noise**2 * np.eye(len(seen)), cov[seen])
    return float(np.sqrt(np.maximum(np.diag(cov) - np.einsum("ij,ij->j", cov[seen], gain), 0)).mean())


def _catalogue(models: Sequence[str], runs: Sequence[BoardRun]) -> Catalogue:
    return fit_catalogue(models, [run.latency_ms for run in runs], [run.facts for run in runs])


def catalogue_shots(
    study: Study, boards: Sequence[BoardRun], others: Sequence[Sequence[BoardRun]], counts: Sequence[int]
) -> Shots:
    """Known networks: for each of ``boards`` the catalogue comes from ``others`` of the same index.

    What is measured is chosen among networks of other families than the predicted one; a count of 0 stands for all.
    """
    family = dict(zip(study.models, study.family, strict=True))
    found: dict[int, dict[int, list[float]]] = {count: {} for count in counts}
    for number, (run, rest) in enumerate(zip(boards, others, strict=True)):
        catalogue = _catalogue(study.models, rest).given(run.facts)
        for name in sorted({family[model] for model in run.latency_ms}):
            candidates = [model for model in run.latency_ms if family[model] != name]
            wanted = [model for model in run.latency_ms if family[model] == name]
            for count in counts:
                probes = choose_probes(catalogue, candidates, count) if count else tuple(candidates)
                measured = {model: run.latency_ms[model] for model in probes}
                for model, (log_ms, _) in predict_known(catalogue, measured, wanted).items():
                    error = abs(float(np.exp(log_ms)) / run.latency_ms[model] - 1)
                    found[count].setdefault(number, []).append(error)
    return Shots(found)


def board_from_few(
    population: Population, catalogue: Catalogue, amounts: Mapping[str, Floats], measured: Mapping[str, float],
    half: float,
) -> Board:
    """The costs of a board from ``measured`` ms of some networks of the catalogue; ``amounts`` of each: (terms,)."""
    complete = predict_known(catalogue, measured, catalogue.models)
    # The terms miss a network by about _MISFIT, so a measured one is hardly surer than one that follows from others.
    log_ms = np.array([np.log(measured[m]) if m in measured else complete[m][0] for m in catalogue.models])
    unsure = np.array([0.0 if m in measured else complete[m][1] for m in catalogue.models])
    rows = np.array([amounts[model] for model in catalogue.models])
    return fit_board(population, rows, log_ms, np.hypot(_MISFIT, unsure), half)


def strict_shots(
    train: Study, boards: Sequence[BoardRun], counts: Sequence[int], priors: Priors = ONE_CORE
) -> Shots:
    """Unknown networks on unknown boards: the population was fitted without the predicted family and the boards."""
    found: dict[int, dict[int, list[float]]] = {count: {} for count in counts}
    family = dict(zip(train.models, train.family, strict=True))
    for name in sorted(set(train.family)):
        population, _ = train.without(name).fit(priors)
        amounts = dict(zip(train.models, train.amounts(population.shape), strict=True))
        known = [model for model in train.models if family[model] != name]
        general = _catalogue(known, train.runs)
        for number, run in enumerate(boards):
            wanted = [model for model in run.latency_ms if family.get(model) == name]
            candidates = [model for model in known if model in run.latency_ms]
            catalogue = general.given(run.facts)
            for count in counts if wanted else ():
                probes = choose_probes(catalogue, candidates, count)
                measured = {model: run.latency_ms[model] for model in probes}
                board = board_from_few(population, catalogue, amounts, measured, run.half)
                for model in wanted:
                    guess = float(np.exp(log_latency(board, amounts[model][None])[0]))
                    found[count].setdefault(number, []).append(abs(guess / run.latency_ms[model] - 1))
    return Shots(found)
