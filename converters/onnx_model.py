"""Reading an ONNX file: bytes -> checked ``OnnxModel``.

Everything here is Python and the memory-safe protobuf parser, so a damaged file raises BadModel and cannot crash the
process. The checks are those the converters rely on. What ONNX Runtime loads passes, but for nodes out of order, inputs
without a name, and sparse weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit import isolate
from edgekit.artifacts import OnnxModel, TensorSpec
from edgekit.errors import BadModel, MissingExtra

if TYPE_CHECKING:
    import onnx

__all__ = ["complaint_of_checker", "describe", "load_onnx", "parse_onnx"]

#: protobuf cannot hold more in one message
MAX_MODEL_BYTES = 2**31 - 1
#: both engines count the elements along an axis in 32 bits
MAX_DIM = 2**31 - 1
#: numpy's limit
MAX_RANK = 32
#: element types of which several share a byte
_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
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


def parse_onnx(data: bytes, name: str = "the model", *, self_contained: bool = False) -> onnx.ModelProto:
    """``data`` as a checked ModelProto. Raises BadModel, naming ``name``.

    ``self_contained``: weights in other files are refused; only ``load_onnx`` knows where those may lie.
    """
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
    problem = next(_problems(proto, self_contained), None)
    if problem:
        raise BadModel(f"{name} is not a valid ONNX model: {problem}.", "Export or download it again.")
    return proto


def complaint_of_checker(data: bytes) -> str:
    """What ONNX's own checker, strict shape inference included, says against the model; "" when it is content.

    The checker is C++ and gets files of any kind here, so it runs in a child process; its death is a complaint too.
    """
    try:
        return str(isolate.call("edgekit.converters.onnx_model:_checked", data))
    except BadModel as error:
        return error.message


def _checked(data: bytes) -> str:
    import onnx

    try:
        onnx.checker.check_model(data, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        return " ".join(str(error).split())
    return ""


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
    if max(shape, default=0) > MAX_DIM:
        raise BadModel(f"'{value.name}' has the shape {list(shape)}.", f"A dimension is at most {MAX_DIM}.")
    return TensorSpec(name=value.name, dtype=dtype, shape=tuple(-1 if dim < 0 else dim for dim in shape))


def _inline_external_data(proto: onnx.ModelProto, path: Path) -> bool:
    from onnx import TensorProto, checker, external_data_helper

    external = [tensor for tensor in _all_tensors(proto) if tensor.data_location == TensorProto.EXTERNAL]
    for tensor in external:
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except (OSError, ValueError, RuntimeError, checker.ValidationError) as error:
            raise BadModel(
                f"The external weights of '{tensor.name}' in {path} cannot be read: {_sentence(error)}"
            ) from error
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
        problem = next(_tensor_problems(tensor), None)
        if problem:
            raise BadModel(f"The external weights in {path} do not fit: {problem}.", "Export or download it again.")
    return bool(external)


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."


def _all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from proto.graph.initializer
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        yield from _tensors_of(nodes)


def _tensors_of(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for subgraph in _subgraphs(attribute):
                yield from subgraph.initializer
                yield from _tensors_of(subgraph.node)


def _subgraphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _problems(proto: onnx.ModelProto, self_contained: bool) -> Iterator[str]:
    if not proto.HasField("graph"):
        yield "it has no graph"
    yield from _opset_problems(proto.opset_import)
    if not proto.graph.output:
        yield "its graph has no outputs"
    for tensor in _all_tensors(proto):
        yield from _tensor_problems(tensor)
        if self_contained and tensor.data_location == tensor.EXTERNAL:
            yield f"the tensor '{tensor.name}' lies in another file: read the model with load_onnx, which inlines it"
    known: set[str] = {""}
    yield from _graph_problems(proto.graph, known)
    for function in proto.functions:
        yield from _opset_problems(function.opset_import)
        yield from _node_problems(function.node, known | set(function.input), set(function.input))


def _opset_problems(opsets: Iterable[onnx.OperatorSetIdProto]) -> Iterator[str]:
    import onnx

    versions = [opset.version for opset in opsets if opset.domain in _STANDARD_DOMAINS]
    newest = onnx.defs.onnx_opset_version()
    if not versions:
        yield "it has no opset_import for the standard domain, so the meaning of its ops is unknown"
    for version in versions:
        if not 1 <= version <= newest:
            yield f"its opset is {version}, and the installed onnx {onnx.__version__} knows 1 to {newest}"


def _graph_problems(graph: onnx.GraphProto, outer: set[str]) -> Iterator[str]:
    """``outer``: names visible from the surrounding graphs; this graph's own are added to a copy."""
    inputs = [value.name for value in graph.input]
    weights = {tensor.name for tensor in graph.initializer}
    for name, count in Counter(inputs).items():
        if count > 1:
            yield f"{count} of its inputs are named '{name}'"
    if not all(_is_text(name) and name for name in [*inputs, *(value.name for value in graph.output)]):
        yield "an input or output of its graph has no name, or one that is not text"
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        yield f"its weight '{name}' is stored sparse, and EdgeKit reads dense ones only"
    known = outer | weights | set(inputs)
    yield from _node_problems(graph.node, known, {*inputs, *weights})
    made = known.union(*(node.output for node in graph.node))
    for value in graph.output:
        if value.name not in made:
            yield f"its output '{value.name}' is made by no node"


