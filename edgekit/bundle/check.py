"""What must hold between the parts of a manifest, beyond their types."""

from __future__ import annotations

import math
import re

from edgekit.bundle.check_ladders import check_ladders
from edgekit.bundle.check_parts import (
    FORMATS,
    ITEM_BYTES,
    check_format,
    check_reference,
    check_resolution,
    check_specs,
    check_text,
    check_vector,
    refuse_twice,
)
from edgekit.bundle.container import MANIFEST, SIGNATURE, check_name
from edgekit.bundle.manifest import Entry, Manifest, Variant
from edgekit.errors import BadBundle

__all__ = ["FORMATS", "ITEM_BYTES", "check_manifest"]

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


def check_manifest(manifest: Manifest) -> None:
    """Raise BadBundle, naming the field, for the first reference, size or name that cannot be right."""
    check_text("name", manifest.name)
    sizes = _check_entries(manifest.entries)
    if not manifest.variants and not manifest.ladders:
        raise BadBundle("The manifest names no variant and no ladder, so there is nothing to run.")
    _check_variants(manifest, sizes)
    check_ladders(manifest.ladders, sizes)
    if manifest.plan_entry is not None:
        check_reference("plan_entry", manifest.plan_entry, sizes)
        if not manifest.ladders:
            raise BadBundle("The manifest names a plan, but no ladder that it could be for.")
    if manifest.labels_entry is not None:
        check_reference("labels_entry", manifest.labels_entry, sizes)
    if manifest.preprocess is not None and not all(
            math.isfinite(value) for value in (*manifest.preprocess.mean, *manifest.preprocess.std)):
        raise BadBundle("The preprocess field of the manifest holds a number that is not finite.")


def _check_variants(manifest: Manifest, sizes: dict[str, int]) -> None:
    refuse_twice("variant id", (variant.id for variant in manifest.variants))
    for variant in manifest.variants:
        _check_variant(variant, sizes)
        if _names(variant) != _names(manifest.variants[0]):
            raise BadBundle(f"The variants '{manifest.variants[0].id}' and '{variant.id}' differ in the names of their "
                            "inputs or outputs.")
    if manifest.test_vectors and not manifest.variants:
        raise BadBundle("The manifest has test vectors, but no variant that they could be for.")
    for number, vector in enumerate(manifest.test_vectors):
        first = manifest.variants[0]
        check_vector(f"test_vectors[{number}]", vector, f"variant '{first.id}'", _names(first), sizes)


def _names(variant: Variant) -> tuple[list[str], list[str]]:
    return [spec.name for spec in variant.inputs], [spec.name for spec in variant.outputs]


def _check_entries(entries: tuple[Entry, ...]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for entry in entries:
        problem = check_name(entry.name)
        if problem:
            raise BadBundle(f"The manifest names the entry {entry.name[:300]!r}, which {problem}.")
        if entry.name in (MANIFEST, SIGNATURE):
            raise BadBundle(f"The manifest lists '{entry.name}' among its entries.")
        if entry.size_bytes < 0:
            raise BadBundle(f"The manifest gives entry '{entry.name}' the size {entry.size_bytes}.")
        if not _HASH.fullmatch(entry.sha256):
            raise BadBundle(f"The sha256 of entry '{entry.name}' is not 64 lower-case hexadecimal digits.")
        sizes[entry.name] = entry.size_bytes
    names = [entry.name for entry in entries]
    if names != sorted(sizes):
        raise BadBundle("The entries of the manifest are not in ascending order, each once.")
    return sizes


def _check_variant(variant: Variant, sizes: dict[str, int]) -> None:
    what = f"variant '{variant.id[:100]}'"
    check_text("variant id", variant.id)
    check_text(f"{what}: precision", variant.precision)
    check_reference(what, variant.entry, sizes)
    check_format(what, variant.engine, variant.format)
    check_specs(what, variant.inputs, variant.outputs)
    if variant.resolution is not None:
        check_resolution(what, variant.resolution)
