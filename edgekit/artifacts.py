"""The frozen types that travel between stages. No logic lives here.

=============  =========================================================
stage          in -> out
=============  =========================================================
export         nn.Module, example -> OnnxModel
optimise       OnnxModel -> OnnxModel
lower          OnnxModel -> LiteRTModel | OrtModel
bundle         variants -> .edge file (edgekit.bundle.manifest.Manifest)
verify         model or bundle -> VerifyReport
run            bundle, input -> Prediction
=============  =========================================================

A dimension is an int; -1 is dynamic. A dtype is numpy's name ("float32", "int8", "bool").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy.typing as npt

__all__ = [
    "LAYOUT_METADATA",
    "Array",
    "Conversion",
    "Engine",
    "Layout",
    "LiteRTModel",
    "NodeLowering",
    "OnnxModel",
    "OrtModel",
    "OutputError",
    "Prediction",
    "Signature",
    "StepTaken",
    "TensorSpec",
    "VerifyReport",
]

Array = npt.NDArray[Any]
Engine = Literal["litert", "ort"]
Layout = Literal["onnx", "nhwc"]


#: name of the metadata entry of a .tflite file that lists, for each signature, the inputs and outputs stored as NHWC
LAYOUT_METADATA = "edgekit.layout"


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output of a model, as the engine sees it.

    ``layout`` "nhwc": the ONNX tensor was NCHW and its axes are stored in the order N, H, W, C here;
    ``shape`` is the stored one. "onnx": the order is that of the ONNX graph.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: Layout = "onnx"


class OnnxModel(msgspec.Struct, frozen=True):
    """A self-contained ONNX model: ``data`` is the serialised ModelProto, weights included."""

    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry point of a .tflite file, over the names of the ONNX graph that it was made from."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class LiteRTModel(msgspec.Struct, frozen=True):
    """A .tflite flatbuffer. ``inputs`` and ``outputs`` are those of the first of its ``signatures``."""

    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    signatures: tuple[Signature, ...] = ()


class OrtModel(msgspec.Struct, frozen=True):
    """A graph optimised for ONNX Runtime, as an ONNX file or in the .ort flatbuffer format."""

    data: bytes
    format: Literal["onnx", "ort"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class NodeLowering(msgspec.Struct, frozen=True):
    """What one ONNX node became: the names of the target ops, and the line of the user's source.

    ``how`` says why there may be none: "fused" into a neighbour, "folded" into a constant, or "view": only the order of
    axes or a name changed, nothing is computed.
    """

    node: str
    op_type: str
    target_ops: tuple[str, ...]
    source: str = ""
    how: Literal["ops", "fused", "folded", "view"] = "ops"


class Conversion(msgspec.Struct, frozen=True):
    """A converted model with the account of how it came about. ``seconds`` excludes verification."""

    model: LiteRTModel | OrtModel
    nodes: tuple[NodeLowering, ...]
    op_counts: Mapping[str, int]
    seconds: float
    verification: VerifyReport | None = None


class OutputError(msgspec.Struct, frozen=True):
    """The difference of one output to the reference; ``output_range`` is max - min of the reference.

    ``allowed_abs_diff`` is what the tolerance and float32 rounding come to; 0 for integers.

    ``problem`` says what cannot be put as a difference (another shape, another kind of dtype, NaN in one of the two);
    ``max_abs_diff`` is infinite then.
    """

    name: str
    max_abs_diff: float
    output_range: float
    passed: bool
    problem: str = ""
    allowed_abs_diff: float = 0.0


class VerifyReport(msgspec.Struct, frozen=True):
    """``subject`` against ``reference``: passed when every max |difference| <= tolerance x output range."""

    subject: str
    reference: str
    tolerance: float
    outputs: tuple[OutputError, ...]
    passed: bool
    seconds: float


class StepTaken(msgspec.Struct, frozen=True):
    """One step of an adaptive answer: the ladder's id, the stage that it ran up to, how sure it was then.

    ``elapsed_ms`` is wall time from the call to the end of the step; ``confidence`` is NaN for logits that are not
    finite.
    """

    ladder: str
    stage: int
    confidence: float
    elapsed_ms: float


class Prediction(msgspec.Struct, frozen=True):
    """The answer for one input. ``outputs`` always holds the named arrays; the rest is for classification.

    ``label`` / ``score`` / ``top`` are None / None / () unless the bundle carries labels. ``exit`` counts from 0,
    ``resolution`` is (height, width) in pixels or None, ``latency_ms`` is wall time inside ``Runtime.run``.
    ``route`` (an index into the plan's routes) and ``steps`` are None and () unless a plan decided.
    """

    outputs: Mapping[str, Array]
    label: str | None
    score: float | None
    top: tuple[tuple[str, float], ...]
    exit: int
    resolution: tuple[int, int] | None
    latency_ms: float
    reason: str
    route: int | None = None
    steps: tuple[StepTaken, ...] = ()
