"""Channel shuffles as bookkeeping: the channels of a value may lie in another order than the network means, or apart.

before: s = shuffle(CONCATENATION(x, y)); a, b = SPLIT(s); z = CONV_2D(b, k); u = CONCATENATION(a, z)
after:  z = CONV_2D(CONCATENATION(x[half], y[half]), k');  u is known by its parts: halves of x and y, and z

Shuffles, concatenations and splits of channels emit nothing. Ops that work channel by channel take whatever order is
there, with their constants arranged for it; an op that sums over channels takes it by an arrangement of its weights.
Where neither holds, and at the outputs, the channels are put in order. Shuffles whose bookkeeping would come out dearer
than moving the data are left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.converters.onnx_to_litert.channel_order_moves import (
    Channels,
    Indices,
    Mover,
    copy_ns,
    turn_ns,
)
from edgekit.converters.onnx_to_litert.channel_order_rules import (
    ELEMENTWISE,
    MIXERS,
    Shuffle,
    find_shuffles,
    is_constant_float,
    is_plain_float,
    joins_channels,
    keeps_channels,
    mixer_groups,
    reordered,
    taken,
)
from edgekit.converters.onnx_to_litert.graph import Graph, Op, Tensor

__all__ = ["track_channels"]

#: shared weights above this many bytes are not copied for one of their readers
_COPY_LIMIT_BYTES = 2**15


def track_channels(graph: Graph) -> int:
    """Replace shuffles by bookkeeping wherever that is cheaper; how many were."""
    readers = graph.consumers()
    shuffles = find_shuffles(graph, readers)
    if not shuffles:
        return 0
    trial = _Tracker(graph, shuffles, readers, frozenset())
    trial.run()
    dear = trial.dear_parts()
    if dear:
        trial = _Tracker(graph, shuffles, readers, dear)
        trial.run()
    if trial.tracked:
        graph.ops = trial.ops
    return trial.tracked


class _Tracker:
    """One walk over ``graph`` that builds a new list of ops, without the parts that are ``left`` as they are.

    A part is what has to be decided together, named by the place in the graph of one of its shuffles or concatenations.
    """

    def __init__(
        self, graph: Graph, shuffles: Sequence[Shuffle], readers: dict[int, list[Op]], left: frozenset[int]
    ) -> None:
        self.graph, self.readers = graph, readers
        self.ops: list[Op] = []
        self.tracked = 0
        self._place = {id(op): index for index, op in enumerate(graph.ops)}
        used = [shuffle for shuffle in shuffles if self._place[id(shuffle.ops[-1])] not in left]
        self._shuffles = {id(shuffle.ops[-1]): shuffle for shuffle in used}
        self._inside = {id(op) for shuffle in used for op in shuffle.ops[:-1]}
        self._lazy = self._concats_for_shuffles(used) - left
        self._values: dict[int, Channels] = {}
        self._mover = Mover(self.ops)
        self._constants: dict[tuple[int, bytes, int], Tensor] = {}
        self._parent: dict[int, int] = {}
        self._saved_ns: dict[int, float] = {}

    def run(self) -> None:
        """Build ``ops``."""
        for op in self.graph.ops:
            if id(op) not in self._inside:
                self._step(op)
        for tensor in self.graph.outputs:
            self._settle(tensor)

    def dear_parts(self) -> frozenset[int]:
        """The parts whose bookkeeping costs more than it saves."""
        saved: dict[int, float] = {}
        for part, amount in self._saved_ns.items():
            saved[self._find(part)] = saved.get(self._find(part), 0.0) + amount
        return frozenset(part for part in self._parent if saved.get(self._find(part), 0.0) <= 0)

    def _concats_for_shuffles(self, shuffles: Sequence[Shuffle]) -> set[int]:
        """Places of the concatenations that only shuffles, or such concatenations, read."""
        wanted = {id(shuffle.ops[0]) for shuffle in shuffles}
        outputs = {id(tensor) for tensor in self.graph.outputs}
        found = set()
        for op in reversed(self.graph.ops):
            reading = self.readers.get(id(op.outputs[0]), []) if op.outputs else []
            alone = bool(reading) and all(id(reader) in wanted for reader in reading)
            if alone and id(op.outputs[0]) not in outputs and joins_channels(op):
                wanted.add(id(op))
                found.add(self._place[id(op)])
        return found

    # -- parts -------------------------------------------------------------------------------------------------------

    def _find(self, part: int) -> int:
        while self._parent[part] != part:
            self._parent[part] = part = self._parent[self._parent[part]]
        return part

    def _part(self, op: Op, *values: Channels | None) -> int:
        """The part that ``op`` and ``values`` belong to from now on."""
        known = [value.part for value in values if value is not None]
        if not known:
            known = [self._parent.setdefault(self._place[id(op)], self._place[id(op)])]
        roots = sorted({self._find(part) for part in known})
        for root in roots[1:]:
            self._parent[root] = roots[0]
        return roots[0]

    def _book(self, part: int, saved_ns: float) -> None:
        self._saved_ns[part] = self._saved_ns.get(part, 0.0) + saved_ns

    # -- ops ---------------------------------------------------------------------------------------------------------

    def _step(self, op: Op) -> None:
        if id(op) in self._shuffles:
            self._shuffle(op, self._shuffles[id(op)])
            return
        tracked = [tensor for tensor in op.inputs if tensor is not None and id(tensor) in self._values]
        if self._place[id(op)] in self._lazy or (tracked and joins_channels(op)):
            self._join(op)
        elif not tracked:
            self.ops.append(op)
        elif not (self._take(op) or self._absorb(op) or self._pass(op) or self._depthwise(op) or self._combine(op)):
            if op.kind == "SHAPE":
                self.ops.append(self._with_input(op, 0, self._any_order(tracked[0])[0]))
                return
            for tensor in tracked:
                self._settle(tensor)
            self.ops.append(op)

    def _shuffle(self, op: Op, shuffle: Shuffle) -> None:
        value = self._values.get(id(shuffle.source))
        self._parent.setdefault(self._place[id(op)], self._place[id(op)])
        own = Channels.of(shuffle.source, self._place[id(op)])
        part = self._part(op, own, value)
        self._values[id(shuffle.result)] = _booked(value or own, part).take(shuffle.order)
        reading = self.readers.get(id(shuffle.result), [])
        halved = len(reading) == 1 and reading[0].kind == "SPLIT"  # then half of it moves: see split_shuffles
        front, count = shuffle.result.shape[:-1], shuffle.result.shape[-1]
        self._book(part, turn_ns(front, count // 2 if halved else count))
        self.tracked += 1

    def _join(self, op: Op) -> None:
        known = [None if x is None else self._values.get(id(x)) for x in op.inputs]
        if self._place[id(op)] in self._lazy:
            self._parent.setdefault(self._place[id(op)], self._place[id(op)])
            known.append(Channels.of(op.outputs[0], self._place[id(op)]))
        part = self._part(op, *known)
        values = [value or Channels.of(x, part) for x, value in zip(op.inputs, known, strict=False) if x is not None]
        self._values[id(op.outputs[0])] = Channels.joined(values, part)
        self._book(part, copy_ns(op.outputs[0].shape[:-1], op.outputs[0].shape[-1], len(values)))

    def _take(self, op: Op) -> bool:
        apart = taken(op)
        value = None if apart is None else self._values.get(id(apart[0]))
        if apart is None or value is None:
            return False
        for result, channels in apart[1]:
            self._values[id(result)] = value.take(channels)
            self._book(value.part, copy_ns(result.shape[:-1], result.shape[-1], 1))
        return True

    def _absorb(self, op: Op) -> bool:
        """Let an op that sums over channels take those of its data in the order in which they lie."""
        at = MIXERS.get(op.kind, -1)
        x = op.inputs[at] if 0 <= at < len(op.inputs) else None
        weights = op.inputs[1] if at >= 0 else None
        groups = 0 if x is None or id(x) not in self._values else mixer_groups(op, x)
        if x is None or weights is None or not groups or not self._may_copy(weights):
            return False
        if groups == 1:
            stored, order = self._any_order(x)
        else:
            order = self._grouped_order(self._values[id(x)], groups)
            stored = self._ordered(x, order)
        made = self._with_input(op, at, stored)
        made.inputs[1] = self._constant(weights, order, groups)
        self.ops.append(made)
        return True

    def _grouped_order(self, value: Channels, groups: int) -> Indices:
        width = len(value.origin) // groups
        parts = [np.arange(group * width, (group + 1) * width) for group in range(groups)]
        return np.concatenate([part[value.take(part).grouped()] for part in parts])

    def _pass(self, op: Op) -> bool:
        x = op.inputs[0]
        if x is None or id(x) not in self._values or not keeps_channels(op, x):
            return False
        stored, order = self._any_order(x)
        self._emit(self._with_input(op, 0, stored), order, self._values[id(x)].part)
        return True

    def _depthwise(self, op: Op) -> bool:
        if op.kind != "DEPTHWISE_CONV_2D" or op.inputs[0] is None or id(op.inputs[0]) not in self._values:
            return False
        x, weights, bias = op.inputs[0], op.inputs[1], op.inputs[2] if len(op.inputs) > 2 else None
        fits = weights is not None and is_constant_float(weights) and weights.shape[-1] == x.shape[-1]
        if weights is None or not fits or not (bias is None or is_constant_float(bias)) or not self._may_copy(weights):
            return False
        stored, order = self._any_order(x)
        made = self._with_input(op, 0, stored)
        made.inputs[1] = self._constant(weights, order)
        if bias is not None:
            made.inputs[2] = self._constant(bias, order)
        self._emit(made, order, self._values[id(x)].part)
        return True

    def _combine(self, op: Op) -> bool:
        """An elementwise op: both operands in the order of one of them."""
        if op.kind not in ELEMENTWISE or len(op.inputs) != 2 or not is_plain_float(op.outputs[0]):
            return False
        a, b = op.inputs
        if a is None or b is None:
            return False
        channels = op.outputs[0].shape[-1]
        for x in (a, b):
            narrow = x.rank == 0 or x.shape[-1] == 1
            full = x.rank > 0 and x.shape[-1] == channels and (is_constant_float(x) or is_plain_float(x))
            if not (narrow and id(x) not in self._values) and not full:
                return False
        leader = a if id(a) in self._values else b
        value = self._values[id(leader)]
        other = self._values.get(id(b if leader is a else a))
        part = self._part(op, value, other)
        order = value.grouped()
        made = Op(op.kind, list(op.inputs), list(op.outputs), dict(op.options), op.source)
        for index, x in enumerate((a, b)):
            if x.rank and x.shape[-1] == channels:
                made.inputs[index] = self._constant(x, order) if x.data is not None else self._ordered(x, order, part)
        self._emit(made, order, part)
        return True

    # -- storage -----------------------------------------------------------------------------------------------------

    def _any_order(self, x: Tensor) -> tuple[Tensor, Indices]:
        """``x`` in one tensor, and which channel lies at each of its places."""
        order = self._values[id(x)].grouped()
        return self._ordered(x, order), order

    def _ordered(self, x: Tensor, order: Indices, part: int = -1) -> Tensor:
        """A tensor that holds channel ``order[j]`` of ``x`` at place j."""
        value = self._values.get(id(x)) or Channels.of(x, part)
        move = self._mover.plan(value.take(order), x.shape[:-1], x.name)
        self._book(value.part, -move.cost_ns)
        made = move.make(None)
        if id(x) in self._values:
            self._values[id(x)] = Channels.stored(made, order, value.part)  # later parts of x are nearer here
        return made

    def _settle(self, x: Tensor) -> None:
        """Make ``x`` itself, its channels in the order that the network means."""
        value = self._values.pop(id(x), None)
        if value is None:
            return
        move = self._mover.plan(value, x.shape[:-1], x.name)
        self._book(value.part, -move.cost_ns)
        move.make(x)

    def _emit(self, op: Op, order: Indices, part: int) -> None:
        """Append ``op``, whose result holds channel ``order[j]`` at place j: in a tensor of its own if out of order."""
        result = op.outputs[0]
        if not np.array_equal(order, np.arange(len(order))):
            made = Tensor(f"{result.name}/channels", result.dtype, result.shape)
            self._values[id(result)] = Channels.stored(made, order, part)
            op.outputs[0] = made
        self.ops.append(op)

    def _constant(self, tensor: Tensor, order: Indices, groups: int = 1) -> Tensor:
        if np.array_equal(order, np.arange(len(order))):
            return tensor
        key = (id(tensor), order.tobytes(), groups)
        if key not in self._constants:
            self._constants[key] = reordered(tensor, order, groups)
        return self._constants[key]

    def _may_copy(self, weights: Tensor) -> bool:
        alone = len(self.readers[id(weights)]) == 1
        return alone or (weights.data is not None and weights.data.nbytes <= _COPY_LIMIT_BYTES)

    @staticmethod
    def _with_input(op: Op, at: int, x: Tensor) -> Op:
        inputs = [x if index == at else tensor for index, tensor in enumerate(op.inputs)]
        return Op(op.kind, inputs, list(op.outputs), dict(op.options), op.source)


def _booked(value: Channels, part: int) -> Channels:
    return Channels(value.sources, value.origin, value.place, part)

