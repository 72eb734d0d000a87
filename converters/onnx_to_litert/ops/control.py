"""If, Loop and Scan: a branch that is known is lowered in place; else IF and WHILE run the bodies as subgraphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import ANONYMOUS, Shape, Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.subgraphs import Loop, Variable, branch, if_then_else
from edgekit.converters.onnx_to_litert.view import View, identity, store

__all__ = ["UNKNOWN_KINDS", "if_op", "loop", "scan"]

_SEQUENCES = (
    "ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
    "SequenceLength", "SequenceMap", "SplitToSequence",
)  # fmt: skip
_OPTIONALS = ("Optional", "OptionalGetElement", "OptionalHasElement")
_NO_SEQUENCES = ("LiteRT has no sequences of tensors", "Stack the parts in one tensor, or keep them apart.")
_NO_OPTIONALS = ("LiteRT has no optional values", "Decide before the export whether the value is there.")
#: ops on values that no LiteRT tensor can hold: op -> (reason, remedy)
UNKNOWN_KINDS = {**dict.fromkeys(_SEQUENCES, _NO_SEQUENCES), **dict.fromkeys(_OPTIONALS, _NO_OPTIONALS)}
_FIX_SHAPE = "Fix the input's shape with --shape, so that the condition is known."
#: trip counts from here on stand for "no limit"
_NO_LIMIT = 2**31 - 1


def if_op(b: Builder, node: Node) -> list[View]:
    """If: the branch in place where the condition is a constant, else IF."""
    condition = node.view(0)
    if condition.const is not None:
        return node.body(b, "then_branch" if condition.const.reshape(-1)[0] else "else_branch", [])
    then, otherwise = branch(b, "then"), branch(b, "else")
    pairs = list(zip(node.body(then, "then_branch", []), node.body(otherwise, "else_branch", []), strict=True))
    orders, types = [], []
    for value, (yes, no) in zip(node.ir.outputs, pairs, strict=True):
        if yes.rank != no.rank or yes.dtype != no.dtype:
            kinds = " or ".join(f"{view.dtype.name} with {view.rank} axes" for view in (yes, no))
            raise Refused(f"which branch runs is known only at run time, and '{value.name}' is {kinds}", _FIX_SHAPE)
        order = yes.order if yes.order == no.order else identity(yes.rank)
        tensors = store(then, yes, order), store(otherwise, no, order)
        then.graph.outputs.append(tensors[0])
        otherwise.graph.outputs.append(tensors[1])
        shapes = zip(tensors[0].shape, tensors[1].shape, strict=True)
        types.append((tuple(one if one == other else b.new_dim() for one, other in shapes), yes.dtype))
        orders.append(order)
    results = if_then_else(b, store(b, condition), then, otherwise, types)
    return [View(tensor, order) for tensor, order in zip(results, orders, strict=True)]


def loop(b: Builder, node: Node) -> list[View]:
    """Loop -> WHILE over the trip count, the condition, or both; scan outputs are written row by row."""
    if not node.has_input(0) and not node.has_input(1):
        raise Refused("it has neither a trip count nor a condition, so it never ends")
    trips = _Trips.of_loop(b, node)
    if trips.count == 0 and node.output_count == len(node.inputs) - 2:
        return [node.view(index) for index in range(2, len(node.inputs))]
    run = Loop(b)
    counter = run.counter()
    carried = [run.variable(store(b, node.view(index))) for index in range(2, len(node.inputs))]
    number = View.of(run.body.reshape(run.body.cast(counter.now, np.int64), ()))
    inputs = [number, View.of(b.const(np.array(True))), *(View.of(variable.now) for variable in carried)]
    goes_on, *made = node.body(run.body, "body", inputs)
    _carry(run, node, carried, made[: len(carried)])
    keep = _keep_going(b, run, node, goes_on)
    rows = [_Rows.of(run, trips, view) for view in made[len(carried) :]]
    for row in rows:
        row.write(run, counter.now)
    tests = [] if keep is None else [keep.tested]
    if trips.limit is not None:
        tests.append(run.test.binary("LESS", counter.tested, trips.limit, np.bool_))
    if not tests:
        raise Refused("its condition is always true and it has no trip count, so it never ends")
    final = run.run(tests[0] if len(tests) == 1 else run.test.binary("LOGICAL_AND", *tests))
    scans = [final[row.buffer] for row in rows]
    if keep is not None:
        scans = [_first_rows(b, scan, final[counter]) for scan in scans]
    return [View.of(tensor) for tensor in (*(final[variable] for variable in carried), *scans)]


def scan(b: Builder, node: Node) -> list[View]:
    """Scan -> WHILE over one axis of each scanned input."""
    if node.opset < 9:
        raise Refused("it is Scan of opset 8, which has a batch axis", "Export with opset 9 or newer.")
    scanned = node.integer("num_scan_inputs", 0)
    states = len(node.inputs) - scanned
    views = [node.view(index) for index in range(len(node.inputs))]
    axes = node.integers("scan_input_axes", [0] * scanned)
    length = views[states].shape[axes[0] % views[states].rank]
    if not b.can_read(length):
        raise Refused("the length of its sequence is known only at run time", "Fix the input's shape with --shape.")
    limit = b.dims((length,))
    trips = _Trips(length, limit)
    run = Loop(b)
    counter = run.counter()
    carried = [run.variable(store(b, view)) for view in views[:states]]
    places = _Places(run.body, counter.now, limit)
    backward = node.integers("scan_input_directions", [0] * scanned)
    slices = [
        _slice_at(run.body, view, axis % view.rank, places.scalar(bool(reverse)))
        for view, axis, reverse in zip(views[states:], axes, backward, strict=True)
    ]
    made = node.body(run.body, "body", [*(View.of(variable.now) for variable in carried), *slices])
    _carry(run, node, carried, made[:states])
    rows = [_Rows.of(run, trips, view) for view in made[states:]]
    reverse_rows = node.integers("scan_output_directions", [0] * len(rows))
    for row, reverse in zip(rows, reverse_rows, strict=True):
        row.write(run, places.vector(bool(reverse)))
    final = run.run(run.test.binary("LESS", counter.tested, limit, np.bool_))
    outputs = [View.of(final[variable]) for variable in carried]
    for row, axis in zip(rows, node.integers("scan_output_axes", [0] * len(rows)), strict=True):
        outputs.append(_rows_at(final[row.buffer], axis))
    return outputs


@dataclass(frozen=True, slots=True)
class _Trips:
    """How often a loop runs at most: ``count`` (a symbol if it is known only at run time) and ``limit``.

    ``limit`` is the same as an int32 tensor of shape (1,); None where nothing but a condition ends the loop.
    """

    count: int
    limit: Tensor | None

    @classmethod
    def of_loop(cls, b: Builder, node: Node) -> _Trips:
        """The trip count of a Loop."""
        data = node.view(0).const if node.has_input(0) else np.array(_NO_LIMIT)
        if data is None:
            return cls(b.new_dim(), b.reshape(b.cast(node.view(0).tensor, np.int32), (1,)))
        count = max(int(data.reshape(-1)[0]), 0)
        return cls(count, None if count >= _NO_LIMIT else b.const(np.array([count], np.int32)))


@dataclass(frozen=True, slots=True)
class _Rows:
    """An output that is collected over the runs of a loop: each run writes its ``row`` into ``buffer``."""

    buffer: Variable
    row: Tensor

    @classmethod
    def of(cls, run: Loop, trips: _Trips, view: View) -> _Rows:
        """Room for the rows that ``view``, a value of the loop's body, holds one after the other."""
        b, row = run.outer, store(run.body, view)
        if trips.limit is None or trips.count == 0:
            reason = "it collects outputs but has no trip count" if trips.count else "it collects outputs in no step"
            raise Refused(reason, "Give the loop a trip count that is the largest possible number of steps.")
        if not all(b.can_read(dim) for dim in row.shape):
            raise Refused("it collects an output whose shape is known only inside of the loop", _FIX_SHAPE)
        dims = b.concat([trips.limit, b.dims(row.shape)], 0) if row.shape else trips.limit
        zero = b.const(np.zeros((), row.dtype))
        return cls(run.variable(b.emit("FILL", [dims, zero], (trips.count, *row.shape), row.dtype)), row)

    def write(self, run: Loop, index: Tensor) -> None:
        """Let each run write its row at ``index``, of shape (1,)."""
        b, into = run.body, self.buffer.now
        first = np.eye(1, into.rank, dtype=np.int32)[0]
        start = index if into.rank == 1 else b.binary("MUL", index, b.const(first))
        row = b.reshape(self.row, (1, *self.row.shape))
        self.buffer.next = b.emit("DYNAMIC_UPDATE_SLICE", [into, row, start], into.shape, into.dtype)


