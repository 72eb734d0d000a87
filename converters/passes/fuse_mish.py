"""Find Mish in what exporters before opset 18 write for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.converters.passes.match import only_use, remove

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fuse_mish"]


def fuse_mish(model: ir.Model) -> tuple[ir.Model, bool]:
    """One op whose lowering keeps its precision where x is far below 0.

    before: t = Tanh(Softplus(x)); y = Mul(x, t)        after: y = Mish(x)
    """
    import onnx_ir as ir

    modified = False
    for softplus in [node for node in model.graph if node.op_type == "Softplus" and node.domain == ""]:
        x = softplus.inputs[0]
        tanh = only_use(softplus.outputs[0], "Tanh")
        product = only_use(tanh[0].outputs[0], "Mul") if tanh else None
        if x is None or tanh is None or product is None or product[0].inputs[1 - product[1]] is not x:
            continue
        if softplus.outputs[0].is_graph_output() or tanh[0].outputs[0].is_graph_output():
            continue
        node = product[0]
        new = ir.Node("", "Mish", [x], num_outputs=1, name=node.name, metadata_props=dict(node.metadata_props))
        model.graph.insert_before(node, new)
        old, made = node.outputs[0], new.outputs[0]
        old.replace_all_uses_with(made, replace_graph_outputs=True)
        made.name, old.name = old.name, f"{old.name}/before_fusion"
        made.type, made.shape = old.type, old.shape
        remove(model, [node, tanh[0], softplus])
        modified = True
    return model, modified
