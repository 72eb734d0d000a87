"""The stages of a ladder as one session, and what brings an input to a ladder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgekit.artifacts import Array, TensorSpec
from edgekit.bundle.adaptive import Ladder
from edgekit.errors import BadInput, UserError
from edgekit.recipe import Preprocess
from edgekit.runtime.engines import Session
from edgekit.runtime.inputs import FeedCheck, in_onnx_order, to_onnx, to_stored
from edgekit.runtime.preprocess import ImageInput
from edgekit.runtime.stages import Pass, StagedNetwork

__all__ = ["ChainSession", "LadderInput", "logits_spec"]


def logits_spec(ladder: Ladder, stage: int) -> TensorSpec:
    """The spec of the output that holds the logits of a stage."""
    return next(spec for spec in ladder.stages[stage].outputs if spec.name == ladder.stages[stage].logits)


class ChainSession(Session):
    """A ladder up to a stage, from the image to that stage's logits. It does not own the network, and closes nothing.

    Calls from several threads are safe; each stage runs for one at a time.
    """

    def __init__(self, network: StagedNetwork, ladder: int, stage: int) -> None:
        chosen = network.ladders[ladder]
        super().__init__(chosen.stages[0].inputs, (logits_spec(chosen, stage),), network.engine_version)
        self.engine = network.engine  # type: ignore[misc]
        self._network = network
        self._point = ladder, stage

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The logits. Raises EngineError, UserError after ``close``."""
        return self._execute(feeds)

    def _execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._closed:
            raise UserError("The session is closed.", "Load the model again, or run it before closing.")
        ladder, stage = self._point
        logits = Pass(self._network, lambda _ladder: feeds[self.inputs[0].name]).advance(ladder, stage)
        return {self.outputs[0].name: logits}

    def _release(self) -> None:
        """Nothing: the network belongs to the runtime."""


class LadderInput:
    """Brings an input to one ladder: an image by preprocessing, an array by checking and ordering its axes."""

    def __init__(self, ladder: Ladder, preprocess: Preprocess | None, stored: bool) -> None:
        """``stored``: arrays come in the stored order of axes. Raises BadBundle when ``preprocess`` does not fit."""
        spec = ladder.stages[0].inputs[0]
        self.id = ladder.id
        self._spec = spec
        self.image = None if preprocess is None else ImageInput(spec, preprocess, ladder.resolution)
        self._stored = stored
        self._check = FeedCheck((spec,) if stored else in_onnx_order((spec,)))
        axes = (1, 2) if spec.layout == "nhwc" and stored else (2, 3)
        self._sides = dict(zip(axes, ladder.resolution, strict=True))

    def __call__(self, x: Array) -> Array:
        """The image's tensor for one input, in stored order. Raises BadInput."""
        if self.image is not None and isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 3:
            return self.image(x)
        name = self._spec.name
        self._check({name: x})
        if x.shape[0] != 1 or [x.shape[axis] for axis in self._sides] != list(self._sides.values()):
            raise BadInput(f"The array for ladder '{self.id}' has the shape {list(x.shape)}.",
                           f"Wanted: one image (batch 1) of {' x '.join(map(str, self._sides.values()))} pixels.")
        return x if self._stored else to_stored((self._spec,), {name: x})[name]

    def as_given(self, stored: Array) -> Array:
        """What ``__call__`` makes ``stored`` of again: a view in the order of axes in which arrays come."""
        return stored if self._stored else to_onnx((self._spec,), {self._spec.name: stored})[self._spec.name]
