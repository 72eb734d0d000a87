"""``manifest.json`` from and to bytes: strict, bounded, and with upgrades of older schema versions."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec

from edgekit.bundle.check import check_manifest
from edgekit.bundle.manifest import SCHEMA_VERSION, Manifest
from edgekit.errors import BadBundle, BadRecipe, SchemaTooNew

__all__ = ["MAX_MANIFEST_BYTES", "decode_manifest", "encode_manifest"]

MAX_MANIFEST_BYTES = 4 * 1024 * 1024

Upgrade = Callable[[dict[str, object]], dict[str, object]]

_UPGRADES: dict[int, Upgrade] = {}
"""From version n to n + 1, on plain JSON values; each version below SCHEMA_VERSION has one. Version 1 is the first."""

_BROKEN = (msgspec.MsgspecError, ValueError, RecursionError, BadRecipe)


class _Version(msgspec.Struct, frozen=True):
    schema_version: int


def encode_manifest(manifest: Manifest) -> bytes:
    """The canonical bytes: fields in the order of the types, keys of free dictionaries sorted, no white space.

    Raises BadBundle for values that JSON or the schema cannot hold, and for wrong references.
    """
    try:
        data = msgspec.json.encode(manifest, order="deterministic")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadBundle(f"The manifest cannot be written as JSON: {error}.") from error
    decode_manifest(data)
    return data


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
    if msgspec.json.encode(manifest, order="deterministic") != data:
        json.loads(data, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key '{name[:100]}' occurs twice")
        found[name] = value
    return found
