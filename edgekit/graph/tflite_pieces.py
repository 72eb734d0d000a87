"""Cutting a .tflite file into its ops: each op, with its constants, as a model of its own."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.converters.quantize.flatbuffer import kind_of, name_of, read_tables

__all__ = ["Piece", "cut_ops", "idle_model"]

#: ops that run other subgraphs or keep a state: they mean nothing by themselves
_NOT_ALONE = frozenset({"WHILE", "IF", "CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})
_PADDED = ("CONV_2D", "DEPTHWISE_CONV_2D")


class Piece(msgspec.Struct, frozen=True):
    """Ops that are alike: ``names`` of their first results, ``data`` the model of the first of them.

    ``data`` is empty where the op cannot run by itself. ``shapes``: of inputs that are no constants, and of results.
    """

    kind: str
    names: tuple[str, ...]
    shapes: tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]
    data: bytes


def cut_ops(data: bytes, shapes: Mapping[int, tuple[int, ...]]) -> tuple[Piece, ...]:
    """The ops of the main subgraph of a checked file, alike ones together, in the order of the graph.

    ``shapes`` of tensors by index replace those of the file (dynamic sizes). Zero padding goes with the convolution
    that alone reads it, as XNNPACK computes it; ops on constants alone are left out, for they run once.
    """
    model = read_tables(data)
    graph = model.subgraphs[0]
    for index, shape in shapes.items():
        graph.tensors[index].shape = np.array(shape, np.int32)
    cutter = _Cutter(model)
    alike: dict[Hashable, list[int]] = {}
    for number in cutter.live():
        alike.setdefault(cutter.key(number), []).append(number)
    return tuple(cutter.piece(numbers) for numbers in alike.values())


class _Cutter:
    def __init__(self, model: Any) -> None:
        self.model = model
        self.graph = model.subgraphs[0]
        self.ops = list(self.graph.operators)
        self.maker = {int(index): number for number, op in enumerate(self.ops) for index in op.outputs}
        self.constants = {index for index, tensor in enumerate(self.graph.tensors) if self._stored(tensor)}
        for op in self.ops:
            reads = _present(op.inputs)
            if reads and all(index in self.constants for index in reads):
                self.constants.update(int(index) for index in op.outputs)
        self.readers = Counter(index for op in self.ops for index in set(_present(op.inputs)))
        self.pads = self._pads()

    def _stored(self, tensor: Any) -> bool:
        data = self.model.buffers[tensor.buffer].data
        return data is not None and len(data) > 0

    def _pads(self) -> dict[int, int]:
        """Convolution -> the padding that is computed inside it."""
        ends = set(_present(self.graph.outputs))
        found = {}
        for number, op in enumerate(self.ops):
            source = self.maker.get(int(op.inputs[0])) if len(op.inputs) else None
            if source is None or kind_of(self.model, op) not in _PADDED:
                continue
            pad = self.ops[source]
            name = int(op.inputs[0])
            if kind_of(self.model, pad) == "PAD" and self.readers[name] == 1 and name not in ends:
                found[number] = source
        return found

    def live(self) -> list[int]:
        """Ops that run at each inference, the padding inside convolutions apart."""
        inside = set(self.pads.values())
        return [number for number, op in enumerate(self.ops)
                if number not in inside and not all(int(index) in self.constants for index in op.outputs)]

    def key(self, number: int) -> Hashable:
        """Equal for ops that cost the same: kind, options, shapes and types."""
        op = self.ops[number]
        tensors = [self.graph.tensors[index] for index in (*_present(op.inputs), *_present(op.outputs))]
        options = {} if op.builtinOptions is None else vars(op.builtinOptions)
        pad = self.key(self.pads[number]) if number in self.pads else None
        facts = tuple((_shape(tensor), tensor.type, tensor.buffer if self._small(tensor) else -1) for tensor in tensors)
        return kind_of(self.model, op), repr(sorted((name, str(value)) for name, value in options.items())), facts, pad

    def _small(self, tensor: Any) -> bool:
        """Whether a constant may be an axis, a permutation or sizes, which decide what the op does."""
        return self._stored(tensor) and tensor.type in (schema().TensorType.INT32, schema().TensorType.INT64) and (
            tensor.quantization is None or tensor.quantization.scale is None)

    def piece(self, numbers: Sequence[int]) -> Piece:
        first = numbers[0]
        op = self.ops[first]
        kind = kind_of(self.model, op)
        chain = [*([self.pads[first]] if first in self.pads else []), first]
        needed = self._with_constant_makers(chain)
        inputs = list(dict.fromkeys(
            index for number in chain for index in _present(self.ops[number].inputs)
            if index not in self.constants and self.maker.get(index) not in chain))
        outputs = _present(op.outputs)
        names = tuple(name_of(self.graph.tensors[int(self.ops[number].outputs[0])]) for number in numbers)
        shapes = tuple(tuple(_shape(self.graph.tensors[index]) for index in each) for each in (inputs, outputs))
        alone = kind not in _NOT_ALONE and bool(inputs) and not any(
            self.graph.tensors[index].isVariable for index in _present(op.inputs))
        data = self._written(needed, inputs, outputs) if alone else b""
        return Piece(kind, names, (shapes[0], shapes[1]), data)

    def _with_constant_makers(self, chain: Iterable[int]) -> list[int]:
        """``chain`` and the ops that prepare its constants, in the order of the graph."""
        needed, front = set(chain), list(chain)
        while front:
            for index in _present(self.ops[front.pop()].inputs):
                maker = self.maker.get(index)
                if index in self.constants and maker is not None and maker not in needed:
                    needed.add(maker)
                    front.append(maker)
        return sorted(needed)

    def _written(self, needed: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        s = schema()
        used = list(dict.fromkeys([*inputs, *(index for number in needed for index in (
            *_present(self.ops[number].inputs), *_present(self.ops[number].outputs)))]))
        place = {index: position for position, index in enumerate(used)}
        buffers, tensors, codes, operators = [s.BufferT()], [], [], []
        for index in used:
            tensor = copy.copy(self.graph.tensors[index])
            tensor.shapeSignature = None
            if self._stored(tensor):
                buffers.append(copy.copy(self.model.buffers[tensor.buffer]))
                tensor.buffer = len(buffers) - 1
            else:
                tensor.buffer = 0
            tensors.append(tensor)
        for number in needed:
            op = copy.copy(self.ops[number])
            codes.append(self.model.operatorCodes[op.opcodeIndex])
            op.opcodeIndex = len(codes) - 1
            op.inputs = np.array([place.get(int(index), -1) for index in op.inputs], np.int32)
            op.outputs = np.array([place[int(index)] for index in op.outputs], np.int32)
            operators.append(op)
        graph = s.SubGraphT()
        graph.tensors, graph.operators = tensors, operators
        graph.inputs = np.array([place[index] for index in inputs], np.int32)
        graph.outputs = np.array([place[index] for index in outputs], np.int32)
        return _model(graph, buffers, codes)


def idle_model() -> bytes:
    """A .tflite file that takes the absolute value of one number: calling it costs what calling an engine costs."""
    s = schema()
    tensors = []
    for name in ("x", "y"):
        tensor = s.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, np.array([1], np.int32), s.TensorType.FLOAT32, 0
        tensors.append(tensor)
    code = s.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = s.BuiltinOperator.ABS
    code.version = 1
    op = s.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = 0, np.array([0], np.int32), np.array([1], np.int32)
    graph = s.SubGraphT()
    graph.tensors, graph.operators = tensors, [op]
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([1], np.int32)
    return _model(graph, [s.BufferT()], [code])


def _model(graph: Any, buffers: list[Any], codes: list[Any]) -> bytes:
    model = schema().ModelT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], buffers, codes
    model.metadata, model.signatureDefs, model.description = [], [], "one op"
    return pack_model(model)


def _present(indices: Any) -> list[int]:
    return [] if indices is None else [int(index) for index in indices if index >= 0]


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
