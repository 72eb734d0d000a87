"""ONNX -> LiteRT: import, rewrite, lower with layout bookkeeping, fuse, write.

Stage by stage: ``parse_onnx`` (checks) -> ``LITERT_PASSES`` (graph rewrites) -> ``lower`` (ops and layouts) -> ``fuse``
(activations, biases) -> ``write`` (flatbuffer).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgekit.artifacts import Conversion, LiteRTModel, OnnxModel, Signature
from edgekit.converters.onnx_model import complaint_of_checker, parse_onnx
from edgekit.converters.onnx_to_litert.fuse import fuse
from edgekit.converters.onnx_to_litert.lower import Lowered, counts, lower
from edgekit.converters.onnx_to_litert.writer import SIGNATURE, write
from edgekit.converters.passes import LITERT_PASSES, run_passes
from edgekit.errors import BadModel, InternalError
from edgekit.recipe import ConvertRecipe

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["SIGNATURE", "pack_signatures", "to_litert"]


def to_litert(model: OnnxModel, recipe: ConvertRecipe = ConvertRecipe()) -> Conversion:
    """``model`` as a LiteRT flatbuffer, with the account of what each node became. Nothing is run.

    Raises UnsupportedOps (all nodes at once), BadModel, BadRecipe, UnknownName (a shape for an unknown input).
    """
    return pack_signatures({SIGNATURE: (model, recipe)})


def pack_signatures(parts: Mapping[str, tuple[OnnxModel, ConvertRecipe]]) -> Conversion:
    """Several graphs in one file, a signature each, equal weights stored once.

    For resolutions of one network (the same model, other ``shapes``), its stages (``edgekit.graph.cut``), or float and
    quantized forms side by side. ``nodes`` of the account are those of all parts. Raises as ``to_litert``.
    """
    start = time.perf_counter()
    lowered: dict[str, Lowered] = {}
    for name, (model, recipe) in parts.items():
        graph_model = _import(model)
        run_passes(graph_model, LITERT_PASSES)
        lowered[name] = _lower(graph_model, model, recipe)
        fuse(lowered[name].graph)
        lowered[name].graph.name = name if len(parts) > 1 else lowered[name].graph.name
        lowered[name].graph.sizes = lowered[name].hints(_example_shapes(graph_model))
    data = write({name: part.graph for name, part in lowered.items()})
    signatures = tuple(Signature(name, part.inputs, part.outputs) for name, part in lowered.items())
    return Conversion(
        model=LiteRTModel(data, signatures[0].inputs, signatures[0].outputs, signatures),
        nodes=tuple(node for part in lowered.values() for node in part.nodes),
        op_counts=counts([part.graph for part in lowered.values()]),
        seconds=time.perf_counter() - start,
    )


def _lower(graph_model: ir.Model, model: OnnxModel, recipe: ConvertRecipe) -> Lowered:
    """``graph_model``, imported from ``model``, lowered; a malformed graph is told apart from our bugs."""
    try:
        return lower(graph_model, recipe)
    except InternalError as error:
        complaint = complaint_of_checker(model.data)
        if complaint:
            raise BadModel(f"The ONNX graph is malformed: {complaint}") from error
        raise


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
