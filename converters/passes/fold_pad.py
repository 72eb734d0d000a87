"""Fold zero padding into the convolution behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.converters.passes.match import const_of, producer, remove

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fold_pad"]


def fold_pad(model: ir.Model) -> tuple[ir.Model, bool]:
    """Move a constant zero Pad of the spatial axes into the Conv that reads it.

    before: t = Pad(x, [0, 0, 1, 1, 0, 0, 1, 1]); y = Conv(t, w, pads=[0, 0, 0, 0])
    after:  y = Conv(x, w, pads=[1, 1, 1, 1])
    """
    modified = False
    for conv in list(model.graph):
        if conv.op_type != "Conv" or conv.domain != "":
            continue
        while _fold(model, conv):
            modified = True
    return model, modified


def _fold(model: ir.Model, conv: ir.Node) -> bool:
    import onnx_ir as ir

    pad = producer(conv.inputs[0], "Pad")
    if pad is None or conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    amounts = _spatial_zero_pads(pad)
    if amounts is None:
        return False
    own = conv.attributes.get_ints("pads", (0,) * len(amounts))
    if len(own) != len(amounts):
        return False
    conv.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(own, amounts, strict=True)])
    conv.attributes["auto_pad"] = ir.AttrString("auto_pad", "NOTSET")
    conv.replace_input_with(0, pad.inputs[0])
    if not pad.outputs[0].uses() and not pad.outputs[0].is_graph_output():
        remove(model, [pad])
    return True


def _spatial_zero_pads(pad: ir.Node) -> list[int] | None:
    """The amounts for the spatial axes (all before, then all after), None unless they are non-negative zeros there."""
    has_axes = len(pad.inputs) > 3 and pad.inputs[3] is not None
    if pad.attributes.get_string("mode", "constant") != "constant" or has_axes:
        return None
    if len(pad.inputs) > 1:
        data = const_of(pad.inputs[1])
        value = const_of(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] is not None else None
        known = len(pad.inputs) <= 2 or pad.inputs[2] is None or value is not None
        amounts = [] if data is None else [int(amount) for amount in data.reshape(-1)]
        zero = known and (value is None or not value.reshape(-1)[0])
    else:
        amounts = list(pad.attributes.get_ints("pads", ()))
        zero = pad.attributes.get_float("value", 0.0) == 0
    rank = len(amounts) // 2
    if not zero or rank < 3 or min(amounts) < 0 or any(amounts[axis] for axis in (0, 1, rank, rank + 1)):
        return None
    return [*amounts[2:rank], *amounts[rank + 2 :]]
