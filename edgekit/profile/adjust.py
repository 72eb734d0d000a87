"""``adjusted``: a profile drawn towards networks that were measured on the board at hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from edgekit.device_profiles import DeviceProfile, FittedCosts, KernelCosts, Source, load_population
from edgekit.errors import BadInput, BadRecipe
from edgekit.graph.costs import GraphCosts
from edgekit.graph.costs_read import graph_costs
from edgekit.profile.host.estimate import estimate
from edgekit.profile.population import Population, fit_board
from edgekit.profile.terms import SHAPE_NAMES, TERMS, OpTable, term_amounts

__all__ = ["adjusted", "read_measurements"]



def read_measurements(path: Path) -> dict[Path, float]:
    """Model file -> milliseconds, from a CSV with the columns model and latency_ms, or a JSON object {model: ms}.

    Models are paths, relative to the table's folder. Raises BadInput.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            rows = json.loads(text)
            pairs = list(rows.items()) if isinstance(rows, dict) else []
        else:
            pairs = [(row["model"], row["latency_ms"]) for row in csv.DictReader(text.splitlines())]
        found = {path.parent / str(model): float(ms) for model, ms in pairs}
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The measurements '{path}' cannot be read: {error}.", "Check the path.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"'{path}' is no table of measurements: {error!r}.",
                       "Write a CSV with the columns model and latency_ms, or a JSON object of model: ms.") from error
    if not found or not all(0 < ms < float("inf") for ms in found.values()):
        raise BadInput(f"'{path}' must hold at least one model, and positive milliseconds only.")
    return found


def adjusted(
    profile: DeviceProfile, measured: Mapping[Path, float], device: str = "", *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> DeviceProfile:
    """``profile`` for the board on which the model files ``measured`` took these milliseconds; ``device`` names it.

    A profile of a population has all its costs refitted, as far as the measurements say something about them; one of
    kernels is scaled. Raises BadRecipe for a profile that holds measurements only, and what ``graph_costs`` raises.
    """
    graphs = [graph_costs(path, shapes) for path in measured]
    times = np.array(list(measured.values()))
    changes: dict[str, object]
    if profile.fit is not None:
        changes = {"fit": _refitted(profile.fit, graphs, times)}
    elif profile.kernels is not None:
        changes = {"kernels": _scaled(profile.kernels, graphs, times)}
    else:
        raise BadRecipe(f"The profile '{profile.id}' holds measured latencies only: there is nothing to adjust.",
                        "Choose a fitted one: edgekit devices list")
    note = f"{profile.source.note} Adjusted with {len(graphs)} measured network(s).".strip()
    source = Source(profile.source.url, profile.source.licence, note)
    return msgspec.structs.replace(
        profile, id=f"{profile.id}-adjusted", device=device or profile.device, source=source, **changes)


def _refitted(fit: FittedCosts, graphs: list[GraphCosts], times: np.ndarray) -> FittedCosts:
    """The costs of a board like the profile's one, given the measurements (``population.fit_board``)."""
    shared = load_population(fit.population)
    shape = np.array([shared.shape[name] for name in SHAPE_NAMES])
    table = OpTable([graph.ops for graph in graphs])
    amounts = table.per_graph(term_amounts(table, shape))
    # The board starts from the profile's costs, not from the typical board's, and differs as boards differ.
    start = np.log(np.maximum([fit.costs_ms[term] for term in TERMS], 1e-9))
    around = Population(start, shape, np.array(shared.delta_cov), np.zeros(len(TERMS)))
    board = fit_board(around, amounts, np.log(times))
    costs = {term: float(f"{cost:.5g}") for term, cost in zip(TERMS, np.exp(board.log_cost), strict=True)}
    return msgspec.structs.replace(fit, costs_ms=costs)


def _scaled(kernels: KernelCosts, graphs: list[GraphCosts], times: np.ndarray) -> KernelCosts:
    logs = np.log(times) - np.log([estimate(graph, kernels).total_ms for graph in graphs])
    scale = float(np.exp(np.median(logs)))
    return msgspec.structs.replace(
        kernels, costs_ms={term: float(f"{cost * scale:.6g}") for term, cost in kernels.costs_ms.items()})
