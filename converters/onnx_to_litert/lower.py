"""Lowering: ONNX nodes in order, each by the function that the list of ops names, into one LiteRT graph.

Nodes that cannot be lowered do not stop the walk: what depends on them is skipped, and all are reported together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgekit.artifacts import Layout, NodeLowering, TensorSpec
from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.elements import follow
from edgekit.converters.onnx_to_litert.folding import constant_value, fold
from edgekit.converters.onnx_to_litert.functions import FunctionBody, function_body, has_body
from edgekit.converters.onnx_to_litert.graph import DTYPES, Graph, Shape, Tensor, is_static, walk
from edgekit.converters.onnx_to_litert.half import HalfPrecision
from edgekit.converters.onnx_to_litert.io_layout import input_layout, output_layout
from edgekit.converters.onnx_to_litert.node import BodyRefused, Node, Refused
from edgekit.converters.onnx_to_litert.ops import LOWERINGS, REASONS
from edgekit.converters.onnx_to_litert.refusal import NoOwnForm
from edgekit.converters.onnx_to_litert.view import NHWC, View, identity, store
from edgekit.converters.source_lines import line_of
from edgekit.errors import BadModel, BadRecipe, InternalError, UnknownName, UnsupportedOps
from edgekit.recipe import ConvertRecipe

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Lowered", "counts", "lower"]

_STANDARD = ("", "ai.onnx")
#: what arithmetic on the attributes and shapes of a malformed node ends in
_BROKEN = (ArithmeticError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Lowered:
    """The graph, its interface as stored, which ops each node became (before any fusion), and each value by name."""

    graph: Graph
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: tuple[NodeLowering, ...]
    views: Mapping[str, View]

    def hints(self, examples: Mapping[str, Sequence[int]]) -> dict[int, int]:
        """The size to write for each dynamic dimension of an input: the example's, else 1 (a batch) or 64 (a side)."""
        sizes: dict[int, int] = {}
        for tensor, spec in zip(self.graph.inputs, self.inputs, strict=True):
            order = NHWC if spec.layout == "nhwc" else identity(tensor.rank)
            example = examples.get(tensor.name, ())
            for at, dim in enumerate(tensor.shape):
                if dim >= 0:
                    continue
                axis = order[at]
                usable = len(example) == tensor.rank and isinstance(example[axis], int) and example[axis] > 0
                sizes.setdefault(dim, example[axis] if usable else _SIDE if tensor.rank == 4 and axis >= 2 else 1)
        return sizes


#: the size written for a dynamic side of an image: large enough for any network to be allocated before a resize
_SIDE = 64


@dataclass(frozen=True, slots=True)
class _Refusal:
    node: str
    op_type: str
    reason: str
    remedy: str
    source: str


def lower(model: ir.Model, recipe: ConvertRecipe) -> Lowered:
    """``model`` as a LiteRT graph.

    Raises UnsupportedOps with every node that LiteRT cannot express, BadRecipe for shapes that do not fit the inputs.
    """
    return _Lowering(model, recipe, Builder(Graph("main"))).run()


