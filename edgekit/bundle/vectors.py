"""Arrays stored in a bundle, and inputs with the answers that belong to them."""

from __future__ import annotations

import msgspec

__all__ = ["BlobRef", "TestVector"]


class BlobRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A raw little-endian, C-ordered array stored as the entry ``entry``."""

    name: str
    entry: str
    dtype: str
    shape: tuple[int, ...]


class TestVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inputs and the answers of the source network, in the ONNX order of axes. ``tolerance`` as in VerifyReport."""

    inputs: tuple[BlobRef, ...]
    outputs: tuple[BlobRef, ...]
    tolerance: float

    __test__ = False  # a type whose name begins with Test is not a test case
