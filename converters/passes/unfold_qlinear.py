"""Write QLinearConv and QLinearMatMul as DequantizeLinear, the float op, QuantizeLinear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit.converters.passes.match import add_weight, const_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["unfold_qlinear"]


def unfold_qlinear(model: ir.Model) -> tuple[ir.Model, bool]:
    """The form in which newer exporters write the same thing, and which becomes integer ops again.

    before: y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz, bias)
    after:  y = QuantizeLinear(Conv(DequantizeLinear(x, xs, xz), DequantizeLinear(w, ws, wz), bias * xs * ws), ys, yz)
    """
    nodes = [node for node in model.graph if node.op_type in ("QLinearConv", "QLinearMatMul") and node.domain == ""]
    for node in nodes:
        if node.op_type == "QLinearConv":
            _unfold(model, node, "Conv", (None, 0))
        else:
            _unfold(model, node, "MatMul", (-2, -1))
    return model, bool(nodes)


def _unfold(model: ir.Model, node: ir.Node, op_type: str, axes: tuple[int | None, int | None]) -> None:
    import onnx_ir as ir

    left, left_scale, left_zero, right, right_scale, right_zero, scale, zero = node.inputs[:8]
    made: list[ir.Node] = []

    def add(kind: str, inputs: list[ir.Value | None], attributes: list[ir.Attr] | None = None) -> ir.Value:
        made.append(ir.Node("", kind, inputs, attributes or [], num_outputs=1, name=f"{node.name}/{len(made)}"))
        made[-1].outputs[0].name = f"{node.outputs[0].name}/{kind}_{len(made)}"
        return made[-1].outputs[0]

    def real(value: ir.Value | None, by: ir.Value | None, offset: ir.Value | None, axis: int | None) -> ir.Value:
        return add("DequantizeLinear", [value, by, offset], [] if axis is None else [ir.AttrInt64("axis", axis)])

    operands: list[ir.Value | None] = [
        real(left, left_scale, left_zero, axes[0]), real(right, right_scale, right_zero, axes[1])
    ]
    if len(node.inputs) > 8 and node.inputs[8] is not None:
        operands.append(_bias(model, node, add))
    product = add(op_type, operands, list(node.attributes.values()))
    result = add("QuantizeLinear", [product, scale, zero])
    model.graph.insert_before(node, made)
    old = node.outputs[0]
    old.replace_all_uses_with(result, replace_graph_outputs=True)
    result.name, old.name = old.name, f"{old.name}/before"
    result.type, result.shape = old.type, old.shape
    made[-1].name = node.name
    model.graph.remove(node, safe=True)


def _bias(model: ir.Model, node: ir.Node, add: object) -> ir.Value:
    """The int32 bias has the scale of the products."""
    assert callable(add)
    bias, scales = node.inputs[8], (node.inputs[1], node.inputs[4])
    known = [const_of(value) for value in scales]
    if known[0] is not None and known[1] is not None:
        product = np.atleast_1d((known[0] * known[1]).astype(np.float32))
        axis = {"axis": 0} if product.size > 1 else {}
        scale = add_weight(model, f"{node.name}/bias_scale", product if axis else product.reshape(()))
    else:
        scale = add("Mul", list(scales))
    import onnx_ir as ir

    made: ir.Value = add("DequantizeLinear", [bias, scale], [ir.AttrInt64("axis", 0)])
    return made
