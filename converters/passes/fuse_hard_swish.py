"""Find HardSigmoid and HardSwish in what exporters write for them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgekit.converters.passes.match import producer, remove, scalar_of, sole_reader

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fuse_hard_swish"]


def fuse_hard_swish(model: ir.Model) -> tuple[ir.Model, bool]:
    """Two steps, each also useful alone.

    before: a = Add(x, 3); c = Clip(a, 0, 6); s = Div(c, 6)       after: s = HardSigmoid(x, 1/6, 0.5)
    before: s = HardSigmoid(x, 1/6, 0.5); y = Mul(x, s)           after: y = HardSwish(x)
    (also with Mul(c, 1/6), and x * c / 6 in the other association)
    """
    changes = [
        rewrite(model, node)
        for rewrite in (_hard_sigmoid, _hard_swish)
        for node in list(model.graph)
        if node.domain == "" and node.op_type in ("Div", "Mul")
    ]
    return model, any(changes)


def _sixth(node: ir.Node) -> ir.Value | None:
    """The other operand when ``node`` divides by 6 or multiplies by 1/6."""
    left, right = node.inputs
    if node.op_type == "Div":
        return left if scalar_of(right) == 6 else None
    for value, factor in ((left, right), (right, left)):
        number = scalar_of(factor)
        if number is not None and math.isclose(number, 1 / 6, rel_tol=1e-6):
            return value
    return None


def _lifted(value: ir.Value | None) -> tuple[ir.Value, list[ir.Node]] | None:
    """X and the nodes if ``value`` is clip(x + 3, 0, 6)."""
    clip = producer(value, "Clip")
    if clip is None:
        return None
    if len(clip.inputs) == 3:
        low, high = scalar_of(clip.inputs[1]), scalar_of(clip.inputs[2])
    else:
        low, high = clip.attributes.get_float("min", math.nan), clip.attributes.get_float("max", math.nan)
    add = producer(clip.inputs[0], "Add")
    if low != 0 or high != 6 or add is None:
        return None
    for x, three in (tuple(add.inputs), tuple(reversed(add.inputs))):
        if scalar_of(three) == 3 and x is not None:
            return x, [clip, add]
    return None


def _put(model: ir.Model, node: ir.Node, op_type: str, x: ir.Value, dead: list[ir.Node]) -> None:
    """Replace ``node`` by ``op_type`` of ``x``; ``dead`` nodes go where nobody else reads them."""
    import onnx_ir as ir

    attributes = [ir.AttrFloat32("alpha", 1 / 6), ir.AttrFloat32("beta", 0.5)] if op_type == "HardSigmoid" else []
    new = ir.Node("", op_type, [x], attributes, num_outputs=1, name=node.name, metadata_props=dict(node.metadata_props))
    model.graph.insert_before(node, new)
    result = node.outputs[0]
    result.replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    name, result.name = result.name, f"{result.name}/before_fusion"
    new.outputs[0].name = name
    new.outputs[0].type, new.outputs[0].shape = result.type, result.shape
    for old in [node, *dead]:
        if not old.outputs[0].uses() and not old.outputs[0].is_graph_output():
            remove(model, [old])


def _hard_sigmoid(model: ir.Model, node: ir.Node) -> bool:
    found = _lifted(_sixth(node))
    if found is None:
        return False
    _put(model, node, "HardSigmoid", found[0], found[1])
    return True


def _hard_swish(model: ir.Model, node: ir.Node) -> bool:
    if node.op_type == "Mul":
        for x, gate in (tuple(node.inputs), tuple(reversed(node.inputs))):
            sigmoid = producer(gate, "HardSigmoid")
            if sigmoid is not None and sigmoid.inputs[0] is x and x is not None and _is_sixth_line(sigmoid):
                _put(model, node, "HardSwish", x, [sigmoid])
                return True
    product = producer(_sixth(node), "Mul")
    if product is None or sole_reader(product.outputs[0]) is not node:
        return False
    for x, lifted in (tuple(product.inputs), tuple(reversed(product.inputs))):
        found = _lifted(lifted)
        if found is not None and found[0] is x:
            _put(model, node, "HardSwish", found[0], [product, *found[1]])
            return True
    return False


def _is_sixth_line(sigmoid: ir.Node) -> bool:
    alpha, beta = sigmoid.attributes.get_float("alpha", 0.2), sigmoid.attributes.get_float("beta", 0.5)
    return math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5
