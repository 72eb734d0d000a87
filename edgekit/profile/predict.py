"""The latency of a network on a device from its profile: with a band, the calibrated share, and the slowest ops."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.device_profiles import Confidence, DeviceProfile, PopulationFile, load_population
from edgekit.errors import BadRecipe, InternalError
from edgekit.graph.costs import GraphCosts
from edgekit.profile.domain import half_widths, novelty
from edgekit.profile.terms import SHAPE_NAMES, TERMS, OpTable, term_amounts

__all__ = ["BAND", "LatencyPrediction", "OpLatency", "predict"]

Floats = npt.NDArray[np.float64]

#: the part of networks inside the domain whose latency the band holds
BAND = 0.9


class OpLatency(msgspec.Struct, frozen=True):
    """``share``: the part of the network's time. ``known``: False where no cost was fitted for such an op."""

    name: str
    kind: str
    latency_ms: float
    share: float
    known: bool


class LatencyPrediction(msgspec.Struct, frozen=True):
    """``band_ms``: (low, high), which holds 90 % of networks inside the calibrated domain.

    ``covered``: the part of the time that is spent as in the most similar network of the fit, on ops whose cost is
    known; ``nearest``: that network. ``inside_domain`` is False where too much is not like anything that was measured:
    the band is not calibrated then. ``findings`` say in words what weakens the prediction.
    """

    device: str
    confidence: Confidence
    latency_ms: float
    band_ms: tuple[float, float]
    covered: float
    inside_domain: bool
    nearest: str
    macs: int
    ops: tuple[OpLatency, ...]
    findings: tuple[str, ...] = ()


def predict(costs: GraphCosts, profile: DeviceProfile) -> LatencyPrediction:
    """What ``profile`` says about a network; ``ops`` are in the order of the graph.

    Raises BadRecipe for a profile that holds measurements only, or a network without ops.
    """
    if profile.fit is None:
        raise BadRecipe(
            f"The profile '{profile.id}' holds measured latencies only, so it predicts nothing.",
            "Choose a fitted one: edgekit devices list",
        )
    if not costs.ops:
        raise BadRecipe("The network has no ops that an engine runs.")
    population = load_population(profile.fit.population)
    cost_ms, shape = _ordered(profile, population)
    per_op = term_amounts(OpTable([costs.ops]), shape) * cost_ms
    latency = per_op.sum(axis=1)
    total = float(latency.sum())
    if not total > 0:
        raise BadRecipe("The network's ops only rename axes: there is nothing to time.")
    mixture = (per_op.sum(axis=0) / total)[None]
    unknown = float(latency[[op.op_class == "unknown" for op in costs.ops]].sum()) / total
    names = tuple(population.mixtures)
    reference = np.array([population.mixtures[name] for name in names])
    new = min(float(novelty(mixture, reference)[0]) + unknown, 1.0)
    width = float(half_widths(profile.fit.spread, np.array([new]))[0])
    findings = _findings(costs, profile, new, population.novelty_limit)
    return LatencyPrediction(
        device=profile.id,
        confidence=profile.confidence,
        latency_ms=total,
        band_ms=(total * float(np.exp(-width)), total * float(np.exp(width))),
        covered=1 - new,
        inside_domain=new <= population.novelty_limit and not _off_precision(costs),
        nearest=names[int(np.abs(reference - mixture).sum(axis=1).argmin())],
        macs=costs.macs,
        ops=tuple(
            OpLatency(op.name, op.kind, float(ms), float(ms) / total, op.op_class != "unknown")
            for op, ms in zip(costs.ops, latency, strict=True)
        ),
        findings=findings,
    )


def _ordered(profile: DeviceProfile, population: PopulationFile) -> tuple[Floats, Floats]:
    """Costs and shape in the order that ``term_amounts`` has."""
    assert profile.fit is not None
    if set(profile.fit.costs_ms) != set(TERMS) or set(population.shape) != set(SHAPE_NAMES):
        raise InternalError(
            f"The profile '{profile.id}' was fitted with other terms than this EdgeKit has.", "Fit it anew."
        )
    return (
        np.array([profile.fit.costs_ms[term] for term in TERMS]),
        np.array([population.shape[name] for name in SHAPE_NAMES]),
    )


def _off_precision(costs: GraphCosts) -> bool:
    macs = costs.macs
    return bool(macs) and sum(op.macs for op in costs.ops if op.bits < 16) > 0.5 * macs


def _findings(costs: GraphCosts, profile: DeviceProfile, new: float, limit: float) -> tuple[str, ...]:
    found = []
    unknown = sorted({op.kind for op in costs.ops if op.op_class == "unknown"})
    if unknown:
        found.append(
            f"No cost was fitted for {', '.join(unknown)}; they are counted as copies of their data, which is "
            "likely too little."
        )
    if new > limit:
        found.append(
            f"{new:.0%} of the time is spent unlike any network of the fit (limit {limit:.0%}): the band is "
            "not calibrated. Measure this network, or one like it, on the device."
        )
    if _off_precision(costs):
        found.append(
            "The network is quantized and the profile was fitted on float networks: the prediction is not calibrated."
        )
    if profile.confidence in ("low", "indicative"):
        found.append(f"The profile's confidence is {profile.confidence}: expect errors as its accuracy states.")
    return tuple(found)
