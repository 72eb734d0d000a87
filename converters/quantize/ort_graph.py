"""The ONNX graph that is quantized for ONNX Runtime: folded, typed, every node named after its first result."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgekit.artifacts import OnnxModel, OrtModel
from edgekit.converters.onnx_model import describe, parse_onnx
from edgekit.converters.onnx_to_ort import simplified
from edgekit.converters.quantize.plan import Graph
from edgekit.errors import BadModel

if TYPE_CHECKING:
    import onnx

__all__ = ["as_model", "float_values", "is_quantized", "look_at_onnx", "ort_float_model", "typed"]

#: DequantizeLinear has a scale for each channel from here on
_PER_CHANNEL_OPSET = 13
_TARGET_OPSET = 17
_QUANTIZED = frozenset({
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear",
})  # fmt: skip


def is_quantized(model: OnnxModel) -> bool:
    """Whether the graph quantizes values itself, as one from quantization-aware training does."""
    return any(node.op_type in _QUANTIZED for node in parse_onnx(model.data).graph.node)


def ort_float_model(model: OnnxModel, shapes: Mapping[str, tuple[int, ...]] | None = None) -> OrtModel:
    """``model`` as ``quantize_ort`` and ``search_ort`` want it; ONNX Runtime does the rest when it loads the file.

    ``shapes`` fixes dynamic inputs. Raises as ``to_ort``, and BadModel for an old opset that onnx cannot convert.
    """
    proto = _raised(simplified(model, shapes))
    _use_pooling(proto)
    for node in proto.graph.node:
        node.name = next((name for name in node.output if name), node.name)
    return as_model(proto)


def _raised(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnx
    import onnx.version_converter

    opset = next(each.version for each in proto.opset_import if each.domain in ("", "ai.onnx"))
    if opset >= _PER_CHANNEL_OPSET:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, _TARGET_OPSET)
    except (RuntimeError, ValueError) as error:
        raise BadModel(f"The graph has opset {opset}, and onnx cannot convert it to {_TARGET_OPSET}: {error}.",
                       f"Export it with opset {_PER_CHANNEL_OPSET} or later.") from error


def _use_pooling(proto: onnx.ModelProto) -> None:
    """Means over the two last of four axes as GlobalAveragePool, which is the same and has a kernel in integers."""
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    infos = [*proto.graph.value_info, *proto.graph.input]
    ranks = {info.name: len(info.type.tensor_type.shape.dim) for info in infos}
    for node in proto.graph.node:
        if node.op_type != "ReduceMean" or ranks.get(node.input[0]) != 4:
            continue
        given = {attribute.name: attribute for attribute in node.attribute}
        axes = list(given["axes"].ints) if "axes" in given else []
        if len(node.input) > 1 and node.input[1] in weights:
            axes = numpy_helper.to_array(weights[node.input[1]]).tolist()
        if ("keepdims" in given and given["keepdims"].i != 1) or sorted(axis % 4 for axis in axes) != [2, 3]:
            continue
        node.op_type = "GlobalAveragePool"
        del node.input[1:]
        del node.attribute[:]


def as_model(proto: onnx.ModelProto) -> OrtModel:
    """``proto`` serialised, without types of inner values, which engines infer."""
    del proto.graph.value_info[:]
    data = proto.SerializeToString(deterministic=True)
    described = describe(proto, data)
    return OrtModel(data=data, format="onnx", inputs=described.inputs, outputs=described.outputs)


def typed(data: bytes) -> onnx.ModelProto:
    """The graph with the types and, where they are fixed, shapes of inner values inferred."""
    import onnx

    return onnx.shape_inference.infer_shapes(parse_onnx(data))


def float_values(proto: onnx.ModelProto) -> Iterator[str]:
    """Names of the float32 inputs and of the float32 values that the nodes of a typed graph compute, in order."""
    import onnx

    infos = itertools.chain(proto.graph.input, proto.graph.value_info, proto.graph.output)
    floats = {info.name for info in infos if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    results = (name for node in proto.graph.node for name in node.output)
    return (name for name in itertools.chain((value.name for value in proto.graph.input), results) if name in floats)


def look_at_onnx(data: bytes) -> Graph:
    """Kinds of ops (ONNX's names), and of each node the kind and its first result."""
    nodes = [node for node in parse_onnx(data).graph.node if node.output]
    return Graph(tuple(sorted({node.op_type for node in nodes})), tuple((n.op_type, n.output[0]) for n in nodes))
