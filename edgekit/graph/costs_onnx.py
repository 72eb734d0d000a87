"""The costs of an .onnx graph. Runs in a child process: see ``edgekit.graph.costs_read``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.converters.fix_shapes import fix_shapes
from edgekit.converters.onnx_model import load_onnx, parse_onnx
from edgekit.errors import BadInput, BadModel
from edgekit.graph.costs import GraphCosts, OpClass, OpCost
from edgekit.graph.costs_memory import lifetimes, live_bytes, planned_bytes
from edgekit.graph.fold_onnx import folded

if TYPE_CHECKING:
    import onnx

__all__ = ["onnx_costs"]

Shape = tuple[int, ...]

_FREE = {
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Dropout",
    "Shape",
    "Constant",
    "ConstantOfShape",
    "QuantizeLinear",
    "DequantizeLinear",
}
_CLASSES: dict[OpClass, set[str]] = {
    "free": _FREE,
    "pool": {
        "MaxPool",
        "AveragePool",
        "LpPool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GlobalLpPool",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceSum",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ArgMax",
        "ArgMin",
    },
    "elementwise": {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Max",
        "Min",
        "Relu",
        "Clip",
        "LeakyRelu",
        "PRelu",
        "HardSigmoid",
        "HardSwish",
        "Neg",
        "Abs",
        "Sqrt",
        "Reciprocal",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Where",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "And",
        "Or",
        "Not",
        "Cast",
        "ThresholdedRelu",
        "BatchNormalization",
        "Sum",
        "Mean",
    },
    "transcendental": {
        "Sigmoid",
        "Tanh",
        "Exp",
        "Log",
        "Erf",
        "Gelu",
        "Softplus",
        "Softsign",
        "Elu",
        "Selu",
        "Celu",
        "Mish",
        "Pow",
        "Sin",
        "Cos",
        "Atan",
        "Swish",
    },
    "softmax": {"Softmax", "LogSoftmax"},
    "norm": {
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LpNormalization",
        "RMSNormalization",
        "MeanVarianceNormalization",
    },
    "lrn": {"LRN"},
    "channels": {"Slice", "Split"},
    "copy": {
        "Concat",
        "Transpose",
        "Pad",
        "Resize",
        "Upsample",
        "DepthToSpace",
        "SpaceToDepth",
        "Gather",
        "GatherElements",
        "GatherND",
        "Expand",
        "Tile",
        "ScatterND",
        "CumSum",
        "TopK",
    },
    "detection": {"NonMaxSuppression", "RoiAlign"},
}
_CLASS_OF: dict[str, OpClass] = {name: op_class for op_class, names in _CLASSES.items() for name in names}
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
#: ops that engines compute inside the op before, when nothing else reads that op's result
_FUSED = {"BatchNormalization", "Relu", "Clip", "LeakyRelu"}
_FUSE_AFTER = {*_PRODUCTS, "Add", "BatchNormalization"}


def onnx_costs(path: str, shapes: Mapping[str, Shape]) -> GraphCosts:
    """The costs of the file with its inputs shaped as given. Raises BadModel, BadInput, BadRecipe, UnknownName."""
    return _Graph(_with_shapes(path, shapes)).costs()


def _with_shapes(path: str, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    import onnx

    model = load_onnx(path)
    proto = parse_onnx(model.data, f"'{path}'", self_contained=True)
    wanted = {}
    for spec in model.inputs:
        one = (1, *spec.shape[1:]) if spec.shape[:1] == (-1,) else spec.shape
        wanted[spec.name] = shapes.get(spec.name, one)
        if -1 in wanted[spec.name]:
            raise BadInput(
                f"The input '{spec.name}' has dynamic dimensions: {list(spec.shape)}.",
                f"Give its shape, such as --shape {spec.name}=1,3,224,224.",
            )
    fix_shapes(proto, {**shapes, **wanted})
    del proto.graph.value_info[:]
    try:
        plain = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        # Inference does not follow a Reshape or Slice of constants, from which exporters compute the sizes of pads.
        more = onnx.shape_inference.infer_shapes(folded(plain), data_prop=True)
        known = {value.name: value for value in (*plain.graph.value_info, *more.graph.value_info)}
        del plain.graph.value_info[:]
        plain.graph.value_info.extend(known.values())
        del plain.graph.output[:]
        plain.graph.output.extend(more.graph.output)
        return plain
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise BadModel(f"The shapes in '{path}' contradict each other: {' '.join(str(error).split())}.") from error


class _Graph:
    """A graph with shapes: which values are constants, and which nodes an engine runs."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        import onnx

        graph = proto.graph
        self.nodes = list(graph.node)
        self.outputs = {value.name for value in graph.output}
        self.weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.weights]
        self.shapes: dict[str, Shape] = dict(self.weights)
        self.bits: dict[str, int] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                self.shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
            self.bits[value.name] = _bits(tensor.elem_type)
        self.bits.update({tensor.name: _bits(tensor.data_type) for tensor in graph.initializer})
        for node in self.nodes:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.HasField("t"):
                    self.weights[node.output[0]] = self.shapes[node.output[0]] = tuple(attribute.t.dims)
                    self.bits[node.output[0]] = _bits(attribute.t.data_type)
        self.attributes = [{a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} for node in self.nodes]
        self.readers = Counter(name for node in self.nodes for name in set(node.input))
        self.constants = self._constants()

    def _constants(self) -> set[str]:
        known = set(self.weights)
        for node in self.nodes:
            shape_known = node.op_type in ("Shape", "Size") and node.input[0] in self.shapes
            if shape_known or node.op_type == "Constant" or all(name in known or not name for name in node.input):
                known.update(node.output)
        return known

    def costs(self) -> GraphCosts:
        """Of the whole graph."""
        ops: list[OpCost] = []
        steps: list[tuple[list[str], list[str]]] = []
        inside: dict[str, int] = {}  # value -> the op that makes it, or took its making over
        for node, attributes in zip(self.nodes, self.attributes, strict=True):
            if all(name in self.constants for name in node.output):
                continue
            live = [name for name in node.input if name and name not in self.constants]
            host = inside.get(live[0]) if len(live) == 1 else None
            if host is not None and self._fuses(node, live[0], ops[host]):
                steps[host][1][:] = list(node.output)
                inside[node.output[0]] = host
                continue
            ops.append(self._op(node, attributes, live))
            steps.append((live, list(node.output)))
            if node.op_type in _FUSE_AFTER:
                inside[node.output[0]] = len(ops) - 1
        used = {name for node in self.nodes for name in node.input if name in self.weights}
        weight_bits = sum(math.prod(self.weights[name]) * self.bits.get(name, 32) for name in used)
        ends = sum(math.prod(self.shapes.get(name, ())) for name in (*self.inputs, *self.outputs))
        parameters = sum(math.prod(self.weights[name]) for name in used)
        peak, in_use = self._memory(steps)
        return GraphCosts(tuple(ops), parameters, weight_bits // 8, peak, in_use, io_elements=ends)

    def _fuses(self, node: onnx.NodeProto, name: str, host: OpCost) -> bool:
        if self.readers[name] != 1 or name in self.outputs:
            return False
        if node.op_type == "Add":  # a bias
            return host.kind == "MatMul" and len(self.shapes.get(node.input[1], ())) <= 1
        return node.op_type in _FUSED and (
            node.op_type != "BatchNormalization" or host.kind in ("Conv", "ConvTranspose")
        )

    def _memory(self, steps: list[tuple[list[str], list[str]]]) -> tuple[int, tuple[int, ...]] | tuple[None, None]:
        names = {*self.inputs, *(name for read, written in steps for name in (*read, *written))} - {""}
        if not names <= set(self.shapes):
            return None, None
        sizes = {name: math.prod(self.shapes[name]) * self.bits.get(name, 32) // 8 for name in names}
        lives = lifetimes(steps, sizes, self.inputs, self.outputs)
        return planned_bytes(lives), live_bytes(lives, len(steps))

    def _op(self, node: onnx.NodeProto, attributes: Mapping[str, Any], live: list[str]) -> OpCost:
        missing = [name for name in (*live, *node.output[:1]) if name and name not in self.shapes]
        standard = node.domain in ("", "ai.onnx")
        op_class = _CLASS_OF.get(node.op_type, "unknown") if standard else "unknown"
        basic: dict[str, Any] = {
            "name": node.name or node.output[0],
            "kind": node.op_type if standard else f"{node.domain}.{node.op_type}",
            "in_elements": sum(math.prod(self.shapes.get(name, ())) for name in live),
            "out_elements": sum(math.prod(self.shapes.get(name, ())) for name in node.output if name),
            "weight_elements": sum(math.prod(self.weights[name]) for name in node.input if name in self.weights),
            "bits": self.bits.get(node.output[0], 32) or 32,
        }
        if missing:  # its size is known at run time only
            return OpCost(**basic, op_class="unknown")
        source, result = self.shapes[live[0]] if live else (), self.shapes[node.output[0]]
        if node.op_type in ("Conv", "ConvTranspose") and standard:
            return OpCost(**basic, **_convolution(source, result, self.shapes[node.input[1]], node.op_type, attributes))
        if node.op_type in ("Gemm", "MatMul") and standard:
            constant = node.input[1] in self.constants
            first = self.shapes[node.input[0]]
            summed = first[-2 if attributes.get("transA") else -1] if first else 1
            return OpCost(**basic, **_product(result, summed, constant))
        kernel = [int(size) for size in attributes.get("kernel_shape", (1, 1))]
        stride = int(max(attributes.get("strides", (1,))))
        sizes: dict[str, Any] = {**basic, **_image(source, result)}
        return OpCost(**sizes, op_class=op_class, kernel_h=kernel[0], kernel_w=kernel[-1], stride=stride)


def _bits(kind: int) -> int:
    import onnx

    if kind in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return 0
    name = onnx.TensorProto.DataType.Name(kind)
    if name in ("INT4", "UINT4"):
        return 4
    return int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize) * 8


def _image(source: Shape, result: Shape) -> dict[str, Any]:
    """Channels and pixels in the order N, C, H, W; of a matrix, its last axis."""
    if len(result) == 4:
        return {"cin": source[1] if len(source) == 4 else 1, "cout": result[1], "out_h": result[2], "out_w": result[3]}
    return {"cin": source[-1] if source else 1, "cout": result[-1] if result else 1}


def _convolution(
    source: Shape, result: Shape, weights: Shape, kind: str, attributes: Mapping[str, Any]
) -> dict[str, Any]:
    groups = int(attributes.get("group", 1))
    spatial = math.prod(weights[2:])
    # A transposed convolution spreads each input pixel; the weights' second axis counts the outputs of one group.
    pixels = source if kind == "ConvTranspose" else result
    macs = math.prod(pixels[2:]) * pixels[0] * math.prod(weights[:2]) * spatial
    op_class: OpClass = "conv"
    if groups > 1:
        op_class = "depthwise" if weights[1] == 1 and groups == source[1] else "grouped"
    return {
        "op_class": op_class,
        "macs": macs,
        "cin": source[1],
        "cout": result[1],
        "groups": groups,
        "out_h": math.prod(result[2:-1]),
        "out_w": result[-1],
        "kernel_h": math.prod(weights[2:-1]),
        "kernel_w": weights[-1],
        "stride": int(max(attributes.get("strides", (1,)))),
    }


def _product(result: Shape, summed: int, constant: bool) -> dict[str, Any]:
    rows = math.prod(result[:-1])
    op_class: OpClass = "fc" if constant and rows == 1 else "matmul"
    return {
        "op_class": op_class,
        "macs": math.prod(result) * summed,
        "cin": summed,
        "cout": result[-1] if result else 1,
        "out_h": rows,
    }
