"""Which node runs in which stage, and what is handed on: the same for an ONNX graph and for a .tflite file.

A graph is a list of ``Op`` in an order in which it can run. Stage k holds the ops that exit k needs and no earlier
stage has run. What a later stage reads of an earlier one is carried, but for values that are cheaper to make again from
what is there anyway: activations, changes of shape, and arithmetic on shapes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgekit.errors import BadRecipe, UnknownName

__all__ = ["Op", "StagePlan", "plan_stages"]

_HEAD_NODES = 2


@dataclass(frozen=True, slots=True)
class Op:
    """One node over names of values; constants are left out of ``reads``. ``cheap``: takes next to no time."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    cheap: bool = False


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Indices of the ops in the order of the graph; names of what goes in and comes out, the exit's logits last.

    ``inputs``: graph inputs, then carried values in the order in which they are made.
    """

    ops: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    logits: str


def plan_stages(
    ops: Sequence[Op], inputs: Sequence[str], exits: Sequence[str], size: Callable[[str], int] | None = None
) -> tuple[StagePlan, ...]:
    """A stage for each of ``exits``, which are given from shallow to deep.

    ``inputs`` are those of the graph: any stage may read them. ``size`` of a value in bytes lets a carried value be
    replaced by a smaller one that it is cheaply made of.

    Raises UnknownName for an exit that no op makes, BadRecipe for exits that are named twice, are out of order, do not
    lie on one path, or leave a stage without anything to compute.
    """
    graph = _Graph(ops, frozenset(inputs))
    _check_names(exits, graph)
    needed = [graph.before([name]) for name in exits]
    _check_order(exits, needed)
    stages = _divide(exits, needed)
    made_in = {name: number for number, stage in enumerate(stages) for op in stage for name in ops[op].writes}
    order = {name: index for index, name in enumerate((*inputs, *(name for op in ops for name in op.writes)))}
    again: list[set[int]] = []
    reads: list[list[str]] = []
    for number, stage in enumerate(stages):
        extra, carried = _carried(graph, stage, {name for name, at in made_in.items() if at < number}, order, size)
        again.append(extra)
        reads.append(sorted(carried, key=order.__getitem__))
    handed_on = [{name for later in reads[number + 1:] for name in later if made_in.get(name) == number}
                 for number in range(len(stages))]
    return tuple(
        StagePlan(
            ops=tuple(sorted(stage | again[number])),
            inputs=tuple(reads[number]),
            outputs=(*(name for name in sorted(handed_on[number], key=order.__getitem__) if name != exits[number]),
                     exits[number]),
            logits=exits[number],
        )
        for number, stage in enumerate(stages)
    )


class _Graph:
    """Who makes what."""

    def __init__(self, ops: Sequence[Op], inputs: frozenset[str]) -> None:
        self.ops = ops
        self.inputs = inputs
        self.maker: Mapping[str, int] = {name: index for index, op in enumerate(ops) for name in op.writes}

    def before(self, names: Iterable[str]) -> set[int]:
        """The ops that ``names`` need."""
        found: set[int] = set()
        front = [self.maker[name] for name in names if name in self.maker]
        while front:
            op = front.pop()
            if op not in found:
                found.add(op)
                front.extend(self.maker[name] for name in self.ops[op].reads if name in self.maker)
        return found


def _check_names(exits: Sequence[str], graph: _Graph) -> None:
    if not exits:
        raise BadRecipe("No exit was named.", "Name at least one output.")
    for name in exits:
        if name not in graph.maker:
            raise UnknownName.of("exit", name, sorted(graph.maker)[:40])
    if len(set(exits)) != len(exits):
        raise BadRecipe(f"The exits {list(exits)} name one twice.", "Name each once, from shallow to deep.")


def _check_order(exits: Sequence[str], needed: Sequence[set[int]]) -> None:
    """Of two later exits the nearer one shares more with an exit; and none has a way of its own much longer than the
    next one's (the shorter of two branches at one point need not be the shallower, heads having several nodes too).
    """
    for at, (name, ops) in enumerate(zip(exits, needed, strict=True)):
        later = needed[at + 1:]
        if later and not ops & later[0]:
            raise BadRecipe(f"The exits '{name}' and '{exits[at + 1]}' have no node in common.",
                            "Exits hang on one network; give other networks as bundles of their own.")
        shared = [ops & other for other in later]
        apart = any(not far <= near for near, far in itertools.pairwise(shared))
        if apart or (later and len(ops - later[0]) > 2 * len(later[0] - ops) + _HEAD_NODES):
            raise BadRecipe(f"The exit '{name}' lies deeper in the graph than one named after it, or on another path.",
                            "Give the exits from shallow to deep.")


def _divide(exits: Sequence[str], needed: Sequence[set[int]]) -> list[set[int]]:
    run: set[int] = set()
    stages = []
    for name, ops in zip(exits, needed, strict=True):
        fresh = ops - run
        if not fresh:
            raise BadRecipe(f"The stage of the exit '{name}' would be empty: earlier exits need all of its nodes.",
                            "Leave it out, or give the exits from shallow to deep.")
        stages.append(fresh)
        run |= fresh
    return stages


def _carried(
    graph: _Graph, stage: set[int], earlier: set[str], order: Mapping[str, int], size: Callable[[str], int] | None
) -> tuple[set[int], set[str]]:
    """Ops to run once more, and the values to hand over (with the graph's inputs that are read)."""
    again: set[int] = set()
    wanted = {name for op in stage for name in graph.ops[op].reads if name in earlier or name in graph.inputs}
    # from the last made to the first: one that is made again may add its source, which then has its turn
    while True:
        for name in sorted(wanted - graph.inputs, key=order.__getitem__, reverse=True):
            path = _remake(graph, name, (wanted - {name}) | graph.inputs)
            if path is None and size is not None:
                path = _from_smaller(graph, name, size)
            if path is not None:
                again |= path
                break
        else:
            return again, wanted
        inside = stage | again
        wanted = {read for op in inside for read in graph.ops[op].reads if graph.maker.get(read) not in inside}


def _remake(graph: _Graph, name: str, there: set[str] | frozenset[str]) -> set[int] | None:
    """The cheap ops that make ``name`` from values that are ``there``, or None."""
    path: set[int] = set()
    front = [name]
    while front:
        op = graph.maker.get(front.pop())
        if op is None or not graph.ops[op].cheap:
            return None
        if op not in path:
            path.add(op)
            front.extend(read for read in graph.ops[op].reads if read not in there)
    return path


def _from_smaller(graph: _Graph, name: str, size: Callable[[str], int]) -> set[int] | None:
    """The cheap op that makes ``name`` from a single smaller value, or None."""
    op = graph.maker[name]
    reads = graph.ops[op].reads
    if graph.ops[op].cheap and len(reads) == 1 and size(reads[0]) < size(name):
        return {op}
    return None
