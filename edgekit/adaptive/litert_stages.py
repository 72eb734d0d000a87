"""Stages of .tflite files: each is cut into stages at its exits, and all stages become signatures of one file.

The cut is made behind the lowering and the quantization, so a stage holds the very ops of the whole, a carried tensor
is what the engine has there (int8 in a quantized network, N, H, W, C for images), and stages in a row give the bits of
the whole.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from edgekit.adaptive.stages import Op, StagePlan, plan_stages
from edgekit.artifacts import LAYOUT_METADATA, LiteRTModel, Signature
from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.converters.quantize.flatbuffer import (
    constant_bytes,
    kind_of,
    name_of,
    read_model,
    read_tables,
    with_unique_names,
)
from edgekit.errors import BadModel, BadRecipe

__all__ = ["pack_stages"]

_VERSION = 3
_CHEAP = frozenset({"RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SHAPE", "CAST", "QUANTIZE",
                    "DEQUANTIZE"})


def pack_stages(models: Mapping[str, LiteRTModel], exits: Sequence[str]) -> tuple[
        LiteRTModel, dict[str, tuple[Signature, ...]]]:
    """One file with the signatures "{name}s{stage}" for each of ``models`` by name, constants stored once.

    A model has one signature, whose outputs hold ``exits`` (from shallow to deep). Stage k takes inputs of the model
    and outputs of earlier stages; its last output is exit k. Also returned: the signatures of each model, by stage.

    Raises UnknownName and BadRecipe as ``edgekit.adaptive.stages.plan_stages``, BadRecipe for a model with control flow
    and BadModel for one that is damaged.
    """
    file = _File()
    layouts: dict[str, list[str]] = {}
    for name, model in models.items():
        source = _Source(model)
        stored = [spec.name for spec in (*model.inputs, *model.outputs) if spec.layout == "nhwc"]
        for number, stage in enumerate(source.plan(exits)):
            key = f"{name}s{number}"
            file.add(key, source, stage)
            ends = {source.alias(end) for end in (*stage.inputs, *stage.outputs)}
            layouts[key] = [end for end in stored if end in ends]
    packed = read_model(file.data(layouts), "The model in stages")
    by_name = {signature.name: signature for signature in packed.signatures}
    return packed, {
        name: tuple(by_name[f"{name}s{number}"] for number in range(len(exits))) for name in models}


class _Source:
    """A whole network, its values known by the names of their tensors."""

    def __init__(self, model: LiteRTModel) -> None:
        self.tables = read_tables(with_unique_names(model.data))
        (signature,) = self.tables.signatureDefs
        self.subgraph = self.tables.subgraphs[signature.subgraphIndex]
        self.names = [name_of(tensor) for tensor in self.subgraph.tensors]
        self.index = {name: index for index, name in enumerate(self.names)}
        self._inputs = {_text(entry.name): self.names[entry.tensorIndex] for entry in signature.inputs}
        self._outputs = {_text(entry.name): self.names[entry.tensorIndex] for entry in signature.outputs}
        self._alias = {tensor: name for name, tensor in (*self._outputs.items(), *self._inputs.items())}
        self.kinds = [kind_of(self.tables, op) for op in self.subgraph.operators]
        for op, kind in zip(self.subgraph.operators, self.kinds, strict=True):
            options = [each for each in (op.builtinOptions, op.builtinOptions2) if each is not None]
            if any("ubgraph" in field for each in options for field in vars(each)):
                raise BadRecipe(f"The network holds control flow ({kind}), which cannot be cut into stages.",
                                "Export it without loops and branches.")

    def alias(self, tensor: str) -> str:
        """The name by which callers know it."""
        return self._alias.get(tensor, tensor)

    def plan(self, exits: Sequence[str]) -> tuple[StagePlan, ...]:
        ops = [
            Op(self._values(op.inputs), tuple(self.names[index] for index in op.outputs if index >= 0), kind in _CHEAP)
            for op, kind in zip(self.subgraph.operators, self.kinds, strict=True)
        ]
        tensors = [self._outputs.get(name, name) for name in exits]
        taken = set(self._alias.values())
        stages = plan_stages(ops, list(self._inputs.values()), tensors, self._size)
        for name in {name for stage in stages for name in stage.inputs}:
            if name not in self._alias and name in taken:  # a value inside that is called as an end is
                self._alias[name] = f"{name}/carried"
        return stages

    def _values(self, indices: Sequence[int]) -> tuple[str, ...]:
        tensors = [(index, self.subgraph.tensors[index]) for index in indices if index >= 0]
        return tuple(self.names[index] for index, tensor in tensors
                     if not constant_bytes(self.tables, tensor) and not tensor.isVariable)

    def _size(self, name: str) -> int:
        tensor = self.subgraph.tensors[self.index[name]]
        shape = () if tensor.shape is None else tensor.shape
        return math.prod(max(int(dim), 1) for dim in shape) * _item_bytes(tensor.type)


def _item_bytes(kind: int) -> int:
    types = schema().TensorType
    if kind in (types.INT8, types.UINT8, types.BOOL):
        return 1
    return 8 if kind in (types.INT64, types.FLOAT64) else 4


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


class _File:
    """The file under way: subgraphs, and what they share."""

    def __init__(self) -> None:
        self._schema = schema()
        self._model = self._schema.ModelT()
        self._model.version, self._model.description = _VERSION, "EdgeKit"
        self._model.buffers = [self._schema.BufferT()]
        self._model.operatorCodes, self._model.subgraphs, self._model.signatureDefs = [], [], []
        self._by_content: dict[bytes, int] = {}
        self._codes: dict[tuple[object, ...], int] = {}

    def add(self, key: str, source: _Source, stage: StagePlan) -> None:
        """The ops of ``stage`` as a subgraph of their own, behind the signature ``key``."""
        subgraph = self._schema.SubGraphT()
        subgraph.name, subgraph.tensors = key, []
        places: dict[int, int] = {}

        def place(index: int) -> int:
            if index < 0:
                return index
            if index not in places:
                places[index] = len(subgraph.tensors)
                subgraph.tensors.append(self._tensor(source, source.subgraph.tensors[index]))
            return places[index]

        def placed(indices: Sequence[int] | None) -> Any:
            return None if indices is None else np.array([place(int(index)) for index in indices], np.int32)

        subgraph.inputs = placed([source.index[name] for name in stage.inputs])
        subgraph.operators = []
        for number in stage.ops:
            op = copy.copy(source.subgraph.operators[number])
            op.opcodeIndex = self._opcode(source.tables.operatorCodes[op.opcodeIndex])
            op.inputs, op.outputs, op.intermediates = placed(op.inputs), placed(op.outputs), placed(op.intermediates)
            op.debugMetadataIndex = -1
            subgraph.operators.append(op)
        subgraph.outputs = placed([source.index[name] for name in stage.outputs])
        self._sign(key, source, stage, subgraph)

    def _sign(self, key: str, source: _Source, stage: StagePlan, subgraph: Any) -> None:
        signature = self._schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = key, len(self._model.subgraphs)
        signature.inputs, signature.outputs = (
            [self._named(source.alias(name), index) for name, index in zip(names, indices, strict=True)]
            for names, indices in ((stage.inputs, subgraph.inputs), (stage.outputs, subgraph.outputs)))
        self._model.subgraphs.append(subgraph)
        self._model.signatureDefs.append(signature)

    def data(self, layouts: Mapping[str, list[str]]) -> bytes:
        """The file; ``layouts`` says what each signature stores as N, H, W, C."""
        entry = self._schema.MetadataT()
        entry.name = LAYOUT_METADATA
        entry.buffer = self._buffer(np.frombuffer(msgspec.json.encode(layouts), np.uint8))
        self._model.metadata = [entry]
        return pack_model(self._model)

    def _named(self, name: str, index: int) -> Any:
        entry = self._schema.TensorMapT()
        entry.name, entry.tensorIndex = name, int(index)
        return entry

    def _tensor(self, source: _Source, tensor: Any) -> Any:
        if tensor.externalBuffer:
            raise BadModel("The model keeps weights outside of the file.", "Convert it again.")
        made = copy.copy(tensor)
        made.quantization = copy.copy(tensor.quantization)
        data = source.tables.buffers[tensor.buffer].data
        made.buffer = 0 if data is None or not len(data) else self._buffer(np.asarray(data, np.uint8))
        return made

    def _buffer(self, data: Any) -> int:
        key = hashlib.sha256(data).digest()
        if key not in self._by_content:
            buffer = self._schema.BufferT()
            buffer.data = data
            self._by_content[key] = len(self._model.buffers)
            self._model.buffers.append(buffer)
        return self._by_content[key]

    def _opcode(self, code: Any) -> int:
        key = (code.deprecatedBuiltinCode, code.builtinCode, code.version, code.customCode)
        if key not in self._codes:
            self._codes[key] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(code)
        return self._codes[key]
