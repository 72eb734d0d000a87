"""The latency of a network on a device from its profile: with a band, the calibrated share, and the slowest ops."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Engine
from edgekit.device_profiles import Confidence, DeviceProfile, KernelCosts, PopulationFile, load_population
from edgekit.errors import BadRecipe, InternalError
from edgekit.graph.costs import GraphCosts
from edgekit.profile.domain import NOVELTY_POWER, half_widths, novelty
from edgekit.profile.terms import SHAPE_NAMES, TERMS, OpTable, term_amounts

__all__ = ["BAND", "LatencyPrediction", "OpLatency", "VariantLatency", "predict"]

Floats = npt.NDArray[np.float64]

#: the part of networks inside the domain whose latency the band holds
BAND = 0.9
#: with kernels of the machine itself: less of the time on ops like measured ones is outside what was checked
_LEAST_COVERED = 0.5
_RUNTIME_OF: dict[Engine, str] = {"litert": "litert", "ort": "onnxruntime"}


class OpLatency(msgspec.Struct, frozen=True):
    """``share``: the part of the network's time. ``known``: False where no cost was fitted for such an op."""

    name: str
    kind: str
    latency_ms: float
    share: float
    known: bool


class VariantLatency(msgspec.Struct, frozen=True):
    """One variant of a bundle; the fields are those of ``LatencyPrediction``."""

    id: str
    engine: Engine
    latency_ms: float
    band_ms: tuple[float, float]
    covered: float
    inside_domain: bool
    findings: tuple[str, ...]


class LatencyPrediction(msgspec.Struct, frozen=True):
    """``band_ms``: (low, high), which holds 90 % of networks inside the calibrated domain.

    ``covered``: the part of the time that is spent as in the most similar network of the fit, on ops whose cost is
    known; ``nearest``: that network ("" where single kernels were measured: ``covered`` is the share of ops like those
    then). ``inside_domain`` is False where too much is not like anything that was measured: the band is not calibrated
    then. ``findings`` say in words what weakens the prediction. ``variants``: of a bundle, all of them; the other
    fields are those of the first variant for the profile's runtime, else of the first. ``run_ms``: what a run costs
    besides its ops; part of ``latency_ms``.
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
    variants: tuple[VariantLatency, ...] = ()
    run_ms: float = 0.0


def predict(costs: GraphCosts, profile: DeviceProfile, engine: Engine | None = None) -> LatencyPrediction:
    """What ``profile`` says about a network; ``ops`` are in the order of the graph.

    ``engine``: the one that the network's file is for; a finding says so where the profile is of another runtime.

    Raises BadRecipe for a profile that holds measurements only, or a network without ops.
    """
    if profile.fit is None and profile.kernels is None:
        raise BadRecipe(
            f"The profile '{profile.id}' holds measured latencies only, so it predicts nothing.",
            "Choose a fitted one: edgekit devices list",
        )
    if not costs.ops:
        raise BadRecipe("The network has no ops that an engine runs.")
    proxy = _proxy(profile, engine)
    if profile.kernels is not None:
        return _from_kernels(costs, profile, profile.kernels, proxy)
    return _from_population(costs, profile, proxy)


def _from_population(costs: GraphCosts, profile: DeviceProfile, proxy: tuple[str, ...]) -> LatencyPrediction:
    assert profile.fit is not None
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
    width = float(half_widths(profile.fit.spread, np.array([new]), NOVELTY_POWER)[0])
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
        findings=(*findings, *proxy),
    )


def _from_kernels(
    costs: GraphCosts, profile: DeviceProfile, kernels: KernelCosts, proxy: tuple[str, ...]
) -> LatencyPrediction:
    from edgekit.profile.host.estimate import estimate

    found = estimate(costs, kernels)
    total = found.total_ms
    if not total > 0:
        raise BadRecipe("The network's ops only rename axes: there is nothing to time.")
    width = float(half_widths(kernels.spread, np.array([1 - found.covered]))[0])
    inside = found.covered >= _LEAST_COVERED and not _other_precision(costs, profile)
    ops = [OpLatency(op.name, op.kind, float(ms), float(ms) / total, known)
           for op, ms, known in zip(costs.ops, found.per_op_ms, found.known, strict=True)]
    return LatencyPrediction(
        device=profile.id, confidence=profile.confidence, latency_ms=total,
        band_ms=(total * float(np.exp(-width)), total * float(np.exp(width))), covered=found.covered,
        inside_domain=inside, nearest="", macs=costs.macs, ops=tuple(ops),
        findings=(*_kernel_findings(costs, profile, found.covered, found.known), *proxy), run_ms=found.run_ms,
    )


def _kernel_findings(
    costs: GraphCosts, profile: DeviceProfile, covered: float, known: tuple[bool, ...]
) -> tuple[str, ...]:
    found = []
    unknown = sorted({op.kind for op, each in zip(costs.ops, known, strict=True) if not each})
    if unknown:
        found.append(f"No {', '.join(unknown)} of this type was timed; they are counted as additions of their size.")
    if covered < _LEAST_COVERED:
        found.append(f"{1 - covered:.0%} of the time is spent on ops unlike any that was timed: the band is not "
                     "calibrated. Time this network itself: edgekit bench MODEL --per-op")
    if _other_precision(costs, profile):
        found.append(f"The profile was fitted on {profile.precision} networks, and this one is not: the prediction is "
                     "not calibrated.")
    return tuple(found)


def _other_precision(costs: GraphCosts, profile: DeviceProfile) -> bool:
    return _off_precision(costs) != (profile.precision == "int8") and costs.macs > 0


def _proxy(profile: DeviceProfile, engine: Engine | None) -> tuple[str, ...]:
    if engine is None or profile.runtime == _RUNTIME_OF[engine]:
        return ()
    return (f"The profile was measured with {profile.runtime} and the model runs with {_RUNTIME_OF[engine]}: the "
            "prediction is a proxy. Another engine differs by tens of percent.",)


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
