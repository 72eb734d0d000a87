"""What a conversion or a build should do, as frozen data that round-trips through JSON.

Impossible values cannot be built: ``__post_init__`` raises BadRecipe.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgekit.errors import BadRecipe

__all__ = ["BuildRecipe", "ConvertRecipe", "ExportRecipe", "Precision", "Preprocess", "QuantRecipe", "QuantRule",
           "TargetCpu"]

IoLayout = Literal["auto", "onnx", "nhwc"]
Precision = Literal["float32", "float16", "dynamic8", "dynamic4", "static8", "weight8", "weight4"]
TargetCpu = Literal["x86", "x86_vnni", "arm"]
_LARGEST = 3.4028234663852886e38  # of float32


class ExportRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an ``nn.Module`` becomes ONNX. ``dynamic_hw`` keeps axes 2 and 3 of every rank-4 input dynamic.

    ``verify`` runs the file on the example, and on other sizes where it has dynamic axes, and compares with torch.
    """

    dynamic_batch: bool = False
    dynamic_hw: bool = False
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    opset: int = 20
    verify: bool = True


class ConvertRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an ONNX graph is lowered.

    ``shapes`` fixes dynamic inputs by name (ONNX order of axes). ``io_layout``: "auto" stores image inputs and outputs
    as NHWC for LiteRT, "onnx" keeps every axis order, "nhwc" asks for NHWC on every rank-4 input and output.
    ``tolerance`` is relative to the range of each output.
    """

    io_layout: IoLayout = "auto"
    shapes: dict[str, tuple[int, ...]] = {}
    verify: bool = True
    tolerance: float = 1e-4
    ort_format: Literal["auto", "onnx", "ort"] = "auto"

    def __post_init__(self) -> None:
        for name, shape in self.shapes.items():
            if any(dim < 1 for dim in shape):
                raise BadRecipe(f"The shape of '{name}' is {list(shape)}.", "Every dimension must be at least 1.")
        if not 0 < self.tolerance < 1:
            raise BadRecipe(f"The tolerance is {self.tolerance}.", "It must lie between 0 and 1.")


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From a uint8 RGB image (H, W, 3) to the network's input: ``(pixel - mean) / std`` per channel.

    ``resize`` "center_crop": the central square of ``crop_fraction`` of the short side is resized to the input's size;
    "stretch": the whole image is. ``mean`` and ``std`` are in pixel units (0 to 255).
    """

    colour: Literal["rgb", "bgr", "gray"] = "rgb"
    resize: Literal["center_crop", "stretch"] = "center_crop"
    crop_fraction: float = 0.875
    mean: tuple[float, ...] = (127.0, 127.0, 127.0)
    std: tuple[float, ...] = (128.0, 128.0, 128.0)

    def __post_init__(self) -> None:
        channels = 1 if self.colour == "gray" else 3
        if len(self.mean) != channels or len(self.std) != channels:
            raise BadRecipe(f"Preprocessing has {len(self.mean)} means and {len(self.std)} deviations.",
                            f"Colour order '{self.colour}' needs {channels} of each.")
        if any(value <= 0 for value in self.std):
            raise BadRecipe(f"The deviations are {list(self.std)}.", "Each must be positive.")
        if not 0 < self.crop_fraction <= 1:
            raise BadRecipe(f"The crop fraction is {self.crop_fraction}.", "It must lie in (0, 1].")


class BuildRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``edgekit build`` puts into a bundle. ``labels`` makes it a classifier; ``top`` answers are kept."""

    name: str = "model"
    engines: tuple[Literal["litert", "ort"], ...] = ("litert", "ort")
    convert: ConvertRecipe = ConvertRecipe()
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] = ()
    test_vectors: int = 1

    def __post_init__(self) -> None:
        if not self.engines or len(set(self.engines)) != len(self.engines):
            raise BadRecipe(f"The engines are {list(self.engines)}.", "Name at least one, each once.")
        if not 1 <= self.test_vectors <= 16:
            raise BadRecipe(f"{self.test_vectors} test vectors were asked for.", "Between 1 and 16 are allowed.")


class QuantRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The precision of some ops: those of the kinds ``ops`` (LiteRT's names, such as CONV_2D, or ONNX's, such as Conv)
    whose first result is among ``tensors``; an empty tuple matches all.

    "float32": nothing is quantized. "float16": weights are stored as float16 and computed as float32. "dynamic8" and
    "dynamic4": int8 or int4 weights, activations are quantized by the engine at run time. "static8": weights and
    activations are int8, with ranges found by calibration. "weight8" and "weight4": weights are stored as integers and
    computed as float32. Ops for which the engine has no such form stay as the rules before this one say.
    """

    precision: Precision
    ops: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()


class QuantRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is quantized: the last of ``rules`` that matches an op decides.

    ``ranges`` (minimum, maximum of each float tensor) make static8 reproducible without the calibration data: a recipe
    that holds them gives the same file byte for byte. Where it is empty they are taken from the data by ``method``:
    "extreme" (what one more sample leaves once in a thousand times, by the spread of the samples' extremes; at least
    what was seen), "minmax" over all samples, "average" of the samples' extremes (moving, weight 0.05 for a new
    sample), "percentile" (the central ``percentile`` % of all values), "entropy" (the clipping that loses least in the
    sense of Kullback and Leibler). ``io``: the dtype of the file's inputs and outputs. ``cpu``, for ONNX Runtime: whose
    instructions decide the integers ("x86_vnni" and "arm" have dot products of 8 bit integers), None for a LiteRT file.

    For LiteRT: ``rounding`` "adaptive" rounds the weights so that each layer's results on the data are kept rather than
    the weights; ``weight_steps``: how far from the nearest integers (base64 of deflated int8, by result).
    ``equalize`` scales channels between layers so that each uses its tensor's range
    (edgekit.converters.quantize.equalize); ``channel_factors``: by how much (base64 of float32, by tensor; ``ranges``
    are those of the scaled tensors then).
    ``correct_bias`` takes the mean error of each layer off its bias; ``bias_shifts``: what is added (base64 of float32,
    by result). All are found on the data where they are None. ``sparse``: constants that are mostly zero are stored
    without the zeros.
    """

    rules: tuple[QuantRule, ...]
    method: Literal["extreme", "minmax", "average", "percentile", "entropy"] = "extreme"
    percentile: float = 99.99
    io: Literal["float32", "int8"] = "float32"
    ranges: dict[str, tuple[float, float]] = {}
    cpu: TargetCpu | None = None
    rounding: Literal["nearest", "adaptive"] = "nearest"
    correct_bias: bool = False
    sparse: bool = False
    weight_steps: dict[str, str] | None = None
    bias_shifts: dict[str, str] | None = None
    equalize: bool = False
    channel_factors: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise BadRecipe(f"The percentile is {self.percentile}.", "It must lie in (50, 100].")
        for name, (low, high) in self.ranges.items():
            if not -_LARGEST <= low <= high <= _LARGEST:
                raise BadRecipe(f"The range of '{name}' is {low} to {high}.", "It must be finite and in order.")
