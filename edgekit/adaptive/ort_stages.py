"""Stages for ONNX Runtime: small graphs, and one file of weights that all of them refer to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.adaptive.split_onnx import split
from edgekit.artifacts import OnnxModel, OrtModel
from edgekit.converters.onnx_model import describe, parse_onnx
from edgekit.converters.onnx_to_ort import simplified, to_ort

if TYPE_CHECKING:
    import onnx

__all__ = ["Weights", "ort_stages", "shared_graph"]

_ALIGNMENT = 64
#: what is smaller stays in the graph, where a reader sees it
_SMALLEST_BYTES = 1024


class Weights:
    """The shared weights under way; ``location`` is the name by which graphs refer to them."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._data = bytearray()
        self._places: dict[bytes, int] = {}

    @property
    def data(self) -> bytes:
        """All weights so far, each once, from a multiple of 64 bytes on."""
        return bytes(self._data)

    def take_out(self, proto: onnx.ModelProto) -> None:
        """Move the larger initializers of ``proto`` here; it refers to them as external data from then on."""
        from onnx import TensorProto, numpy_helper

        for tensor in proto.graph.initializer:
            if tensor.data_type == TensorProto.STRING:
                continue
            raw = tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
            if len(raw) < _SMALLEST_BYTES:
                continue
            name, dims, kind = tensor.name, list(tensor.dims), tensor.data_type
            tensor.Clear()
            tensor.name, tensor.data_type = name, kind
            tensor.dims.extend(dims)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", self.location), ("offset", self._offset(raw)), ("length", len(raw))):
                tensor.external_data.add(key=key, value=str(value))

    def _offset(self, raw: bytes) -> int:
        key = hashlib.sha256(raw).digest()
        if key not in self._places:
            self._data.extend(bytes(-len(self._data) % _ALIGNMENT))
            self._places[key] = len(self._data)
            self._data.extend(raw)
        return self._places[key]


def ort_stages(
    model: OnnxModel, exits: tuple[str, ...], shape: tuple[int, ...], weights: Weights
) -> tuple[OrtModel, ...]:
    """The stages of ``model`` for an image of ``shape`` (in ONNX order), optimised for ONNX Runtime, without weights.

    Raises as ``split`` and ``edgekit.converters.onnx_to_ort.to_ort``.
    """
    whole = describe(simplified(model, {model.inputs[0].name: shape}))
    made = []
    for stage in split(whole, exits):
        optimised = to_ort(stage.model).model
        assert isinstance(optimised, OrtModel)
        proto = parse_onnx(optimised.data)
        weights.take_out(proto)
        made.append(OrtModel(proto.SerializeToString(deterministic=True), "onnx", optimised.inputs, optimised.outputs))
    return tuple(made)


def shared_graph(models: Sequence[bytes]) -> bytes | None:
    """One graph for all of ``models``, which are the same stage at several resolutions; None where they differ in more
    than the sizes of values.

    An engine then keeps a single copy of the weights in memory. Sizes that differ are left open in it.
    """
    protos = [parse_onnx(data) for data in models]
    first = protos[0]
    for proto in protos:
        del proto.graph.value_info[:]
    ends = [[*proto.graph.input, *proto.graph.output] for proto in protos]
    for same in zip(*ends, strict=True):
        for axis, dims in enumerate(zip(*(value.type.tensor_type.shape.dim for value in same), strict=False)):
            if len({dim.dim_value for dim in dims}) > 1:
                for dim in dims:
                    dim.dim_param = f"{same[0].name}_{axis}"
    data: bytes = first.SerializeToString(deterministic=True)
    equal = all(proto.SerializeToString(deterministic=True) == data for proto in protos)
    return data if equal else None
