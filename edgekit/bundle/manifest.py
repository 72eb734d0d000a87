"""The types of ``manifest.json``, strict and frozen (runtimes/SPEC.md holds the same for the other languages)."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgekit.artifacts import Engine, TensorSpec
from edgekit.bundle.adaptive import Ladder
from edgekit.bundle.vectors import BlobRef, TestVector
from edgekit.recipe import Preprocess

__all__ = ["SCHEMA_VERSION", "BlobRef", "Entry", "Manifest", "Provenance", "TestVector", "Variant"]

SCHEMA_VERSION = 2
"""The newest. A manifest without ladders is written as version 1, whose bytes never change; with ladders as 2."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file inside the bundle; nothing that is not listed is read. ``sha256`` is lower-case hex."""

    name: str
    size_bytes: int
    sha256: str


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One executable form of the network. ``resolution`` is (height, width) in pixels, None where it is free."""

    id: str
    engine: Engine
    format: Literal["tflite", "onnx", "ort"]
    precision: str
    entry: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    resolution: tuple[int, int] | None = None


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the network came from: hash of the source file, the recipe and the versions of the tools used."""

    source_name: str
    source_sha256: str
    recipe: dict[str, object]
    tools: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``labels_entry`` names a UTF-8 text entry, one label a line; ``task`` says what an answer looks like.

    ``schema_version`` follows from the content: 1 without ladders, 2 with. Writers set it themselves. With ``ladders``
    there may be no variants. ``plan_entry`` names the entry with the ``Plan`` for them, if there is one.
    """

    schema_version: int
    name: str
    task: Literal["classification", "arrays"]
    entries: tuple[Entry, ...]
    variants: tuple[Variant, ...]
    test_vectors: tuple[TestVector, ...]
    provenance: Provenance
    preprocess: Preprocess | None = None
    labels_entry: str | None = None
    ladders: tuple[Ladder, ...] = ()
    plan_entry: str | None = None
