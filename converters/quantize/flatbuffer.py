"""The .tflite file as objects: read, look at its graph, open its inner values, write it with its weights inside."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.artifacts import LiteRTModel, Signature
from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.errors import BadModel
from edgekit.graph.facts_tflite import describe_tflite
from edgekit.graph.tflite_check import check_tflite

__all__ = [
    "constant_bytes", "kind_of", "name_of", "open_values", "produced", "read_model", "read_tables",
    "with_unique_names",
]


def read_model(data: bytes, subject: str = "The model") -> LiteRTModel:
    """``data`` with the signatures and layouts that the file states. Raises BadModel, naming ``subject``."""
    facts = describe_tflite(data, subject)
    signatures = tuple(Signature(each.name, each.inputs, each.outputs) for each in facts.signatures)
    return LiteRTModel(data, facts.inputs, facts.outputs, signatures)


def read_tables(data: bytes, subject: str = "The model") -> Any:
    """The schema's ``ModelT`` of a checked file, with weights that lie behind the flatbuffer brought into it."""
    check_tflite(data, subject)
    model = schema().ModelT.InitFromPackedBuf(bytearray(data), 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    if not model.subgraphs:
        raise BadModel(f"{subject} has no graph.", "Obtain the file anew, or convert the model again.")
    return model


def kind_of(model: Any, operator: Any) -> str:
    """The op's name in the schema, such as "CONV_2D"."""
    code = model.operatorCodes[operator.opcodeIndex]
    return _kind_names()[max(code.builtinCode, code.deprecatedBuiltinCode)]


_NAMES: dict[int, str] = {}


def _kind_names() -> dict[int, str]:
    if not _NAMES:
        builtin = schema().BuiltinOperator
        _NAMES.update({value: name for name, value in vars(builtin).items() if isinstance(value, int)})
    return _NAMES


def name_of(tensor: Any) -> str:
    """The tensor's name as text."""
    name = tensor.name or b""
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def with_unique_names(data: bytes) -> bytes:
    """``data`` with tensors renamed ("x", "x/2", ...) where a name occurs twice; signatures stay as they are.

    Ranges and rules go by tensor names, and ai-edge-quantizer refuses files in which they are not unique. It also reads
    kinds of ops from the wide field only, which files from before 2020 leave at 0, and fails where the list of
    signatures is not even empty: both are filled in.
    """
    model = read_tables(data)
    old = model.signatureDefs is None
    model.signatureDefs = model.signatureDefs or []
    for code in model.operatorCodes:
        old = old or code.builtinCode < code.deprecatedBuiltinCode
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    tensors = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors]
    names = [name_of(tensor) for tensor in tensors]
    if len(set(names)) == len(names):
        return pack_model(model) if old else data
    used: set[str] = set()
    taken = set(names)
    for tensor, name in zip(tensors, names, strict=True):
        unique, number = name, 1
        while unique in used or (number > 1 and unique in taken):
            number += 1
            unique = f"{name}/{number}"
        used.add(unique)
        tensor.name = unique
    return pack_model(model)


def produced(model: Any) -> list[int]:
    """The tensors that the ops of the main subgraph compute, in the order of computation, each once."""
    made = (int(index) for op in model.subgraphs[0].operators for index in op.outputs if index >= 0)
    return list(dict.fromkeys(made))


def constant_bytes(model: Any, tensor: Any) -> int:
    """How many bytes the constant ``tensor`` takes; 0 when it is computed."""
    data = model.buffers[tensor.buffer].data
    return 0 if data is None else len(data)


def open_values(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The file with all values of its main subgraph as outputs, and their names: the graph's inputs, then op by op.

    The signatures are gone from it, since they would no longer name all outputs.
    """
    model = read_tables(data)
    subgraph = model.subgraphs[0]
    types = schema().TensorType
    odd = (types.STRING, types.RESOURCE, types.VARIANT)
    values = [index for index in produced(model)
              if subgraph.tensors[index].type not in odd and not subgraph.tensors[index].isVariable]
    subgraph.outputs = np.array(values, np.int32)
    model.signatureDefs = []
    return pack_model(model), tuple(name_of(subgraph.tensors[index]) for index in values)
