"""Find GroupNormalization where exporters write it as InstanceNormalization between two Reshapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.converters.passes.match import const_of, only_use, producer, remove

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fuse_group_norm"]


def fuse_group_norm(model: ir.Model) -> tuple[ir.Model, bool]:
    """The op that keeps the channels, so that its lowering can work where they lie.

    before: t = Reshape(x, [0, G, -1]); u = InstanceNormalization(t, s, b); y = Reshape(u, Shape(x))
    after:  t = Reshape(x, [0, G, -1]); u = GroupNormalization(x, s, b, t, num_groups=G); y = Reshape(u, Shape(x))

    The second Reshape does nothing where it goes back to the shape of x, and elsewhere what it did before. The fourth
    input is for the lowering: what to normalise if the groups turn out not to be groups of channels.
    """
    changes = [
        _fuse(model, node)
        for node in list(model.graph)
        if node.domain == "" and node.op_type == "InstanceNormalization"
    ]
    return model, any(changes)


def _fuse(model: ir.Model, norm: ir.Node) -> bool:
    import onnx_ir as ir

    before = producer(norm.inputs[0], "Reshape")
    after = only_use(norm.outputs[0], "Reshape")
    if before is None or after is None or after[1] != 0 or not _keeps_order(after[0]):
        return False
    groups = _groups(before)
    if not groups:
        return False
    attributes = [
        ir.AttrInt64("num_groups", groups),
        ir.AttrFloat32("epsilon", norm.attributes.get_float("epsilon", 1e-5)),
    ]
    operands = [before.inputs[0], norm.inputs[1], norm.inputs[2], norm.inputs[0]]
    fused = ir.Node("", "GroupNormalization", operands, attributes, num_outputs=1, name=norm.name)
    fused.metadata_props.update(norm.metadata_props)
    old, new = norm.outputs[0], fused.outputs[0]
    new.name, new.type, old.name = old.name, old.type, f"{old.name}/before"
    model.graph.insert_before(norm, fused)
    old.replace_all_uses_with(new)
    remove(model, [norm])
    return True


def _groups(reshape: ir.Node) -> int:
    """How many groups ``reshape`` makes when its result is (N, groups, everything else), else 0."""
    target = None if len(reshape.inputs) < 2 else const_of(reshape.inputs[1])
    if target is None or target.size != 3 or target[0] != 0 or reshape.attributes.get_int("allowzero", 0):
        return 0
    return max(int(target[1]), 0)


def _keeps_order(reshape: ir.Node) -> bool:
    """Whether ``reshape`` takes no size from its input but the first, which the groups do not change."""
    if len(reshape.inputs) < 2:
        return False
    if producer(reshape.inputs[1], "Shape") is not None:
        return True
    target = const_of(reshape.inputs[1])
    return target is not None and all(size != 0 for size in target.reshape(-1)[1:])
