"""What a table of rules about an accelerator is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

__all__ = ["Accelerator", "Hints", "LeftOp", "OpFacts", "hints"]

Attribute = int | float | str | tuple[int, ...]


class OpFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One op of a file, as far as rules ask for it.

    ``name``: its first result. ``ranks``: of the tensors that it reads and writes, where the file tells; ``constant``:
    for each input whether the file holds its value. ``dynamic``: a size is only known at run time. ``dtypes``: of the
    same tensors as ``ranks``. ``window``: spatial axes of a convolution or pooling.
    """

    name: str
    kind: str
    ranks: tuple[int, ...] = ()
    constant: tuple[bool, ...] = ()
    dynamic: bool = False
    dtypes: tuple[str, ...] = ()
    window: int | None = None
    attributes: Mapping[str, Attribute] = {}


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """Documented rules about one accelerator: hints, not a compilation.

    ``why_not`` says why the op would be left to the CPU, "" when no rule speaks against it; ``about`` what to know of
    the whole graph. ``source`` names the document. ``format``: of the files that it takes.
    """

    id: str
    title: str
    format: Literal["tflite", "onnx"]
    source: str
    why_not: Callable[[OpFacts], str]
    about: Callable[[Sequence[OpFacts]], tuple[str, ...]]


class LeftOp(msgspec.Struct, frozen=True):
    """An op that would run elsewhere, and why."""

    op: str
    kind: str
    reason: str


class Hints(msgspec.Struct, frozen=True):
    """What the rules say about a graph of ``ops`` ops. ``partitions``: into how many pieces the ops that are taken fall
    when they run in the order of the file. ``static`` is always True: nothing was compiled.
    """

    accelerator: str
    title: str
    source: str
    ops: int
    taken: int
    partitions: int
    left: tuple[LeftOp, ...]
    notes: tuple[str, ...]
    static: bool = True


def hints(accelerator: Accelerator, ops: Sequence[OpFacts]) -> Hints:
    """Apply the rules of ``accelerator`` to every op."""
    reasons = [accelerator.why_not(op) for op in ops]
    partitions = sum(1 for index, reason in enumerate(reasons) if not reason and (index == 0 or reasons[index - 1]))
    return Hints(
        accelerator=accelerator.id, title=accelerator.title, source=accelerator.source, ops=len(ops),
        taken=reasons.count(""), partitions=partitions, notes=accelerator.about(ops),
        left=tuple(LeftOp(op.name, op.kind, reason) for op, reason in zip(ops, reasons, strict=True) if reason),
    )
