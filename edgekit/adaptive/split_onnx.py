"""An ONNX network with several exits, cut into stages that are run one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from edgekit.adaptive.stages import Op, StagePlan, plan_stages
from edgekit.artifacts import OnnxModel
from edgekit.converters.onnx_model import parse_onnx
from edgekit.errors import UnknownName
from edgekit.graph.cut import cut, reads

if TYPE_CHECKING:
    import onnx

__all__ = ["StageGraph", "plan_split", "split"]

_CHEAP = frozenset({"Relu", "Clip", "LeakyRelu", "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
                    "Constant", "DequantizeLinear"})
_SIZES = frozenset({"Shape", "Size"})
#: what turns sizes into other sizes
_ARITHMETIC = frozenset({"Gather", "Concat", "Slice", "Add", "Sub", "Mul", "Div", "Cast", "Unsqueeze", "Squeeze",
                         "Reshape", "Floor", "Ceil", "Min", "Max", "Range", "ConstantOfShape", "Equal", "Where"})


class StageGraph(msgspec.Struct, frozen=True):
    """One stage: inputs of the network and outputs of earlier stages in, what later stages read and ``logits`` out.

    ``model.outputs`` ends with the logits of the exit.
    """

    model: OnnxModel
    logits: str


def split(model: OnnxModel, exits: Sequence[str]) -> tuple[StageGraph, ...]:
    """``model`` in one stage for each of its outputs ``exits``, which are given from shallow to deep.

    Stage k holds the nodes that exit k needs and earlier stages have not run. Values handed on keep their names.
    Activations, changes of shape and arithmetic on sizes are computed again where that saves handing a value on; with
    fixed input shapes fold them first (``edgekit.converters.onnx_to_ort.simplified``).

    Raises UnknownName for an exit that is not an output; BadRecipe where exits are out of order or not on one path, a
    stage would be empty, or the type of a carried value is not known.
    """
    plans = plan_split(model, exits)
    return tuple(StageGraph(cut(model, plan.inputs, plan.outputs), plan.logits) for plan in plans)


def plan_split(model: OnnxModel, exits: Sequence[str]) -> tuple[StagePlan, ...]:
    """Which nodes ``split`` would put into which stage. Raises as ``split``, but for types."""
    outputs = [spec.name for spec in model.outputs]
    for name in exits:
        if name not in outputs:
            raise UnknownName.of("exit (output of the network)", name, outputs)
    return plan_stages(_ops(parse_onnx(model.data).graph), [spec.name for spec in model.inputs], exits)


def _ops(graph: onnx.GraphProto) -> list[Op]:
    constants = {tensor.name for tensor in graph.initializer}
    sizes: set[str] = set()
    ops = []
    for node in graph.node:
        read = tuple(sorted(reads(node) - constants))
        makes_sizes = node.op_type in _SIZES or (
            bool(read) and node.op_type in _ARITHMETIC and all(name in sizes for name in read))
        if makes_sizes or not read:
            sizes |= set(node.output)
        ops.append(Op(read, tuple(name for name in node.output if name),
                      node.op_type in _CHEAP or makes_sizes or not read))
    return ops
