"""A recipe on an ONNX graph for ONNX Runtime: static int8 as pairs of QuantizeLinear and DequantizeLinear (QDQ).

ONNX Runtime turns the pairs into integer kernels when it loads the file. The pairs are placed by onnxruntime's own
quantizer, with ranges of ours. Dynamic int8 is written here, since that quantizer rewrites every Gemm of the graph for
it, also those that are to stay. Which integers suit depends on the CPU:

- x86 with VNNI: uint8 activations, int8 weights, for which it has a dot product;
- other x86: the same, but weights of 7 bits, since their sum of two products overflows 16 bits otherwise;
- ARM: int8 activations, since its dot product wants both of the same sign.
"""

from __future__ import annotations

import importlib
import logging
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekit.artifacts import Array, OrtModel
from edgekit.converters.quantize.apply import needs_ranges
from edgekit.converters.quantize.ort_graph import as_model, typed
from edgekit.converters.quantize.ort_values import calibrate_ort
from edgekit.converters.quantize.samples import Samples
from edgekit.errors import BadRecipe, EngineError, MissingExtra, UnknownName
from edgekit.recipe import Precision, QuantRecipe, TargetCpu

if TYPE_CHECKING:
    import onnx

__all__ = ["DYNAMIC", "quantize_ort", "target_cpu"]

#: kinds with a form that quantizes activations at run time
DYNAMIC = ("Gemm", "MatMul")
_PRECISIONS = ("float32", "float16", "dynamic8", "static8")
_LARGEST_FLOAT16 = 65504.0
#: how the values end that ``_with_integer_gates`` multiplies
_SCALED = "_scaled_by_slope"
#: what a graph says about inference having been done, so that onnxruntime does not repeat it through files
_INFERRED = ("onnx.infer", "onnxruntime.quant")


def target_cpu(named: Literal["host", "x86", "x86_vnni", "arm"] = "host") -> TargetCpu:
    """The kind of CPU; for "host" that of this machine."""
    if named != "host":
        return named
    if platform.machine().lower() in ("aarch64", "arm64", "armv7l", "armv8l"):
        return "arm"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux: take no instruction for granted
        return "x86"
    return "x86_vnni" if "avx512_vnni" in flags or "avx_vnni" in flags else "x86"


def quantize_ort(model: OrtModel, recipe: QuantRecipe, samples: Samples | None = None) -> OrtModel:
    """``model`` (from ``ort_float_model``) as ``recipe`` says; names, order and dtypes of inputs and outputs stay.

    Ranges come from the recipe, else from ``samples``. A node that reads or makes a value without a range does not
    become static. The same model and recipe with ranges give the same bytes; without rules they are the model's own.

    Raises BadRecipe when ranges are wanted and there are none, for a precision that ONNX Runtime has not, or a rule
    that names an unknown value; UnknownName for an unknown kind of op; EngineError when the quantizer fails.
    """
    if recipe.io != "float32":
        raise BadRecipe("ONNX Runtime files keep float32 inputs and outputs.", "Leave io at 'float32'.")
    if recipe.rounding != "nearest" or recipe.correct_bias or recipe.sparse:
        raise BadRecipe("Adaptive rounding, corrected biases and sparse weights are for LiteRT files only.",
                        "Leave rounding at 'nearest', and correct_bias and sparse at false.")
    if not recipe.rules:
        return model
    if needs_ranges(recipe) and not recipe.ranges:
        if samples is None:
            raise BadRecipe("The recipe quantizes activations and holds no ranges.", "Give calibration data.")
        recipe = calibrate_ort(model, recipe, samples)
    cpu = recipe.cpu or target_cpu()
    proto = typed(model.data)
    chosen = _precisions(proto, recipe)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    static = [name for name, precision in chosen.items() if precision == "static8"]
    _with_dynamic(proto, {name for name, form in chosen.items() if form == "dynamic8"}, weights, cpu)
    _with_float16_weights(proto, {name for name, form in chosen.items() if form == "float16"}, weights)
    if static:
        proto = _with_pairs(proto, static, recipe, cpu)
    _drop_unread(proto)
    return as_model(proto)


