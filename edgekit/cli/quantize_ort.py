"""What ``edgekit quantize`` does otherwise for ONNX Runtime, and for graphs that are quantized already."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import msgspec

from edgekit.atomic import write_atomically
from edgekit.errors import BadModel, BadRecipe

if TYPE_CHECKING:
    from edgekit.artifacts import OrtModel
    from edgekit.cli.quantize import Quantize, Request
    from edgekit.converters.quantize import Goal, Samples, Search
    from edgekit.recipe import QuantRecipe

__all__ = ["by_recipe", "float_model", "kept", "search"]


def float_model(request: Request) -> OrtModel:
    """The source as it is quantized for ONNX Runtime. Raises BadModel, BadRecipe."""
    from edgekit.converters.onnx_model import load_onnx
    from edgekit.converters.quantize import ort_float_model

    if request.source.suffix.lower() != ".onnx":
        raise BadModel(f"'{request.source}' is not an .onnx file, which ONNX Runtime needs.",
                       "Give the .onnx file, or --to litert.")
    if request.output.suffix.lower() != ".onnx":
        raise BadRecipe(f"A quantized file for ONNX Runtime is an .onnx file, not '{request.output.name}'.",
                        "Give an -o that ends in .onnx.")
    if request.base.io != "float32":
        raise BadRecipe("ONNX Runtime files keep float32 inputs and outputs.", "Leave out --io.")
    return ort_float_model(load_onnx(request.source), request.shapes)


def search(request: Request, model: OrtModel, samples: Samples, goal: Goal) -> Search:
    """The search, with the integers of the CPU that was asked for."""
    from edgekit.converters.quantize import search_ort, target_cpu

    return search_ort(model, samples, goal, msgspec.structs.replace(request.base, cpu=target_cpu(request.cpu)))


def by_recipe(
    request: Request, model: OrtModel, recipe: QuantRecipe, samples: Samples | None
) -> tuple[QuantRecipe, OrtModel]:
    """The recipe with what it lacked, and the file it makes; with ``samples``, ranges are found on them."""
    from edgekit.converters.quantize import calibrate_ort, quantize_ort, target_cpu

    recipe = msgspec.structs.replace(recipe, cpu=recipe.cpu or target_cpu(request.cpu))
    if samples is not None:
        recipe = calibrate_ort(model, recipe, samples)
    return recipe, quantize_ort(model, recipe)


def kept(request: Request) -> Quantize | None:
    """The source converted as it is, where its graph quantizes values itself; None where it does not."""
    from edgekit.artifacts import LiteRTModel, OrtModel
    from edgekit.cli.quantize import Quantize
    from edgekit.converters.onnx_model import load_onnx
    from edgekit.converters.quantize import is_quantized
    from edgekit.pipeline import convert
    from edgekit.recipe import ConvertRecipe

    started = time.perf_counter()
    if request.source.suffix.lower() != ".onnx":
        return None
    source = load_onnx(request.source)
    if not is_quantized(source):
        return None
    made = convert(source, request.to, None, ConvertRecipe(shapes=request.shapes)).model
    assert isinstance(made, LiteRTModel | OrtModel)
    write_atomically(request.output, made.data)
    return Quantize(
        source=str(request.source), output=str(request.output), size_bytes=len(made.data),
        sha256=hashlib.sha256(made.data).hexdigest(), float_size_bytes=len(source.data), float_partitions=None,
        inputs=made.inputs, outputs=made.outputs, chosen=None, candidates=(), steps=(), layers=(),
        notes=(f"'{request.source}' is quantized already, as after quantization-aware training: its scales are kept, "
               "and it was only converted. Data, recipe and objective were not used.",),
        seconds=time.perf_counter() - started,
    )
