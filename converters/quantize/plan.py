"""What to try: a precision for each kind of op, proposed from what XNNPACK takes of the files made so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from edgekit.converters.quantize.flatbuffer import kind_of, name_of, read_tables
from edgekit.recipe import Precision, QuantRule
from edgekit.report.placement import Placement

__all__ = [
    "ONNX_FOLLOWING", "ONNX_WEIGHTED", "WEIGHTED", "Graph", "Plan", "bases", "combined", "flips", "left_out", "look_at",
    "without_left_out",
]

#: kinds whose weights are most of a network, and which have forms that quantize activations at run time
WEIGHTED = ("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
#: kinds without arithmetic on values, or without a form in integers
_NEVER = frozenset({"SHAPE", "WHILE", "IF", "CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CAST",
                    "DEQUANTIZE", "QUANTIZE", "FILL", "RANGE"})
#: kinds whose form follows their neighbours' and costs next to nothing
_VIEWS = frozenset({"EXPAND_DIMS", "RESHAPE", "SQUEEZE"})
#: the same in ONNX's names: kinds with weights, and kinds that become part of the op before them or follow it
ONNX_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ONNX_FOLLOWING = ("Clip", "Flatten", "Relu", "Reshape", "Squeeze", "Unsqueeze")


class Graph(msgspec.Struct, frozen=True):
    """What the search knows of the float file: kinds of ops, and of each op the kind and the first tensor it makes."""

    kinds: tuple[str, ...]
    ops: tuple[tuple[str, str], ...]


class Plan(msgspec.Struct, frozen=True):
    """A precision for each kind; float32 where none is given.

    ``cut``: tensors whose ops are not made static, since they would cut XNNPACK's partitions; ``keep``: tensors whose
    ops stay float32 for accuracy, with their weights as ``keep_as``. ``mended``: rounding of weights is adaptive, and
    biases are corrected; ``equalized``: channels are scaled before that.
    """

    kinds: Mapping[str, Precision]
    cut: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    keep_as: Literal["float32", "float16", "weight8"] = "float32"
    mended: bool = False
    equalized: bool = False

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.kinds.items())), self.cut, self.keep, self.keep_as, self.mended,
                     self.equalized))

    @property
    def name(self) -> str:
        """The plan in words: the precision of most kinds, and what differs. Equal plans have equal names."""
        forms = Counter(self.kinds.values())
        if not forms:
            return "float32"
        main = max(sorted(forms), key=lambda form: forms[form])
        parts = [f"{form} {'+'.join(sorted(kind for kind, have in self.kinds.items() if have == form))}"
                 for form in sorted(forms) if form != main]
        same = sorted(kind for kind, have in self.kinds.items() if have == main)
        weighted = [kind for kind in same if kind in WEIGHTED or kind in ONNX_WEIGHTED]
        telling = [kind for kind in same if kind not in ONNX_FOLLOWING] or same
        head = f"{main} {'+'.join(telling)}" if len(same) < 3 or telling == weighted else main
        counts = ((len(self.cut), "not static"), (len(self.keep), self.keep_as))
        mended = ["equalised channels"] * self.equalized + ["adaptive rounding, corrected biases"] * self.mended
        return ", ".join([head, *parts, *(f"{count} ops {what}" for count, what in counts if count), *mended])

    def rules(self) -> tuple[QuantRule, ...]:
        """The plan as rules of a recipe."""
        by_precision: dict[Precision, list[str]] = {}
        for kind, precision in sorted(self.kinds.items()):
            if precision != "float32":
                by_precision.setdefault(precision, []).append(kind)
        static = [QuantRule("static8", tuple(by_precision.pop("static8")))] if "static8" in by_precision else []
        others = [QuantRule(precision, tuple(kinds)) for precision, kinds in sorted(by_precision.items())]
        # A later rule wins: what must not be static may still have weights in another form.
        kept = _float32(self.keep)
        if kept and self.keep_as != "float32":
            kept.append(QuantRule(self.keep_as, WEIGHTED, self.keep))
        return (*static, *_float32(self.cut), *others, *kept)

    def changed(
        self, kinds: Mapping[str, Precision], cut: tuple[str, ...] = (), keep: tuple[str, ...] = ()
    ) -> Plan:
        """The plan with other precisions for some kinds, and more tensors cut or kept."""
        return Plan({**self.kinds, **kinds}, (*self.cut, *cut), (*self.keep, *keep), self.keep_as, self.mended,
                    self.equalized)


def _float32(tensors: tuple[str, ...]) -> list[QuantRule]:
    return [QuantRule("float32", (), tensors)] if tensors else []


def look_at(data: bytes) -> Graph:
    """The main subgraph of ``data``; its tensors must have unique names."""
    model = read_tables(data)
    tensors = model.subgraphs[0].tensors
    ops = tuple((kind_of(model, op), name_of(tensors[op.outputs[0]]))
                for op in model.subgraphs[0].operators if len(op.outputs))
    inner = {kind_of(model, op) for subgraph in model.subgraphs[1:] for op in subgraph.operators}
    return Graph(tuple(sorted({kind for kind, _ in ops} | (inner & set(WEIGHTED)))), ops)


def bases(graph: Graph) -> list[Plan]:
    """Where to start: everything static, all weights in each form, only those with weights static."""
    weighted = [kind for kind in graph.kinds if kind in WEIGHTED]
    everything = Plan(dict.fromkeys([kind for kind in graph.kinds if kind not in _NEVER], "static8"))
    if not weighted:
        return [everything]
    static = Plan(dict.fromkeys([kind for kind in weighted if kind != "BATCH_MATMUL"], "static8"))
    plans = [everything, Plan(dict.fromkeys(weighted, "float16")), Plan(dict.fromkeys(weighted, "weight8")),
             Plan(dict.fromkeys(weighted, "dynamic8")), static]
    if "FULLY_CONNECTED" in weighted:
        plans += [static.changed({"FULLY_CONNECTED": "dynamic8"}), Plan({"FULLY_CONNECTED": "dynamic8"})]
    return plans


def small(graph: Graph) -> list[Plan]:
    """What to try besides for the smallest file: int4 weights, everywhere or only in linear layers."""
    weighted = [kind for kind in graph.kinds if kind in WEIGHTED]
    if not weighted:
        return []
    everywhere: dict[str, Precision] = dict.fromkeys(weighted, "weight4")
    eight: dict[str, Precision] = dict.fromkeys(weighted, "weight8")
    plans = [Plan(everywhere), Plan(everywhere, mended=True), Plan(dict.fromkeys(weighted, "dynamic4")),
             Plan(eight, mended=True)]
    if "FULLY_CONNECTED" in weighted and len(weighted) > 1:
        mixed: dict[str, Precision] = {**eight, "FULLY_CONNECTED": "weight4"}
        plans += [Plan(mixed), Plan(mixed, mended=True)]
    return plans


def left_out(data: bytes, placement: Placement, graph: Graph) -> tuple[tuple[str, str], ...]:
    """Kind and first tensor of the ops that XNNPACK leaves to slower kernels in ``data``, made from the float graph."""
    model: Any = read_tables(data)
    tensors = model.subgraphs[0].tensors
    return tuple(
        (kind_of(model, op), name_of(tensors[op.outputs[0]]))
        for op, taken in zip(model.subgraphs[0].operators, placement.delegated, strict=False)
        if not taken and len(op.outputs) and kind_of(model, op) in graph.kinds)


def without_left_out(
    plan: Plan, out: Sequence[tuple[str, str]], float_out: Sequence[tuple[str, str]], graph: Graph
) -> list[Plan]:
    """``plan`` with what cuts its partitions, and does not cut those of the float file, in float.

    First whole kinds, then, where some ops of a kind are taken and others not, those ops only. [] when nothing cuts.
    """
    was = {tensor for _, tensor in float_out}
    known = {tensor for _, tensor in graph.ops}
    cutting = [(kind, tensor) for kind, tensor in out
               if tensor not in was and plan.kinds.get(kind, "float32") != "float32" and tensor not in plan.cut]
    if not cutting:
        return []
    all_of, cut_of = Counter(kind for kind, _ in graph.ops), Counter(kind for kind, _ in cutting)
    whole: dict[str, Precision] = {kind: "float32" for kind in cut_of if cut_of[kind] == all_of[kind]}
    plans = [plan.changed(dict.fromkeys(cut_of, "float32"))]
    if len(whole) < len(cut_of):
        some = tuple(tensor for kind, tensor in cutting if kind not in whole and tensor in known)
        plans.append(plan.changed(whole, cut=some))
    return plans


def flips(plan: Plan, graph: Graph, cut: Iterable[str] = ()) -> list[Plan]:
    """``plan`` with one kind changed: into float, into static, or (with weights) into dynamic.

    Kinds in ``cut`` are not made static: XNNPACK was seen to leave them out.
    """
    found = []
    for kind in graph.kinds:
        have = plan.kinds.get(kind, "float32")
        options: list[Precision] = [] if kind in _NEVER or kind in _VIEWS else ["float32"]
        if options and kind not in cut:
            options.append("static8")
        if kind in WEIGHTED:
            options.append("dynamic8")
        found += [plan.changed({kind: option}) for option in options if option != have]
    return found


def combined(plan: Plan, better: Sequence[Plan]) -> Plan:
    """``plan`` with all the changes of ``better``, which each changed one kind of it; the first wins."""
    kinds = dict(plan.kinds)
    for other in reversed(better):
        kinds.update({kind: precision for kind, precision in other.kinds.items()
                      if plan.kinds.get(kind, "float32") != precision})
    return Plan(kinds, plan.cut, plan.keep, plan.keep_as, plan.mended)
