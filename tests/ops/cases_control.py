"""Cases of If, Loop and Scan with small bodies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from tests.ops.harness import Case

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Typed = tuple[str, int, Sequence[int | str | None]]


def body(nodes: Sequence[NodeProto], inputs: Sequence[Typed], outputs: Sequence[Typed]) -> GraphProto:
    """A graph attribute; inputs and outputs as (name, element type, shape)."""
    infos = [[helper.make_tensor_value_info(*value) for value in values] for values in (inputs, outputs)]
    return helper.make_graph(nodes, "body", infos[0], infos[1])


def constant(name: str, value: np.ndarray) -> NodeProto:
    """A Constant node."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def _branch(value: float) -> GraphProto:
    return body([constant("result", np.array([value, 2], np.float32))], [], [("result", FLOAT, [2])])


_IF = {"then_branch": _branch(1), "else_branch": _branch(-1)}
#: sum += sum * i, and i * sum is collected
_COUNTING = body(
    [
        helper.make_node("Identity", ["go"], ["go_out"]),
        helper.make_node("Cast", ["i"], ["number"], to=FLOAT),
        helper.make_node("Mul", ["sum", "number"], ["row"]),
        helper.make_node("Add", ["sum", "row"], ["sum_out"]),
    ],
    [("i", INT64, []), ("go", BOOL, []), ("sum", FLOAT, [2, 3])],
    [("go_out", BOOL, []), ("sum_out", FLOAT, [2, 3]), ("row", FLOAT, [2, 3])],
)
#: goes on while the doubled value is below 40
_DOUBLING = body(
    [
        helper.make_node("Add", ["x", "x"], ["x_out"]),
        helper.make_node("ReduceMax", ["x_out"], ["most"], keepdims=0),
        constant("limit", np.array(40, np.float32)),
        helper.make_node("Less", ["most", "limit"], ["go_out"]),
        helper.make_node("Identity", ["x_out"], ["row"]),
    ],
    [("i", INT64, []), ("go", BOOL, []), ("x", FLOAT, [3])],
    [("go_out", BOOL, []), ("x_out", FLOAT, [3]), ("row", FLOAT, [3])],
)
_WITHOUT_ROWS = body(list(_DOUBLING.node), [("i", INT64, []), ("go", BOOL, []), ("x", FLOAT, [3])],
                     [("go_out", BOOL, []), ("x_out", FLOAT, [3])])  # fmt: skip
#: running sum, and its square
_SUMMING = body(
    [
        helper.make_node("Add", ["sum", "x"], ["sum_out"]),
        helper.make_node("Mul", ["sum_out", "sum_out"], ["row"]),
    ],
    [("sum", FLOAT, [3]), ("x", FLOAT, [3])],
    [("sum_out", FLOAT, [3]), ("row", FLOAT, [3])],
)
_TRUE = np.array(True)
CONTROL = [
    Case("If", [np.array(True)], _IF, expect={"IF": 0}),
    Case("If", [np.array([False])], _IF, expect={"IF": 0}),
    Case("If", [()], _IF, dtype="bool", expect={"IF": 1}),
    Case("Loop", [np.array(4), _TRUE, (2, 3)], {"body": _COUNTING}, outputs=2, expect={"WHILE": 1, "LOGICAL_AND": 0}),
    Case("Loop", [np.array(4), None, (2, 3)], {"body": _COUNTING}, outputs=2),
    Case("Loop", [np.array(4), np.array(False), (3,)], {"body": _WITHOUT_ROWS}),
    Case("Loop", [np.array(0), _TRUE, (3,)], {"body": _WITHOUT_ROWS}, expect={"WHILE": 0}),
    Case("Loop", [np.array(9), _TRUE, (3,)], {"body": _DOUBLING}, outputs=2, low=1, high=2),
    Case("Loop", [np.array(3), _TRUE, (3,)], {"body": _DOUBLING}, outputs=2, low=1, high=2),
    Case("Loop", [None, _TRUE, (3,)], {"body": _WITHOUT_ROWS}, low=1, high=2),
    Case("Loop", [np.array(2**63 - 1), _TRUE, (3,)], {"body": _WITHOUT_ROWS}, low=1, high=2),
    Case("Scan", [(3,), (5, 3)], {"body": _SUMMING, "num_scan_inputs": 1}, outputs=2, expect={"WHILE": 1}),
    Case(
        "Scan",
        [(3,), (3, 5)],
        {"body": _SUMMING, "num_scan_inputs": 1, "scan_input_axes": [1], "scan_input_directions": [1],
         "scan_output_axes": [-1], "scan_output_directions": [1]},
        outputs=2,
    ),
    Case("Scan", [np.zeros(3, np.float32), (5, 3)], {"body": _SUMMING, "num_scan_inputs": 1}, opset=9, outputs=2),
]  # fmt: skip
