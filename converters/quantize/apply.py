"""A recipe on a model: ranges from calibration data, weights and graph through ai-edge-quantizer."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from edgekit.artifacts import LiteRTModel
from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.converters.quantize.bias import find_shifts, shift_biases
from edgekit.converters.quantize.engine import InnerValues, input_names
from edgekit.converters.quantize.equalize import equalized, find_factors, renamed
from edgekit.converters.quantize.flatbuffer import (
    constant_bytes,
    kind_of,
    name_of,
    read_model,
    read_tables,
    with_unique_names,
)
from edgekit.converters.quantize.histogram import RangeFinder
from edgekit.converters.quantize.rounding import adapt, round_weights
from edgekit.converters.quantize.samples import Samples
from edgekit.converters.quantize.sparse import make_sparse
from edgekit.converters.quantize.weighted import weighted_ops
from edgekit.errors import BadRecipe, EngineError, MissingExtra, UnknownName
from edgekit.recipe import Precision, QuantRecipe, QuantRule

__all__ = ["bits_of", "calibrate", "float_form", "needs_ranges", "prepare", "quantize"]

#: ai-edge-quantizer's own names where they are not the schema's
_THEIR_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
_BITS = {"dynamic8": 8, "dynamic4": 4, "static8": 8, "weight8": 8, "weight4": 4, "float16": 16}


def needs_ranges(recipe: QuantRecipe) -> bool:
    """Whether ``recipe`` asks for activations quantized beforehand."""
    return recipe.io == "int8" or any(rule.precision == "static8" for rule in recipe.rules)


def calibrate(
    model: LiteRTModel, recipe: QuantRecipe, samples: Samples, on_sample: Callable[[int], None] | None = None
) -> QuantRecipe:
    """``recipe`` with the range of every float tensor of the main subgraph, found on ``samples`` by its method.

    ``on_sample`` is told how many samples are done. Raises BadInput for samples that do not fit, EngineError.
    """
    finder = RangeFinder(recipe.method, recipe.percentile)
    data = with_unique_names(model.data)
    inner = InnerValues(data)
    input_tensors = _input_tensors(data)
    for done, feeds in enumerate(samples, 1):
        finder.add((input_tensors[name], array) for name, array in feeds.items())
        try:
            finder.add(inner.run(feeds))
        except EngineError as error:
            raise EngineError(f"The float model fails on sample {done - 1} of the calibration data: {error.message}",
                              error.remedy or "Give inputs that the model accepts.") from error
        if on_sample is not None:
            on_sample(done)
    return msgspec.structs.replace(recipe, ranges=finder.ranges())


def _input_tensors(data: bytes) -> dict[str, str]:
    """Input name -> tensor name."""
    subgraph = read_tables(data).subgraphs[0]
    names = [name_of(subgraph.tensors[index]) for index in subgraph.inputs]
    return dict(zip(input_names(data), names, strict=True))


def quantize(model: LiteRTModel, recipe: QuantRecipe, samples: Samples | None = None) -> LiteRTModel:
    """``model`` as ``recipe`` says; signatures, layouts and (with ``io`` "float32") dtypes of inputs and outputs stay.

    What the recipe does not hold is found on ``samples``. The same model and complete recipe give the same bytes.

    Raises BadRecipe when ranges (or other things to be found on samples) are wanted and there are none, or a rule
    names an unknown tensor; UnknownName for an unknown kind of op; MissingExtra without ai-edge-quantizer; EngineError
    when it fails on the model.
    """
    if not recipe.rules and recipe.io == "float32":
        return model
    recipe = prepare(model, recipe, samples)
    made = _made(model, recipe)
    if not recipe.channel_factors:
        return made
    tables = read_tables(made.data)
    renamed(tables, recipe.channel_factors)
    return read_model(pack_model(tables), "The quantized model")


def float_form(model: LiteRTModel, recipe: QuantRecipe) -> bytes:
    """The float file that ``recipe`` quantizes, tensors with unique names: channels are scaled where it scales any."""
    data = with_unique_names(model.data)
    return equalized(data, recipe.channel_factors) if recipe.channel_factors else data


def _made(model: LiteRTModel, recipe: QuantRecipe) -> LiteRTModel:
    """By a complete recipe, tensors called as in the source."""
    source = float_form(model, recipe)
    tables = read_tables(source)
    if recipe.weight_steps:
        round_weights(tables, bits_of(tables, recipe), recipe.weight_steps)
        source = pack_model(tables)
        tables = read_tables(source)
    entries = _entries(tables, recipe)
    data = source
    if entries:
        data = _run_quantizer(source, entries, _statistics(tables, recipe) if needs_ranges(recipe) else None)
    return _finished(data, tables, recipe)


def prepare(model: LiteRTModel, recipe: QuantRecipe, samples: Samples | None = None) -> QuantRecipe:
    """``recipe`` with what it asks for and is found on ``samples``: ranges, factors of channels, steps of weights,
    shifts of biases.

    Raises as ``quantize``.
    """
    wanted = {"quantizes activations and holds no ranges": needs_ranges(recipe) and not recipe.ranges,
              "equalises channels and does not say by how much": recipe.equalize and recipe.channel_factors is None,
              "rounds weights and does not say how": recipe.rounding == "adaptive" and recipe.weight_steps is None,
              "corrects biases and does not say how": recipe.correct_bias and recipe.bias_shifts is None}
    for what, missing in wanted.items():
        if missing and samples is None:
            raise BadRecipe(f"The recipe {what}.", "Give calibration data.")
    if samples is None or not any(wanted.values()):
        return recipe
    if needs_ranges(recipe) and not recipe.ranges:
        recipe = calibrate(model, recipe, samples)
    if recipe.equalize and recipe.channel_factors is None:
        factors, ranges = find_factors(with_unique_names(model.data), samples)
        known = {name: found for name, found in ranges.items() if name in recipe.ranges}
        recipe = msgspec.structs.replace(recipe, channel_factors=factors, ranges={**recipe.ranges, **known})
    data = float_form(model, recipe)
    if recipe.rounding == "adaptive" and recipe.weight_steps is None:
        steps = adapt(data, bits_of(read_tables(data), recipe), samples)
        recipe = msgspec.structs.replace(recipe, weight_steps=steps)
    if recipe.correct_bias and recipe.bias_shifts is None:
        plain = _made(model, msgspec.structs.replace(recipe, bias_shifts={}, sparse=False))
        recipe = msgspec.structs.replace(recipe, bias_shifts=find_shifts(data, plain.data, samples))
    return recipe


def bits_of(tables: Any, recipe: QuantRecipe) -> dict[str, int]:
    """Bits of the integer weights of each op that has them under ``recipe``, by the name of its first result."""
    without_range = set(_without_range(tables, recipe)) if needs_ranges(recipe) else set()
    found: dict[str, int] = {}
    for layer in weighted_ops(tables):
        for rule in recipe.rules:
            if (rule.ops and layer.kind not in rule.ops) or (rule.tensors and layer.result not in rule.tensors):
                continue
            if rule.precision in ("float32", "float16") or (
                    rule.precision == "static8" and layer.result in without_range):
                found.pop(layer.result, None)
            elif _entry("", _THEIR_NAMES.get(layer.kind, layer.kind), rule.precision):
                found[layer.result] = _BITS[rule.precision]
    return found


def _entries(tables: Any, recipe: QuantRecipe) -> list[dict[str, Any]]:
    """The recipe in ai-edge-quantizer's form. Its later entries win among equals, as ours do."""
    kinds = sorted({kind_of(tables, op) for subgraph in tables.subgraphs for op in subgraph.operators})
    firsts = {name_of(tables.subgraphs[0].tensors[op.outputs[0]])
              for op in tables.subgraphs[0].operators if len(op.outputs)}
    entries: list[dict[str, Any]] = []
    for rule in recipe.rules:
        _check(rule, firsts)
        entries += _rule_entries(rule, kinds, len(entries))
        if rule.precision == "static8":
            unknown = _without_range(tables, recipe)
            entries += _rule_entries(QuantRule("float32", (), unknown), kinds, len(entries)) if unknown else []
    if recipe.io == "int8":
        entries += [each for place in ("INPUT", "OUTPUT") for each in _entry("^(?#io)", place, "static8")]
    return entries


