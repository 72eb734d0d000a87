"""What must hold between the parts of a manifest, beyond their types."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from edgekit.artifacts import TensorSpec
from edgekit.bundle.container import MANIFEST, SIGNATURE, check_name
from edgekit.bundle.manifest import BlobRef, Entry, Manifest, TestVector, Variant
from edgekit.errors import BadBundle

__all__ = ["FORMATS", "ITEM_BYTES", "check_manifest"]

ITEM_BYTES = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "int32": 4, "uint32": 4, "float32": 4,
    "int64": 8, "uint64": 8, "float64": 8,
}
"""The dtypes that a bundle may hold, with the size of one element in bytes."""

FORMATS = {"litert": ("tflite",), "ort": ("onnx", "ort")}
"""The file formats that each engine runs."""

_MAX_RANK = 16
_MAX_DIM = 2**31 - 1
_MAX_TEXT = 1024
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


def check_manifest(manifest: Manifest) -> None:
    """Raise BadBundle, naming the field, for the first reference, size or name that cannot be right."""
    _check_text("name", manifest.name)
    sizes = _check_entries(manifest.entries)
    if not manifest.variants:
        raise BadBundle("The manifest names no variant, so there is nothing to run.")
    _refuse_twice("variant id", (variant.id for variant in manifest.variants))
    for variant in manifest.variants:
        _check_variant(variant, sizes)
        if _names(variant) != _names(manifest.variants[0]):
            raise BadBundle(f"The variants '{manifest.variants[0].id}' and '{variant.id}' differ in the names of their "
                            "inputs or outputs.")
    for number, vector in enumerate(manifest.test_vectors):
        _check_vector(f"test_vectors[{number}]", vector, manifest.variants[0], sizes)
    if manifest.labels_entry is not None:
        _check_reference("labels_entry", manifest.labels_entry, sizes)
    if manifest.preprocess is not None and not all(
            math.isfinite(value) for value in (*manifest.preprocess.mean, *manifest.preprocess.std)):
        raise BadBundle("The preprocess field of the manifest holds a number that is not finite.")


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
    _check_text("variant id", variant.id)
    _check_text(f"{what}: precision", variant.precision)
    _check_reference(what, variant.entry, sizes)
    if variant.format not in FORMATS[variant.engine]:
        raise BadBundle(f"The {what} has the format '{variant.format}', which '{variant.engine}' cannot run.",
                        f"It runs: {', '.join(FORMATS[variant.engine])}.")
    for kind, specs in (("input", variant.inputs), ("output", variant.outputs)):
        if not specs:
            raise BadBundle(f"The {what} has no {kind}.")
        _refuse_twice(f"{kind} of {what}", (spec.name for spec in specs))
        for spec in specs:
            _check_spec(f"{what}: {kind} '{spec.name[:100]}'", spec)
    if variant.resolution is not None and not all(1 <= side <= _MAX_DIM for side in variant.resolution):
        raise BadBundle(f"The {what} has the resolution {list(variant.resolution)}.")


def _check_spec(what: str, spec: TensorSpec) -> None:
    _check_text(what, spec.name)
    _check_dtype(what, spec.dtype)
    if len(spec.shape) > _MAX_RANK or any(dim != -1 and not 1 <= dim <= _MAX_DIM for dim in spec.shape):
        raise BadBundle(f"The {what} has the shape {list(spec.shape)[:20]}.",
                        f"At most {_MAX_RANK} dimensions are allowed, each -1 (dynamic) or from 1 to {_MAX_DIM}.")
    if spec.layout == "nhwc" and len(spec.shape) != 4:
        raise BadBundle(f"The {what} has the layout nhwc but {len(spec.shape)} dimensions.")


def _check_vector(what: str, vector: TestVector, variant: Variant, sizes: dict[str, int]) -> None:
    if not 0 < vector.tolerance < 1:
        raise BadBundle(f"The {what} has the tolerance {vector.tolerance}; it must lie between 0 and 1.")
    for kind, blobs, specs in (("inputs", vector.inputs, variant.inputs), ("outputs", vector.outputs, variant.outputs)):
        _refuse_twice(f"name in {what}.{kind}", (blob.name for blob in blobs))
        if {blob.name for blob in blobs} != {spec.name for spec in specs}:
            raise BadBundle(f"The {kind} of {what} are {[blob.name[:100] for blob in blobs][:20]}, but those of "
                            f"variant '{variant.id}' are {[spec.name for spec in specs][:20]}.")
        for blob in blobs:
            _check_blob(f"{what}.{kind} '{blob.name[:100]}'", blob, sizes)


def _check_blob(what: str, blob: BlobRef, sizes: dict[str, int]) -> None:
    _check_dtype(what, blob.dtype)
    _check_reference(what, blob.entry, sizes)
    if len(blob.shape) > _MAX_RANK or any(not 0 <= dim <= _MAX_DIM for dim in blob.shape):
        raise BadBundle(f"The {what} has the shape {list(blob.shape)[:20]}.",
                        f"At most {_MAX_RANK} dimensions are allowed, each from 0 to {_MAX_DIM}.")
    wanted = math.prod(blob.shape) * ITEM_BYTES[blob.dtype]
    if wanted != sizes[blob.entry]:
        raise BadBundle(f"The {what} needs {wanted} bytes (shape {list(blob.shape)}, {blob.dtype}), but its entry "
                        f"'{blob.entry}' has {sizes[blob.entry]}.")


def _check_reference(what: str, entry: str, sizes: dict[str, int]) -> None:
    if entry not in sizes:
        raise BadBundle(f"The {what} refers to the entry {entry[:300]!r}, which the manifest does not list.",
                        f"It lists: {', '.join(list(sizes)[:20]) or 'none'}.")


def _check_dtype(what: str, dtype: str) -> None:
    if dtype not in ITEM_BYTES:
        raise BadBundle(f"The {what} has the unknown dtype {dtype[:100]!r}.", f"Known: {', '.join(ITEM_BYTES)}.")


def _check_text(what: str, text: str) -> None:
    if not text or len(text) > _MAX_TEXT or not text.isprintable():
        raise BadBundle(f"The {what} is empty, longer than {_MAX_TEXT} characters or not printable: {text[:100]!r}.")


def _refuse_twice(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadBundle(f"The {what} '{name[:100]}' occurs twice.")
        seen.add(name)
