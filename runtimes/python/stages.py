"""The stages of a bundle's ladders, opened when they are first needed, and passes of inputs through them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array, Engine
from edgekit.bundle import Bundle
from edgekit.bundle.adaptive import Ladder, Stage
from edgekit.bundle.plan import ladders_of
from edgekit.errors import UserError
from edgekit.runtime.agreement import compare_specs
from edgekit.runtime.engines import Session

__all__ = ["Pass", "Seen", "StagedNetwork"]

_Execute = Callable[[Mapping[str, Array]], dict[str, Array]]
Seen = tuple[int, int, float]
"""A stage that ran: ladder, stage, and the milliseconds that it took."""


class StagedNetwork:
    """The ladders of one engine. Files are read from ``bundle``, hashed and opened once each, at their first use.

    It owns ``bundle``, which stays open until ``close``.
    """

    def __init__(self, bundle: Bundle, engine: Engine, threads: int) -> None:
        self.engine = engine
        self.ladders = ladders_of(bundle.manifest, engine)
        self._bundle = bundle
        self._threads = threads
        self._sessions: dict[tuple[str, str], Session] = {}
        #: by ladder and stage, once it is open: what runs it
        self._ready: list[list[_Execute | None]] = [[None] * len(ladder.stages) for ladder in self.ladders]
        self._lock = threading.Lock()
        self._closed = False

    @property
    def engine_version(self) -> str:
        """Package and version of the engine; opens a file if none is open yet."""
        return self.session(0, 0).engine_version

    def session(self, ladder: int, stage: int) -> Session:
        """The session of a stage, which other stages may share. Raises BadBundle, EngineError, MissingExtra."""
        wanted = self.ladders[ladder].stages[stage]
        key = (wanted.entry, wanted.signature)
        with self._lock:
            if self._closed:
                raise UserError("The runtime is closed.", "Load the bundle again, or run it before closing.")
            if key not in self._sessions:
                self._open(self.ladders[ladder], wanted)
            return self._sessions[key]

    def execute(self, ladder: int, stage: int, known: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of a stage, which is fed by name from ``known``, all in stored order. Raises EngineError."""
        ready = self._ready[ladder][stage]
        if ready is None:
            ready = self._ready[ladder][stage] = self.session(ladder, stage).execute
        return ready(known)

    def takes_batches(self, ladder: int, stage: int) -> bool:
        """Whether every stage up to this one leaves the number of images free."""
        return all(spec.shape[:1] == (-1,) for each in self.ladders[ladder].stages[:stage + 1]
                   for spec in (*each.inputs, *each.outputs))

    def warm(self, ladder: int, stage: int) -> None:
        """Run the stages up to this one once, on zeros, so that the first real run meets allocated memory."""
        spec = self.ladders[ladder].stages[0].inputs[0]
        axes = (1, 2) if spec.layout == "nhwc" else (2, 3)
        sides = dict(zip(axes, self.ladders[ladder].resolution, strict=True))
        # Batch 1, and where the number of channels is left open no guess: such a network is not warmed.
        shape = tuple(side if side > 0 else sides.get(axis, 1 if axis == 0 else -1)
                      for axis, side in enumerate(spec.shape))
        if -1 not in shape:
            Pass(self, lambda _ladder: np.zeros(shape, spec.dtype)).advance(ladder, stage)

    def close(self) -> None:
        """Free the engine's memory and close the bundle. Doing so twice is harmless."""
        with self._lock:
            self._closed = True
            sessions, self._sessions = list(self._sessions.values()), {}
            self._ready = [[None] * len(row) for row in self._ready]
        for session in sessions:
            session.close()
        self._bundle.close()

    def _open(self, ladder: Ladder, wanted: Stage) -> None:
        opened = self._open_litert(wanted.entry) if self.engine == "litert" else self._open_ort(ladder, wanted)
        try:
            self._compare(opened)
        except BaseException:
            for session in opened.values():
                session.close()
            raise
        self._sessions |= opened

    def _open_litert(self, entry: str) -> dict[tuple[str, str], Session]:
        from edgekit.runtime.engines.signatures import open_signatures

        names = list(dict.fromkeys(stage.signature for ladder in self.ladders for stage in ladder.stages
                                   if stage.entry == entry))
        opened = open_signatures(self._bundle.read(entry), names, self._threads)
        return {(entry, name): session for name, session in opened.items()}

    def _open_ort(self, ladder: Ladder, wanted: Stage) -> dict[tuple[str, str], Session]:
        from edgekit.runtime.engines.ort import OrtSession

        if ladder.weights is None:
            return {(wanted.entry, ""): OrtSession(self._bundle.read(wanted.entry), self._threads)}
        # All that use these weights, so that they are read and hashed once and need not be kept.
        external = {ladder.weights: self._bundle.read(ladder.weights)}
        return {(stage.entry, ""): OrtSession(self._bundle.read(stage.entry), self._threads, external)
                for stage in {each.entry: each for each in ladder.stages}.values()
                if (stage.entry, "") not in self._sessions}

    def _compare(self, opened: Mapping[tuple[str, str], Session]) -> None:
        for ladder in self.ladders:
            for number, stage in enumerate(ladder.stages):
                session = opened.get((stage.entry, stage.signature))
                if session is not None:
                    owner = f"stage {number} of ladder '{ladder.id}'"
                    compare_specs(owner, "input", stage.inputs, session.inputs)
                    compare_specs(owner, "output", stage.outputs, session.outputs)


class Pass:
    """Images on their way through the ladders, with all that their stages have left for later ones.

    ``image(ladder)`` gives the images' tensor for a ladder, in stored order; it is asked for once, when the ladder
    first runs. What runs is added to ``seen``.
    """

    def __init__(self, network: StagedNetwork, image: Callable[[int], Array], seen: list[Seen] | None = None) -> None:
        self._network = network
        self._image = image
        self._seen = seen
        self._known: dict[int, dict[str, Array]] = {}
        self._done: dict[int, int] = {}

    def advance(self, ladder: int, stage: int) -> Array:
        """The logits (images, classes) of a stage, after running those before it that have not run.

        Raises EngineError, and what ``image`` raises; stages that ran before the failing one need not run again.
        """
        network, seen = self._network, self._seen
        stages = network.ladders[ladder].stages
        known = self._known.get(ladder)
        if known is None:
            known = self._known[ladder] = {stages[0].inputs[0].name: self._image(ladder)}
            self._done[ladder] = -1
        for number in range(self._done[ladder] + 1, stage + 1):
            begin = time.perf_counter()
            known |= network.execute(ladder, number, known)
            if seen is not None:
                seen.append((ladder, number, (time.perf_counter() - begin) * 1e3))
            self._done[ladder] = number
        return known[stages[stage].logits]

    def keep(self, rows: npt.NDArray[np.intp]) -> None:
        """Go on with these images only."""
        for known in self._known.values():
            for name, array in known.items():
                known[name] = array[rows]