def _rule_entries(rule: QuantRule, kinds: list[str], number: int) -> list[dict[str, Any]]:
    # A comment with a number makes each pattern unlike the others: entries of equal patterns would be merged.
    names = f"(?:{'|'.join(map(re.escape, rule.tensors))});" if rule.tensors else ""
    pattern, known = f"^(?#{number}){names}", _their_kinds()
    theirs = [_THEIR_NAMES.get(kind, kind) for kind in rule.ops or kinds]
    return [entry for kind in theirs if kind in known for entry in _entry(pattern, kind, rule.precision)]


def _without_range(tables: Any, recipe: QuantRecipe) -> tuple[str, ...]:
    """First tensors of the ops that read or make a float value of which no range is known, so cannot be static.

    These are values that held NaN or infinity, and those of subgraphs that calibration does not see.
    """
    float32 = schema().TensorType.FLOAT32
    found = []
    for subgraph in tables.subgraphs:
        for op in subgraph.operators:
            touched = [subgraph.tensors[index] for index in (*op.inputs, *op.outputs) if index >= 0]
            if len(op.outputs) and any(
                tensor.type == float32 and not constant_bytes(tables, tensor) and name_of(tensor) not in recipe.ranges
                for tensor in touched
            ):
                found.append(name_of(subgraph.tensors[op.outputs[0]]))
    return tuple(found)


