"""Giving dynamic inputs of an ONNX graph a size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgekit.errors import BadRecipe, UnknownName

if TYPE_CHECKING:
    import onnx

__all__ = ["fix_shapes"]


def fix_shapes(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write ``shapes`` (by input name, in ONNX order) into the inputs of ``proto``, in place.

    A symbol that gets a number gets it wherever else it stands alone ("height" in an output); the shapes of
    intermediate values, which may hold expressions of it, are dropped for the engine to infer.
    Raises UnknownName for an input that is not there, BadRecipe for a shape that contradicts the graph's.
    """
    if not shapes:
        return
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = {value.name: value for value in proto.graph.input if value.name not in weights}
    symbols: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in inputs:
            raise UnknownName.of("input", name, inputs)
        _fix(inputs[name], shape, symbols)
    for value in (*inputs.values(), *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = symbols[dim.dim_param]
            elif dim.dim_param and value.name not in inputs:
                dim.dim_param = ""
    del proto.graph.value_info[:]


def _fix(value: onnx.ValueInfoProto, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        for dim in shape:
            tensor.shape.dim.add().dim_value = dim
        return
    known = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    if len(known) != len(shape) or any(have >= 0 and have != want for have, want in zip(known, shape, strict=True)):
        shown = [have if have >= 0 else "?" for have in known]
        raise BadRecipe(f"The shape {list(shape)} does not fit the input '{value.name}' {shown}.")
    for dim, want in zip(tensor.shape.dim, shape, strict=True):
        if dim.dim_param and symbols.setdefault(dim.dim_param, want) != want:
            raise BadRecipe(
                f"The shapes give '{dim.dim_param}' the sizes {symbols[dim.dim_param]} and {want}.",
                "The graph says that both axes have the same size.",
            )
        dim.dim_value = want
