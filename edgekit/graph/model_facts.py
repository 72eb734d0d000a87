"""What ``inspect_model`` tells about a file: frozen and JSON-able. None means "unknown", never zero."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgekit.artifacts import TensorSpec

__all__ = ["BundleFacts", "LadderFacts", "ModelFacts", "PlanFacts", "SignatureFacts"]


class SignatureFacts(msgspec.Struct, frozen=True):
    """One entry point of a .tflite file."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class LadderFacts(msgspec.Struct, frozen=True):
    """One network of an adaptive bundle. ``resolution`` is (height, width) in pixels; ``classes`` of every exit."""

    id: str
    engine: str
    format: str
    precision: str
    resolution: tuple[int, int]
    stages: int
    classes: int
    test_vectors: int


class PlanFacts(msgspec.Struct, frozen=True):
    """The plan of an adaptive bundle, checked. ``accuracy``, ``mean_ms``, ``p95_ms``: what its default route promises.

    ``points`` are the default route's steps: the ladder's id and the stage, from 0.
    """

    device: str
    engine: str
    source: str
    objective: str
    routes: int
    default: int
    points: tuple[tuple[str, int], ...]
    accuracy: float
    mean_ms: float
    p95_ms: float


class BundleFacts(msgspec.Struct, frozen=True):
    """The summary of a manifest. ``entries``: name and size in bytes; ``variants``: id, engine, format, precision.

    ``signed`` says that a signature is there, not that it was checked. No content was hashed but that of the plan.
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
    ladders: tuple[LadderFacts, ...] = ()
    plan: PlanFacts | None = None


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