def _check(rule: QuantRule, tensors: set[str]) -> None:
    builtin = _schema_kinds()
    for kind in rule.ops:
        if kind not in builtin:
            raise UnknownName.of("op", kind, sorted(builtin))
    for name in rule.tensors:
        if name not in tensors:
            raise BadRecipe(f"The recipe names the tensor '{name}', which no op of the model computes.",
                            "Use a recipe that was made for this model.")


def _schema_kinds() -> set[str]:
    return {name for name in vars(schema().BuiltinOperator) if name.isupper()}


def _entry(pattern: str, kind: str, precision: Precision) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {"regex": pattern, "operation": kind, "algorithm_key": "min_max_uniform_quantize"}
    if precision == "float32":
        return [{**entry, "algorithm_key": "no_quantize", "op_config": {}}]
    weights: dict[str, Any] = {
        "num_bits": _BITS[precision], "symmetric": True, "granularity": "CHANNELWISE",
        "dtype": "FLOAT" if precision == "float16" else "INT",
    }
    computes = "FLOAT" if precision in ("float16", "weight8", "weight4") else "INTEGER"
    config: dict[str, Any] = {
        "weight_tensor_config": weights, "compute_precision": computes, "explicit_dequantize": computes == "FLOAT",
    }
    if precision == "float16":
        entry["algorithm_key"] = "float_casting"
    if precision == "static8":
        config["activation_tensor_config"] = {
            "num_bits": 8, "symmetric": False, "granularity": "TENSORWISE", "dtype": "INT"}
    entry["op_config"] = config
    return [entry] if _allowed(kind, entry) else []


def _allowed(kind: str, entry: Mapping[str, Any]) -> bool:
    """Whether ai-edge-quantizer has this form for ``kind``; the policy is its own."""
    manager, types = _aeq("algorithm_manager"), _aeq("qtyping")
    try:
        manager.check_op_quantization_config(
            entry["algorithm_key"], kind, types.OpQuantizationConfig.from_dict(entry["op_config"]))
    except ValueError:
        return False
    return True


