"""The error that quantization adds, layer by layer, against the float file."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import msgspec

from edgekit import isolate
from edgekit.errors import BadRecipe

__all__ = ["LayerNoise", "layer_noise"]

_TIMEOUT_S = 900.0


class LayerNoise(msgspec.Struct, frozen=True):
    """One op of the float network: ``sqnr_db`` of its first result, with all error that came in before; ``gain_db``:
    what the noise that it adds itself is worth; ``outlier_channels``: whose peak is over 8 times the median channel's.
    """

    tensor: str
    kind: str
    sqnr_db: float
    gain_db: float
    outlier_channels: int


def layer_noise(path: Path, against: Path) -> tuple[LayerNoise, ...]:
    """The ops of ``against`` (.onnx or float .tflite) as the quantized .tflite file ``path`` computes them.

    On four random inputs, in a child process. Raises BadRecipe for another kind of file or files that have no value in
    common, BadModel, EngineError, MissingExtra.
    """
    if path.suffix.lower() != ".tflite" or against.suffix.lower() not in (".onnx", ".tflite"):
        raise BadRecipe(f"'{path}' cannot be compared by layer with '{against}'.",
                        "That is for a quantized .tflite file and the float .onnx or .tflite that it was made from.")
    found = isolate.call("edgekit.report.layers:_compare", str(path), str(against), timeout_s=_TIMEOUT_S,
                         subject=f"Comparing '{path}' with '{against}' by layer")
    return cast("tuple[LayerNoise, ...]", found)


def _compare(path: str, against: str) -> tuple[LayerNoise, ...]:
    from edgekit.converters.quantize.flatbuffer import read_model
    from edgekit.converters.quantize.samples import open_samples
    from edgekit.converters.quantize.sensitivity import sensitivity

    data = Path(path).read_bytes()
    source = read_model(_float_litert(Path(against)), f"'{against}'")
    layers = sensitivity(source.data, data, open_samples("random", source.inputs))
    if not layers:
        raise BadRecipe(f"'{path}' and '{against}' have no inner value in common.",
                        "Give the file that it was quantized from.")
    return tuple(LayerNoise(each.tensor, each.kind, each.sqnr_db, each.gain_db, each.outlier_channels)
                 for each in layers)


def _float_litert(path: Path) -> bytes:
    if path.suffix.lower() == ".tflite":
        return path.read_bytes()
    from edgekit.converters.onnx_model import load_onnx
    from edgekit.converters.onnx_to_litert import to_litert

    model = to_litert(load_onnx(path)).model
    return model.data