class _Places:
    """Where a Scan is, counted from either end of its sequence."""

    def __init__(self, b: Builder, forward: Tensor, limit: Tensor) -> None:
        self._b = b
        self._limit = limit
        self._vectors = {False: forward}
        self._scalars: dict[bool, Tensor] = {}

    def vector(self, reverse: bool) -> Tensor:
        """The index as a vector of shape (1,)."""
        if reverse not in self._vectors:
            newest = self._b.binary("SUB", self._limit, self._b.const(np.ones(1, np.int32)))
            self._vectors[reverse] = self._b.binary("SUB", newest, self._vectors[False])
        return self._vectors[reverse]

    def scalar(self, reverse: bool) -> Tensor:
        """The index as a scalar."""
        if reverse not in self._scalars:
            self._scalars[reverse] = self._b.reshape(self.vector(reverse), ())
        return self._scalars[reverse]


def _carry(run: Loop, node: Node, carried: Sequence[Variable], made: Sequence[View]) -> None:
    """Hand what the body made to its next run."""
    for variable, view in zip(carried, made, strict=True):
        before, after = variable.now, view
        if before.shape != after.shape or ANONYMOUS in after.shape or before.dtype != after.dtype:
            kinds = " to ".join(f"{thing.dtype.name} {_readable(thing.shape)}" for thing in (before, after))
            raise Refused(
                f"a value that it carries from run to run ('{variable.initial.name}') changes from {kinds}",
                "Carry a tensor of the largest shape, and write parts of it.",
            )
        variable.next = store(run.body, view)


