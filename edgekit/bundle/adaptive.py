"""The types of an adaptive bundle: networks in stages at several resolutions, and plans that say when to stop.

A *ladder* is one network at one resolution, cut into stages that are run one after another; each stage ends in an exit
(logits). A *route* is an ordered list of steps, each of which runs a ladder up to some exit; after each step a decision
is taken from the combined logits of all steps so far. A *plan* holds routes from cheap to dear for one device.
``runtimes/SPEC.md`` part 3 fixes the arithmetic for every language.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgekit.artifacts import Engine, TensorSpec
from edgekit.bundle.vectors import TestVector

__all__ = ["Confidence", "Gate", "Ladder", "Plan", "Promise", "Route", "Stage", "Step"]

Confidence = Literal["margin", "max_probability", "gate"]


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part of a ladder: ``entry`` holds the model, ``signature`` names the LiteRT signature in it ("" for ort).

    ``inputs`` are the image, which is the only input of the first stage, or outputs of earlier stages of the ladder, by
    name and with the same spec; ``logits`` names the output that holds the exit's logits, float32 of shape (batch,
    classes).
    """

    entry: str
    signature: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    logits: str


class Ladder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One network at one resolution (height, width), in stages. All ladders of an engine have the same classes.

    ``weights`` is the entry with the external data of the stages' ONNX files, which name it as their location; None
    where they hold their weights themselves. A test vector has the image and the logits of every stage.
    """

    id: str
    engine: Engine
    format: Literal["tflite", "onnx", "ort"]
    precision: str
    resolution: tuple[int, int]
    stages: tuple[Stage, ...]
    weights: str | None = None
    test_vectors: tuple[TestVector, ...] = ()


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A logistic gate: ``sigmoid(bias + sum(weights * features))`` estimates the chance that the answer is right.

    Features of the combined logits, in this order: margin, largest probability, second probability, entropy in nats,
    whether this step's answer is that of the step before (1, 0; 0.5 at the first).
    """

    weights: tuple[float, float, float, float, float]
    bias: float


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Run ladder ``ladder`` up to and including stage ``stage``; decide on the combination of all steps so far.

    ``ladder`` counts the ladders of the plan's engine in the order of the manifest, from 0. Combined logits: the sum
    over steps j up to this one of ``weights[j]`` times the logits of step j, so that a temperature is a weight below or
    above 1. ``threshold``: stop when the confidence is at least this; None at the last step, and where only a deadline
    stops.
    """

    ladder: int
    stage: int
    weights: tuple[float, ...]
    confidence: Confidence
    threshold: float | None
    gate: Gate | None = None


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What validation data say of a route: accuracy with its 95 % interval, mean and 95th percentile of the time.

    ``stops[k]`` is the share of inputs that stop at step k; ``samples`` is how many inputs that is from.
    """

    accuracy: float
    interval: tuple[float, float]
    mean_ms: float
    p95_ms: float
    stops: tuple[float, ...]
    samples: int


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Steps of growing cost. A step of the same ladder as an earlier one goes on from its last stage."""

    steps: tuple[Step, ...]
    promise: Promise


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Routes from cheap to dear on the accuracy-latency front for one device, and which one to use at full speed.

    ``stage_ms[l][s]`` is the time of stage s of ladder l on the device, for each ladder of ``engine`` in the order of
    the manifest; ``overhead_ms`` what a step costs on top; ``source`` says whether these were measured or predicted.
    ``default`` is an index into ``routes``. ``ladders_sha256`` is the hash of what the plan was made for: it fits no
    other bundle.
    """

    device: str
    engine: Engine
    source: Literal["measured", "predicted"]
    stage_ms: tuple[tuple[float, ...], ...]
    overhead_ms: float
    routes: tuple[Route, ...]
    default: int
    objective: str
    notes: tuple[str, ...]
    ladders_sha256: str
