"""Inline model-local functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["inline_functions"]


def inline_functions(model: ir.Model) -> tuple[ir.Model, bool]:
    """Replace calls of functions that the file defines by their bodies.

    before: y = my.Block(x)          after: t = Conv(x, w); y = Relu(t)
    """
    if not model.functions:
        return model, False
    from onnx_ir.passes.common import InlinePass

    result = InlinePass()(model)
    return result.model, result.modified
