"""The ops of a file as rules about accelerators see them; nothing in the file is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import isolate
from edgekit.errors import BadModel, InternalError, UnknownName
from edgekit.graph.tflite_check import check_tflite
from edgekit.graph.tflite_reader import Exhausted, Table, root
from edgekit.graph.tflite_schema import load_schema
from edgekit.report.accelerators import OpFacts

if TYPE_CHECKING:
    import onnx

__all__ = ["op_facts"]


def op_facts(path: Path) -> tuple[OpFacts, ...]:
    """The ops of the main graph of a .tflite or .onnx file, in order; constants that ONNX makes by nodes are left out.

    Raises BadModel, UnknownName, MissingExtra.
    """
    suffix = path.suffix.lower()
    if suffix == ".tflite":
        return _of_tflite(path.read_bytes(), f"'{path}'")
    if suffix != ".onnx":
        raise UnknownName.of("suffix of a file with ops to place", suffix, (".tflite", ".onnx"))
    found = isolate.call("edgekit.report.op_facts:_of_onnx", str(path), subject=f"Reading '{path}'")
    if not isinstance(found, tuple):
        raise InternalError("The child process sent no ops.")
    return found


def _of_tflite(data: bytes, name: str) -> tuple[OpFacts, ...]:
    check_tflite(data, name)
    try:
        model = root(data)
        filled = [bool(buffer.length("Data") or buffer.number("Size")) for buffer in model.tables("Buffers")]
        graph = next(model.tables("Subgraphs"))
        tensors = list(graph.tables("Tensors"))
        kinds = [_kind(code) for code in model.tables("OperatorCodes")]
        return tuple(_tflite_op(op, kinds[op.number("OpcodeIndex")], tensors, filled)
                     for op in graph.tables("Operators"))
    except Exhausted as error:
        raise BadModel(f"{name} is damaged: {error}.", "Obtain the file anew, or convert the model again.") from None


def _kind(code: Table) -> str:
    number = max(code.number("BuiltinCode"), code.number("DeprecatedBuiltinCode"))
    found = load_schema().enums["BuiltinOperator"].get(number, f"BUILTIN_{number}")
    return f"CUSTOM:{code.text('CustomCode')}" if found == "CUSTOM" else found


def _tflite_op(op: Table, kind: str, tensors: Sequence[Table], filled: Sequence[bool]) -> OpFacts:
    types = load_schema().enums["TensorType"]
    reads = [index for index in op.numbers("Inputs") or () if index >= 0]
    writes = [index for index in op.numbers("Outputs") or () if index >= 0]
    used = [tensors[index] for index in (*reads, *writes)]
    shapes = [tensor.numbers("ShapeSignature") or tensor.numbers("Shape") or () for tensor in used]
    return OpFacts(
        name=tensors[writes[0]].text("Name") if writes else "", kind=kind,
        ranks=tuple(len(shape) for shape in shapes),
        # The interpreter plans with a batch of 1 where the file leaves it open, and so do its delegates.
        dynamic=any(size < 0 for shape in shapes for size in shape[1:]),
        constant=tuple(filled[tensors[index].number("Buffer")] for index in reads),
        dtypes=tuple(types[tensor.number("Type")].lower() for tensor in used),
    )


def _of_onnx(path: str) -> tuple[OpFacts, ...]:
    """In the child process: a file that cannot be inferred is told about without shapes."""
    import onnx

    from edgekit.converters.onnx_model import parse_onnx

    proto = parse_onnx(Path(path).read_bytes(), f"'{path}'")
    inferred = onnx.shape_inference.infer_shapes(proto)
    graph = inferred.graph
    shapes = {value.name: tuple(dim.dim_value if dim.HasField("dim_value") else -1
                                for dim in value.type.tensor_type.shape.dim)
              for value in (*graph.input, *graph.value_info, *graph.output)
              if value.type.tensor_type.HasField("shape")}
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    weights |= {node.output[0]: () for node in graph.node if node.op_type == "Constant"}
    return tuple(_onnx_op(node, shapes, weights) for node in graph.node if node.op_type != "Constant")


def _onnx_op(
    node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], weights: dict[str, tuple[int, ...]]
) -> OpFacts:
    reads = [name for name in node.input if name]
    used = [shapes[name] for name in (*reads, *node.output) if name in shapes]
    attributes: dict[str, int | float | str | tuple[int, ...]] = {}
    for item in node.attribute:
        if item.type == item.INT:
            attributes[item.name] = item.i
        elif item.type == item.STRING:
            attributes[item.name] = item.s.decode(errors="replace")
        elif item.type == item.INTS:
            attributes[item.name] = tuple(item.ints)
    kernel = attributes.get("kernel_shape")
    window = len(kernel) if isinstance(kernel, tuple) else None
    if window is None and node.op_type in ("GlobalAveragePool", "GlobalMaxPool", "Conv", "ConvTranspose"):
        window = next((len(shapes[name]) - 2 for name in reads[:1] if name in shapes), None)
    plain = node.domain in ("", "ai.onnx")
    return OpFacts(
        name=node.output[0] if node.output else "", kind=node.op_type if plain else f"{node.domain}.{node.op_type}",
        ranks=tuple(map(len, used)), constant=tuple(name in weights for name in reads), window=window,
        dynamic=any(size < 0 for shape in used for size in shape), attributes=attributes,
    )