def _node_problems(nodes: Iterable[onnx.NodeProto], known: set[str], made: set[str]) -> Iterator[str]:
    """``known``: what the first node may read; ``made``: what no node may make because it is there already."""
    known, made = set(known), set(made)
    for index, node in enumerate(nodes):
        label = f"node '{node.name or index}' ({node.op_type or 'no op type'})"
        if not node.op_type:
            yield f"{label} has no op type"
        if not all(_is_text(name) for name in (node.name, node.op_type, node.domain, *node.input, *node.output)):
            yield f"{label} has a name that is not text"
        for name in node.input:
            if name not in known:
                yield f"{label} reads '{name}', which nothing before it makes"
        for attribute in node.attribute:
            yield from (f"{label} has {problem}" for problem in _attribute_problems(attribute, node.domain))
            for subgraph in _subgraphs(attribute):
                yield from _graph_problems(subgraph, known)
        for name in node.output:
            if name and name in made:
                yield f"{label} makes '{name}', which is an input or made by another node already"
            made.add(name)
            known.add(name)


def _attribute_problems(attribute: onnx.AttributeProto, domain: str) -> Iterator[str]:
    label = f"the attribute '{attribute.name}'"
    if not _is_text(attribute.name) or not attribute.name:
        yield "an attribute without a name, or one whose name is not text"
    if not attribute.type:
        yield f"{label} without a type"
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        yield f"{label} stored sparse, and EdgeKit reads dense tensors only"
    if domain not in _STANDARD_DOMAINS:
        return  # other vendors keep compiled code in string attributes
    for text in (attribute.s, *attribute.strings):
        try:
            text.decode()
        except UnicodeDecodeError:
            yield f"{label} that is not text"


def _is_text(name: object) -> bool:
    """Whether ``name`` was valid UTF-8: protobuf hands out bytes where it is not."""
    return isinstance(name, str)


def _tensor_problems(tensor: onnx.TensorProto) -> Iterator[str]:
    """A tensor whose declared shape and payload disagree would be read past its end by a careless engine."""
    import onnx

    if not _is_text(tensor.name):
        yield f"the name of the tensor {tensor.name!r} is not text"
    if len(tensor.dims) > MAX_RANK:
        yield f"the tensor '{tensor.name}' has {len(tensor.dims)} dimensions"
        return
    if any(dim < 0 for dim in tensor.dims):
        yield f"the tensor '{tensor.name}' has a negative dimension {list(tensor.dims)}"
        return
    count = math.prod(tensor.dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    if tensor.data_type == onnx.TensorProto.STRING:
        if len(tensor.string_data) != count:
            yield f"the tensor '{tensor.name}' {list(tensor.dims)} has {len(tensor.string_data)} strings"
        return
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError):
        yield f"the tensor '{tensor.name}' has the unknown element type {tensor.data_type}"
        return
    if tensor.HasField("raw_data"):
        bits = _PACKED_BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type), np.dtype(dtype).itemsize * 8)
        want = -(-count * bits // 8)
        if len(tensor.raw_data) != want:
            yield f"the tensor '{tensor.name}' {list(tensor.dims)} needs {want} bytes and has {len(tensor.raw_data)}"
    elif count:
        try:
            onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            yield f"the tensor '{tensor.name}' cannot be read ({error})"
