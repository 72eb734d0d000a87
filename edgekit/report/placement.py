"""Where the ops of a .tflite file run: what XNNPACK really takes, and hints for the GPU accelerator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgekit import isolate
from edgekit.errors import InternalError

__all__ = ["Placement", "gpu_hint", "place"]

#: ops in the documented list of LiteRT's GPU delegate (OpenCL, Metal, WebGPU); each still has conditions of its own
_GPU = frozenset({
    "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "CONV_2D", "COS", "CUMSUM", "DEPTHWISE_CONV_2D", "DIV",
    "ELU", "EQUAL", "EXP", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "FULLY_CONNECTED", "GATHER", "GELU", "GREATER",
    "GREATER_EQUAL", "HARD_SWISH", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOGICAL_AND", "LOGISTIC", "MAXIMUM",
    "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG", "NOT_EQUAL", "ONE_HOT", "PAD", "POW", "PRELU",
    "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SELECT_V2", "SIGN", "SIN", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT",
    "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TILE", "TRANSPOSE",
    "TRANSPOSE_CONV", "DEPTH_TO_SPACE", "DEQUANTIZE", "QUANTIZE", "SQUEEZE", "EXPAND_DIMS", "CAST",
})  # fmt: skip


class Placement(msgspec.Struct, frozen=True):
    """``delegated[i]``: whether XNNPACK takes op i of the main subgraph; ``partitions``: how many pieces it takes."""

    delegated: tuple[bool, ...]
    partitions: int


def gpu_hint(kind: str, shapes: Sequence[Sequence[int]]) -> str:
    """Why the GPU delegate would leave an op to the CPU, by documented rules; "" when nothing speaks against it."""
    if kind not in _GPU:
        return f"{kind} is not on the GPU delegate's list"
    if any(len(shape) > 4 for shape in shapes):
        return "a tensor has more than 4 axes"
    if any(dim < 0 for shape in shapes for dim in shape):
        return "a shape is dynamic"
    return ""


def place(data: bytes) -> Placement:
    """What XNNPACK takes of the .tflite file ``data``: found by having the engine prepare it, in a child process.

    Raises EngineError or BadModel where the engine refuses the file or dies of it.
    """
    found = isolate.call("edgekit.report.placement:_place", data, subject="Preparing the LiteRT model")
    if not isinstance(found, Placement):
        raise InternalError("The child process sent no placement.")
    return found


def _place(data: bytes) -> Placement:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    details: list[dict[str, Any]] = interpreter._get_ops_details()
    ops = [detail for detail in details if detail["op_name"] != "DELEGATE"]
    partitions = [detail for detail in details if detail["op_name"] == "DELEGATE"]
    made_by = {int(tensor): index for index, detail in enumerate(ops) for tensor in detail["outputs"]}
    taken: set[int] = set()
    for partition in partitions:
        border = {int(tensor) for tensor in partition["inputs"]}
        front = [int(tensor) for tensor in partition["outputs"]]
        while front:
            tensor = front.pop()
            index = made_by.get(tensor)
            if tensor in border or index is None or index in taken:
                continue
            taken.add(index)
            front.extend(int(source) for source in ops[index]["inputs"] if source >= 0)
    return Placement(tuple(index in taken for index in range(len(ops))), len(partitions))
