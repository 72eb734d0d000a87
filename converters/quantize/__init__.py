"""Quantization: a precision for each kind of op, chosen by what the engine does with the graph.

``read_model`` and ``open_samples`` bring in the float file and the calibration data; ``quantize`` applies a recipe;
``search`` finds the recipe; ``sensitivity`` shows where the error enters. For ONNX Runtime the same are
``ort_float_model``, ``quantize_ort`` and ``search_ort``.
"""

from edgekit.converters.quantize.apply import calibrate, needs_ranges, prepare, quantize
from edgekit.converters.quantize.flatbuffer import read_model
from edgekit.converters.quantize.ort_apply import quantize_ort, target_cpu
from edgekit.converters.quantize.ort_graph import is_quantized, ort_float_model
from edgekit.converters.quantize.ort_search import search_ort
from edgekit.converters.quantize.ort_values import calibrate_ort
from edgekit.converters.quantize.samples import Samples, open_samples
from edgekit.converters.quantize.search import Goal, Search, Step, search
from edgekit.converters.quantize.sensitivity import Layer, sensitivity
from edgekit.converters.quantize.speed import Speed
from edgekit.converters.quantize.workbench import Model, Quality, Trial

__all__ = [
    "Goal", "Layer", "Model", "Quality", "Samples", "Search", "Speed", "Step", "Trial", "calibrate", "calibrate_ort",
    "is_quantized", "needs_ranges", "open_samples", "ort_float_model", "prepare", "quantize", "quantize_ort",
    "read_model", "search", "search_ort", "sensitivity", "target_cpu",
]
