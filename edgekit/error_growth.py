"""Where the error of a quantized file enters and how it grows, layer by layer, against the float network."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from edgekit.artifacts import LiteRTModel, VerifyReport
from edgekit.errors import BadModel, BadRecipe
from edgekit.recipe import ConvertRecipe

if TYPE_CHECKING:
    from edgekit.converters.quantize import Samples
    from edgekit.converters.quantize.sensitivity import Layer

__all__ = ["LOW_DB", "ErrorGrowth", "LayerGrowth", "check"]

#: a value whose noise has a hundredth of its power
LOW_DB = 20.0
#: what an output of a quantized file may be off, as a part of its range
QUANTIZED_TOLERANCE = 0.1
_SAMPLES = 8
_SHOWN = 5


class LayerGrowth(msgspec.Struct, frozen=True):
    """One op of the float network in order of computation, against the same tensor of the quantized file.

    ``sqnr_db``: of its first result. ``input_sqnr_db``: of its noisiest operand; null where none has noise.
    ``added_sqnr_db``: what the ratio would be if its operands had no noise; null where it adds none.
    """

    tensor: str
    kind: str
    sqnr_db: float
    input_sqnr_db: float | None
    added_sqnr_db: float | None
    low: float
    high: float
    outlier_channels: int


class ErrorGrowth(msgspec.Struct, frozen=True):
    """``first_below_20_db``: the first tensors, in order of computation, below 20 dB though no operand is.

    ``compared`` of ``ops`` ops have results with the same name in both files; ``notes`` say what is missing.
    """

    samples: int
    ops: int
    compared: int
    layers: tuple[LayerGrowth, ...]
    first_below_20_db: tuple[str, ...]
    notes: tuple[str, ...]


def check(
    path: Path, against: Path | None, public_key: Path | None, require_signature: bool, recipe: ConvertRecipe,
    data: str | None = None,
) -> tuple[tuple[VerifyReport, ...], ErrorGrowth | None]:
    """What ``edgekit.parity.verify`` says, and for a quantized .tflite file also how its error grows.

    ``against`` may also be a float .tflite file. ``data``: a file or folder as ``open_samples`` takes it, else random
    values are used. An output of a quantized file passes when it is off by at most a tenth of its range.

    Raises as ``edgekit.parity.verify`` and ``open_samples``; BadModel when the reference is quantized itself.
    """
    from edgekit.converters.quantize.float_form import quantized_parts
    from edgekit.parity import verify

    is_reference_litert = against is not None and against.suffix.lower() == ".tflite"
    model = _read(path) if path.suffix.lower() == ".tflite" and against is not None else None
    quantized = model is not None and quantized_parts(model) != ""
    if not is_reference_litert and not quantized:
        if data is not None:
            raise BadRecipe(f"--data is for comparing a .tflite file with --against, and {path} is not quantized.",
                            "Leave --data out.")
        return verify(path, against, public_key, require_signature, recipe), None
    if public_key is not None or require_signature or model is None or against is None:
        raise BadRecipe(f"{path} is not compared with a .tflite file that way.",
                        "Name a .tflite file without a key, and its float original by --against.")
    return _checked(path, model, against, recipe, data)


def _checked(
    path: Path, model: LiteRTModel, against: Path, recipe: ConvertRecipe, data: str | None
) -> tuple[tuple[VerifyReport, ...], ErrorGrowth]:
    from edgekit.converters.quantize import open_samples
    from edgekit.converters.quantize.float_form import quantized_parts
    from edgekit.parity import compare_on, run_isolated

    started = time.perf_counter()
    reference = _reference(against, recipe)
    _same_interface(path, model, against, reference)
    source = "random" if data is None or data == "random" else Path(data)
    samples = open_samples(source, reference.inputs, None, recipe.shapes)
    feeds = next(iter(samples))
    stored = tuple(msgspec.structs.replace(spec, layout="onnx") for spec in reference.inputs), tuple(
        msgspec.structs.replace(spec, layout="onnx") for spec in reference.outputs)
    wanted = run_isolated("litert", reference.data, stored, feeds, f"The model '{against}'")
    plain = msgspec.structs.replace(model, inputs=stored[0], outputs=stored[1])
    tolerance = max(recipe.tolerance, QUANTIZED_TOLERANCE) if quantized_parts(model) else recipe.tolerance
    report = compare_on(plain, (feeds, wanted), tolerance, str(path), str(against))
    growth = _growth(reference, model, samples, data)
    return (msgspec.structs.replace(report, seconds=time.perf_counter() - started),), growth


def _read(path: Path) -> LiteRTModel:
    from edgekit.converters.quantize import read_model

    try:
        return read_model(path.read_bytes(), f"'{path}'")
    except OSError as error:
        raise BadModel(f"'{path}' cannot be read: {error.strerror or error}.", "Check the path.") from error


def _reference(against: Path, recipe: ConvertRecipe) -> LiteRTModel:
    from edgekit.converters.quantize.float_form import float_form

    if against.suffix.lower() == ".tflite":
        return float_form(_read(against), f"The reference '{against}'")
    from edgekit.pipeline import convert

    return float_form(cast("LiteRTModel", convert(against, "litert", None, recipe).model),
                      f"The reference '{against}'")


def _same_interface(path: Path, model: LiteRTModel, against: Path, reference: LiteRTModel) -> None:
    ours, theirs = ([[spec.name for spec in specs] for specs in (each.inputs, each.outputs)]
                    for each in (model, reference))
    if ours != theirs:
        raise BadModel(f"'{path}' has the inputs and outputs {ours[0]} -> {ours[1]}, and '{against}' has {theirs[0]} "
                       f"-> {theirs[1]}.", "Name the float file that it was made from.")


def _growth(reference: LiteRTModel, model: LiteRTModel, samples: Samples, data: str | None) -> ErrorGrowth:
    from edgekit.converters.quantize import sensitivity
    from edgekit.converters.quantize.flatbuffer import with_unique_names
    from edgekit.converters.quantize.sensitivity import ops_of

    ops = ops_of(with_unique_names(reference.data))
    found = {layer.tensor: layer for layer in sensitivity(reference.data, model.data, samples, _SAMPLES)}
    layers, first = [], []
    for op in ops:
        if op.result not in found:
            continue
        before = [found[name].sqnr_db for name in op.operands if name in found]
        layers.append(_layer(found[op.result], min(before, default=math.inf)))
        if found[op.result].sqnr_db < LOW_DB <= min(before, default=math.inf):
            first.append(op.result)
    notes = [] if data is not None and data != "random" else [
        "The inputs were random: give --data for the error on real ones."]
    if len(layers) < len(ops):
        notes.append(f"{len(ops) - len(layers)} of {len(ops)} ops have no result of the same name in the quantized "
                     "file: fused, of integers, or named otherwise by another tool.")
    count = sum(1 for _, _ in zip(range(_SAMPLES), samples, strict=False))
    return ErrorGrowth(count, len(ops), len(layers), tuple(layers), tuple(first[:_SHOWN]), tuple(notes))


def _layer(layer: Layer, before_db: float) -> LayerGrowth:
    from edgekit.converters.quantize.quality import MAX_DB

    return LayerGrowth(
        tensor=layer.tensor, kind=layer.kind, sqnr_db=layer.sqnr_db,
        input_sqnr_db=before_db if before_db < MAX_DB else None,
        added_sqnr_db=-10 * math.log10(layer.added) if 0 < layer.added < math.inf else None,
        low=layer.low, high=layer.high, outlier_channels=layer.outlier_channels,
    )
