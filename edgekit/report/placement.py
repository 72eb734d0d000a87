"""What XNNPACK really takes of a .tflite file."""

from __future__ import annotations

from typing import Any

import msgspec

from edgekit import isolate
from edgekit.errors import EngineError, InternalError

__all__ = ["Placement", "place"]

class Placement(msgspec.Struct, frozen=True):
    """``delegated[i]``: whether XNNPACK takes op i of the main subgraph; ``partitions``: how many pieces it takes."""

    delegated: tuple[bool, ...]
    partitions: int


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

    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"LiteRT refuses the model: {' '.join(str(error).split())[:500]}") from error
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
