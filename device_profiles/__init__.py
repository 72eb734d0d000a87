"""What is known about devices: one JSON file for each device x runtime x version x backend x threads x precision.

A profile holds measured latencies of whole models (a look-up: a model that is not in it is an error, never a zero), or
fitted costs from which ``edgekit.profile`` predicts any network, or both. ``population-*.json`` holds what the fits of
one runtime share. ``schema.json`` is the JSON schema of the profiles, generated from ``DeviceProfile``.
"""

from __future__ import annotations

import difflib
import functools
import json
import os
import sys
from pathlib import Path
from typing import Literal

import msgspec

from edgekit.errors import BadInput, InternalError, UnknownName

__all__ = [
    "Accuracy",
    "Backend",
    "Confidence",
    "Corrections",
    "DeviceProfile",
    "FittedCosts",
    "KernelAccuracy",
    "KernelCosts",
    "MeasuredLatency",
    "PopulationFile",
    "Precision",
    "Source",
    "find",
    "load_file",
    "load_population",
    "load_profiles",
    "resolve",
    "schema_json",
    "user_folder",
]

Backend = Literal["cpu", "gpu", "npu", "nnapi"]
#: "mixed": float16 where the processor has it, float32 elsewhere
#: "dynamic8": int8 weights, activations quantized at run time
Precision = Literal["float32", "float16", "mixed", "int8", "uint8", "dynamic8"]
#: "measured": a look-up only; "calibrated": held-out error and band were checked; "low": the same with several threads,
#: whose placement the source does not state; "indicative": an order of magnitude
Confidence = Literal["measured", "calibrated", "low", "indicative"]

_FOLDER = Path(__file__).parent
_SCHEMA = "schema.json"
_POPULATION = "population-"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the figures come from: ``url`` names one fixed version of a document, ``licence`` its terms."""

    url: str
    licence: str
    note: str = ""


class MeasuredLatency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model, called as the source calls it but in lower case, and its wall time for one input."""

    model: str
    latency_ms: float

    def __post_init__(self) -> None:
        if not self.latency_ms > 0:
            raise ValueError(f"the latency of '{self.model}' is {self.latency_ms} ms; it must be positive")


class Accuracy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far predictions were off for networks whose whole architecture family was left out of the fit.

    ``median_ape``, ``p90_ape``: absolute error as a part of the measured time; ``within_10``, ``within_20``: the part
    of the networks that is off by at most 10 % and 20 %; ``band_coverage``: the part that lies in the 90 % band, which
    was calibrated on other families; ``inside_domain``: the part that the domain rule, set on other families, lets in.
    """

    networks: int
    families: int
    median_ape: float
    p90_ape: float
    within_10: float
    within_20: float
    band_coverage: float
    inside_domain: float


class FittedCosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``costs_ms``: milliseconds for one unit of each term of ``population``, the file ``population-<name>.json``.

    ``spread``: half the width of the 90 % band, in logarithms, is ``spread`` times (0.1 + novelty of the network)^1.7.
    """

    population: str
    costs_ms: dict[str, float]
    spread: float
    accuracy: Accuracy

    def __post_init__(self) -> None:
        if not all(cost >= 0 for cost in self.costs_ms.values()) or not self.spread > 0:
            raise ValueError("costs must not be negative, and the spread must be positive")