def _precisions(proto: onnx.ModelProto, recipe: QuantRecipe) -> dict[str, Precision]:
    """What each node becomes, by its first result: the last rule that matches and has a form for it decides."""
    import onnx

    results = {node.output[0] for node in proto.graph.node if node.output}
    for rule in recipe.rules:
        if rule.precision not in _PRECISIONS:
            raise BadRecipe(f"ONNX Runtime files have no precision '{rule.precision}'.",
                            f"It has {', '.join(_PRECISIONS)}.")
        for kind in rule.ops:
            if not onnx.defs.has(kind) and kind not in {node.op_type for node in proto.graph.node}:
                raise UnknownName.of("op", kind, sorted({node.op_type for node in proto.graph.node}))
        for name in rule.tensors:
            if name not in results:
                raise BadRecipe(f"The recipe names the value '{name}', which no node of the model computes.",
                                "Use a recipe that was made for this model.")
    graph = _Values(proto)
    found: dict[str, Precision] = {}
    for node in proto.graph.node:
        for rule in recipe.rules:
            named = not rule.tensors or node.output[0] in rule.tensors
            if named and (not rule.ops or node.op_type in rule.ops) and graph.has_form(node, rule.precision, recipe):
                found[node.output[0]] = rule.precision
    return found


class _Values:
    """Which values of a typed graph are float, and which of them are weights."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        from edgekit.converters.quantize.ort_graph import float_values

        self._computed = set(float_values(proto))
        self._weights = {tensor.name for tensor in proto.graph.initializer if tensor.data_type == tensor.FLOAT}

    def has_form(self, node: onnx.NodeProto, precision: Precision, recipe: QuantRecipe) -> bool:
        if precision == "float32":
            return True
        if precision == "float16":
            return any(name in self._weights for name in node.input)
        if precision == "dynamic8":
            return node.op_type in DYNAMIC and node.input[1] in self._weights and _is_plain(node)
        touched = [name for name in (*node.input, *node.output) if name in self._computed]
        return bool(touched) and all(name in recipe.ranges for name in touched)


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether a Gemm is a product of matrices and a bias, whose first operand is not transposed."""
    given = {attribute.name: attribute for attribute in node.attribute}
    return ("alpha" not in given or given["alpha"].f == 1) and ("beta" not in given or given["beta"].f == 1) and (
        "transA" not in given or given["transA"].i == 0)


