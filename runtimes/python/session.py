"""A loaded bundle that answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from edgekit.artifacts import Array, Engine, Prediction, TensorSpec
from edgekit.bundle.manifest import Manifest, Variant
from edgekit.errors import BadInput
from edgekit.runtime.choose import image_axes
from edgekit.runtime.classify import Classifier
from edgekit.runtime.engines.base import Session
from edgekit.runtime.inputs import FeedCheck, in_onnx_order, to_onnx, to_stored
from edgekit.runtime.options import RuntimeOptions
from edgekit.runtime.preprocess import ImageInput

__all__ = ["Loaded", "Runtime", "complaint"]


class Loaded(NamedTuple):
    """What ``load`` found in a bundle. ``signed``: it holds a signature; ``signature_checked``: it was found right.

    ``exit``: which exit of an adaptive network the variant is.
    """

    manifest: Manifest
    variant: Variant
    labels: tuple[str, ...]
    classifier: Classifier | None
    image: ImageInput | None
    resolution: tuple[int, int] | None
    signed: bool
    signature_checked: bool
    exit: int = 0


class Runtime:
    """Runs one variant of a bundle; made by ``load``. Close it, or use it as a context manager.

    ``inputs`` and ``outputs`` are the specs of the arrays that ``run`` takes and returns, with shapes in the order of
    axes that ``RuntimeOptions.array_layout`` asked for. Calls from several threads are safe and run one after another;
    for parallel runs load a Runtime for each thread.
    """

    def __init__(self, session: Session, loaded: Loaded, options: RuntimeOptions) -> None:
        self.manifest = loaded.manifest
        self.variant = loaded.variant
        self.labels = loaded.labels
        self.signed = loaded.signed
        self.signature_checked = loaded.signature_checked
        self._session = session
        self._loaded = loaded
        self._stored = options.array_layout == "stored"
        # With no transposed tensor the two orders are one, and a run is spared the conversion.
        self._same_order = self._stored or not any(
            spec.layout == "nhwc" for spec in (*loaded.variant.inputs, *loaded.variant.outputs))
        self.inputs = loaded.variant.inputs if self._stored else in_onnx_order(loaded.variant.inputs)
        self.outputs = loaded.variant.outputs if self._stored else in_onnx_order(loaded.variant.outputs)
        self._check = FeedCheck(self.inputs)
        self._single = self.inputs[0].name if len(self.inputs) == 1 else None
        self._axes = _pixel_axes(loaded)

    @property
    def engine(self) -> Engine:
        """The engine that runs: "litert" or "ort"."""
        return self._session.engine

    @property
    def engine_version(self) -> str:
        """Package and version of the engine, for instance "onnxruntime 1.31.1"."""
        return self._session.engine_version

    @property
    def resolution(self) -> tuple[int, int] | None:
        """(height, width) in pixels that an image is brought to; None where the network takes none or any."""
        return self._loaded.resolution

    def run(self, x: Array | Mapping[str, Array], deadline_ms: float | None = None) -> Prediction:
        """The answer for one input.

        ``x``: a uint8 image (height, width, 3), RGB, of any size, where the manifest has preprocessing; or the array of
        the single input; or arrays by name. Arrays have exactly the dtype and shape of ``inputs``; nothing is cast.
        The arrays of the answer belong to the caller and may be views that are not contiguous.
        ``deadline_ms``: a network of one stage always runs to its end; ``Prediction.reason`` says when that was late.

        Raises BadInput, EngineError, BadBundle (labels that do not fit what the network returns), UserError (closed).
        """
        begin = time.perf_counter()
        if deadline_ms is not None and not deadline_ms > 0:
            raise BadInput(f"The deadline is {deadline_ms} ms.", "It must be more than 0.")
        feeds = self._feeds(x)
        resolution = self._resolution_of(feeds)
        outputs = self._session.execute(feeds)
        classifier = self._loaded.classifier
        top = classifier(outputs[self.outputs[0].name]) if classifier else ()
        if not self._same_order:
            outputs = to_onnx(self.variant.outputs, outputs)
        latency_ms = (time.perf_counter() - begin) * 1e3
        return Prediction(
            outputs=outputs, label=top[0][0] if top else None, score=top[0][1] if top else None, top=top,
            exit=self._loaded.exit, resolution=resolution, latency_ms=latency_ms,
            reason=f"complete{complaint(latency_ms, deadline_ms)}")

    def close(self) -> None:
        """Free the engine's memory. Waits for a run that is under way; doing so twice is harmless."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Runtime '{self.manifest.name}', variant '{self.variant.id}' on {self.engine_version}>"

    def _feeds(self, x: Array | Mapping[str, Array]) -> dict[str, Array]:
        """Checked arrays by name, in stored order."""
        if isinstance(x, Mapping):
            feeds = dict(x)
        elif self._loaded.image is not None and isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 3:
            return {self.inputs[0].name: self._loaded.image(x)}
        elif self._single is not None:
            feeds = {self._single: x}
        else:
            names = ", ".join(spec.name for spec in self.inputs)
            raise BadInput(f"The network has {len(self.inputs)} inputs, but one array came.",
                           f"Give a mapping from names to arrays: {names}.")
        self._check(feeds)
        return feeds if self._same_order else to_stored(self.variant.inputs, feeds)

    def _resolution_of(self, feeds: Mapping[str, Array]) -> tuple[int, int] | None:
        if self._axes is None:
            return self.variant.resolution
        shape = feeds[self.inputs[0].name].shape
        return shape[self._axes[0]], shape[self._axes[1]]


def _pixel_axes(loaded: Loaded) -> tuple[int, int] | None:
    """Where the stored input has height and width, if it is known to be an image."""
    spec: TensorSpec = loaded.variant.inputs[0]
    is_image = len(loaded.variant.inputs) == 1 and (loaded.image is not None or spec.layout == "nhwc")
    return image_axes(spec) if is_image else None


def complaint(latency_ms: float, deadline_ms: float | None) -> str:
    """What to add to the reason of an answer: that it came too late, or nothing."""
    if deadline_ms is None or latency_ms <= deadline_ms:
        return ""
    return f": missed deadline of {deadline_ms:g} ms by {latency_ms - deadline_ms:.3g} ms"
