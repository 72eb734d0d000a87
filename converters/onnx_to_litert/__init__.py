"""ONNX -> LiteRT: import, rewrite, lower with layout bookkeeping, fuse, write.

Stage by stage: ``parse_onnx`` (checks) -> ``LITERT_PASSES`` (graph rewrites) -> ``lower`` (ops and layouts) -> ``fuse``
(activations, biases, integers) -> ``write`` (flatbuffer).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from edgekit.artifacts import LAYOUT_METADATA, Conversion, LiteRTModel, NodeLowering, OnnxModel, Signature
from edgekit.converters.onnx_to_litert.fuse import fuse
from edgekit.converters.onnx_to_litert.importer import example_shapes, import_model, lower_checked
from edgekit.converters.onnx_to_litert.lower import Lowered, counts
from edgekit.converters.onnx_to_litert.writer import SIGNATURE, write
from edgekit.recipe import ConvertRecipe

__all__ = ["SIGNATURE", "pack_signatures", "to_litert"]


def to_litert(model: OnnxModel, recipe: ConvertRecipe = ConvertRecipe()) -> Conversion:
    """``model`` as a LiteRT flatbuffer, with the account of what each node became. Nothing is run.

    Raises UnsupportedOps (all nodes at once), BadModel, BadRecipe, UnknownName (a shape for an unknown input).
    """
    return pack_signatures({SIGNATURE: (model, recipe)})


def pack_signatures(parts: Mapping[str, tuple[OnnxModel, ConvertRecipe]]) -> Conversion:
    """Several graphs in one file, a signature each, equal weights stored once.

    For resolutions of one network (the same model, other ``shapes``), its stages (``edgekit.graph.cut``), or float and
    quantized forms side by side. ``nodes`` of the account are those of all parts. Raises as ``to_litert``.
    """
    start = time.perf_counter()
    with _collector_off():
        return _packed(parts, start)


@contextmanager
def _collector_off() -> Iterator[None]:
    """Python's cyclic collector walks all live objects again and again: a third of the time for 10,000 nodes.

    A conversion makes next to no cyclic garbage, so nothing is lost by letting it wait.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _packed(parts: Mapping[str, tuple[OnnxModel, ConvertRecipe]], start: float) -> Conversion:
    lowered: dict[str, Lowered] = {}
    for name, (model, recipe) in parts.items():
        graph_model = import_model(model)
        part = lowered[name] = lower_checked(graph_model, model, recipe)
        fuse(part.graph)
        part.graph.name = name if len(parts) > 1 else part.graph.name
        part.graph.sizes = part.hints(example_shapes(graph_model))
    signatures = tuple(Signature(name, part.inputs, part.outputs) for name, part in lowered.items())
    stored = {s.name: [spec.name for spec in (*s.inputs, *s.outputs) if spec.layout == "nhwc"] for s in signatures}
    metadata = {LAYOUT_METADATA: msgspec.json.encode(stored)}
    data = write({name: part.graph for name, part in lowered.items()}, metadata)
    return Conversion(
        model=LiteRTModel(data, signatures[0].inputs, signatures[0].outputs, signatures),
        nodes=tuple(node for part in lowered.values() for node in _after_fusion(part)),
        op_counts=counts([part.graph for part in lowered.values()]),
        seconds=time.perf_counter() - start,
    )


def _after_fusion(part: Lowered) -> list[NodeLowering]:
    """The account of ``part`` with the ops that are left of each node."""
    left: dict[str, list[str]] = {}
    for op in part.graph.ops:
        left.setdefault(op.source, []).append(op.kind)
    nodes = []
    for node in part.nodes:
        ops = tuple(left.get(node.node, ()))
        fused = bool(node.target_ops) and not ops
        nodes.append(msgspec.structs.replace(node, target_ops=ops, how="fused" if fused else node.how))
    return nodes