def _with_dynamic(
    proto: onnx.ModelProto, chosen: set[str], weights: dict[str, onnx.TensorProto], cpu: TargetCpu
) -> None:
    """The nodes with the results ``chosen`` as MatMulInteger on activations that are quantized as they come."""
    from onnx import TensorProto, helper, numpy_helper

    made: list[onnx.NodeProto] = []
    rounded: set[str] = set()
    for node in proto.graph.node:
        if not node.output or node.output[0] not in chosen:
            made.append(node)
            continue
        value, result = node.input[0], node.output[0]
        matrix = numpy_helper.to_array(weights[node.input[1]])
        if any(each.name == "transB" and each.i for each in node.attribute):
            matrix = matrix.T
        integers, scales = _per_column(matrix, 63 if cpu == "x86" else 127)
        weight, sums, scale = f"{result}_weight8", f"{result}_sums8", f"{result}_scale8"
        proto.graph.initializer.extend([numpy_helper.from_array(integers, weight),
                                        numpy_helper.from_array(scales, f"{weight}_scale")])
        given = [f"{value}_dynamic8", f"{value}_dynamic8_scale", f"{value}_dynamic8_zero"]
        if value not in rounded:
            rounded.add(value)
            made.append(helper.make_node("DynamicQuantizeLinear", [value], given, given[0]))
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{result}_unbiased8" if biased else result
        made += [
            helper.make_node("MatMulInteger", [given[0], weight, given[2]], [sums], sums),
            helper.make_node("Mul", [given[1], f"{weight}_scale"], [scale], scale),
            helper.make_node("Cast", [sums], [f"{sums}_float"], f"{sums}_float", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{sums}_float", scale], [product], product),
        ]
        if biased:
            made.append(helper.make_node("Add", [product, node.input[2]], [result], result))
    del proto.graph.node[:]
    proto.graph.node.extend(made)


def _per_column(matrix: Array, largest: int) -> tuple[Array, Array]:
    """int8 weights and their scales, one for each column of the last two axes."""
    peaks = np.abs(matrix).max(axis=-2)
    peaks = np.where(peaks > 0, peaks, 1.0).astype(np.float32)
    scales = (peaks / largest).astype(np.float32)
    integers = np.clip(np.rint(matrix / scales[..., None, :]), -largest, largest).astype(np.int8)
    return np.ascontiguousarray(integers), scales if matrix.ndim == 2 else scales[..., None, :]


def _with_float16_weights(proto: onnx.ModelProto, chosen: set[str], weights: dict[str, onnx.TensorProto]) -> None:
    """Weights that only the nodes with the results ``chosen`` read, stored as float16; loading makes float32 of them.

    A graph that also computes in float16 is slower on CPUs: most kernels are missing, and values are cast to and fro.
    """
    from onnx import TensorProto, helper, numpy_helper

    readers: dict[str, list[str]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.output[0])
    casts = []
    for name, tensor in weights.items():
        if tensor.data_type != TensorProto.FLOAT or not readers.get(name) or not chosen.issuperset(readers[name]):
            continue
        values = numpy_helper.to_array(tensor)
        if values.size == 0 or not float(np.abs(values).max()) <= _LARGEST_FLOAT16:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_float16"))
        casts.append(helper.make_node("Cast", [f"{name}_float16"], [name], f"{name}_cast", to=TensorProto.FLOAT))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *nodes])


def _with_pairs(proto: onnx.ModelProto, static: list[str], recipe: QuantRecipe, cpu: TargetCpu) -> onnx.ModelProto:
    """``proto`` after onnxruntime's quantizer, which sees ranges of ours."""
    library, calibration = _library("qdq_quantizer"), _library("calibrate")
    types = _library("quant_utils").QuantType
    static, known = _with_integer_gates(proto, static, recipe.ranges)
    proto.metadata_props.add(key=_INFERRED[0], value=_INFERRED[1])
    ranges = calibration.TensorsData(calibration.CalibrationMethod.MinMax, {
        name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in known.items()})
    by_result = {node.output[0]: node for node in proto.graph.node if node.output}
    names = [by_result[name].name for name in static]
    producer = proto.producer_name, proto.producer_version
    level, log = logging.getLogger().level, logging.getLogger()
    try:
        log.setLevel(logging.ERROR)  # it advises on preprocessing, which has been done
        quantizer = library.QDQQuantizer(
            proto, True, cpu == "x86", types.QInt8, types.QInt8 if cpu == "arm" else types.QUInt8, ranges, names, [],
            sorted({by_result[name].op_type for name in static}), {})
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        _scale_without_multiplying(quantizer.model.model)
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError, AttributeError) as error:
        raise EngineError(f"onnxruntime.quantization failed on the model: {error}",
                          "Keep the ops that it names in float32 by a rule of the recipe.") from error
    finally:
        log.setLevel(level)
    made: onnx.ModelProto = quantizer.model.model
    kept = [each for each in made.metadata_props if (each.key, each.value) != _INFERRED]
    del made.metadata_props[:]
    made.metadata_props.extend(kept)
    made.producer_name, made.producer_version = producer
    return made


