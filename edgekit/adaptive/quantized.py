"""The whole network in int8 at each resolution: weights are the same everywhere, ranges are those of the resolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgekit.artifacts import Array, LiteRTModel, TensorSpec
from edgekit.converters.quantize.apply import needs_ranges, prepare, quantize
from edgekit.converters.quantize.flatbuffer import kind_of, name_of, read_tables
from edgekit.converters.quantize.samples import Feeds, Samples, open_samples
from edgekit.errors import BadInput, BadRecipe
from edgekit.recipe import Preprocess, QuantRecipe

__all__ = ["Calibration", "logit_steps", "quantize_resolutions"]

#: a folder of images, a .npy or .npz file, uint8 images (N, H, W, 3), arrays as the network sees them, or "random"
Calibration = str | Path | Array


def quantize_resolutions(
    models: Mapping[tuple[int, int], LiteRTModel], recipe: QuantRecipe, calibration: Calibration | None,
    preprocess: Preprocess | None,
) -> dict[tuple[int, int], LiteRTModel]:
    """Each of ``models`` (by height and width) as ``recipe`` says, with ranges found at its own resolution.

    What changes weights is found once, at the largest. uint8 images are brought to each resolution by ``preprocess``.
    Raises BadRecipe without calibration data where the recipe needs them, BadInput for data that do not fit; else as
    ``edgekit.converters.quantize.quantize``.
    """
    largest = max(models, key=lambda resolution: resolution[0] * resolution[1])
    if calibration is None and (needs_ranges(recipe) or recipe.rounding == "adaptive" or recipe.correct_bias):
        raise BadRecipe("Quantization of activations needs calibration data.",
                        "Give images, or arrays as the network sees them.")
    if calibration is None:
        return {resolution: quantize(model, recipe) for resolution, model in models.items()}
    if recipe.rounding == "adaptive" and recipe.weight_steps is None:
        samples = _samples(calibration, models[largest], preprocess, largest)
        steps = prepare(models[largest], msgspec.structs.replace(recipe, correct_bias=False), samples).weight_steps
        recipe = msgspec.structs.replace(recipe, weight_steps=steps)
    return {resolution: quantize(model, recipe, _samples(calibration, model, preprocess, resolution))
            for resolution, model in models.items()}


def _samples(
    source: Calibration, model: LiteRTModel, preprocess: Preprocess | None, resolution: tuple[int, int]
) -> Samples:
    spec = model.inputs[0]
    images = _uint8_images(source)
    if images is not None:
        return Samples(_walk(images, spec, preprocess or Preprocess(), resolution))
    return open_samples(source, [spec], preprocess, {spec.name: spec.shape})


def _uint8_images(source: Calibration) -> Array | None:
    """The array of images in ``source``, if it is one."""
    if isinstance(source, np.ndarray):
        return source if source.dtype == np.uint8 else None
    path = Path(source)
    if path.suffix not in (".npy", ".npz"):
        return None
    try:
        loaded: Any = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded if loaded.dtype == np.uint8 else None
        with loaded:
            found = [array for array in (loaded[name] for name in loaded.files)
                     if array.dtype == np.uint8 and array.ndim == 4]
    except (OSError, ValueError) as error:
        raise BadInput(f"The calibration data '{path}' cannot be read: {error}.", "Check the path.") from error
    return found[0] if len(found) == 1 else None


def _walk(images: Array, spec: TensorSpec, preprocess: Preprocess, resolution: tuple[int, int]) -> Any:
    from edgekit.runtime.preprocess import ImageInput

    if images.ndim != 4 or images.shape[3] != 3:
        raise BadInput(f"The calibration images have the shape {list(images.shape)}.", "Wanted: uint8 [N, H, W, 3].")
    ready = ImageInput(spec, preprocess, resolution)

    def walk() -> Iterator[Feeds]:
        for image in images:
            yield {spec.name: np.ascontiguousarray(ready(image))}

    return walk


def logit_steps(model: LiteRTModel, exits: Sequence[str]) -> dict[str, float]:
    """The width of one step of each exit's logits; 0 where they are computed as floats."""
    tables = read_tables(model.data)
    subgraph = tables.subgraphs[0]
    steps = dict.fromkeys(exits, 0.0)
    for op in subgraph.operators:
        name = name_of(subgraph.tensors[op.outputs[0]]) if len(op.outputs) else ""
        if name in steps and kind_of(tables, op) == "DEQUANTIZE":
            scale = subgraph.tensors[op.inputs[0]].quantization.scale
            steps[name] = float(scale[0]) if scale is not None and len(scale) else 0.0
    return steps
