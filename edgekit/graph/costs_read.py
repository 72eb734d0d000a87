"""``graph_costs``: what the network in a file costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from edgekit import isolate
from edgekit.errors import BadModel, UnknownName
from edgekit.graph.costs import GraphCosts

__all__ = ["graph_costs"]

_TARGETS = {".onnx": "edgekit.graph.costs_onnx:onnx_costs", ".tflite": "edgekit.graph.costs_tflite:tflite_costs"}


def graph_costs(
    path: Path | str, shapes: Mapping[str, tuple[int, ...]] | None = None, signature: str = ""
) -> GraphCosts:
    """The costs of the .onnx or .tflite file at ``path``; of a .tflite file, the first graph's or ``signature``'s.

    ``shapes`` gives dynamic inputs a shape by name, in the file's own order of axes; a dynamic batch is 1 unless given.
    Raises BadModel, BadInput (a dynamic input without a shape), UnknownName, MissingExtra. The file is parsed in a
    child process.
    """
    path = Path(path)
    target = _TARGETS.get(path.suffix.lower())
    if target is None:
        raise UnknownName.of("suffix of a model file", path.suffix, _TARGETS)
    if not path.is_file():
        raise BadModel(f"There is no file '{path}'.", "Check the path.")
    more = (signature,) if signature and path.suffix.lower() == ".tflite" else ()
    return cast(GraphCosts, isolate.call(target, str(path), dict(shapes or {}), *more, subject=f"Reading '{path}'"))