class _Lowering:
    """One graph being lowered into ``builder``; with ``outer``, the body of one of that graph's nodes."""

    def __init__(
        self, model: ir.Model, recipe: ConvertRecipe, builder: Builder, outer: _Lowering | None = None
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.builder = builder
        self.graph = builder.graph
        self.outer = outer
        self.label: str = outer.label if outer else ""  # of the node whose function body this is
        self.views: dict[ir.Value, View] = {}
        self.refusals: list[_Refusal] = outer.refusals if outer else []
        self.nodes: list[NodeLowering] = outer.nodes if outer else []
        self.named: set[int] = outer.named if outer else set()
        self.half: HalfPrecision = _half_precision(builder, outer)
        self.opsets: Mapping[str, int] = outer.opsets if outer else model.opset_imports

    def run(self) -> Lowered:
        inputs = [self._input(value) for value in self._real_inputs()]
        for node in self.model.graph:
            self._node(node)
        if self.refusals:
            raise _unsupported(self.refusals)
        outputs = [self._output(value) for value in self.model.graph.outputs]
        views = {value.name: view for value, view in self.views.items() if value.name}
        return Lowered(self.graph, tuple(inputs), tuple(outputs), tuple(self.nodes), views)

    def body(self, builder: Builder, graph: ir.Graph, inputs: Sequence[View]) -> list[View]:
        """The outputs of ``graph``, the body of one of this graph's nodes, lowered into ``builder``.

        Raises BodyRefused when one of its nodes was refused.
        """
        inner = _Lowering(self.model, self.recipe, builder, self)
        inner.views.update(zip(graph.inputs, inputs, strict=True))
        for node in graph:
            inner._node(node)
        outputs = [inner._view(value) for value in graph.outputs]
        made = [view for view in outputs if view is not None]
        if len(made) < len(outputs):
            raise BodyRefused
        return made

    # -- interface ---------------------------------------------------------------------------------------------------

    def _real_inputs(self) -> list[ir.Value]:
        """Inputs without a default: before IR version 4 every initializer is listed as an input too."""
        values = [value for value in self.model.graph.inputs if not value.is_initializer()]
        names = [value.name or "" for value in values]
        for name in self.recipe.shapes:
            if name not in names:
                raise UnknownName.of("input", name, names)
        return values

    def _input(self, value: ir.Value) -> TensorSpec:
        shape = self._input_shape(value)
        dtype = _dtype(value)
        layout = input_layout(value, len(shape), self.recipe.io_layout)
        order = NHWC if layout == "nhwc" else identity(len(shape))
        tensor = Tensor(value.name or "", dtype, tuple(shape[axis] for axis in order))
        self.builder.note_shape(tensor)
        self.graph.inputs.append(tensor)
        self.named.add(id(tensor))
        self.views[value] = View(tensor, order)
        return _spec(tensor, layout)

    def _input_shape(self, value: ir.Value) -> Shape:
        name = value.name or ""
        if value.shape is None:
            if name in self.recipe.shapes:
                return self.recipe.shapes[name]
            raise BadModel(f"The input '{name}' has no shape.", f"Give it with --shape {name}=...")
        declared: list[int] = []
        for dim in value.shape:
            if isinstance(dim, int):
                declared.append(dim if dim >= 0 else self.builder.new_dim())
            else:
                declared.append(self.builder.new_dim(("input", dim.value)) if dim.value else self.builder.new_dim())
        wanted = self.recipe.shapes.get(name)
        if wanted is None:
            return tuple(declared)
        fits = len(wanted) == len(declared) and all(a < 0 or a == b for a, b in zip(declared, wanted, strict=True))
        if not fits:
            known = [dim if dim >= 0 else "?" for dim in declared]
            raise BadRecipe(f"The shape {list(wanted)} does not fit the input '{name}' {known}.")
        return wanted

    def _output(self, value: ir.Value) -> TensorSpec:
        view = self._view(value)
        if view is None:
            raise InternalError(f"The output '{value.name}' was never made.")
        if view.dtype.name not in DTYPES:
            raise UnsupportedOps(f"LiteRT has no tensors of {view.dtype.name}, as the output '{value.name}' is.")
        layout = output_layout(value, view.rank, self.recipe.io_layout)
        self.builder.source = value.name or ""
        tensor = store(self.builder, view, NHWC if layout == "nhwc" else None)
        if tensor.data is not None or tensor in self.graph.inputs or tensor in self.graph.outputs:
            tensor = self.builder.copy(tensor)
        tensor.name = value.name or ""
        self.graph.outputs.append(tensor)
        return _spec(tensor, layout)

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _view(self, value: ir.Value) -> View | None:
        if value not in self.views and value.const_value is not None:
            data = value.const_value.numpy()
            self.views[value] = View.of(Tensor(value.name or "const", data.dtype, data.shape, data))
        view = self.views.get(value)
        if view is not None and 0 in view.shape and view.const is None and is_static(view.shape):
            # nothing depends on what is in it, and few kernels take it
            view = self.views[value] = View.of(self.builder.const(np.zeros(view.shape, view.dtype)))
        return view if view is not None or self.outer is None else self.outer._view(value)

    def _node(self, node: ir.Node) -> None:
        opset = self.opsets.get(node.domain, self.opsets.get("", 0))
        self.builder.source = self.label or _label(node)
        if node.op_type == "Constant" and node.domain in _STANDARD and (value := constant_value(node)) is not None:
            name = node.outputs[0].name or "const"
            self.views[node.outputs[0]] = View.of(Tensor(name, value.dtype, value.shape, value))
            return
        views = [None if value is None else self._view(value) for value in node.inputs]
        if any(value is not None and view is None for value, view in zip(node.inputs, views, strict=True)):
            # it depends on a node that was refused; what is said here holds whatever its inputs would have been
            if not (node.domain in _STANDARD and (node.op_type in LOWERINGS or has_body(node, opset))):
                unknown = _unknown(node)
                self._refuse(node, unknown.reason, unknown.remedy)
            return
        start = len(self.graph.ops)
        try:
            if self._folded(node, views, opset):
                return
            made = self._lowered(node, views, opset)
        except BodyRefused:
            return  # by nodes that are on the list already
        except Refused as refusal:
            self._refuse(node, refusal.reason, refusal.remedy)
            return
        except (OverflowError, MemoryError) as error:
            raise BadModel(f"The node '{self.builder.source}' ({node.op_type}) has absurd sizes: {error}.") from error
        except _BROKEN as error:
            what = f"{type(error).__name__}: {error}"
            raise InternalError(f"Lowering '{self.builder.source}' ({node.op_type}) failed: {what}.") from error
        self._keep(node, made, views, opset, start)

    def _lowered(self, node: ir.Node, views: list[View | None], opset: int) -> list[View]:
        """The results of ``node`` by its lowering, else by the function body that the standard gives for its op."""
        refusal: Refused | None = None
        if node.domain in _STANDARD and node.op_type in LOWERINGS:
            wide = self.half.widen(self.builder, node, views)
            try:
                made = LOWERINGS[node.op_type](self.builder, Node(node, wide, opset, self.body))
            except Refused as error:
                refusal = error
            else:
                return self.half.narrow(self.builder, node, opset, views, [made] if isinstance(made, View) else made)
        function = function_body(node, views, opset)
        if function is not None:
            try:
                return self._function(node, function, [view for view in views if view is not None])
            except Refused as error:
                raise error if refusal is None or isinstance(refusal, NoOwnForm) else refusal from None
        raise refusal or _unknown(node)

    def _function(self, node: ir.Node, function: FunctionBody, inputs: Sequence[View]) -> list[View]:
        """The outputs of ``function``; its nodes are accounted for as the one that they stand for."""
        inner = _Lowering(self.model, self.recipe, self.builder, self)
        inner.opsets, inner.label = {**self.opsets, **function.opsets}, self.builder.source
        inner.nodes, inner.refusals = [], []
        inner.views.update(zip(function.graph.inputs, inputs, strict=True))
        for part in function.graph:
            inner._node(part)
        for refused in inner.refusals:
            raise Refused(f"{refused.op_type}, of which it is made, is not possible: {refused.reason}", refused.remedy)
        made: list[View] = []
        for value, output in zip(node.outputs, function.graph.outputs, strict=False):
            view = inner._view(output)
            if view is None and value.name:
                raise Refused(f"its output '{output.name}' is not there in this form")
            made.append(view or made[0])
        return made

    def _keep(self, node: ir.Node, made: list[View], views: list[View | None], opset: int, start: int) -> None:
        fresh = {id(tensor) for op in self.graph.ops[start:] for tensor in op.outputs}
        for value, view in zip(node.outputs, made, strict=False):
            self.views[value] = view
            tensor = view.tensor
            if tensor.elements is None and tensor.data is None and tensor.dtype.kind == "i":
                tensor.elements = follow(self.builder, Node(node, views, opset), view)
            if id(tensor) in fresh and id(tensor) not in self.named and value.name:
                tensor.name = value.name
                self.named.add(id(tensor))
        made_ops = self.graph.ops[start:]
        inside = (op for graph in walk(inner for op in made_ops for inner in op.subgraphs()) for op in graph.ops)
        kinds = tuple(op.kind for op in (*made_ops, *inside))
        how: Literal["ops", "view"] = "ops" if kinds else "view"
        self._account(node, kinds, how)

    def _folded(self, node: ir.Node, views: list[View | None], opset: int) -> bool:
        data = [None if view is None else view.const for view in views]
        if not views or any(view is not None and array is None for view, array in zip(views, data, strict=True)):
            return False
        results = fold(node, data, opset)
        if results is None:
            return False
        for value, result in zip((value for value in node.outputs if value.name), results, strict=True):
            self.views[value] = View.of(Tensor(value.name or "const", result.dtype, result.shape, result))
        self._account(node, (), "folded")
        return True

    def _account(self, node: ir.Node, kinds: tuple[str, ...], how: Literal["ops", "view", "folded"]) -> None:
        line = line_of(node.metadata_props)
        self.nodes.append(NodeLowering(self.builder.source, node.op_type, kinds, line, how))

    def _refuse(self, node: ir.Node, reason: str, remedy: str) -> None:
        name = _label(node)
        self.refusals.append(_Refusal(name, node.op_type, reason, remedy, line_of(node.metadata_props)))


def _half_precision(builder: Builder, outer: _Lowering | None) -> HalfPrecision:
    """What is known of float16 tensors: in a subgraph, what its surroundings know and more."""
    if outer is None:
        return HalfPrecision()
    return outer.half if outer.builder is builder else HalfPrecision(outer.half)


def _unknown(node: ir.Node) -> Refused:
    if node.domain in _STANDARD:
        general = "EdgeKit has no lowering for this op", "Replace it by other ops in the source network."
        return Refused(*REASONS.get(node.op_type, general))
    reason = f"it belongs to the domain '{node.domain}', whose ops EdgeKit does not know"
    return Refused(reason, "Replace it by standard ONNX ops before the export.")


def _label(node: ir.Node) -> str:
    """What to call ``node`` in messages: its name, else that of its first output, else its op."""
    return node.name or (node.outputs[0].name if node.outputs else "") or node.op_type


def _unsupported(refusals: list[_Refusal]) -> UnsupportedOps:
    lines = []
    for refusal in refusals:
        where = f" [{refusal.source}]" if refusal.source else ""
        what = f"{refusal.reason}. {refusal.remedy}".rstrip()
        lines.append(f"  - node '{refusal.node}' ({refusal.op_type}){where}: {what}")
    count = len(refusals)
    return UnsupportedOps("\n".join([f"{count} node{'s' * (count > 1)} cannot be lowered to LiteRT:", *lines]))


def _dtype(value: ir.Value) -> np.dtype[np.generic]:
    if value.dtype is None:
        raise BadModel(f"The input '{value.name}' has no element type.")
    dtype = np.dtype(value.dtype.numpy())
    if dtype.name not in DTYPES:
        known = ", ".join(sorted(DTYPES))
        raise BadModel(f"LiteRT takes no {dtype.name}, as the input '{value.name}' is.", f"Known: {known}.")
    return dtype


def _spec(tensor: Tensor, layout: Layout) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.dtype.name, tuple(max(dim, -1) for dim in tensor.shape), layout)


def counts(graphs: Iterable[Graph]) -> Mapping[str, int]:
    """How many ops of each kind the graphs and their subgraphs hold, most frequent first."""
    found = Counter(op.kind for graph in walk(graphs) for op in graph.ops)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