def _readable(shape: Shape) -> str:
    return str(["?" if dim < 0 else dim for dim in shape])


def _keep_going(b: Builder, run: Loop, node: Node, goes_on: View) -> Variable | None:
    """The condition of a Loop as a variable of shape (1,); None when it is always true."""
    start = node.view(1) if node.has_input(1) else View.of(b.const(np.array(True)))
    always = goes_on.const is not None and bool(goes_on.const.reshape(-1)[0])
    if always and start.const is not None and bool(start.const.reshape(-1)[0]):
        return None
    keep = run.variable(b.reshape(start.tensor, (1,)))
    if not always:
        keep.next = run.body.reshape(goes_on.tensor, (1,))
    return keep


def _slice_at(b: Builder, view: View, axis: int, index: Tensor) -> View:
    """``view`` at the scalar ``index`` of ``axis``, which goes."""
    at = view.axis(axis)
    shape = (*view.tensor.shape[:at], *view.tensor.shape[at + 1 :])
    order = tuple(other - (other > axis) for other in view.order if other != axis)
    return View(b.emit("GATHER", [view.tensor, index], shape, view.dtype, axis=at), order)


def _rows_at(tensor: Tensor, axis: int) -> View:
    """Collected rows, which lie along the first axis of ``tensor``, as a value that has them along ``axis``."""
    return View(tensor, (axis % tensor.rank, *(other for other in range(tensor.rank) if other != axis % tensor.rank)))


def _first_rows(b: Builder, x: Tensor, count: Tensor) -> Tensor:
    """The first ``count`` rows of ``x``."""
    size = b.concat([count, b.const(np.full(x.rank - 1, -1, np.int32))], 0) if x.rank > 1 else count
    begin = b.const(np.zeros(x.rank, np.int32))
    return b.emit("SLICE", [x, begin, size], (b.new_dim(), *x.shape[1:]), x.dtype)