class Corrections(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one kind of kernel: ``places`` (ops, coordinates) of measured ops and their ``weights`` (ops,)."""

    places: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


class KernelAccuracy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far predictions were off for ``checked`` networks that were timed and kept out of the fit.

    ``bias``: the median of predicted over measured time; the others as in ``Accuracy``.
    """

    fitted: int
    checked: int
    median_ape: float
    p90_ape: float
    within_15: float
    bias: float


class KernelCosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Costs of the kernels of one engine on one machine, fitted to small networks that were timed on it.

    ``costs_ms``: of one unit of each term of ``edgekit.profile.host.terms``; ``length``: distance, in logarithms of
    sizes, over which ops resemble one another; ``corrections`` by kind of kernel. ``spread`` as in ``FittedCosts``.
    """

    costs_ms: dict[str, float]
    length: float
    corrections: dict[str, Corrections]
    spread: float
    accuracy: KernelAccuracy

    def __post_init__(self) -> None:
        if not all(cost >= 0 for cost in self.costs_ms.values()) or not self.spread > 0 or not self.length > 0:
            raise ValueError("costs must not be negative; the spread and the length must be positive")


class PopulationFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the boards of one runtime share.

    ``shape``: logarithms of the shape parameters by name; ``costs_ms``: of one unit of each term on a typical board;
    ``delta_cov``: how the logarithms of costs differ between boards (terms in the order of ``costs_ms``);
    ``mixtures``: network of the fit -> share of its time in each term; ``novelty_limit``: beyond it a network is
    outside the calibrated domain. ``catalogue_mean`` and ``catalogue_cov``: log milliseconds of ``catalogue`` across
    boards.
    """

    id: str
    source: Source
    boards: int
    shape: dict[str, float]
    costs_ms: dict[str, float]
    delta_cov: tuple[tuple[float, ...], ...]
    mixtures: dict[str, tuple[float, ...]]
    novelty_limit: float
    spread: float
    catalogue: tuple[str, ...]
    catalogue_mean: tuple[float, ...]
    catalogue_cov: tuple[tuple[float, ...], ...]


class DeviceProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What was measured on one device with one configuration.

    ``id`` is the name of the file without ``.json``. ``runtime_version`` and ``threads`` are None where the source does
    not state them: figures of different runtime versions may differ by tens of percent.
    """

    id: str
    device: str
    soc: str
    os: str
    runtime: str
    runtime_version: str | None
    backend: Backend
    threads: int | None
    precision: Precision
    source: Source
    measured: tuple[MeasuredLatency, ...] = ()
    fit: FittedCosts | None = None
    kernels: KernelCosts | None = None
    confidence: Confidence = "measured"

    def __post_init__(self) -> None:
        names = [each.model for each in self.measured]
        if len(set(names)) != len(names):
            raise ValueError(f"the profile '{self.id}' names a model twice")
        fitted = self.fit is not None or self.kernels is not None
        if not self.measured and not fitted:
            raise ValueError(f"the profile '{self.id}' holds neither measurements nor a fit")
        if fitted == (self.confidence == "measured"):
            raise ValueError(f"the profile '{self.id}' has the confidence '{self.confidence}', which does not fit")

    def latency_ms(self, model: str) -> float:
        """The measured milliseconds for ``model``. Raises UnknownName, with the known models, for any other."""
        for each in self.measured:
            if each.model == model:
                return each.latency_ms
        raise UnknownName.of(f"model of the profile '{self.id}'", model, (each.model for each in self.measured))


@functools.cache
def load_profiles() -> tuple[DeviceProfile, ...]:
    """Every profile that ships with EdgeKit, ordered by id. Raises InternalError when a file is damaged."""
    paths = sorted(_FOLDER.glob("*.json"))
    return tuple(_load(path) for path in paths if path.name != _SCHEMA and not path.name.startswith(_POPULATION))


@functools.cache
def load_population(name: str) -> PopulationFile:
    """What the profiles with ``fit.population == name`` share. Raises UnknownName, InternalError."""
    path = _FOLDER / f"{_POPULATION}{name}.json"
    if not path.is_file():
        known = (each.stem.removeprefix(_POPULATION) for each in sorted(_FOLDER.glob(f"{_POPULATION}*.json")))
        raise UnknownName.of("population", name, known)
    try:
        return msgspec.json.decode(path.read_bytes(), type=PopulationFile)
    except (OSError, msgspec.MsgspecError) as error:
        raise InternalError(f"The file {path.name} is damaged: {error}.", "Install EdgeKit anew.") from error


def resolve(name: str) -> DeviceProfile:
    """The profile with the id ``name``; or, for the part of ids that names a device, its one-thread CPU profile.

    A name that ends in ``.json`` is the path of a file, such as ``edgekit devices fit`` writes; the ids of what it kept
    in ``user_folder`` are known too. Raises UnknownName with the closest known ids, BadInput for a file that is no
    profile.
    """
    if name.endswith(".json"):
        return load_file(Path(name))
    kept = user_folder() / f"{name}.json"
    if name == Path(name).name and kept.is_file():
        return load_file(kept)
    profiles = load_profiles()
    exact = [profile for profile in profiles if profile.id == name]
    plain = [profile for profile in profiles if profile.id == f"{name}-ncnn-cpu-1t"]
    found = exact or plain
    if not found:
        near = difflib.get_close_matches(name, [profile.id for profile in profiles], 5, 0.3)
        raise UnknownName(
            f"Unknown device '{name}'.", f"Closest: {', '.join(near) or 'none'}. All of them: edgekit devices list"
        )
    return found[0]


def user_folder() -> Path:
    """Where profiles of the user's own machines are kept: a folder in the user's cache, which may not exist yet."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "edgekit" / "profiles"


def load_file(path: Path) -> DeviceProfile:
    """The profile in a file of the user's. Raises BadInput where it cannot be read or is no profile."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=DeviceProfile)
    except OSError as error:
        raise BadInput(f"The profile '{path}' cannot be read: {error.strerror or error}.", "Check the path.") from error
    except msgspec.MsgspecError as error:
        raise BadInput(f"'{path}' is no device profile: {error}.", "Make one: edgekit devices fit --host") from error


def find(
    device: str,
    *,
    backend: Backend | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
) -> tuple[DeviceProfile, ...]:
    """The profiles of ``device`` that have the given backend, precision and threads; None stands for any.

    The result is empty when the device is known but not in this configuration. Raises UnknownName, with the known
    devices, when there is nothing about the device at all.
    """
    profiles = load_profiles()
    if device not in {profile.device for profile in profiles}:
        raise UnknownName.of("device", device, sorted({profile.device for profile in profiles}))
    return tuple(
        profile
        for profile in profiles
        if profile.device == device
        and backend in (None, profile.backend)
        and precision in (None, profile.precision)
        and threads in (None, profile.threads)
    )


def schema_json() -> str:
    """The text of ``schema.json``."""
    return json.dumps(msgspec.json.schema(DeviceProfile), indent=1, sort_keys=True) + "\n"


def _load(path: Path) -> DeviceProfile:
    try:
        profile = msgspec.json.decode(path.read_bytes(), type=DeviceProfile)
    except (OSError, msgspec.MsgspecError) as error:
        raise InternalError(f"The device profile {path.name} is damaged: {error}.", "Install EdgeKit anew.") from error
    if profile.id != path.stem:
        raise InternalError(f"The device profile {path.name} calls itself '{profile.id}'.", "Install EdgeKit anew.")
    return profile
