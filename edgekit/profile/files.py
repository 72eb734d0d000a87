"""Predictions for files: a model, or every variant of a bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgekit.artifacts import Engine
from edgekit.bundle import Bundle, Variant
from edgekit.device_profiles import DeviceProfile
from edgekit.errors import BadModel
from edgekit.graph.costs_read import graph_costs
from edgekit.profile.predict import LatencyPrediction, VariantLatency, predict

__all__ = ["predict_file"]

_ENGINE_OF: dict[str, Engine] = {".tflite": "litert", ".onnx": "ort"}
_RUNTIME_ENGINE: dict[str, Engine] = {"litert": "litert", "tflite": "litert", "onnxruntime": "ort"}


def predict_file(
    path: Path, profile: DeviceProfile, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> LatencyPrediction:
    """What ``profile`` says about the .onnx, .tflite or .edge file at ``path``.

    ``shapes`` of dynamic inputs: in the file's own order of axes, for a bundle in the ONNX order. Raises what
    ``graph_costs``, ``predict`` and opening a bundle raise.
    """
    if path.suffix.lower() != ".edge":
        return predict(graph_costs(path, shapes), profile, _ENGINE_OF.get(path.suffix.lower()))
    with Bundle.open(path) as bundle, tempfile.TemporaryDirectory(prefix="edgekit-profile-") as folder:
        variants = [each for each in bundle.manifest.variants if each.format != "ort"]
        if not variants:
            raise BadModel(f"The variants of '{path}' are .ort files, whose graph cannot be read.",
                           "Give the .onnx file that it was made from.")
        found = []
        for number, variant in enumerate(variants):
            file = Path(folder) / f"{number}.{variant.format}"
            file.write_bytes(bundle.read(variant.entry))
            costs = graph_costs(file, _stored(variant, shapes or {}))
            found.append((variant, predict(costs, profile, variant.engine)))
    own = _RUNTIME_ENGINE.get(profile.runtime)
    first = next((each for variant, each in found if variant.engine == own), found[0][1])
    return msgspec.structs.replace(first, variants=tuple(
        VariantLatency(variant.id, variant.engine, each.latency_ms, each.band_ms, each.covered, each.inside_domain,
                       each.findings) for variant, each in found))


def _stored(variant: Variant, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """``shapes`` as the variant's file orders the axes."""
    found = dict(shapes)
    for spec in variant.inputs:
        if spec.layout == "nhwc" and len(found.get(spec.name, ())) == 4:
            batch, channels, height, width = found[spec.name]
            found[spec.name] = (batch, height, width, channels)
    return found
