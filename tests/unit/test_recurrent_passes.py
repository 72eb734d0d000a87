"""The passes on recurrent layers: reading the last step from the final state, and two LSTM layers in one loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit.artifacts import Array
from edgekit.converters.passes.last_step import last_step
from edgekit.converters.passes.recurrent import folded
from edgekit.converters.passes.stack_lstm import stack_lstm
from tests.onnx_graphs import Graph, ints, node, weights
from tests.pass_check import check

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, WIDTH, HIDDEN = 5, 2, 3, 4


def layer(
    name: str, op: str = "LSTM", width: int = WIDTH, hidden: int = HIDDEN, directions: int = 1
) -> dict[str, Array]:
    """Weights for one recurrent layer, by the names of its inputs."""
    rows = GATES[op] * hidden
    return {
        f"{name}w": weights(directions, rows, width) / 2,
        f"{name}r": weights(directions, rows, hidden) / 2,
        f"{name}b": weights(directions, 2 * rows) / 2,
    }


def after_layer(
    label: str, reading: Sequence[onnx.NodeProto], after: Mapping[str, int] | None, op: str = "LSTM", **options: Any
) -> Graph:
    """A layer whose output Y is read by ``reading``."""
    given = {"i": ints(-1), "axis": ints(1), "zero": ints(0), "end": ints(2**31 - 1), **options.pop("constants", {})}
    used = {name for step in reading for name in step.input}
    attributes = {"hidden_size": HIDDEN, **options.pop("attributes", {})}
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    outputs = options.pop("made", "v")
    nodes = [node(op, "x aw ar ab", outputs, **attributes), *reading]
    constants = {
        **layer("a", op, directions=directions),
        **{name: data for name, data in given.items() if name in used},
    }
    return Graph(label, nodes, constants, after, options.pop("shape", (STEPS, BATCH, WIDTH)), **options)


SQUEEZE = node("Squeeze", "v axis", "t")
LAST = node("Gather", "t last", "y", axis=0)
INDEX = {"last": np.array(-1, np.int64)}
FOUND = {"Squeeze": 1, "Transpose": 1}
LAST_STEP = [
    after_layer("LSTM", [SQUEEZE, LAST], {"LSTM": 1, **FOUND}, constants=INDEX),
    after_layer("GRU", [SQUEEZE, LAST], {"GRU": 1, **FOUND}, "GRU", constants=INDEX),
    after_layer("RNN", [SQUEEZE, LAST], {"RNN": 1, **FOUND}, "RNN", constants=INDEX),
    after_layer("counted from the front", [SQUEEZE, LAST], {"LSTM": 1, **FOUND},
                constants={"last": np.array(STEPS - 1)}),
    after_layer("states are read too", [SQUEEZE, LAST, node("Neg", "h", "z")], {"LSTM": 1, **FOUND, "Neg": 1},
                constants=INDEX, made="v h c", outputs="y z"),
    after_layer("batch first",
                [SQUEEZE, node("Transpose", "t", "u", perm=[1, 0, 2]), node("Gather", "u last", "y", axis=1)],
                {"LSTM": 1, **FOUND}, constants=INDEX),
    after_layer("slice", [SQUEEZE, node("Slice", "t i end zero", "y")], {"LSTM": 1, "Transpose": 1}),
    after_layer("reshape", [node("Reshape", "v shape", "t"), LAST], {"LSTM": 1, **FOUND},
                constants={**INDEX, "shape": ints(STEPS, BATCH, HIDDEN)}),
    after_layer("an older opset", [node("Squeeze", "v", "t", axes=[1]), LAST], {"LSTM": 1, **FOUND}, constants=INDEX,
                opset=11),
]  # fmt: skip
NOT_LAST_STEP = [
    after_layer("first step", [SQUEEZE, LAST], None, constants={"last": np.array(0, np.int64)}),
    after_layer("step before the last", [SQUEEZE, LAST], None, constants={"last": np.array(-2, np.int64)}),
    after_layer("of the batch", [SQUEEZE, node("Gather", "t last", "y", axis=1)], None, constants=INDEX),
    after_layer("several steps", [SQUEEZE, LAST], None, constants={"last": ints(-1, -2)}),
    after_layer("all steps are read", [SQUEEZE, LAST, node("Neg", "t", "z")], None, constants=INDEX, outputs="y z"),
    after_layer("all steps are an output", [SQUEEZE, LAST], None, constants=INDEX, outputs="y t"),
    after_layer("backwards", [SQUEEZE, LAST], None, constants=INDEX, attributes={"direction": "reverse"}),
    after_layer("both ways", [node("Gather", "v last", "y", axis=0)], None, constants=INDEX,
                attributes={"direction": "bidirectional"}),
    after_layer("a longer slice", [SQUEEZE, node("Slice", "t start end zero", "y")], None,
                constants={"start": ints(-2)}),
    after_layer("index at run time",
                [SQUEEZE, node("ArgMax", "x", "m", axis=0), node("Gather", "t m", "y", axis=0)], None),
    after_layer("mixed with another axis", [node("Reshape", "v shape", "t"), LAST], None,
                constants={**INDEX, "shape": ints(BATCH, STEPS, HIDDEN)}),
]  # fmt: skip


@pytest.mark.parametrize("graph", [*LAST_STEP, *NOT_LAST_STEP], ids=lambda graph: graph.id)
def test_last_step(graph: Graph) -> None:
    check(last_step, graph)


def test_last_step_of_sequences_of_several_lengths_is_left_alone() -> None:
    nodes = [node("LSTM", "x aw ar ab lengths", "v", hidden_size=HIDDEN), SQUEEZE, LAST]
    constants = {**layer("a"), "lengths": np.array([5, 2], np.int32), "axis": ints(1), **INDEX}
    check(last_step, Graph("lengths", nodes, constants, None, (STEPS, BATCH, WIDTH)))


# -- stack_lstm ------------------------------------------------------------------------------------------------------


def two_layers(
    label: str, after: Mapping[str, int] | None, first: str = "v", second: str = "y", **options: Any
) -> Graph:
    """Two LSTM layers; ``first`` and ``second`` are the outputs that they have."""
    between = options.pop("between", [node("Squeeze", "v axis", "t")])
    attributes = options.pop("attributes", [{}, {}])
    read = options.pop("read", "t")
    nodes = [
        node("LSTM", options.pop("reading", "x aw ar ab"), first, **{"hidden_size": HIDDEN, **attributes[0]}),
        *between,
        node("LSTM", f"{read} bw br bb", second, **{"hidden_size": 6, **attributes[1]}),
        *options.pop("behind", []),
    ]
    constants = {**layer("a"), **layer("b", width=HIDDEN, hidden=6), "axis": ints(1), **options.pop("constants", {})}
    used = {name for step in nodes for name in step.input}
    constants = {name: data for name, data in constants.items() if name in used}
    return Graph(label, nodes, constants, after, options.pop("shape", (STEPS, BATCH, WIDTH)), **options)


ONE = {"LSTM": 1, "Pad": 1, "Slice": 1}
STACK = [
    two_layers("output", ONE),
    two_layers("all outputs", {**ONE, "Slice": 3}, second="y h c", outputs="y h c"),
    two_layers("last state only", ONE, second="v2 h c", outputs="h"),
    two_layers("by reshape", ONE, between=[node("Reshape", "v shape", "t")],
               constants={"shape": ints(STEPS, BATCH, HIDDEN)}),
    two_layers("zeros to start with", ONE, reading="x aw ar ab - zero zero",
               constants={"zero": np.zeros((1, BATCH, HIDDEN), np.float32)}),
    two_layers("an older opset", ONE, between=[node("Squeeze", "v", "t", axes=[1])], opset=9),
    two_layers("without a bias", ONE, reading="x aw ar"),
]  # fmt: skip
NOT_STACK = [
    two_layers("first is an output", None, outputs="y t"),
    two_layers("first is read twice", None, behind=[node("Neg", "t", "z")], outputs="y z"),
    two_layers("state of the first is read", None, first="v h", behind=[node("Neg", "h", "z")], outputs="y z"),
    two_layers("an activation between", None, between=[node("Squeeze", "v axis", "u"), node("Relu", "u", "t")]),
    two_layers("backwards", None, attributes=[{"direction": "reverse"}, {}]),
    two_layers("second backwards", None, attributes=[{}, {"direction": "reverse"}]),
    two_layers("other activations", None, attributes=[{"activations": ["Sigmoid", "Relu", "Tanh"]}, {}]),
    two_layers("clipped", None, attributes=[{}, {"clip": 0.5}]),
    two_layers("starts with something", None, reading="x aw ar ab - one one",
               constants={"one": np.ones((1, BATCH, HIDDEN), np.float32)}),
    two_layers("too few steps", None, shape=(3, BATCH, WIDTH)),
    two_layers("too large a batch", None, shape=(STEPS, 200, WIDTH)),
    two_layers("kernel at run time", None, constants={}, more_inputs={"aw2": (1, 16, 3)}, reading="x aw2 ar ab"),
]  # fmt: skip


@pytest.mark.parametrize("graph", [*STACK, *NOT_STACK], ids=lambda graph: graph.id)
def test_stack_lstm(graph: Graph) -> None:
    check(stack_lstm, graph)


def test_stack_lstm_of_three_layers() -> None:
    """The first two become one, which has another shape of output than the third expects to stack with."""
    nodes = [
        node("LSTM", "x aw ar ab", "v", hidden_size=HIDDEN), node("Squeeze", "v axis", "t"),
        node("LSTM", "t bw br bb", "v2", hidden_size=HIDDEN), node("Squeeze", "v2 axis", "t2"),
        node("LSTM", "t2 cw cr cb", "y", hidden_size=HIDDEN),
    ]  # fmt: skip
    constants = {**layer("a"), **layer("b", width=HIDDEN), **layer("c", width=HIDDEN), "axis": ints(1)}
    graph = Graph("three", nodes, constants, {"LSTM": 2, "Pad": 1, "Slice": 1, "Squeeze": 1}, (STEPS, BATCH, WIDTH))
    check(stack_lstm, graph)


def test_stack_lstm_of_a_gate_that_forgets_everything_is_left_alone() -> None:
    graph = two_layers("forgets", None)
    constants = dict(graph.constants)
    constants["bb"] = np.full_like(constants["bb"], -20)
    check(stack_lstm, Graph("forgets", graph.nodes, constants, None, graph.shape))


def test_constants_that_are_read_along_many_ways_are_folded_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 doublings in a row are 2**40 ways back to the constant."""
    from edgekit.converters.onnx_to_litert import folding

    count = 40
    nodes = [node("Add", f"v{at} v{at}", f"v{at + 1}") for at in range(count)]
    graph = Graph("doublings", [*nodes, node("Add", f"x v{count}", "y")], {"v0": np.ones(1, np.float32)}, shape=(1,))
    model = ir.serde.deserialize_model(graph.model())
    folds: list[Any] = []
    plain = folding.fold

    def counted(*args: Any) -> Any:
        folds.append(args)
        assert len(folds) <= count
        return plain(*args)

    monkeypatch.setattr(folding, "fold", counted)
    result = folded(model.graph.node(count).inputs[1], 20)
    assert result is not None
    assert result.tolist() == [2.0**count]
    assert len(folds) == count
