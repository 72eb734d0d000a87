"""``manifest.json`` from and to bytes: strict, bounded, and with upgrades of older schema versions."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec

from edgekit.bundle.check import check_manifest
from edgekit.bundle.manifest import SCHEMA_VERSION, Manifest
from edgekit.errors import BadBundle, BadRecipe, SchemaTooNew

__all__ = ["MAX_MANIFEST_BYTES", "decode_manifest", "encode_manifest", "unique_keys", "with_version"]

MAX_MANIFEST_BYTES = 4 * 1024 * 1024

Upgrade = Callable[[dict[str, object]], dict[str, object]]

_SINCE_2: dict[str, object] = {"ladders": [], "plan_entry": None}


def _to_2(raw: dict[str, object]) -> dict[str, object]:
    """Adds what version 1 does not have. The number stays: a manifest without ladders is of version 1 for good."""
    for name in _SINCE_2:
        if name in raw:
            raise BadBundle(f"The manifest is of schema 1, which has no field '{name}'.")
    return raw | _SINCE_2


_UPGRADES: dict[int, Upgrade] = {1: _to_2}
"""From version n to n + 1, on plain JSON values; each version below SCHEMA_VERSION has one. Version 1 is the first."""

_BROKEN = (msgspec.MsgspecError, ValueError, RecursionError, BadRecipe)


class _Version(msgspec.Struct, frozen=True):
    schema_version: int


def encode_manifest(manifest: Manifest) -> bytes:
    """The canonical bytes: fields in the order of the types, keys of free dictionaries sorted, no white space.

    The schema version is set to the oldest that has the fields in use. Raises BadBundle for values that JSON or the
    schema cannot hold, and for wrong references.
    """
    try:
        data = _canonical(with_version(manifest))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadBundle(f"The manifest cannot be written as JSON: {error}.") from error
    decode_manifest(data)
    return data


def with_version(manifest: Manifest) -> Manifest:
    """``manifest`` with the schema version that it is written as: 2 with ladders (or a plan for them), else 1."""
    adaptive = bool(manifest.ladders) or manifest.plan_entry is not None
    return msgspec.structs.replace(manifest, schema_version=2 if adaptive else 1)


def _canonical(manifest: Manifest) -> bytes:
    if manifest.schema_version != 1:
        return msgspec.json.encode(manifest, order="deterministic")
    raw = msgspec.to_builtins(manifest, order="deterministic")
    return msgspec.json.encode({name: value for name, value in raw.items() if name not in _SINCE_2})


def decode_manifest(data: bytes) -> Manifest:
    """The checked manifest of this build's schema, upgraded when ``data`` is of an older one.

    Raises SchemaTooNew for a newer schema; BadBundle, naming the field, for everything else that is wrong.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BadBundle(f"The manifest takes {len(data)} bytes; at most {MAX_MANIFEST_BYTES} are allowed.")
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        _check_version(version)
        if version == SCHEMA_VERSION:
            manifest = msgspec.json.decode(data, type=Manifest)
        else:
            manifest = msgspec.convert(_upgraded(data, version), type=Manifest)
        if version == 2 and not manifest.ladders:
            raise BadBundle("The manifest is of schema 2, but has no ladders: without them it must be of schema 1.")
        _refuse_repeated_keys(data, manifest)
    except _BROKEN as error:
        raise BadBundle(f"The manifest is wrong: {str(error).rstrip('.')}.") from error
    check_manifest(manifest)
    return manifest


def _check_version(version: int) -> None:
    if version > SCHEMA_VERSION:
        raise SchemaTooNew(f"It needs bundle schema {version}; this EdgeKit reads the schemas 1 to {SCHEMA_VERSION}.",
                           "Update it with: pip install --upgrade edgekit-sdk")
    if version < 1:
        raise BadBundle(f"The manifest has schema version {version}; the first one is 1.")


def _upgraded(data: bytes, version: int) -> dict[str, object]:
    raw = msgspec.json.decode(data, type=dict[str, object])
    for step in range(version, SCHEMA_VERSION):
        try:
            raw = _UPGRADES[step](raw)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            # An upgrade handles values that nothing has checked yet.
            raise BadBundle(f"The manifest is not one of schema {step}: {error!r}.") from error
    return raw


def _refuse_repeated_keys(data: bytes, manifest: Manifest) -> None:
    """JSON parsers disagree on which of two equal keys counts. What was written canonically has none."""
    if _canonical(manifest) != data:
        json.loads(data, object_pairs_hook=unique_keys)


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The pairs of a JSON object as a dictionary; ValueError for a key that occurs twice."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key '{name[:100]}' occurs twice")
        found[name] = value
    return found
