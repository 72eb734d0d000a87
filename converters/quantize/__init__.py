"""Quantization of LiteRT models: a precision for each kind of op, chosen by what the engine does with the graph.

``read_model`` and ``open_samples`` bring in the float file and the calibration data; ``quantize`` applies a recipe;
``search`` finds the recipe; ``sensitivity`` shows where the error enters.
"""

from edgekit.converters.quantize.apply import calibrate, needs_ranges, quantize
from edgekit.converters.quantize.flatbuffer import read_model
from edgekit.converters.quantize.samples import Samples, open_samples
from edgekit.converters.quantize.search import Goal, Search, Step, search
from edgekit.converters.quantize.sensitivity import Layer, sensitivity
from edgekit.converters.quantize.speed import Speed
from edgekit.converters.quantize.workbench import Quality, Trial

__all__ = [
    "Goal", "Layer", "Quality", "Samples", "Search", "Speed", "Step", "Trial", "calibrate", "needs_ranges",
    "open_samples", "quantize", "read_model", "search", "sensitivity",
]
