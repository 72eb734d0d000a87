"""What to try: a precision for each kind of op, proposed from what XNNPACK takes of the files made so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from edgekit.converters.quantize.flatbuffer import kind_of, name_of, read_tables
from edgekit.recipe import Precision, QuantRule
from edgekit.report.placement import Placement

__all__ = ["WEIGHTED", "Graph", "Plan", "bases", "combined", "flips", "left_out", "look_at", "without_left_out"]

#: kinds whose weights are most of a network, and which have forms that quantize activations at run time
WEIGHTED = ("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
#: kinds without arithmetic on values, or without a form in integers
_NEVER = frozenset({"SHAPE", "WHILE", "IF", "CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CAST",
                    "DEQUANTIZE", "QUANTIZE", "FILL", "RANGE"})


class Graph(msgspec.Struct, frozen=True):
    """What the search knows of the float file: kinds of ops, and of each op the kind and the first tensor it makes."""

    kinds: tuple[str, ...]
    ops: tuple[tuple[str, str], ...]


class Plan(msgspec.Struct, frozen=True):
    """A precision for each kind (float32 where none is given), and tensors whose ops stay float32 all the same."""

    name: str
    kinds: Mapping[str, Precision]
    keep: tuple[str, ...] = ()

    def rules(self) -> tuple[QuantRule, ...]:
        """The plan as rules of a recipe."""
        by_precision: dict[Precision, list[str]] = {}
        for kind, precision in sorted(self.kinds.items()):
            if precision != "float32":
                by_precision.setdefault(precision, []).append(kind)
        rules = [QuantRule(precision, tuple(kinds)) for precision, kinds in sorted(by_precision.items())]
        return (*rules, *((QuantRule("float32", (), self.keep),) if self.keep else ()))

    def changed(self, name: str, **kinds: Precision) -> Plan:
        """The plan with other precisions for some kinds."""
        return Plan(name, {**self.kinds, **kinds}, self.keep)


def look_at(data: bytes) -> Graph:
    """The main subgraph of ``data``; its tensors must have unique names."""
    model = read_tables(data)
    tensors = model.subgraphs[0].tensors
    ops = tuple((kind_of(model, op), name_of(tensors[op.outputs[0]]))
                for op in model.subgraphs[0].operators if len(op.outputs))
    inner = {kind_of(model, op) for subgraph in model.subgraphs[1:] for op in subgraph.operators}
    return Graph(tuple(sorted({kind for kind, _ in ops} | (inner & set(WEIGHTED)))), ops)


def bases(graph: Graph) -> list[Plan]:
    """Where to start: all weights in each form, all ops static, only those with weights static."""
    weighted = [kind for kind in graph.kinds if kind in WEIGHTED]
    static = [kind for kind in graph.kinds if kind not in _NEVER]
    plans = [
        Plan("float16", dict.fromkeys(weighted, "float16")),
        Plan("weight8", dict.fromkeys(weighted, "weight8")),
        Plan("dynamic8", dict.fromkeys(weighted, "dynamic8")),
        Plan("static8", dict.fromkeys(static, "static8")),
        Plan("static8 weighted", dict.fromkeys([kind for kind in weighted if kind != "BATCH_MATMUL"], "static8")),
    ]
    if "FULLY_CONNECTED" in weighted and len(weighted) > 1:
        plans.append(plans[-1].changed("static8 convolutions, dynamic8 FULLY_CONNECTED", FULLY_CONNECTED="dynamic8"))
        plans.append(Plan("dynamic8 FULLY_CONNECTED", {"FULLY_CONNECTED": "dynamic8"}))
    return plans if weighted else plans[3:4]


def left_out(data: bytes, placement: Placement, graph: Graph) -> Counter[str]:
    """How many ops of each kind of the float graph XNNPACK leaves to slower kernels in the quantized file ``data``."""
    model: Any = read_tables(data)
    return Counter(
        kind_of(model, op)
        for op, taken in zip(model.subgraphs[0].operators, placement.delegated, strict=False)
        if not taken and kind_of(model, op) in graph.kinds)


def without_left_out(plan: Plan, out: Mapping[str, int], float_out: Mapping[str, int]) -> Plan | None:
    """``plan`` with the kinds in float that cut its partitions and do not cut those of the float file; None if none.
    """
    kinds = [kind for kind, count in out.items()
             if count > float_out.get(kind, 0) and plan.kinds.get(kind, "float32") != "float32"]
    if not kinds:
        return None
    names = ", ".join(sorted(kinds))
    return plan.changed(f"{plan.name}, float {names}", **dict.fromkeys(kinds, "float32"))


def flips(plan: Plan, graph: Graph) -> list[Plan]:
    """``plan`` with one kind changed: into float, into static, or (with weights) into dynamic."""
    found = []
    for kind in graph.kinds:
        have = plan.kinds.get(kind, "float32")
        options: Iterable[Precision] = () if kind in _NEVER else ("static8", "float32")
        if kind in WEIGHTED and kind != "BATCH_MATMUL":
            options = ("static8", "dynamic8", "float32")
        found += [plan.changed(f"{plan.name}, {option} {kind}", **{kind: option})
                  for option in options if option != have]
    return found


def combined(plan: Plan, better: Sequence[Plan], name: str) -> Plan:
    """``plan`` with all the changes of ``better``, which each changed one kind of it; the first wins."""
    kinds = dict(plan.kinds)
    for other in reversed(better):
        kinds.update({kind: precision for kind, precision in other.kinds.items()
                      if plan.kinds.get(kind, "float32") != precision})
    return Plan(name, kinds, plan.keep)
