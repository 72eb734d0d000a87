"""If, Loop and Scan in graphs: captured values, nesting, what cannot be expressed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper, numpy_helper

from edgekit.artifacts import Array
from edgekit.errors import UnsupportedOps
from edgekit.recipe import ConvertRecipe
from tests.ops.cases_control import BOOL, FLOAT, INT64, Typed, body, constant
from tests.ops.harness import assert_same, build, convert, reference, run_litert

_TWO_BY_THREE: list[Typed] = [("r", FLOAT, [2, 3])]


def model(
    nodes: Sequence[NodeProto], inputs: Sequence[Typed], outputs: Sequence[str], **constants: Array
) -> onnx.ModelProto:
    """A model over ``inputs``, with initializers."""
    infos = [helper.make_tensor_value_info(*value) for value in inputs]
    weights = [numpy_helper.from_array(data, name) for name, data in constants.items()]
    return build(nodes, infos, outputs, weights)


def check(made: onnx.ModelProto, **feeds: Array) -> dict[str, int]:
    """LiteRT answers as ONNX Runtime does; the op counts."""
    conversion = convert(made)
    assert_same(run_litert(conversion, feeds), reference(made, feeds), 2e-6)
    return dict(conversion.op_counts)


def floats(*shape: int) -> Array:
    """Random floats."""
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def counted(
    nodes: Sequence[NodeProto], carried: Sequence[Typed], outputs: Sequence[Typed], go: str = "go"
) -> onnx.GraphProto:
    """The body of a Loop that only its trip count ends; nested ones need other names in ``go``."""
    return body(
        [helper.make_node("Identity", [go], [f"{go}_out"]), *nodes],
        [("i" if go == "go" else f"i_{go}", INT64, []), (go, BOOL, []), *carried],
        [(f"{go}_out", BOOL, []), *outputs],
    )


@pytest.mark.parametrize("flag", [True, False])
def test_branches_read_values_from_outside_and_fuse_inside(flag: bool) -> None:
    then = body(
        [helper.make_node("MatMul", ["t", "w"], ["m"]), helper.make_node("Relu", ["m"], ["r"])], [], _TWO_BY_THREE
    )
    otherwise = body([helper.make_node("Sub", ["t", "bias"], ["r"])], [], _TWO_BY_THREE)
    nodes = [
        helper.make_node("Add", ["x", "x"], ["t"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=otherwise),
        helper.make_node("Neg", ["y"], ["z"]),
    ]
    made = model(nodes, [("flag", BOOL, []), ("x", FLOAT, [2, 3])], ["z"], w=floats(3, 3), bias=floats(3))
    ops = check(made, flag=np.array(flag), x=floats(2, 3))
    assert ops["IF"] == 1
    assert "RELU" not in ops  # it is fused into the branch's FULLY_CONNECTED


@pytest.mark.parametrize("flag", [True, False])
def test_a_branch_may_hand_on_what_it_was_given_and_results_may_differ_in_size(flag: bool) -> None:
    then = body([helper.make_node("Identity", ["x"], ["r"])], [], [("r", FLOAT, [2, 3])])
    otherwise = body([helper.make_node("Concat", ["x", "x"], ["r"], axis=0)], [], [("r", FLOAT, [4, 3])])
    nodes = [
        helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=otherwise),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    check(model(nodes, [("flag", BOOL, []), ("x", FLOAT, [2, 3])], ["z"]), flag=np.array(flag), x=floats(2, 3))


def test_branches_of_different_rank_are_refused_until_the_condition_is_known() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Equal", ["rows", "one"], ["flag"]),
        helper.make_node(
            "If", ["flag"], ["y"], name="squeeze",
            then_branch=body([helper.make_node("Squeeze", ["x", "axes"], ["r"])], [], [("r", FLOAT, [3])]),
            else_branch=body([helper.make_node("Identity", ["x"], ["r"])], [], [("r", FLOAT, ["n", 3])]),
        ),
        helper.make_node("Relu", ["y"], ["z"]),
    ]  # fmt: skip
    constants = {"zero": np.array(0), "one": np.array(1), "axes": np.array([0])}
    made = model(nodes, [("x", FLOAT, ["n", 3])], ["z"], **constants)
    with pytest.raises(UnsupportedOps, match=r"'squeeze' \(If\).*1 axes or float32 with 2 axes.*--shape"):
        convert(made)
    for rows in (1, 2):
        conversion, feeds = convert(made, ConvertRecipe(shapes={"x": (rows, 3)})), {"x": floats(rows, 3)}
        assert_same(run_litert(conversion, feeds), reference(made, feeds), 2e-6)
        assert "IF" not in conversion.op_counts


def test_a_loop_that_swaps_two_values() -> None:
    """The engine copies results onto the loop's inputs one by one, which must not overwrite one still needed."""
    step = counted(
        [helper.make_node("Identity", ["b"], ["a_out"]), helper.make_node("Identity", ["a"], ["b_out"])],
        [("a", FLOAT, [3]), ("b", FLOAT, [3])],
        [("a_out", FLOAT, [3]), ("b_out", FLOAT, [3])],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x", "y"], ["u", "v"], body=step)]
    made = model(nodes, [("x", FLOAT, [3]), ("y", FLOAT, [3])], ["u", "v"], n=np.array(3))
    check(made, x=floats(3), y=np.arange(3, dtype=np.float32))


@pytest.mark.parametrize("trips", [1, 4])
def test_a_trip_count_from_outside_and_captured_values(trips: int) -> None:
    step = counted(
        [
            helper.make_node("MatMul", ["v", "w"], ["m"]),
            helper.make_node("Add", ["m", "offset"], ["v_out"]),
            helper.make_node("Gather", ["table", "i"], ["row"]),
        ],
        [("v", FLOAT, [2, 3])],
        [("v_out", FLOAT, [2, 3]), ("row", FLOAT, [3])],
    )
    nodes = [
        helper.make_node("Neg", ["x"], ["offset"]),
        helper.make_node("Loop", ["n", "", "x"], ["y", "rows"], body=step),
    ]
    inputs: list[Typed] = [("n", INT64, []), ("x", FLOAT, [2, 3]), ("table", FLOAT, [5, 3])]
    made = model(nodes, inputs, ["y", "rows"], w=floats(3, 3))
    check(made, n=np.array(trips), x=floats(2, 3), table=floats(5, 3))


def test_nested_loops_and_a_branch_inside() -> None:
    add = helper.make_node("Add", ["w", "x"], ["w_out"])
    inner = counted([add], [("w", FLOAT, [3])], [("w_out", FLOAT, [3])], go="on")
    halve = body([helper.make_node("Mul", ["w_end", "half"], ["r"])], [], [("r", FLOAT, [3])])
    keep = body([helper.make_node("Identity", ["w_end"], ["r"])], [], [("r", FLOAT, [3])])
    outer = counted(
        [
            helper.make_node("Loop", ["two", "", "v"], ["w_end"], body=inner),
            helper.make_node("ReduceMax", ["w_end"], ["most"], keepdims=0),
            constant("limit", np.array(3, np.float32)),
            helper.make_node("Greater", ["most", "limit"], ["big"]),
            helper.make_node("If", ["big"], ["v_out"], then_branch=halve, else_branch=keep),
        ],
        [("v", FLOAT, [3])],
        [("v_out", FLOAT, [3])],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["y"], body=outer)]
    made = model(nodes, [("x", FLOAT, [3])], ["y"], n=np.array(4), two=np.array(2), half=np.array(0.5, np.float32))
    ops = check(made, x=np.array([0.2, 0.7, -0.4], np.float32))
    assert (ops["WHILE"], ops["IF"]) == (2, 1)


