"""One check for every graph rewrite: its result, its effect on the answer, its silence on a second run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import onnx
import onnx_ir as ir

from tests.onnx_graphs import Graph, answer
from tests.ops.harness import assert_same

Pass = Callable[[ir.Model], tuple[ir.Model, bool]]


def ops(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes of each kind ``model`` has, constants aside."""
    return dict(Counter(node.op_type for node in model.graph.node if node.op_type != "Constant"))


def leftovers(model: onnx.ModelProto) -> set[str]:
    """Weights that nothing reads."""
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    return {tensor.name for tensor in model.graph.initializer} - read


def check(rewrite: Pass, graph: Graph, tolerance: float = 1e-6) -> None:
    """``rewrite`` makes ``graph.after`` of ``graph`` (None: leaves it alone) and keeps names, types and answers."""
    before = graph.model()
    onnx.checker.check_model(before, full_check=True)
    model, modified = rewrite(ir.serde.deserialize_model(before))
    after = ir.serde.serialize_model(model)
    onnx.checker.check_model(after, full_check=True)
    assert modified == (graph.after is not None)
    assert ops(after) == (ops(before) if graph.after is None else graph.after)
    assert list(after.graph.output) == list(before.graph.output)
    assert [value.name for value in after.graph.input] == [value.name for value in before.graph.input]
    assert leftovers(after) <= leftovers(before)
    assert_same(answer(after, graph.feeds()), answer(before, graph.feeds()), tolerance)
    assert not rewrite(model)[1], "a second run finds something again"
