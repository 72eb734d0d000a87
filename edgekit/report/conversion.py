"""One account of a conversion: each ONNX node, what became of it, where that runs, and how far it is off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgekit import isolate
from edgekit.artifacts import Array, LiteRTModel, OnnxModel, OutputError
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.converters.onnx_to_litert.probe import Probe, probe
from edgekit.errors import BadModel, InternalError
from edgekit.parity import compare_outputs, reference_sample, run_isolated, with_fair_tolerance
from edgekit.recipe import ConvertRecipe
from edgekit.report.accelerators import OpFacts
from edgekit.report.accelerators.gpu import GPU
from edgekit.report.placement import place
from edgekit.report.types import ConversionReport, NodeReport

__all__ = ["report_conversion"]


def report_conversion(model: OnnxModel, recipe: ConvertRecipe = ConvertRecipe()) -> ConversionReport:
    """The report on lowering ``model`` to LiteRT by ``recipe``; engines run in child processes, on random inputs.

    Raises what ``to_litert`` raises, and BadModel or EngineError where an engine refuses one of the graphs.
    """
    recipe = with_fair_tolerance(recipe, model)
    conversion = to_litert(model, recipe)
    assert isinstance(conversion.model, LiteRTModel)
    placement = place(conversion.model.data)
    opened = probe(model, recipe)
    if len(placement.delegated) != len(opened.ops):
        raise InternalError(f"{len(placement.delegated)} ops in the engine, {len(opened.ops)} in the file.")
    outside: dict[str, list[str]] = {}
    hints: dict[str, list[str]] = {}
    shapes = _shapes_by_op(conversion.model)
    for op, delegated, shape in zip(opened.ops, placement.delegated, shapes, strict=True):
        if not delegated:
            outside.setdefault(op.node, []).append(op.kind)
        if hint := _gpu_hint(op.kind, shape):
            hints.setdefault(op.node, []).append(hint)
    nodes = tuple(
        NodeReport(
            node.node, node.op_type, node.how, node.target_ops, node.source,
            tuple(outside.get(node.node, ())), tuple(dict.fromkeys(hints.get(node.node, ()))),
        )
        for node in conversion.nodes
    )  # fmt: skip
    layers = _layers(model, recipe, opened)
    return ConversionReport(
        ops=len(opened.ops),
        partitions=placement.partitions,
        not_xnnpack=dict(Counter(kind for kinds in outside.values() for kind in kinds)),
        nodes=nodes,
        layers=layers,
        first_off=next((layer for layer in layers if not layer.passed), None),
        worst=max(layers, key=_badness, default=None),
    )


def _shapes_by_op(model: LiteRTModel) -> list[list[list[int]]]:
    """The shapes of the float tensors of each op of the main subgraph; -1 is dynamic."""
    from edgekit.converters.onnx_to_litert.schema import schema

    tables = schema().ModelT.InitFromObj(schema().Model.GetRootAs(model.data, 0)).subgraphs[0]

    def shape(index: int) -> list[int]:
        tensor = tables.tensors[index]
        chosen = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        return [] if chosen is None else [int(dim) for dim in chosen]

    return [[shape(index) for index in (*op.inputs, *op.outputs) if index >= 0] for op in tables.operators]


def _gpu_hint(kind: str, shapes: Sequence[Sequence[int]]) -> str:
    dynamic = any(size < 0 for shape in shapes for size in shape)
    return GPU.why_not(OpFacts(name="", kind=kind, ranks=tuple(map(len, shapes)), dynamic=dynamic))


def _badness(layer: OutputError) -> float:
    return layer.max_abs_diff / layer.allowed_abs_diff if layer.allowed_abs_diff else float(not layer.passed)


def _layers(model: OnnxModel, recipe: ConvertRecipe, opened: Probe) -> tuple[OutputError, ...]:
    """Every float value that both graphs have, in the order in which the ONNX nodes make them."""
    inputs, _ = reference_sample(model, recipe.shapes)
    wanted = isolate.call("edgekit.report.conversion:_all_values", model.data, inputs, tuple(opened.orders))
    if not isinstance(wanted, dict):
        raise InternalError("The child process sent no values.")
    specs = (opened.model.inputs, opened.model.outputs)
    stored = run_isolated("litert", opened.model.data, specs, inputs, "The LiteRT model with its inner values opened")
    got = {name: array.transpose(np.argsort(opened.orders[name])) for name, array in stored.items() if name in wanted}
    return compare_outputs({name: array for name, array in wanted.items() if name in got}, got, recipe.tolerance)


def _all_values(data: bytes, inputs: dict[str, Array], names: tuple[str, ...]) -> dict[str, Array]:
    """ONNX Runtime's values of the inner tensors ``names``, without its graph optimisations (which remove them)."""
    import onnx
    import onnxruntime

    proto = onnx.load_model_from_string(data)
    made = [output for node in proto.graph.node for output in node.output if output in set(names)]
    present = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made if name not in present)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
        results = session.run(made, inputs)
    except Exception as error:
        raise BadModel(f"ONNX Runtime cannot run the graph with its inner values opened: {error}") from error
    return dict(zip(made, results, strict=True))
