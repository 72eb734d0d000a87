"""``placement_of``: where the ops of a file run, by compilation for XNNPACK and by documented rules elsewhere."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgekit.errors import EngineError
from edgekit.report.accelerators import ACCELERATORS, Hints, LeftOp, OpFacts, hints
from edgekit.report.op_facts import op_facts
from edgekit.report.placement import place

__all__ = ["PlacementReport", "Xnnpack", "placement_of"]

_INTEGERS = frozenset({"int16", "int32", "int64", "uint32", "uint64", "bool", "string"})


class Xnnpack(msgspec.Struct, frozen=True):
    """What XNNPACK took of the file when LiteRT prepared it. ``partitions``: in how many pieces, 1 is best.

    ``left``: the ops that run in LiteRT's built-in kernels; the engine does not say why, so each reason is what can be
    seen from outside.
    """

    ops: int
    taken: int
    partitions: int
    left: tuple[LeftOp, ...]


class PlacementReport(msgspec.Struct, frozen=True):
    """``xnnpack``: from a compilation, for .tflite files only. ``hints``: static rules, one for each accelerator that
    takes such files.
    """

    xnnpack: Xnnpack | None
    hints: tuple[Hints, ...]


def placement_of(path: Path) -> PlacementReport:
    """Where the ops of a .tflite or .onnx file run. Raises BadModel, EngineError, UnknownName, MissingExtra."""
    ops = op_facts(path)
    file_format = path.suffix.lower().removeprefix(".")
    xnnpack = _xnnpack(path, ops) if file_format == "tflite" else None
    return PlacementReport(xnnpack, tuple(hints(each, ops) for each in ACCELERATORS if each.format == file_format))


def _xnnpack(path: Path, ops: tuple[OpFacts, ...]) -> Xnnpack:
    placement = place(path.read_bytes())
    # The engine lists the ops of the main graph in the order of the file.
    if len(placement.delegated) != len(ops):
        raise EngineError(f"The engine lists {len(placement.delegated)} ops, and '{path}' has {len(ops)}.",
                          "Where they run cannot be told for this file.")
    left = tuple(LeftOp(op.name, op.kind, _seen(op))
                 for op, taken in zip(ops, placement.delegated, strict=True) if not taken)
    return Xnnpack(len(ops), len(ops) - len(left), placement.partitions, left)


def _seen(op: OpFacts) -> str:
    odd = sorted(_INTEGERS.intersection(op.dtypes[-1:]))
    if odd:
        return f"it makes {odd[0]}"
    if op.constant and all(op.constant):
        return "it is prepared once, from constants"
    if op.dynamic:
        return "a shape is dynamic"
    if "int8" in op.dtypes and "float32" in op.dtypes and op.kind not in ("QUANTIZE", "DEQUANTIZE"):
        return "it mixes int8 and float"
    return f"XNNPACK has no {op.kind} of this form ({', '.join(op.dtypes[-1:])})"
