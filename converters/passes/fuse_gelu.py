"""Find the exact Gelu in what exporters before opset 20 write for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgekit.converters.passes.match import only_use, producer, remove, scalar_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fuse_gelu"]


def fuse_gelu(model: ir.Model) -> tuple[ir.Model, bool]:
    """Gelu by erf, whichever way the three factors x, 0.5 and 1 + erf are associated.

    before: e = Erf(Div(x, sqrt(2))); y = Mul(Mul(x, Add(e, 1)), 0.5)         after: y = Gelu(x)
    """
    modified = False
    for erf in [node for node in model.graph if node.op_type == "Erf" and node.domain == ""]:
        x = _scaled(erf.inputs[0])
        one_plus = _reader(erf, "Add", 1.0)
        if x is None or one_plus is None:
            continue
        product = _product(one_plus, x)
        if product is None:
            continue
        _put(model, product, x)
        modified = True
    return model, modified


def _scaled(value: ir.Value | None) -> ir.Value | None:
    """X if ``value`` is x / sqrt(2)."""
    node = producer(value, "Div", "Mul")
    if node is None:
        return None
    left, right = node.inputs
    if node.op_type == "Div":
        number = scalar_of(right)
        return left if number is not None and math.isclose(number, math.sqrt(2), rel_tol=1e-5) else None
    for x, factor in ((left, right), (right, left)):
        number = scalar_of(factor)
        if number is not None and math.isclose(number, math.sqrt(0.5), rel_tol=1e-5):
            return x
    return None


def _reader(node: ir.Node, op_type: str, number: float) -> ir.Node | None:
    """The one reader of ``node`` if it is ``op_type`` with the constant ``number``."""
    use = only_use(node.outputs[0], op_type)
    if use is None:
        return None
    reader, index = use
    other = scalar_of(reader.inputs[1 - index])
    return reader if other is not None and math.isclose(other, number, rel_tol=1e-6) else None


def _product(gate: ir.Node, x: ir.Value) -> ir.Node | None:
    """The node that makes 0.5 * x * gate, in any association; None when there is none."""
    current, seen_half, seen_x = gate, False, False
    for _ in range(2):
        use = only_use(current.outputs[0], "Mul")
        if use is None:
            return None
        node, index = use
        other = node.inputs[1 - index]
        half = producer(other, "Mul")
        if not seen_half and scalar_of(other) == 0.5:
            seen_half = True
        elif not seen_x and other is x:
            seen_x = True
        elif not (seen_half or seen_x) and half is not None and x in half.inputs and 0.5 in map(scalar_of, half.inputs):
            return node
        else:
            return None
        current = node
    return current


def _put(model: ir.Model, node: ir.Node, x: ir.Value) -> None:
    import onnx_ir as ir

    new = ir.Node("", "Gelu", [x], num_outputs=1, name=node.name, metadata_props=dict(node.metadata_props))
    model.graph.insert_before(node, new)
    result = node.outputs[0]
    result.replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    name, result.name = result.name, f"{result.name}/before_fusion"
    new.outputs[0].name = name
    new.outputs[0].type, new.outputs[0].shape = result.type, result.shape
    _remove_dead(model, node)


def _remove_dead(model: ir.Model, node: ir.Node) -> None:
    """Remove ``node`` and, upwards, whatever only it read."""
    front = [node]
    while front:
        current = front.pop()
        if current.graph is None or any(value.uses() or value.is_graph_output() for value in current.outputs):
            continue
        sources = [value.producer() for value in current.inputs if value is not None]
        remove(model, [current])
        front.extend(source for source in sources if source is not None)
