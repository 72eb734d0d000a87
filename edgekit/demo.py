"""``edgekit demo``: a real network from torch weights to a signed bundle on two engines, then an adaptive network.

Everything is done with the functions that a user has; nothing here knows more than they do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgekit.artifacts import Array, Conversion, Engine, OnnxModel, Prediction, TensorSpec
from edgekit.atomic import write_atomically
from edgekit.bundle import generate_key_pair, load_private_key, sign_bundle
from edgekit.demo_adaptive import AdaptiveResult, run_adaptive_demo
from edgekit.demo_network import RESOLUTION, imagenet_labels, load_lite0, photograph, weights_path
from edgekit.errors import VerificationFailed, WriteFailed
from edgekit.parity import require_passed, verify
from edgekit.pipeline import build, convert
from edgekit.recipe import BuildRecipe, ExportRecipe, Preprocess
from edgekit.runtime import Runtime, RuntimeOptions, decode_image, load
from edgekit.runtime.preprocess import ImageInput
from edgekit.sample_inputs import random_inputs

if TYPE_CHECKING:
    import torch

__all__ = ["TOLERANCE", "DemoResult", "EngineResult", "run_demo"]

TOLERANCE = 1e-4  # on logits, absolute
#: the whole central square: the customary crop to 0.875 of it cuts cap and insignia off, and the answer of the network,
#: in torch as well, becomes "academic gown"
PREPROCESS = Preprocess(crop_fraction=1.0)
_ENGINES: tuple[Engine, ...] = ("litert", "ort")
_FILES: Mapping[Engine, str] = {"litert": "lite0.tflite", "ort": "lite0-ort.onnx"}
_WARM_UPS = 5
_ROUNDS = 25
_RANDOM_INPUTS = 3


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
    """What the demo did. ``label`` is torch's answer, with which both engines agree. ``steps``: seconds by name.

    ``adaptive``: the adaptive bundle that comes along, beside fixed points of itself.
    """

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
    adaptive: AdaptiveResult
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
    """EfficientNet-Lite0: export, convert, verify against torch, bundle, sign, load, classify, compare; then adaptive.

    The files stay in ``workdir``, which is made if need be. ``on_step`` is told what is being done, as it begins.
    Raises VerificationFailed when a logit is off by more than TOLERANCE or an engine names another label than torch;
    MissingExtra, naming the pip line, for a package that is not installed; WriteFailed.
    """
    started = time.perf_counter()
    folder, clock = _folder(workdir), _Clock(on_step)
    with clock.step("Load the network and its trained weights"):
        network, image = load_lite0(), decode_image(photograph())
    with clock.step("Export from torch to ONNX"):
        model = _export(network, folder)
    with clock.step("Convert for LiteRT and ONNX Runtime, compare with the ONNX model"):
        converted = {engine: convert(model, engine, folder / _FILES[engine]) for engine in _ENGINES}
    with clock.step("Put both into one bundle with labels and test vectors"):
        unsigned = folder / "lite0-unsigned.edge"
        recipe = BuildRecipe(name="efficientnet-lite0", preprocess=PREPROCESS, labels=imagenet_labels())
        build(model, unsigned, recipe)
    with clock.step("Sign the bundle"):
        bundle, public_key = _signed(unsigned, folder)
    with clock.step("Check the hashes, the signature and the test vectors"):
        _check(bundle, public_key)
    with clock.step("Load it on both engines, classify the photograph, compare with torch"), ExitStack() as stack:
        sides = {engine: _loaded(bundle, public_key, engine, image) for engine in _ENGINES}
        for side in sides.values():
            stack.enter_context(side.runtime)
        with _one_thread():
            label, torch_ms = _classify(network, sides, image)
    with clock.step("Plan an adaptive network for this machine; answer easy and hard images with it"):
        adaptive = run_adaptive_demo(folder)
    return DemoResult(
        network="EfficientNet-Lite0",
        photo=str(photograph()),
        label=label,
        torch_size_bytes=weights_path().stat().st_size,
        torch_run_cpu_ms=torch_ms,
        engines=tuple(_result(engine, side, converted[engine], folder) for engine, side in sides.items()),
        bundle=str(bundle),
        bundle_size_bytes=bundle.stat().st_size,
        public_key=str(public_key),
        tolerance=TOLERANCE,
        adaptive=adaptive,
        steps=clock.seconds,
        seconds=time.perf_counter() - started,
    )


def _folder(path: Path | str) -> Path:
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"Could not make '{folder}': {error.strerror or error}.", "Name another folder.") from error
    return folder


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread, as the engines are, so that times can be compared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _export(network: torch.nn.Module, folder: Path) -> OnnxModel:
    import torch

    from edgekit.converters.torch_to_onnx import export

    model = export(network, torch.zeros(1, 3, RESOLUTION, RESOLUTION), ExportRecipe(output_names=("logits",)))
    write_atomically(folder / "lite0.onnx", model.data)
    return model


def _signed(unsigned: Path, folder: Path) -> tuple[Path, Path]:
    """The signed bundle, and the public key that checks it. A key pair from an earlier demo is used again."""
    private, public, bundle = folder / "demo-private.pem", folder / "demo-public.pem", folder / "lite0.edge"
    if not private.exists() or not public.exists():
        generate_key_pair(private, public)
    sign_bundle(unsigned, bundle, load_private_key(private))
    return bundle, public


def _check(bundle: Path, public_key: Path) -> None:
    for report in verify(bundle, public_key=public_key, require_signature=True):
        require_passed(report)


@dataclass(slots=True)
class _Side:
    """One engine with the bundle loaded."""

    runtime: Runtime
    load_ms: float
    prediction: Prediction
    max_abs_diff: float = 0.0
    run_cpu_ms: float = 0.0


def _loaded(bundle: Path, public_key: Path, engine: Engine, image: Array) -> _Side:
    started = time.perf_counter()
    options = RuntimeOptions(public_key=public_key, require_signature=True)
    runtime = load(bundle, engine, options)
    load_ms = (time.perf_counter() - started) * 1e3
    return _Side(runtime, load_ms, runtime.run(image))


def _classify(
    network: torch.nn.Module, sides: Mapping[Engine, _Side], image: Array
) -> tuple[str, float]:
    """The label that torch gives the photograph, and every engine must, and torch's CPU time in milliseconds.

    Fills in the differences and times of ``sides``. Raises VerificationFailed.
    """
    spec = TensorSpec("inputs", "float32", (1, 3, RESOLUTION, RESOLUTION))
    photo = ImageInput(spec, PREPROCESS, (RESOLUTION, RESOLUTION))(image)
    shapes = {spec.name: spec.shape}
    inputs = [photo, *(random_inputs([spec], shapes, seed)[spec.name] for seed in range(_RANDOM_INPUTS))]
    for side in sides.values():
        side.max_abs_diff = max(
            float(np.max(np.abs(side.runtime.run(x).outputs["logits"] - _logits(network, x)))) for x in inputs)
    label = imagenet_labels()[int(np.argmax(_logits(network, photo)))]
    for engine, side in sides.items():
        if side.max_abs_diff > TOLERANCE or side.prediction.label != label:
            raise VerificationFailed(
                f"{engine} says '{side.prediction.label}' and torch '{label}'; their logits differ by up to "
                f"{side.max_abs_diff:.3g}, and {TOLERANCE:g} is allowed.", "Please report it.")
    torch_ms, *engine_ms = _cpu_ms([lambda: _logits(network, photo), *_runs(sides, photo)])
    for side, run_ms in zip(sides.values(), engine_ms, strict=True):
        side.run_cpu_ms = run_ms
    return label, torch_ms


def _runs(sides: Mapping[Engine, _Side], photo: Array) -> list[Callable[[], object]]:
    return [partial(side.runtime.run, photo) for side in sides.values()]


def _logits(network: torch.nn.Module, x: Array) -> Array:
    import torch

    with torch.no_grad():
        logits: Array = network(torch.from_numpy(x)).numpy()
    return logits


def _cpu_ms(runs: list[Callable[[], object]]) -> list[float]:
    """The median CPU time of each, in milliseconds; they take turns, since a shared machine drifts."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(_WARM_UPS + _ROUNDS):
        for run, kept in zip(runs, times, strict=True):
            started = time.process_time()
            run()
            if turn >= _WARM_UPS:
                kept.append((time.process_time() - started) * 1e3)
    return [statistics.median(kept) for kept in times]


def _result(engine: Engine, side: _Side, conversion: Conversion, folder: Path) -> EngineResult:
    verification, prediction = conversion.verification, side.prediction
    assert verification is not None
    assert prediction.label is not None
    assert prediction.score is not None
    return EngineResult(
        engine=engine,
        engine_version=side.runtime.engine_version,
        file=str(folder / _FILES[engine]),
        size_bytes=len(conversion.model.data),
        convert_seconds=conversion.seconds,
        verify_seconds=verification.seconds,
        max_abs_diff=side.max_abs_diff,
        label=prediction.label,
        score=prediction.score,
        load_ms=side.load_ms,
        run_cpu_ms=side.run_cpu_ms,
    )
