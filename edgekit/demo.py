"""``edgekit demo``: a real network from torch weights to a signed bundle that answers on two engines.

Everything is done with the functions that a user has; nothing here knows more than they do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgekit.artifacts import Array, Conversion, Engine, OnnxModel, Prediction
from edgekit.atomic import write_atomically
from edgekit.bundle import generate_key_pair, load_private_key, sign_bundle
from edgekit.errors import MissingExtra, VerificationFailed, WriteFailed
from edgekit.lite0 import PREPROCESS, RESOLUTION, imagenet_labels, load_lite0, photograph, weights_path
from edgekit.parity import verify
from edgekit.pipeline import build, convert
from edgekit.recipe import BuildRecipe
from edgekit.runtime import Runtime, RuntimeOptions, decode_image, load

if TYPE_CHECKING:
    import torch

__all__ = ["TOLERANCE", "DemoResult", "EngineResult", "run_demo"]

TOLERANCE = 1e-4  # on logits, absolute
_ENGINES: tuple[Engine, ...] = ("litert", "ort")
_FILES: Mapping[Engine, str] = {"litert": "lite0.tflite", "ort": "lite0-ort.onnx"}
_WARM_UPS = 5
_ROUNDS = 25
_RANDOM_INPUTS = 3

Run = Callable[[], object]


class EngineResult(msgspec.Struct, frozen=True):
    """One engine. ``max_abs_diff``: largest difference of any logit to torch, over the photograph and random inputs.

    ``load_ms`` is wall time from the bundle, its checks included; ``run_cpu_ms`` is the median CPU time of one answer
    for a prepared input on 1 thread, measured in turns with torch.
    """

    engine: Engine
    engine_version: str
    file: str
    size_bytes: int
    convert_seconds: float
    verify_seconds: float
    max_abs_diff: float
    label: str
    score: float
    load_ms: float
    run_cpu_ms: float


class DemoResult(msgspec.Struct, frozen=True):
    """What the demo did. ``label`` is torch's answer, with which both engines agree. ``steps``: seconds by name."""

    network: str
    photo: str
    label: str
    torch_size_bytes: int
    torch_run_cpu_ms: float
    engines: tuple[EngineResult, ...]
    bundle: str
    bundle_size_bytes: int
    public_key: str
    tolerance: float
    steps: Mapping[str, float]
    seconds: float


class _Clock:
    """Names the steps as they begin and remembers how long each took."""

    def __init__(self, on_step: Callable[[str], None] | None) -> None:
        self.seconds: dict[str, float] = {}
        self._on_step = on_step

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        if self._on_step is not None:
            self._on_step(name)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def run_demo(workdir: Path | str, on_step: Callable[[str], None] | None = None) -> DemoResult:
    """EfficientNet-Lite0: export, convert, verify against torch, bundle, sign, load, classify, compare.

    The files stay in ``workdir``, which is made if need be. ``on_step`` is told what is being done, as it begins.
    Raises VerificationFailed when a logit is off by more than TOLERANCE or an engine names another label than torch;
    MissingExtra, naming the pip line, for a package that is not installed; WriteFailed.
    """
    started = time.perf_counter()
    torch, folder = _import_torch(), _folder(workdir)
    clock = _Clock(on_step)
    with clock.step("Load the network and its trained weights"), _one_thread(torch):
        network, image = load_lite0(), decode_image(photograph())
    with clock.step("Export from torch to ONNX"):
        model = _export(network, torch, folder)
    with clock.step("Convert for LiteRT and ONNX Runtime, compare with the ONNX model"):
        converted = {engine: convert(model, engine, folder / _FILES[engine]) for engine in _ENGINES}
    with clock.step("Put both into one bundle with labels and test vectors"):
        unsigned = folder / "lite0-unsigned.edge"
        recipe = BuildRecipe(name="efficientnet-lite0", preprocess=PREPROCESS, labels=imagenet_labels())
        build(model, unsigned, recipe)
    with clock.step("Sign the bundle"):
        bundle, public_key = _signed(unsigned, folder)
    with clock.step("Check hashes, signature and test vectors"):
        _check(bundle, public_key)
    with clock.step("Load the bundle on each engine, classify, compare with torch"), _one_thread(torch):
        run_times, engines, label = _compare(network, image, bundle, public_key, converted)
    return DemoResult(
        network="EfficientNet-Lite0",
        photo=str(photograph()),
        label=label,
        torch_size_bytes=weights_path().stat().st_size,
        torch_run_cpu_ms=run_times,
        engines=engines,
        bundle=str(bundle),
        bundle_size_bytes=bundle.stat().st_size,
        public_key=str(public_key),
        tolerance=TOLERANCE,
        steps=clock.seconds,
        seconds=time.perf_counter() - started,
    )
