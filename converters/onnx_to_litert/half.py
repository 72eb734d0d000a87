"""float16 networks are computed in float32: LiteRT's kernels, and XNNPACK with them, know few float16 ones.

Every op gets its float16 operands widened, and its float16 results are rounded on the way out. Between two ops the
rounded tensor is skipped, so that casts stay at the inputs and outputs of the network, and where it casts itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.view import View

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["HalfPrecision"]

#: ops that ask for the type of an operand, or only pass it on
_AS_THEY_ARE = frozenset({"Cast", "CastLike", "Identity", "If", "Loop", "Scan", "Shape", "Size", "BitCast"})


class HalfPrecision:
    """Which float32 tensor stands behind a float16 one; ``outer`` knows those of the graph around."""

    def __init__(self, outer: HalfPrecision | None = None) -> None:
        self._exact: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []  # so that no id is given away again
        self._outer = outer

    def widen(self, b: Builder, node: ir.Node, views: Sequence[View | None]) -> list[View | None]:
        """``views`` with float32 in the place of float16."""
        return [view if view is None or not self._is_half(node, view) else self._wide(b, view) for view in views]

    def narrow(
        self, b: Builder, node: ir.Node, opset: int, before: Sequence[View | None], made: list[View]
    ) -> list[View]:
        """``made``, with the results that ONNX has as float16 rounded to it."""
        if not any(view is not None and self._is_half(node, view) for view in before):
            return made
        half = _half_outputs(node, opset, before, len(made))
        return [
            self._rounded(b, view) if is_half and view.dtype == np.float32 else view
            for view, is_half in zip(made, half, strict=True)
        ]

    @staticmethod
    def _is_half(node: ir.Node, view: View) -> bool:
        return view.dtype == np.float16 and node.op_type not in _AS_THEY_ARE

    def _wide(self, b: Builder, view: View) -> View:
        known = self._find(view.tensor)
        if known is None:
            known = self._note(view.tensor, b.cast(view.tensor, np.float32))
        return view.with_tensor(known)

    def _find(self, half: Tensor) -> Tensor | None:
        known = self._exact.get(id(half))
        return known if known is not None or self._outer is None else self._outer._find(half)

    def _note(self, half: Tensor, exact: Tensor) -> Tensor:
        self._kept.append(half)
        self._exact[id(half)] = exact
        return exact

    def _rounded(self, b: Builder, view: View) -> View:
        half = b.cast(view.tensor, np.float16)
        self._note(half, view.tensor)
        return view.with_tensor(half)


def _half_outputs(node: ir.Node, opset: int, before: Sequence[View | None], count: int) -> list[bool]:
    """Which outputs have the type of an operand that is float16, by the op's definition."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:  # a pass may have put in an op that is newer than the model
        schema = onnx.defs.get_schema(node.op_type, node.domain)
    formal = list(schema.inputs)
    half = {
        formal[min(index, len(formal) - 1)].type_str
        for index, view in enumerate(before)
        if view is not None and view.dtype == np.float16
    }
    outputs = list(schema.outputs)
    return [outputs[min(index, len(outputs) - 1)].type_str in half for index in range(count)]
