"""Inline model-local functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.errors import BadModel

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["inline_functions"]


def inline_functions(model: ir.Model) -> tuple[ir.Model, bool]:
    """Replace calls of functions that the file defines by their bodies. Raises BadModel when that is not possible.

    before: y = my.Block(x)          after: t = Conv(x, w); y = Relu(t)
    """
    if not model.functions:
        return model, False
    from onnx_ir.passes import InvariantError
    from onnx_ir.passes.common import InlinePass

    try:
        result = InlinePass()(model)
    except (InvariantError, ValueError, RuntimeError) as error:  # cycles, other opsets, calls that do not fit
        raise BadModel(
            f"The functions of the model cannot be inlined: {error}.", "Export the model without functions."
        ) from error
    return result.model, result.modified
