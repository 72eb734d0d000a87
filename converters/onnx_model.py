"""Reading an ONNX file: bytes -> checked ``OnnxModel``.

Everything here is Python and the memory-safe protobuf parser, so a damaged file raises BadModel and cannot crash the
process. The checks are those the converters rely on; they accept what ONNX Runtime accepts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifacts import OnnxModel, TensorSpec
from edgekit.errors import BadModel, MissingExtra

if TYPE_CHECKING:
    import onnx

__all__ = ["describe", "load_onnx", "parse_onnx"]

#: protobuf cannot hold more in one message
MAX_MODEL_BYTES = 2**31 - 1
_STANDARD_DOMAINS = ("", "ai.onnx")


def _onnx() -> object:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra.of("onnx", "convert") from error
    return onnx


def load_onnx(path: Path | str) -> OnnxModel:
    """The ONNX file at ``path`` with its external data inlined, checked.

    Raises BadModel when the file cannot be read, is not ONNX, is malformed, or is larger than 2 GiB with its weights.
    """
    path = Path(path)
    try:
        size_bytes = path.stat().st_size
        if path.is_dir():
            raise BadModel(f"{path} is a directory.", "Give the path of an .onnx file.")
        if size_bytes > MAX_MODEL_BYTES:
            raise BadModel(
                f"{path} has {size_bytes} bytes.", "One ONNX file holds at most 2 GiB: split the weights off."
            )
        data = path.read_bytes()
    except OSError as error:
        raise BadModel(f"{path} cannot be read: {error.strerror or error}.") from error
    proto = parse_onnx(data, str(path))
    if _inline_external_data(proto, path):
        if proto.ByteSize() > MAX_MODEL_BYTES:
            raise BadModel(f"{path} holds more than 2 GiB with its weights.", "Models of that size are refused.")
        data = proto.SerializeToString(deterministic=True)
    return describe(proto, data)


def parse_onnx(data: bytes, name: str = "the model") -> onnx.ModelProto:
    """``data`` as a checked ModelProto. Raises BadModel, naming ``name``."""
    _onnx()
    import onnx
    from google.protobuf.message import DecodeError

    if not data:
        raise BadModel(f"{name} is empty (0 bytes).", "Give a complete .onnx file.")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise BadModel(f"{name} is not an ONNX file, or is damaged ({len(data)} bytes): {error}.") from error
    problem = next(_problems(proto), None)
    if problem:
        raise BadModel(f"{name} is not a valid ONNX model: {problem}.", "Export or download it again.")
    return proto


def describe(proto: onnx.ModelProto, data: bytes | None = None) -> OnnxModel:
    """The artifact for a checked ``proto``; ``data`` is its serialisation when that is at hand."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return OnnxModel(
        data=proto.SerializeToString(deterministic=True) if data is None else data,
        inputs=tuple(_spec(value) for value in proto.graph.input if value.name not in weights),
        outputs=tuple(_spec(value) for value in proto.graph.output),
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise BadModel(f"'{value.name}' is a {kind or 'value without a type'}.", "Inputs and outputs must be tensors.")
    tensor = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except (KeyError, ValueError) as error:
        raise BadModel(f"'{value.name}' has the unknown element type {tensor.elem_type}.") from error
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return TensorSpec(name=value.name, dtype=dtype, shape=tuple(-1 if dim < 0 else dim for dim in shape))


def _inline_external_data(proto: onnx.ModelProto, path: Path) -> bool:
    from onnx import TensorProto, checker, external_data_helper

    tensors = list(external_data_helper._get_all_tensors(proto))
    external = [tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL]
    for tensor in external:
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except (OSError, ValueError, checker.ValidationError) as error:
            raise BadModel(f"The external weights of '{tensor.name}' in {path} cannot be read: {error}.") from error
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return bool(external)


def _problems(proto: onnx.ModelProto) -> Iterator[str]:
    if not proto.HasField("graph"):
        yield "it has no graph"
    if not any(opset.domain in _STANDARD_DOMAINS for opset in proto.opset_import):
        yield "it has no opset_import for the standard domain, so the meaning of its ops is unknown"
    if not proto.graph.output:
        yield "its graph has no outputs"
    known: set[str] = {""}
    yield from _graph_problems(proto.graph, known)


def _graph_problems(graph: onnx.GraphProto, known: set[str]) -> Iterator[str]:
    """``known``: names visible from the surrounding graphs; this graph's own are added to a copy."""
    known = set(known)
    for tensor in graph.initializer:
        yield from _tensor_problems(tensor)
        known.add(tensor.name)
    known.update(sparse.values.name for sparse in graph.sparse_initializer)
    for value in graph.input:
        known.add(value.name)
    made: set[str] = set()
    for index, node in enumerate(graph.node):
        label = f"node '{node.name or index}' ({node.op_type or 'no op type'})"
        if not node.op_type:
            yield f"{label} has no op type"
        for name in node.input:
            if name not in known:
                yield f"{label} reads '{name}', which nothing before it makes"
        for attribute in node.attribute:
            if not attribute.type:
                yield f"{label} has the attribute '{attribute.name}' without a type"
            if attribute.HasField("t"):
                yield from _tensor_problems(attribute.t)
            for subgraph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _graph_problems(subgraph, known)
        for name in node.output:
            if name and name in made:
                yield f"{label} makes '{name}', which another node makes already"
            made.add(name)
            known.add(name)
    for value in graph.output:
        if value.name not in known:
            yield f"its output '{value.name}' is made by no node"


def _tensor_problems(tensor: onnx.TensorProto) -> Iterator[str]:
    """A tensor whose declared shape and payload disagree would be read past its end by a careless engine."""
    import onnx

    if any(dim < 0 for dim in tensor.dims):
        yield f"the tensor '{tensor.name}' has a negative dimension {list(tensor.dims)}"
        return
    count = 1
    for dim in tensor.dims:
        count *= dim
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.data_type == onnx.TensorProto.STRING:
        return
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError):
        yield f"the tensor '{tensor.name}' has the unknown element type {tensor.data_type}"
        return
    if tensor.HasField("raw_data"):
        half_bytes = tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)
        bits = 4 if half_bytes else np.dtype(dtype).itemsize * 8
        want = -(-count * bits // 8)
        if len(tensor.raw_data) != want:
            yield f"the tensor '{tensor.name}' {list(tensor.dims)} needs {want} bytes and has {len(tensor.raw_data)}"
    elif count:
        try:
            onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            yield f"the tensor '{tensor.name}' cannot be read ({error})"