def _their_kinds() -> set[str]:
    return {name.value for name in _aeq("qtyping").TFLOperationName}


def _aeq(module: str) -> Any:
    try:
        return importlib.import_module(f"ai_edge_quantizer.{module}")
    except ModuleNotFoundError as error:
        raise MissingExtra.of("ai-edge-quantizer", "quantize") from error


def _statistics(tables: Any, recipe: QuantRecipe) -> dict[str, dict[str, Any]]:
    """The ranges as ai-edge-quantizer keeps them: arrays of the tensor's rank."""
    found: dict[str, dict[str, Any]] = {}
    for tensor in tables.subgraphs[0].tensors:
        name = name_of(tensor)
        if name in recipe.ranges:
            rank = len(tensor.shape) if tensor.shape is not None else 0
            low, high = recipe.ranges[name]
            if low == high == 0:
                high = 1.0  # nothing was seen in it; a scale of next to nothing would overflow what comes after
            found[name] = {"min": np.full((1,) * rank, low, np.float32), "max": np.full((1,) * rank, high, np.float32)}
    return found


def _run_quantizer(data: bytes, entries: list[dict[str, Any]], statistics: dict[str, dict[str, Any]] | None) -> bytes:
    module = _aeq("quantizer")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # it draws progress bars
            warnings.simplefilter("ignore")  # it warns where a recipe leaves ops as they are, which is wanted
            logging.getLogger("absl").setLevel(logging.ERROR)
            engine = module.Quantizer(bytearray(data), entries)
            return bytes(engine.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
                         .quantized_model)
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        raise EngineError(f"ai-edge-quantizer failed on the model: {error}",
                          "Keep the ops that it names in float32 by a rule of the recipe.") from error


def _keep_names(subgraph: Any, source: Any) -> None:
    """Gives inputs and outputs the names of ``source``: without a signature they are what callers go by.

    ai-edge-quantizer puts conversions there, whose results have other names, and leaves the name to the inner value.
    """
    places = [*zip(subgraph.inputs, source.inputs, strict=True), *zip(subgraph.outputs, source.outputs, strict=True)]
    names = [name_of(tensor) for tensor in subgraph.tensors]
    for index, original in places:
        wanted = name_of(source.tensors[original])
        if names[index] != wanted:
            for other, name in enumerate(names):
                if name == wanted:
                    names[other] = f"{wanted}/inner"
            names[index] = wanted
    for tensor, name in zip(subgraph.tensors, names, strict=True):
        tensor.name = name


def _reconnect(tables: Any) -> None:
    """Let integer ops read the integers of a value that is also an output of the network.

    ai-edge-quantizer gives the conversion to float, which the output needs, to every op that reads the value.
    """
    types = schema().TensorType
    integers = (types.INT8, types.INT16, types.UINT8)
    for subgraph in tables.subgraphs:
        sources = {int(op.outputs[0]): int(op.inputs[0]) for op in subgraph.operators
                   if kind_of(tables, op) == "DEQUANTIZE"}
        for op in subgraph.operators:
            if kind_of(tables, op) == "QUANTIZE" or not any(
                    subgraph.tensors[index].type in integers for index in op.outputs if index >= 0):
                continue
            wanted = [sources.get(int(index), int(index)) for index in op.inputs]
            op.inputs = np.array([new if subgraph.tensors[new].type in integers else int(old)
                                  for old, new in zip(op.inputs, wanted, strict=True)], np.int32)


def _finished(data: bytes, source: Any, recipe: QuantRecipe) -> LiteRTModel:
    """Weights inside the flatbuffer, biases corrected, and what the source file says of itself kept."""
    tables = read_tables(data, "The quantized model")
    tables.description = source.description
    _keep_names(tables.subgraphs[0], source.subgraphs[0])
    _reconnect(tables)
    shift_biases(tables, recipe.bias_shifts or {})
    if recipe.sparse:
        make_sparse(tables)
    return read_model(pack_model(tables), "The quantized model")
