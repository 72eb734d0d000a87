"""Checks of the small parts that a manifest is made of; each raises BadBundle, naming the field."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from edgekit.artifacts import Engine, TensorSpec
from edgekit.bundle.vectors import BlobRef, TestVector
from edgekit.errors import BadBundle

__all__ = [
    "FORMATS", "ITEM_BYTES", "check_format", "check_reference", "check_resolution", "check_specs", "check_text",
    "check_vector", "refuse_twice",
]

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


def check_format(what: str, engine: Engine, file_format: str) -> None:
    """That ``engine`` runs files of this format."""
    if file_format not in FORMATS[engine]:
        raise BadBundle(f"The {what} has the format '{file_format}', which '{engine}' cannot run.",
                        f"It runs: {', '.join(FORMATS[engine])}.")


def check_resolution(what: str, resolution: tuple[int, int]) -> None:
    """That both sides are possible numbers of pixels."""
    if not all(1 <= side <= _MAX_DIM for side in resolution):
        raise BadBundle(f"The {what} has the resolution {list(resolution)}.")


def check_specs(what: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    """That there is at least one of each, with different names and possible dtypes, shapes and layouts."""
    for kind, specs in (("input", inputs), ("output", outputs)):
        if not specs:
            raise BadBundle(f"The {what} has no {kind}.")
        refuse_twice(f"{kind} of {what}", (spec.name for spec in specs))
        for spec in specs:
            _check_spec(f"{what}: {kind} '{spec.name[:100]}'", spec)


def _check_spec(what: str, spec: TensorSpec) -> None:
    check_text(what, spec.name)
    _check_dtype(what, spec.dtype)
    if len(spec.shape) > _MAX_RANK or any(dim != -1 and not 1 <= dim <= _MAX_DIM for dim in spec.shape):
        raise BadBundle(f"The {what} has the shape {list(spec.shape)[:20]}.",
                        f"At most {_MAX_RANK} dimensions are allowed, each -1 (dynamic) or from 1 to {_MAX_DIM}.")
    if spec.layout == "nhwc" and len(spec.shape) != 4:
        raise BadBundle(f"The {what} has the layout nhwc but {len(spec.shape)} dimensions.")


def check_vector(what: str, vector: TestVector, owner: str, names: tuple[Collection[str], Collection[str]],
                 sizes: Mapping[str, int]) -> None:
    """That a test vector has exactly the inputs and outputs ``names`` of ``owner``, in entries of the right size."""
    if not 0 < vector.tolerance < 1:
        raise BadBundle(f"The {what} has the tolerance {vector.tolerance}; it must lie between 0 and 1.")
    for kind, blobs, wanted in (("inputs", vector.inputs, names[0]), ("outputs", vector.outputs, names[1])):
        refuse_twice(f"name in {what}.{kind}", (blob.name for blob in blobs))
        if {blob.name for blob in blobs} != set(wanted):
            raise BadBundle(f"The {kind} of {what} are {[blob.name[:100] for blob in blobs][:20]}, but those of "
                            f"{owner} are {list(wanted)[:20]}.")
        for blob in blobs:
            _check_blob(f"{what}.{kind} '{blob.name[:100]}'", blob, sizes)


def _check_blob(what: str, blob: BlobRef, sizes: Mapping[str, int]) -> None:
    _check_dtype(what, blob.dtype)
    check_reference(what, blob.entry, sizes)
    if len(blob.shape) > _MAX_RANK or any(not 0 <= dim <= _MAX_DIM for dim in blob.shape):
        raise BadBundle(f"The {what} has the shape {list(blob.shape)[:20]}.",
                        f"At most {_MAX_RANK} dimensions are allowed, each from 0 to {_MAX_DIM}.")
    wanted = math.prod(blob.shape) * ITEM_BYTES[blob.dtype]
    if wanted != sizes[blob.entry]:
        raise BadBundle(f"The {what} needs {wanted} bytes (shape {list(blob.shape)}, {blob.dtype}), but its entry "
                        f"'{blob.entry}' has {sizes[blob.entry]}.")


def check_reference(what: str, entry: str, sizes: Mapping[str, int]) -> None:
    """That the manifest lists the entry ``entry``."""
    if entry not in sizes:
        raise BadBundle(f"The {what} refers to the entry {entry[:300]!r}, which the manifest does not list.",
                        f"It lists: {', '.join(list(sizes)[:20]) or 'none'}.")


def _check_dtype(what: str, dtype: str) -> None:
    if dtype not in ITEM_BYTES:
        raise BadBundle(f"The {what} has the unknown dtype {dtype[:100]!r}.", f"Known: {', '.join(ITEM_BYTES)}.")


def check_text(what: str, text: str) -> None:
    """That ``text`` is a label text: 1 to 1024 printable characters."""
    if not text or len(text) > _MAX_TEXT or not text.isprintable():
        raise BadBundle(f"The {what} is empty, longer than {_MAX_TEXT} characters or not printable: {text[:100]!r}.")


def refuse_twice(what: str, names: Iterable[str]) -> None:
    """That no name occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadBundle(f"The {what} '{name[:100]}' occurs twice.")
        seen.add(name)
