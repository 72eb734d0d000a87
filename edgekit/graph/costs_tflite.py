"""The costs of the main graph of a .tflite file. Runs in a child process: see ``edgekit.graph.costs_read``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgekit.errors import BadInput, BadModel, MissingExtra, UnknownName
from edgekit.graph.costs import GraphCosts, OpClass, OpCost
from edgekit.graph.costs_memory import lifetimes, live_bytes, planned_bytes
from edgekit.graph.tflite_check import TENSOR_BITS, check_tflite
from edgekit.graph.tflite_reader import Exhausted, Table, root
from edgekit.graph.tflite_schema import load_schema

__all__ = ["tflite_costs"]

Shape = tuple[int, ...]

_CLASSES: dict[OpClass, set[str]] = {
    "free": {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SHAPE", "DEQUANTIZE_CONSTANT"},
    "pool": {"AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD",
             "ARG_MAX", "ARG_MIN"},
    "elementwise": {"ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1",
                    "PRELU", "LEAKY_RELU", "HARD_SWISH", "ABS", "NEG", "SQRT", "RSQRT", "SQUARE", "SQUARED_DIFFERENCE",
                    "FLOOR", "CEIL", "ROUND", "SIGN", "CAST", "SELECT", "SELECT_V2", "EQUAL", "NOT_EQUAL", "GREATER",
                    "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT", "QUANTIZE",
                    "DEQUANTIZE", "FLOOR_DIV", "FLOOR_MOD"},
    "transcendental": {"LOGISTIC", "TANH", "EXP", "LOG", "GELU", "ELU", "POW", "SIN", "COS", "ATAN2"},
    "softmax": {"SOFTMAX", "LOG_SOFTMAX"},
    "norm": {"L2_NORMALIZATION"},
    "lrn": {"LOCAL_RESPONSE_NORMALIZATION"},
    "channels": {"SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "UNPACK"},
    "copy": {"CONCATENATION", "TRANSPOSE", "PAD", "PADV2", "MIRROR_PAD", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
             "DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "GATHER", "GATHER_ND",
             "BROADCAST_TO", "TILE", "PACK", "CUMSUM", "TOPK_V2", "REVERSE_V2", "SCATTER_ND"},
    "detection": {"NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "CUSTOM:TFLite_Detection_PostProcess"},
}  # fmt: skip
_CLASS_OF: dict[str, OpClass] = {name: op_class for op_class, names in _CLASSES.items() for name in names}


class _Tensor(NamedTuple):
    name: str
    shape: Shape
    bits: int
    constant: bool


class _Step(NamedTuple):
    kind: str
    reads: Sequence[int]
    writes: Sequence[int]
    options: Mapping[str, int]


def tflite_costs(path: str, shapes: Mapping[str, Shape], signature: str = "") -> GraphCosts:
    """The costs of the first subgraph, or of that of ``signature``, whose shapes must be fixed.

    Raises BadModel, BadInput, UnknownName, MissingExtra (dynamic shapes only).
    """
    data = Path(path).read_bytes()
    check_tflite(data, f"'{path}'")
    try:
        model = root(data)
        graph = list(model.tables("Subgraphs"))[_subgraph(model, signature)]
        sizes = [max(buffer.length("Data"), buffer.number("Size")) for buffer in model.tables("Buffers")]
        tables = list(graph.tables("Tensors"))
        tensors = _sized(data, graph, [_tensor(table, sizes) for table in tables], tables, shapes)
        steps = list(_steps(model, graph))
    except Exhausted as error:
        raise BadModel(f"'{path}' is damaged: {error}.", "Obtain the file anew, or convert the model again.") from None
    return _costs(tensors, steps, graph.numbers("Inputs") or (), graph.numbers("Outputs") or ())


def _subgraph(model: Table, signature: str) -> int:
    if not signature:
        return 0
    known = {each.text("SignatureKey"): each.number("SubgraphIndex") for each in model.tables("SignatureDefs")}
    if signature not in known:
        raise UnknownName.of("signature", signature, known)
    return known[signature]


def _tensor(table: Table, sizes: Sequence[int]) -> _Tensor:
    kind = load_schema().enums["TensorType"][table.number("Type")]
    shape = table.numbers("Shape") or ()
    return _Tensor(table.text("Name"), shape, TENSOR_BITS.get(kind, 0), bool(sizes[table.number("Buffer")]))


def _steps(model: Table, graph: Table) -> list[_Step]:
    enums = load_schema().enums["BuiltinOperator"]
    kinds = []
    for code in model.tables("OperatorCodes"):
        number = max(code.number("BuiltinCode"), code.number("DeprecatedBuiltinCode"))
        name = enums.get(number, f"BUILTIN_{number}")
        kinds.append(f"CUSTOM:{code.text('CustomCode')}" if name == "CUSTOM" else name)
    return [
        _Step(kinds[op.number("OpcodeIndex")], op.numbers("Inputs") or (), op.numbers("Outputs") or (), _options(op))
        for op in graph.tables("Operators")
    ]


def _options(op: Table) -> dict[str, int]:
    """Strides and the window of a convolution or pooling."""
    schema = load_schema()
    name = schema.unions["BuiltinOptions"].get(op.number("BuiltinOptionsType"), "")
    at = op._target(op._fields["BuiltinOptions"])
    if not at or name not in ("Conv2DOptions", "DepthwiseConv2DOptions", "Pool2DOptions", "TransposeConvOptions"):
        return {}
    options = Table(op._data, at, name, op._budget)
    wanted = ("StrideH", "StrideW", "FilterHeight", "FilterWidth")
    return {field: options.number(field) for field in wanted if field in schema.tables[name]}


def _sized(
    data: bytes, graph: Table, tensors: list[_Tensor], tables: list[Table], shapes: Mapping[str, Shape]
) -> list[_Tensor]:
    """``tensors`` with the shapes that follow from ``shapes`` and a batch of 1; the engine works them out."""
    inputs = [index for index in graph.numbers("Inputs") or () if index >= 0]
    known = {tensors[index].name for index in inputs}
    unknown = next((name for name in shapes if name not in known), None)
    if unknown is not None:
        raise UnknownName.of("input", unknown, sorted(known))
    wanted: dict[int, Shape] = {}
    for index in inputs:
        signature = tables[index].numbers("ShapeSignature") or tensors[index].shape
        one = (1, *signature[1:]) if signature[:1] == (-1,) else signature
        shape = shapes.get(tensors[index].name, one)
        if -1 in shape:
            raise BadInput(
                f"The input '{tensors[index].name}' has dynamic dimensions: {list(signature)}.",
                f"Give its shape, such as --shape {tensors[index].name}=1,224,224,3.",
            )
        if shape != tensors[index].shape:
            wanted[index] = shape
    if not wanted:
        return tensors
    found = _shapes_of_engine(data, wanted)
    return [tensor._replace(shape=found.get(index, tensor.shape)) for index, tensor in enumerate(tensors)]


def _shapes_of_engine(data: bytes, wanted: Mapping[int, Shape]) -> dict[int, Shape]:
    try:
        from ai_edge_litert import interpreter as litert
    except ImportError as error:
        raise MissingExtra.of("ai-edge-litert", "litert") from error
    plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    engine = litert.Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=plain)
    try:
        for index, shape in wanted.items():
            engine.resize_tensor_input(index, list(shape))
        engine.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"The model cannot take these shapes: {' '.join(str(error).split())}.") from error
    return {
        int(detail["index"]): tuple(int(size) for size in detail["shape"]) for detail in engine.get_tensor_details()
    }


def _costs(tensors: list[_Tensor], steps: list[_Step], inputs: Sequence[int], outputs: Sequence[int]) -> GraphCosts:
    constants = {index for index, tensor in enumerate(tensors) if tensor.constant}
    ops, flow = [], []
    weights: set[int] = set()
    for step in _fused(steps, set(outputs)):
        reads = [index for index in step.reads if index >= 0]
        weights.update(index for index in reads if tensors[index].constant)
        if all(index in constants for index in reads) and reads:  # prepared once, such as the unpacking of weights
            constants.update(step.writes)
            continue
        live = [index for index in reads if index not in constants]
        ops.append(_op(step, tensors, live, constants))
        flow.append(([str(index) for index in live], [str(index) for index in step.writes]))
    used = {int(name) for read, written in flow for name in (*read, *written)} | {i for i in inputs if i >= 0}
    sizes = {str(index): math.prod(tensors[index].shape) * tensors[index].bits // 8 for index in used}
    lives = lifetimes(flow, sizes, map(str, inputs), [str(i) for i in outputs if i in used])
    weight_bits = sum(math.prod(tensors[index].shape) * tensors[index].bits for index in weights)
    ends = sum(math.prod(tensors[index].shape) for index in (*inputs, *outputs) if index >= 0)
    return GraphCosts(
        tuple(ops), sum(math.prod(tensors[index].shape) for index in weights), weight_bits // 8, planned_bytes(lives),
        live_bytes(lives, len(flow)), ends,
    )


def _fused(steps: list[_Step], outputs: set[int]) -> list[_Step]:
    """Zero padding becomes part of the convolution behind it, as in XNNPACK, unless something else reads it too."""
    readers = Counter(index for step in steps for index in set(step.reads))
    pads = {
        step.writes[0]: step.reads[0]
        for step in steps
        if step.kind == "PAD" and readers[step.writes[0]] == 1 and step.writes[0] not in outputs
    }
    taken = {
        step.reads[0]
        for step in steps
        if step.kind in ("CONV_2D", "DEPTHWISE_CONV_2D") and step.reads and step.reads[0] in pads
    }
    kept = [step for step in steps if not (step.kind == "PAD" and step.writes[0] in taken)]
    return [
        step._replace(reads=(pads[step.reads[0]], *step.reads[1:])) if step.reads and step.reads[0] in taken else step
        for step in kept
    ]


def _op(step: _Step, tensors: list[_Tensor], live: list[int], constants: set[int]) -> OpCost:
    fixed = [tensors[index] for index in step.reads if index >= 0 and index in constants]
    result = tensors[step.writes[0]] if step.writes else _Tensor("", (), 32, False)
    source = tensors[live[0]].shape if live else ()
    # The data input of a transposed convolution is its third; a fully connected layer's weights are its second.
    data = tensors[step.reads[2]].shape if step.kind == "TRANSPOSE_CONV" else source
    matrix = tensors[step.reads[1]].shape if len(step.reads) > 1 and step.reads[1] >= 0 else ()
    kernel = tensors[step.reads[0]].shape if step.kind == "TRANSPOSE_CONV" else matrix
    basic: dict[str, Any] = {
        "name": result.name,
        "kind": step.kind,
        "in_elements": sum(math.prod(tensors[index].shape) for index in live),
        "out_elements": sum(math.prod(tensors[index].shape) for index in step.writes),
        "weight_elements": sum(math.prod(tensor.shape) for tensor in fixed),
        "bits": result.bits or 32,
        "weight_bits": max((tensor.bits for tensor in fixed[:1]), default=32),
    }
    return OpCost(
        **basic, **_kernel(step, data, result.shape, kernel, matrix, step.reads[1:2] and step.reads[1] in constants)
    )


def _kernel(
    step: _Step, source: Shape, result: Shape, kernel: Shape, matrix: Shape, constant: object
) -> dict[str, Any]:
    stride = max(step.options.get("StrideH", 1), step.options.get("StrideW", 1), 1)
    image = {"cin": source[-1] if source else 1, "cout": result[-1] if result else 1, "stride": stride}
    if len(result) == 4:
        image |= {"out_h": result[1], "out_w": result[2]}
    if step.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV") and len(kernel) == 4:
        return {**image, **_convolution(step.kind, source, result, kernel)}
    if step.kind in ("FULLY_CONNECTED", "BATCH_MATMUL"):
        summed = source[-1] if step.kind == "BATCH_MATMUL" or not matrix else matrix[-1]
        rows = math.prod(result[:-1])
        op_class: OpClass = "fc" if constant and rows == 1 else "matmul"
        return {
            "op_class": op_class,
            "macs": math.prod(result) * summed,
            "cin": summed,
            "cout": image["cout"],
            "out_h": rows,
        }
    window = {"kernel_h": step.options.get("FilterHeight", 1), "kernel_w": step.options.get("FilterWidth", 1)}
    return {**image, **window, "op_class": _CLASS_OF.get(step.kind, "unknown")}


def _convolution(kind: str, source: Shape, result: Shape, kernel: Shape) -> dict[str, Any]:
    window = {"kernel_h": kernel[1], "kernel_w": kernel[2]}
    if kind == "DEPTHWISE_CONV_2D":
        macs = math.prod(result) * kernel[1] * kernel[2]
        return {**window, "op_class": "depthwise", "macs": macs, "groups": source[-1]}
    if kind == "TRANSPOSE_CONV":
        return {**window, "op_class": "conv", "macs": math.prod(source[:3]) * math.prod(kernel)}
    groups = max(source[-1] // max(kernel[3], 1), 1)
    op_class: OpClass = "grouped" if groups > 1 else "conv"
    return {**window, "op_class": op_class, "macs": math.prod(result) * math.prod(kernel[1:]), "groups": groups}