def test_a_convolution_is_carried_and_its_layout_is_found_again() -> None:
    step = counted(
        [helper.make_node("Conv", ["v", "k"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Tanh", ["c"], ["v_out"])],
        [("v", FLOAT, [1, 2, 5, 4])],
        [("v_out", FLOAT, [1, 2, 5, 4])],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["y"], body=step)]
    check(model(nodes, [("x", FLOAT, [1, 2, 5, 4])], ["y"], n=np.array(3), k=floats(2, 2, 3, 3)), x=floats(1, 2, 5, 4))


def test_a_dynamic_batch_is_scanned() -> None:
    step = body(
        [helper.make_node("Add", ["s", "row"], ["s_out"]), helper.make_node("Exp", ["s_out"], ["e"])],
        [("s", FLOAT, ["n", 3]), ("row", FLOAT, ["n", 3])],
        [("s_out", FLOAT, ["n", 3]), ("e", FLOAT, ["n", 3])],
    )
    nodes = [helper.make_node("Scan", ["start", "x"], ["end", "all"], body=step, num_scan_inputs=1)]
    inputs: list[Typed] = [("start", FLOAT, ["n", 3]), ("x", FLOAT, ["t", "n", 3])]
    check(model(nodes, inputs, ["end", "all"]), start=floats(2, 3), x=floats(4, 2, 3))


def test_a_value_that_grows_is_refused() -> None:
    step = counted(
        [helper.make_node("Concat", ["v", "x"], ["v_out"], axis=0)], [("v", FLOAT, [None])], [("v_out", FLOAT, [None])]
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["y"], name="grow", body=step)]
    with pytest.raises(UnsupportedOps, match=r"'grow' \(Loop\).*float32 \[3\] to float32 \[6\]"):
        convert(model(nodes, [("x", FLOAT, [3])], ["y"], n=np.array(2)))


def test_endless_loops_and_rows_without_a_count_are_refused() -> None:
    step = counted([helper.make_node("Neg", ["v"], ["v_out"])], [("v", FLOAT, [3])], [("v_out", FLOAT, [3])])
    for inputs in (["", "", "x"], ["", "yes", "x"]):
        nodes = [helper.make_node("Loop", inputs, ["y"], body=step)]
        with pytest.raises(UnsupportedOps, match="never ends"):
            convert(model(nodes, [("x", FLOAT, [3])], ["y"], yes=np.array(True)))
    rows = counted(
        [helper.make_node("Neg", ["v"], ["v_out"]), helper.make_node("Abs", ["v"], ["row"])],
        [("v", FLOAT, [3])],
        [("v_out", FLOAT, [3]), ("row", FLOAT, [3])],
    )
    nodes = [helper.make_node("Loop", ["", "yes", "x"], ["y", "all"], body=rows)]
    with pytest.raises(UnsupportedOps, match="has no trip count"):
        convert(model(nodes, [("x", FLOAT, [3]), ("yes", BOOL, [])], ["y", "all"]))


def test_what_a_body_cannot_do_is_reported_by_its_own_node_once() -> None:
    step = counted(
        [
            helper.make_node("SequenceConstruct", ["v", "v"], ["s"], name="pack"),
            helper.make_node("ConcatFromSequence", ["s"], ["v2"], axis=0),
            helper.make_node("ReduceSum", ["v2"], ["v_out"], keepdims=0),
        ],
        [("v", FLOAT, [])],
        [("v_out", FLOAT, [])],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["y"], body=step)]
    with pytest.raises(UnsupportedOps, match="no sequences of tensors") as caught:
        convert(model(nodes, [("x", FLOAT, [])], ["y"], n=np.array(2)))
    assert caught.value.message.count("'pack'") == 1
    assert "(Loop)" not in caught.value.message