def _with_integer_gates(
    proto: onnx.ModelProto, static: list[str], ranges: Mapping[str, tuple[float, float]]
) -> tuple[list[str], dict[str, tuple[float, float]]]:
    """HardSigmoid, which has no kernel in integers, as Mul, Add and Clip, which have; the new results and ranges too.

    The Clip costs nothing: values beyond the range of a quantized result are cut off anyway. Nor does the Mul in the
    end (``_scale_without_multiplying``).
    """
    from onnx import TensorProto, helper, numpy_helper

    made: list[onnx.NodeProto] = []
    new_static, new_ranges = list(static), dict(ranges)
    chosen = set(static)
    for node in proto.graph.node:
        if node.op_type != "HardSigmoid" or node.output[0] not in chosen:
            made.append(node)
            continue
        (value,), (result,) = node.input, node.output
        given = {attribute.name: attribute.f for attribute in node.attribute}
        slope, offset = given.get("alpha", 0.2), given.get("beta", 0.5)
        scaled, shifted = f"{result}{_SCALED}", f"{result}_shifted"
        for name, number in (("slope", slope), ("offset", offset), ("zero", 0.0), ("one", 1.0)):
            proto.graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), f"{result}_{name}"))
        made += [helper.make_node("Mul", [value, f"{result}_slope"], [scaled], scaled),
                 helper.make_node("Add", [scaled, f"{result}_offset"], [shifted], shifted),
                 helper.make_node("Clip", [shifted, f"{result}_zero", f"{result}_one"], [result], result)]
        new_static += [scaled, shifted]
        proto.graph.value_info.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (scaled, shifted))
        low, high = sorted(slope * end for end in ranges[value])
        new_ranges |= {scaled: (low, high), shifted: ranges[result]}
    del proto.graph.node[:]
    proto.graph.node.extend(made)
    return new_static, new_ranges


def _scale_without_multiplying(proto: onnx.ModelProto) -> None:
    """The products of ``_with_integer_gates``: the same integers read with a scale that is ``slope`` times as large.

    This saves an op and a rounding.
    """
    from onnx import helper, numpy_helper

    maker = {name: node for node in proto.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    reader = {name: node for node in proto.graph.node for name in node.input}
    gone, new = set(), {}
    for node in proto.graph.node:
        if node.op_type != "Mul" or not node.name.endswith(_SCALED):
            continue
        value, slope = maker[node.input[0]], maker[node.input[1]]
        rounding = reader[node.output[0]]
        reading = reader[rounding.output[0]]
        parts = [numpy_helper.to_array(weights[name]) for name in (*slope.input, value.input[1])]
        factor = (parts[0].astype(np.float32) - parts[2].astype(np.float32)) * parts[1]
        if not float(factor) > 0:
            continue
        scale = f"{node.name}_scale_of_input"
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(parts[3] * factor, np.float32), scale))
        new[reading.name] = helper.make_node("DequantizeLinear", [value.input[0], scale, value.input[2]],
                                             reading.output, reading.name)
        gone |= {node.name, rounding.name}
    nodes = [new.get(node.name, node) for node in proto.graph.node if node.name not in gone]
    read = {value.name for value in proto.graph.output}.union(*(node.input for node in nodes))
    del proto.graph.node[:]
    proto.graph.node.extend(node for node in nodes if node.op_type != "DequantizeLinear" or node.output[0] in read)


def _drop_unread(proto: onnx.ModelProto) -> None:
    """Take out weights that no node reads any more."""
    read: set[str] = {value.name for value in proto.graph.output}
    read.update(_read_names(proto.graph.node))
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)


def _read_names(nodes: Iterable[onnx.NodeProto]) -> Iterable[str]:
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _read_names(graph.node)
                yield from (value.name for value in graph.output)


def _library(module: str) -> Any:
    try:
        return importlib.import_module(f"onnxruntime.quantization.{module}")
    except ModuleNotFoundError as error:
        raise MissingExtra.of("onnxruntime", "ort") from error
