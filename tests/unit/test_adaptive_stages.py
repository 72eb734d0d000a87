"""Which node runs in which stage: on lists of ops, without an engine."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.adaptive.stages import Op, plan_stages
from edgekit.errors import BadRecipe, UnknownName


def op(reads: str, writes: str, cheap: bool = False) -> Op:
    return Op(tuple(reads.split()), tuple(writes.split()), cheap)


TRUNK = [op("x", "a"), op("a", "head0"), op("head0", "exit0"), op("a", "b"), op("b", "exit1")]


def test_a_stage_runs_what_its_exit_needs_and_no_earlier_one_has() -> None:
    first, second = plan_stages(TRUNK, ["x"], ["exit0", "exit1"])
    assert (first.ops, first.inputs, first.outputs) == ((0, 1, 2), ("x",), ("a", "exit0"))
    assert (second.ops, second.inputs, second.outputs) == ((3, 4), ("a",), ("exit1",))


def test_what_no_exit_needs_is_left_out() -> None:
    (only,) = plan_stages(TRUNK, ["x"], ["exit0"])
    assert (only.ops, only.outputs) == ((0, 1, 2), ("exit0",))


def test_a_value_may_skip_a_stage() -> None:
    ops = [op("x", "a"), op("a", "e0"), op("a", "b"), op("b", "e1"), op("a b", "c"), op("c", "e2")]
    stages = plan_stages(ops, ["x"], ["e0", "e1", "e2"])
    assert [stage.inputs for stage in stages] == [("x",), ("a",), ("a", "b")]
    assert [stage.outputs for stage in stages] == [("a", "e0"), ("b", "e1"), ("e2",)]


def test_logits_that_the_next_exit_adds_to_are_carried() -> None:
    ops = [op("x", "a"), op("a", "e0"), op("a", "b"), op("b e0", "e1")]
    first, second = plan_stages(ops, ["x"], ["e0", "e1"])
    assert first.outputs == ("a", "e0")
    assert second.inputs == ("a", "e0")


def test_an_activation_is_computed_again_rather_than_carried() -> None:
    ops = [op("x", "a"), op("a", "relu", cheap=True), op("relu", "e0"), op("a relu", "b"), op("b", "e1")]
    first, second = plan_stages(ops, ["x"], ["e0", "e1"])
    assert first.outputs == ("a", "e0")
    assert (second.inputs, second.ops) == (("a",), (1, 3, 4))


def test_a_costly_op_is_never_run_twice() -> None:
    ops = [op("x", "a"), op("a", "c"), op("c", "e0"), op("a c", "b"), op("b", "e1")]
    assert plan_stages(ops, ["x"], ["e0", "e1"])[1].inputs == ("a", "c")


def test_a_carried_value_gives_way_to_a_smaller_source() -> None:
    ops = [op("x", "q"), op("q", "float", cheap=True), op("float", "e0"), op("float", "b"), op("b", "e1")]
    sizes = {"q": 10, "float": 40}
    assert plan_stages(ops, ["x"], ["e0", "e1"], sizes.__getitem__)[1].inputs == ("q",)
    assert plan_stages(ops, ["x"], ["e0", "e1"], {"q": 40, "float": 40}.__getitem__)[1].inputs == ("float",)
    assert plan_stages(ops, ["x"], ["e0", "e1"])[1].inputs == ("float",)


def test_what_follows_from_the_image_alone_is_computed_again() -> None:
    ops = [op("x", "size", cheap=True), op("x", "a"), op("a size", "e0"), op("a size", "b"), op("b", "e1")]
    assert plan_stages(ops, ["x"], ["e0", "e1"])[1].inputs == ("x", "a")


@pytest.mark.parametrize(("exits", "error", "words"), [
    ([], BadRecipe, "No exit"),
    (["exit0", "nowhere"], UnknownName, "nowhere"),
    (["x"], UnknownName, "'x'"),
    (["exit0", "exit0"], BadRecipe, "twice"),
    (["exit0", "head0"], BadRecipe, "empty"),
    (["exit1", "exit0", "b"], BadRecipe, "deeper"),
])
def test_exits_that_make_no_sense_are_refused(exits: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        plan_stages(TRUNK, ["x"], exits)


def test_exits_in_the_wrong_order_are_refused() -> None:
    ops = [op("x", "a"), op("a", "e0"), op("a", "b"), op("b", "e1"), op("b", "c"), op("c", "d"),
           op("d", "f"), op("f", "g"), op("g", "e2")]
    assert len(plan_stages(ops, ["x"], ["e0", "e1", "e2"])) == 3
    for order in (["e1", "e0", "e2"], ["e2", "e1", "e0"], ["e0", "e2", "e1"], ["e2", "e0"]):
        with pytest.raises(BadRecipe, match="shallow to deep"):
            plan_stages(ops, ["x"], order)


def test_a_stage_without_anything_to_compute_is_refused() -> None:
    ops = [op("x", "a"), op("a", "e0 e1")]
    with pytest.raises(BadRecipe, match="empty"):
        plan_stages(ops, ["x"], ["e0", "e1"])


def test_networks_side_by_side_are_refused() -> None:
    with pytest.raises(BadRecipe, match="no node in common"):
        plan_stages([op("x", "e0"), op("x", "e1")], ["x"], ["e0", "e1"])


@st.composite
def trunks(draw: st.DrawFn) -> tuple[list[Op], list[str]]:
    """A trunk with skips and heads, some heads on the sum with the logits before."""
    ops: list[Op] = []
    values = ["x"]
    exits: list[str] = []
    carry = draw(st.booleans())
    for step in range(draw(st.integers(2, 9))):
        more = draw(st.lists(st.sampled_from(values), max_size=2))
        ops.append(Op(tuple(dict.fromkeys([values[-1], *more])), (f"t{step}",), draw(st.booleans())))
        values.append(f"t{step}")
        if draw(st.booleans()):
            carried = exits[-1:] if carry else []
            ops.append(Op((values[-1], *carried), (f"h{step}",)))
            ops.append(Op((f"h{step}",), (f"e{step}",), draw(st.booleans())))
            exits.append(f"e{step}")
    ops += [Op((values[-1],), ("late",)), Op(("late",), ("later",))]
    ops.append(Op(("later", *(exits[-1:] if carry else [])), ("end",)))
    return ops, [*exits, "end"]


@settings(max_examples=300, deadline=None)
@given(trunks())
def test_any_network_can_be_run_stage_by_stage(network: tuple[list[Op], list[str]]) -> None:
    ops, exits = network
    stages = plan_stages(ops, ["x"], exits)
    there = {"x"}
    runs = [0] * len(ops)
    for stage, exit_name in zip(stages, exits, strict=True):
        assert set(stage.inputs) <= there
        values = set(stage.inputs)
        for index in stage.ops:
            assert set(ops[index].reads) <= values, "an op reads what is not there"
            values |= set(ops[index].writes)
            runs[index] += 1
        assert stage.outputs[-1] == stage.logits == exit_name
        assert set(stage.outputs) <= values
        there |= set(stage.outputs)
    assert all(count == 1 or (count > 1 and op.cheap) for count, op in zip(runs, ops, strict=True) if count)
    read_later = {name for stage in stages[1:] for name in stage.inputs} - {"x"}
    assert {name for stage in stages for name in stage.outputs} == read_later | set(exits), "nothing is carried in vain"
