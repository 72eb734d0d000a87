"""ONNX -> LiteRT: import, rewrite, lower with layout bookkeeping, fuse, write.

Stage by stage: ``parse_onnx`` (checks) -> ``LITERT_PASSES`` (graph rewrites) -> ``lower`` (ops and layouts) -> ``fuse``
(activations, biases) -> ``write`` (flatbuffer).
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from edgekit.artifacts import Conversion, LiteRTModel, OnnxModel
from edgekit.converters.onnx_model import complaint_of_checker, parse_onnx
from edgekit.converters.onnx_to_litert.fuse import fuse
from edgekit.converters.onnx_to_litert.lower import counts, lower
from edgekit.converters.onnx_to_litert.writer import SIGNATURE, write
from edgekit.converters.passes import LITERT_PASSES, run_passes
from edgekit.errors import BadModel, InternalError
from edgekit.recipe import ConvertRecipe

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["SIGNATURE", "to_litert"]


def to_litert(model: OnnxModel, recipe: ConvertRecipe = ConvertRecipe()) -> Conversion:
    """``model`` as a LiteRT flatbuffer, with the account of what each node became. Nothing is run.

    Raises UnsupportedOps (all nodes at once), BadModel, BadRecipe, UnknownName (a shape for an unknown input).
    """
    start = time.perf_counter()
    graph_model = _import(model)
    try:
        run_passes(graph_model, LITERT_PASSES)
        lowered = lower(graph_model, recipe)
    except InternalError as error:
        complaint = complaint_of_checker(model.data)
        if complaint:
            raise BadModel(f"The ONNX graph is malformed: {complaint}") from error
        raise
    fuse(lowered.graph)
    data = write({SIGNATURE: lowered.graph}, lowered.hints(_example_shapes(graph_model)))
    return Conversion(
        model=LiteRTModel(data=data, inputs=lowered.inputs, outputs=lowered.outputs),
        nodes=lowered.nodes,
        op_counts=counts(lowered.graph),
        seconds=time.perf_counter() - start,
    )


def _import(model: OnnxModel) -> ir.Model:
    import onnx_ir as ir

    proto = parse_onnx(model.data, self_contained=True)
    try:
        return ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, KeyError, TypeError) as error:
        raise BadModel(f"The ONNX graph cannot be read: {error}.", "Check it with onnx.checker.") from error


def _example_shapes(model: ir.Model) -> dict[str, list[int]]:
    """The shapes that the exporter saw, as sizes to write for dynamic dimensions; {} where the file has none."""
    text = model.metadata_props.get("edgekit.example_shapes", "{}")
    try:
        shapes = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return shapes if isinstance(shapes, dict) else {}
