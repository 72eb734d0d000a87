"""What ``inspect_model`` tells about a file: frozen and JSON-able. None means "unknown", never zero."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgekit.artifacts import TensorSpec

__all__ = ["BundleFacts", "ModelFacts", "SignatureFacts"]


class SignatureFacts(msgspec.Struct, frozen=True):
    """One entry point of a .tflite file."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class BundleFacts(msgspec.Struct, frozen=True):
    """The summary of a manifest. ``entries``: name and size in bytes; ``variants``: id, engine, format, precision.

    ``signed`` says that a signature is there, not that it was checked. No content was hashed.
    """

    name: str
    task: str
    schema_version: int
    signed: bool
    entries: tuple[tuple[str, int], ...]
    variants: tuple[tuple[str, str, str, str], ...]
    test_vectors: int
    source_name: str
    source_sha256: str
    tools: dict[str, str]


class ModelFacts(msgspec.Struct, frozen=True):
    """``opsets``: domain -> version (.onnx), "tflite" -> schema version (.tflite).

    ``op_counts`` covers every graph of the file, with the domain in front where it is not the standard one.
    ``parameter_count`` counts the elements of all constants, shapes and axes among them; ``weight_bytes`` their size,
    each stored array once. ``loads``: whether an engine of this machine opened the file and allocated its tensors, in a
    child process and with some size for dynamic dimensions; None when that was not tried, and ``load_note`` says why,
    or what the engine said.
    """

    format: Literal["onnx", "tflite", "ort", "edge"]
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    op_counts: dict[str, int] | None = None
    opsets: dict[str, int] | None = None
    parameter_count: int | None = None
    weight_bytes: int | None = None
    signatures: tuple[SignatureFacts, ...] = ()
    loads: bool | None = None
    load_note: str = ""
    bundle: BundleFacts | None = None
