"""Turn dequantize -> op -> quantize into the op on integers, with the same scales.

before: f = DEQUANTIZE(q); t = CONV_2D(f, dequantized w, dequantized b); y = QUANTIZE(t)
after:  y = CONV_2D(q, w int8, b int32)

An op stays float where one of its operands or its result is not quantized, or where LiteRT has no integer kernel.
"""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.graph import Graph, Op, Quantization, Tensor

__all__ = ["fuse_quantized"]

#: kind -> storage axis of the weights along which scales may differ
_WEIGHTED = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
#: ops that compute with any scales
_FREE = frozenset({"ADD", "SUB", "MUL", "MEAN", "HARD_SWISH", "LEAKY_RELU", "BATCH_MATMUL", "RELU", "RELU6"})
#: ops whose result has the scale of their (first) data operand; the number is where that operand stands
_KEEPS = {
    "RESHAPE": 0, "TRANSPOSE": 0, "MAX_POOL_2D": 0, "AVERAGE_POOL_2D": 0, "PAD": 0, "STRIDED_SLICE": 0, "SPLIT": 1,
    "SPLIT_V": 0, "GATHER": 0, "RESIZE_BILINEAR": 0, "RESIZE_NEAREST_NEIGHBOR": 0, "SQUEEZE": 0, "EXPAND_DIMS": 0,
    "DEPTH_TO_SPACE": 0, "SPACE_TO_DEPTH": 0, "TILE": 0, "CONCATENATION": 0,
}  # fmt: skip
#: ops whose int8 kernels write with one fixed scale and zero point
_FIXED = {"LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0)}


def fuse_quantized(graph: Graph) -> int:
    """Run ops between dequantized operands and a quantized result on int8; how many were turned."""
    _spread_parameters(graph)
    if not any(op.kind == "QUANTIZE" for op in graph.ops):
        return 0
    _make_signed(graph)
    return _Fuser(graph).run()


def _spread_parameters(graph: Graph) -> None:
    """Give a moved tensor of integers the scale of what it was moved from, or moves to.

    XNNPACK takes an op by the parameters of its operand, and then cannot prepare when the result has none.
    """
    moves = [op for op in graph.ops if op.kind in _KEEPS and op.kind != "CONCATENATION"]
    for op in moves:
        source = op.inputs[_KEEPS[op.kind]]
        for out in op.outputs:
            _share_parameters(source, out)
    for op in reversed(moves):
        source = op.inputs[_KEEPS[op.kind]]
        if source is not None:
            _share_parameters(op.outputs[0], source)


def _share_parameters(known: Tensor | None, other: Tensor) -> None:
    alike = known is not None and known.dtype == other.dtype and other.dtype in (np.int8, np.uint8)
    if known is not None and alike and other.quantization is None and other.data is None:
        other.quantization = known.quantization


def _make_signed(graph: Graph) -> None:
    """Store uint8 activations inside the graph as int8, 128 lower: LiteRT's fast kernels are the signed ones."""
    fixed = {id(tensor) for tensor in (*graph.inputs, *graph.outputs)}
    readers = graph.consumers()
    for op in graph.ops:
        out = op.outputs[0]
        if op.kind != "QUANTIZE" or out.dtype != np.uint8 or id(out) in fixed or out.quantization is None:
            continue
        if any(reader.kind != "DEQUANTIZE" for reader in readers.get(id(out), ())):
            continue
        out.dtype = np.dtype(np.int8)
        out.quantization = Quantization(out.quantization.scales, out.quantization.zero_points - 128)


class _Fuser:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.readers = graph.consumers()
        self.outputs = {id(tensor) for tensor in graph.outputs}
        self.integer: dict[int, Tensor] = {}  # id of a float tensor -> the int8 tensor that it was made from
        self.dropped: set[int] = set()
        self.ops: list[Op] = []

    def run(self) -> int:
        turned = 0
        for op in self.graph.ops:
            source = op.inputs[0]
            if op.kind == "DEQUANTIZE" and source is not None and source.dtype == np.int8:
                self.integer[id(op.outputs[0])] = source
            if id(op) in self.dropped:
                continue
            rewritten = self._rewritten(op)
            turned += rewritten is not None
            self.ops.extend(rewritten or [op])
        self.graph.ops = self.ops
        return turned

    def _rewritten(self, op: Op) -> list[Op] | None:
        """The integer form of ``op``, or None."""
        if op.kind in _KEEPS:
            return self._moved(op)
        if op.kind not in _WEIGHTED and op.kind not in _FREE and op.kind not in _FIXED:
            return None
        quantize = self._quantized_as(op.outputs[0])
        operands = self._weighted_operands(op) if op.kind in _WEIGHTED else self._data_operands(op, None)
        if quantize is None or operands is None:
            return None
        self.dropped.add(id(quantize))
        result = quantize.outputs[0]
        fixed = _one(*_FIXED[op.kind]) if op.kind in _FIXED else None
        if fixed is None or _alike(fixed, result.quantization):
            return [Op(op.kind, operands, [result], op.options, op.source)]
        middle = _like(op.outputs[0], fixed)
        return [
            Op(op.kind, operands, [middle], op.options, op.source),
            Op("QUANTIZE", [middle], [result], source=op.source),
        ]

    def _moved(self, op: Op) -> list[Op] | None:
        """An op that only moves data works on the integers themselves, whoever reads its result."""
        operands = self._data_operands(op, None if op.kind == "CONCATENATION" else _KEEPS[op.kind])
        first = None if operands is None else operands[_KEEPS[op.kind]]
        if operands is None or first is None or (op.kind == "CONCATENATION" and not _all_alike(operands)):
            return None
        parameters = first.quantization
        if first.dtype != np.int8 or parameters is None:
            return None
        made: list[Tensor] = []
        after: list[Op] = []
        for tensor in op.outputs:
            quantize = self._quantized_as(tensor)
            if quantize is not None and _alike(parameters, quantize.outputs[0].quantization):
                made.append(quantize.outputs[0])
                self.dropped.add(id(quantize))
                continue
            made.append(_like(tensor, parameters))
            self.integer[id(tensor)] = made[-1]
            if quantize is not None:
                self.dropped.add(id(quantize))
                after.append(Op("QUANTIZE", [made[-1]], [quantize.outputs[0]], source=op.source))
            else:
                after.append(Op("DEQUANTIZE", [made[-1]], [tensor], source=op.source))
        return [Op(op.kind, operands, made, op.options, op.source), *after]

    def _quantized_as(self, tensor: Tensor) -> Op | None:
        """The one QUANTIZE to int8 that reads ``tensor`` and nothing else does."""
        readers = self.readers.get(id(tensor), [])
        if len(readers) != 1 or readers[0].kind != "QUANTIZE" or id(tensor) in self.outputs:
            return None
        return readers[0] if readers[0].outputs[0].dtype == np.int8 else None

    def _data_operands(self, op: Op, only: int | None) -> list[Tensor | None] | None:
        """The operands with float ones replaced by the integers behind them; None if one has none.

        ``only``: the operand that carries data where the others are axes, shapes or indices.
        """
        operands: list[Tensor | None] = []
        for index, tensor in enumerate(op.inputs):
            if tensor is None or tensor.dtype != np.float32 or (only is not None and index != only):
                operands.append(tensor)
                continue
            found = self.integer.get(id(tensor)) or _stored(tensor, None)
            if found is None:
                return None
            operands.append(found)
        return operands

    def _weighted_operands(self, op: Op) -> list[Tensor | None] | None:
        data, kernel, bias = op.inputs
        source = None if data is None else self.integer.get(id(data))
        weights = None if kernel is None else _stored(kernel, _WEIGHTED[op.kind])
        if source is None or weights is None or source.quantization is None or weights.quantization is None:
            return None
        if bias is None or bias.data is None:
            return None
        scales = (source.quantization.scales * weights.quantization.scales).astype(np.float32)
        whole = np.round(bias.data.astype(np.float64) / scales)
        limit = np.iinfo(np.int32)
        stored = np.clip(whole, limit.min, limit.max).astype(np.int32)
        parameters = Quantization(scales, np.zeros(scales.size, np.int64))
        return [source, weights, Tensor(bias.name, np.dtype(np.int32), stored.shape, stored, quantization=parameters)]


def _stored(tensor: Tensor, axis: int | None) -> Tensor | None:
    """The int8 constant behind a dequantized one; scales may differ along ``axis``, where zero points must be 0."""
    if tensor.stored is None or tensor.data is None:
        return None
    data, parameters = tensor.stored.data, tensor.stored.quantization
    zero_points = parameters.zero_points
    if data.dtype == np.uint8:
        data, zero_points = (data.astype(np.int16) - 128).astype(np.int8), zero_points - 128
    if data.dtype != np.int8:
        return None
    if axis is None and parameters.scales.size != 1:
        return None
    if axis is not None and (np.any(zero_points) or (parameters.scales.size > 1 and parameters.axis != axis)):
        return None
    if zero_points.size != parameters.scales.size:
        zero_points = np.broadcast_to(zero_points, parameters.scales.shape)
    quantization = Quantization(parameters.scales, zero_points, axis or 0)
    return Tensor(f"{tensor.name}/int8", np.dtype(np.int8), tensor.shape, data, quantization=quantization)


def _like(tensor: Tensor, parameters: Quantization) -> Tensor:
    """An int8 tensor in the place of the float ``tensor``."""
    return Tensor(f"{tensor.name}/int8", np.dtype(np.int8), tensor.shape, quantization=parameters)


def _one(scale: float, zero_point: int) -> Quantization:
    return Quantization(np.array([scale], np.float32), np.array([zero_point], np.int64))


def _alike(a: Quantization | None, b: Quantization | None) -> bool:
    """Whether two activations have the same scale and zero point."""
    if a is None or b is None:
        return False
    return bool(a.scales[0] == b.scales[0] and a.zero_points[0] == b.zero_points[0])


def _all_alike(operands: list[Tensor | None]) -> bool:
    first = operands[0]
    return first is not None and all(t is not None and _alike(t.quantization, first.quantization) for t in operands)
