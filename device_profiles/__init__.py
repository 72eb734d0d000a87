"""Measured latencies of whole models: one JSON file for each device x runtime x backend x threads x precision.

A profile is a look-up of what somebody measured, with the source. It predicts nothing: a model that is not in it is an
error, never a zero. ``schema.json`` is the JSON schema of the files, generated from ``DeviceProfile``.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Literal

import msgspec

from edgekit.errors import InternalError, UnknownName

__all__ = ["Backend", "DeviceProfile", "MeasuredLatency", "Precision", "Source", "find", "load_profiles", "schema_json"]

Backend = Literal["cpu", "gpu", "npu", "nnapi"]
Precision = Literal["float32", "float16", "int8", "uint8"]

_FOLDER = Path(__file__).parent
_SCHEMA = "schema.json"


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


class DeviceProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    measured: tuple[MeasuredLatency, ...]

    def __post_init__(self) -> None:
        names = [each.model for each in self.measured]
        if len(set(names)) != len(names):
            raise ValueError(f"the profile '{self.id}' names a model twice")

    def latency_ms(self, model: str) -> float:
        """The measured milliseconds for ``model``. Raises UnknownName, with the known models, for any other."""
        for each in self.measured:
            if each.model == model:
                return each.latency_ms
        raise UnknownName.of(f"model of the profile '{self.id}'", model, (each.model for each in self.measured))


@functools.cache
def load_profiles() -> tuple[DeviceProfile, ...]:
    """Every profile that ships with EdgeKit, ordered by id. Raises InternalError when a file is damaged."""
    return tuple(_load(path) for path in sorted(_FOLDER.glob("*.json")) if path.name != _SCHEMA)


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
