"""What ``edgekit.adaptive.build_adaptive`` should make, as frozen data that round-trips through JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgekit.errors import BadRecipe
from edgekit.recipe import Preprocess, QuantRecipe, QuantRule

__all__ = ["AdaptiveRecipe"]

_STATIC8 = QuantRecipe(rules=(QuantRule("static8"),))


class AdaptiveRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An adaptive bundle: the network at each of ``resolutions`` (height, width), cut at each of ``exits``.

    ``exits``: outputs of the network with logits, from shallow to deep; () for all of them as they come. ``precision``
    "int8": each resolution is quantized as ``quantize`` says, the ranges of activations being those of its own
    calibration data; LiteRT only. ``tolerance`` is relative to the range of each exit and holds for fp32; stages in a
    row must give the very bits of the quantized whole.
    """

    resolutions: tuple[tuple[int, int], ...]
    exits: tuple[str, ...] = ()
    name: str = "model"
    engines: tuple[Literal["litert", "ort"], ...] = ("litert",)
    precision: Literal["fp32", "int8"] = "fp32"
    quantize: QuantRecipe = _STATIC8
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] = ()
    test_vectors: int = 1
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if not self.resolutions or len(set(self.resolutions)) != len(self.resolutions):
            raise BadRecipe(f"The resolutions are {[list(each) for each in self.resolutions]}.",
                            "Name at least one, each once.")
        if any(side < 1 for resolution in self.resolutions for side in resolution):
            raise BadRecipe(f"The resolutions are {[list(each) for each in self.resolutions]}.",
                            "Each side must be at least 1 pixel.")
        if not self.engines or len(set(self.engines)) != len(self.engines):
            raise BadRecipe(f"The engines are {list(self.engines)}.", "Name at least one, each once.")
        if self.precision == "int8" and "ort" in self.engines:
            raise BadRecipe("Stages in int8 are made for LiteRT only.", "Leave the engine ort out, or use fp32.")
        if self.quantize.ranges or self.quantize.io != "float32" or self.quantize.cpu is not None:
            raise BadRecipe("The quantization recipe holds ranges, integer inputs or a CPU for ONNX Runtime.",
                            "Ranges are found for each resolution; images and logits stay float32.")
        if not 1 <= self.test_vectors <= 16:
            raise BadRecipe(f"{self.test_vectors} test vectors were asked for.", "Between 1 and 16 are allowed.")
        if not 0 < self.tolerance < 1:
            raise BadRecipe(f"The tolerance is {self.tolerance}.", "It must lie between 0 and 1.")
