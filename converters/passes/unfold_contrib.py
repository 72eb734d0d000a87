"""Write ONNX Runtime's own quantized ops (domain com.microsoft) as DequantizeLinear, the float op, QuantizeLinear."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgekit.converters.passes.match import add_weight, const_of

if TYPE_CHECKING:
    import onnx_ir as ir

    Add = Callable[..., ir.Value]
    Operands = list[ir.Value | None]

__all__ = ["unfold_contrib"]

_DOMAIN = "com.microsoft"
#: ops of one data operand, and the standard op
_UNARY = {
    "QLinearSigmoid": "Sigmoid",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
}
_BINARY = {"QLinearAdd": "Add", "QLinearMul": "Mul"}


def unfold_contrib(model: ir.Model) -> tuple[ir.Model, bool]:
    """What quantize_static writes in the format QOperator, as it would write it in the format QDQ.

    before: y = QLinearAdd(a, as, az, b, bs, bz, ys, yz)
    after:  y = QuantizeLinear(Add(DequantizeLinear(a, as, az), DequantizeLinear(b, bs, bz)), ys, yz)
    """
    changes = [_unfold(model, node) for node in list(model.graph) if node.domain == _DOMAIN]
    return model, any(changes)


def _unfold(model: ir.Model, node: ir.Node) -> bool:
    import onnx_ir as ir

    made: list[ir.Node] = []

    def add(kind: str, inputs: Operands, *attributes: ir.Attr) -> ir.Value:
        made.append(ir.Node("", kind, inputs, attributes, num_outputs=1, name=f"{node.name}/{len(made)}"))
        made[-1].outputs[0].name = f"{node.outputs[0].name}/{kind}_{len(made)}"
        return made[-1].outputs[0]

    found = _float_form(model, node, add)
    if found is None:
        return False
    result, (scale, zero) = found
    if scale is not None:
        result = add("QuantizeLinear", [result, scale, zero])
    model.graph.insert_before(node, made)
    old = node.outputs[0]
    old.replace_all_uses_with(result, replace_graph_outputs=True)
    result.name, old.name = old.name, f"{old.name}/before"
    result.type, result.shape = old.type, old.shape
    made[-1].name = node.name
    for step in made:
        step.metadata_props.update(node.metadata_props)
    model.graph.remove(node, safe=True)
    return True


def _float_form(model: ir.Model, node: ir.Node, add: Add) -> tuple[ir.Value, Operands] | None:
    """The real-valued result, and the scale and zero point that it gets; None for an op that is not known."""
    inputs: Operands = [*node.inputs, *[None] * 9]
    if node.op_type in _UNARY and not node.attributes.get_int("channels_last", 0):
        kept = [attribute for name, attribute in node.attributes.items() if name != "channels_last"]
        return add(_UNARY[node.op_type], [add("DequantizeLinear", inputs[:3])], *kept), inputs[3:5]
    if node.op_type in _BINARY:
        operands: Operands = [add("DequantizeLinear", inputs[at : at + 3]) for at in (0, 3)]
        return add(_BINARY[node.op_type], operands), inputs[6:8]
    if node.op_type == "QLinearConcat":
        parts: Operands = [add("DequantizeLinear", inputs[at : at + 3]) for at in range(2, len(node.inputs), 3)]
        return add("Concat", parts, *node.attributes.values()), inputs[:2]
    if node.op_type == "QGemm":
        return _gemm(model, node, inputs, add)
    return None


def _gemm(model: ir.Model, node: ir.Node, inputs: Operands, add: Add) -> tuple[ir.Value, Operands] | None:
    """QGemm: its int32 addend has the scale of the products; without an output scale the result stays real."""
    import onnx_ir as ir

    columns = 0 if node.attributes.get_int("transB", 0) else 1
    operands: Operands = [
        add("DequantizeLinear", inputs[:3]),
        add("DequantizeLinear", inputs[3:6], ir.AttrInt64("axis", columns)),
    ]
    if inputs[6] is not None:
        left, right = const_of(inputs[1]), const_of(inputs[4])
        if left is None or right is None:
            return None
        product = (left * right * node.attributes.get_float("alpha", 1.0)).astype(np.float32)
        one = product.size == 1
        scale = add_weight(model, f"{node.name}/addend_scale", product.reshape(()) if one else product.reshape(-1))
        rank = 1 if inputs[6].shape is None else len(inputs[6].shape)
        axis = [] if one else [ir.AttrInt64("axis", rank - 1)]
        operands.append(add("DequantizeLinear", [inputs[6], scale], *axis))
    return add("Gemm", operands, *node.attributes.values()), inputs[7:9]
