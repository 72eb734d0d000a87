"""The frozen types of reports."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edgekit.artifacts import OutputError

__all__ = ["ConversionReport", "NodeReport"]


class NodeReport(msgspec.Struct, frozen=True):
    """One ONNX node. ``not_xnnpack``: its ops that XNNPACK leaves to the built-in kernels; ``gpu_hints``: why the GPU
    delegate would leave some to the CPU (documented rules, not a compilation).
    """

    node: str
    op_type: str
    how: str
    ops: tuple[str, ...]
    source: str
    not_xnnpack: tuple[str, ...]
    gpu_hints: tuple[str, ...]


class ConversionReport(msgspec.Struct, frozen=True):
    """``partitions``: pieces that XNNPACK takes (1 is best). ``layers``: every float value inside the network, LiteRT
    against ONNX Runtime, in the order of computation; ``first_off`` is the first that fails, where the fault is to be
    looked for, ``worst`` the one nearest to its limit or furthest beyond.
    """

    ops: int
    partitions: int
    not_xnnpack: Mapping[str, int]
    nodes: tuple[NodeReport, ...]
    layers: tuple[OutputError, ...]
    first_off: OutputError | None
    worst: OutputError | None
