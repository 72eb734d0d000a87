"""``fit_host``: a device profile of the machine at hand."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekit.device_profiles import DeviceProfile, KernelAccuracy, KernelCosts, Source
from edgekit.errors import EngineError
from edgekit.profile.domain import BASE_NOVELTY
from edgekit.profile.host.estimate import estimate
from edgekit.profile.host.fit import Kernels, fit_kernels
from edgekit.profile.host.timing import HostRecipe, Timed, measure

__all__ = ["fit_host", "profile_of"]

_CHECKED_EVERY = 4  # of the networks built of blocks, one in so many is kept out of the fit
_LEAST_BAND = 0.1  # half the width: real networks are less like the fitted ones than those that check the fit
_RUNTIMES = {"litert": ("litert", "ai-edge-litert"), "ort": ("onnxruntime", "onnxruntime")}


def fit_host(recipe: HostRecipe) -> DeviceProfile:
    """Time small networks here and fit costs to them; takes ``recipe.seconds`` and some ten seconds more.

    Raises EngineError where too few networks could be run, MissingExtra.
    """
    return profile_of(measure(recipe), recipe)


def profile_of(timed: Sequence[Timed], recipe: HostRecipe) -> DeviceProfile:
    """The profile from networks that were timed. Raises EngineError where there are too few to check it."""
    names = sorted({each.name for each in timed if each.whole}, key=lambda name: int(name.split("-")[0]))
    kept_out = set(names[::_CHECKED_EVERY])
    fitted = [each for each in timed if each.name not in kept_out]
    checked = [each for each in timed if each.name in kept_out and not each.other_bytes]
    if len(checked) < 3:
        raise EngineError(f"Only {len(checked)} networks are left to check the fit with.", "Allow more time.")
    kernels = fit_kernels(fitted)
    spread, accuracy = _checked(kernels, checked, len(fitted))
    runtime, package = _RUNTIMES[recipe.engine]
    processor = _processor()
    return DeviceProfile(
        id=f"host-{runtime}-cpu-1t-{recipe.precision}", device=f"this machine ({platform.machine()})", soc=processor,
        os=platform.platform(terse=True), runtime=runtime, runtime_version=_version(package), backend="cpu", threads=1,
        precision=recipe.precision, source=Source(url="", licence="", note=f"Measured here, {len(timed)} timings."),
        kernels=KernelCosts(kernels.costs_ms, kernels.length, kernels.corrections, spread, accuracy),
        confidence="calibrated",
    )


def _checked(kernels: Kernels, checked: Sequence[Timed], fitted: int) -> tuple[float, KernelAccuracy]:
    """The spread of the band (see ``FittedCosts``) and the errors on networks that were kept out."""
    found = [estimate(each.costs, kernels) for each in checked]
    ratio = np.array([each.total_ms for each in found]) / np.array([each.ms for each in checked])
    novelty = np.array([1 - each.covered for each in found])
    error = np.abs(ratio - 1)
    # The 90 % quantile as for n + 1: with few networks the largest of them stands for it.
    rank = min(0.9 * (1 + 1 / len(checked)), 1.0)
    spread = float(np.quantile(np.abs(np.log(ratio)) / (BASE_NOVELTY + novelty), rank, method="higher"))
    return max(spread, _LEAST_BAND / BASE_NOVELTY), KernelAccuracy(
        fitted=fitted, checked=len(checked), median_ape=float(np.median(error)),
        p90_ape=float(np.quantile(error, 0.9)), within_15=float(np.mean(error <= 0.15)), bias=float(np.median(ratio)))


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not an installed package"


def _processor() -> str:
    """The name of the processor, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()
