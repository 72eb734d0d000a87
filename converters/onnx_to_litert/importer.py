"""ONNX bytes -> the graph that is lowered: parsed, checked, rewritten; and the blame when that fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgekit.artifacts import OnnxModel
from edgekit.converters.onnx_model import MAX_DIM, complaint_of_checker, parse_onnx
from edgekit.converters.onnx_to_litert.lower import Lowered, lower
from edgekit.converters.passes import LITERT_PASSES, run_passes
from edgekit.errors import BadModel, InternalError
from edgekit.recipe import ConvertRecipe

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["example_shapes", "import_model", "lower_checked"]


def import_model(model: OnnxModel) -> ir.Model:
    """``model`` as a graph, after ``LITERT_PASSES``. Raises BadModel."""
    import onnx_ir as ir

    proto = parse_onnx(model.data, self_contained=True)
    try:
        graph = ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, KeyError, TypeError) as error:
        raise BadModel(f"The ONNX graph cannot be read: {error}.", "Check it with onnx.checker.") from error
    try:
        return run_passes(graph, LITERT_PASSES)[0]
    except InternalError as error:
        raise _blamed(model, error) from error


def lower_checked(graph: ir.Model, model: OnnxModel, recipe: ConvertRecipe) -> Lowered:
    """``graph``, imported from ``model``, lowered; a malformed graph is told apart from our bugs."""
    try:
        return lower(graph, recipe)
    except InternalError as error:
        raise _blamed(model, error) from error


def _blamed(model: OnnxModel, error: InternalError) -> BadModel | InternalError:
    """BadModel when ONNX's checker finds ``model`` malformed, else ``error``, which is then our own."""
    complaint = complaint_of_checker(model.data)
    return BadModel(f"The ONNX graph is malformed: {complaint}") if complaint else error


def example_shapes(model: ir.Model) -> dict[str, list[int]]:
    """The shapes that the exporter saw, as sizes to write for dynamic dimensions; {} where the file has none."""
    text = model.metadata_props.get("edgekit.example_shapes", "{}")
    try:
        shapes = json.loads(text)
    except json.JSONDecodeError:
        return {}
    if not isinstance(shapes, dict):
        return {}
    return {name: sizes for name, sizes in shapes.items() if isinstance(sizes, list) and all(map(_is_size, sizes))}


def _is_size(value: object) -> bool:
    return isinstance(value, int) and 0 < value <= MAX_DIM
