"""What ``edgekit.measure`` times: a model file in its engine, or a bundle in the runtime, with inputs for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgekit.artifacts import Array, Engine, TensorSpec
from edgekit.errors import BadInput, BadModel, BadRecipe, UnknownName
from edgekit.sample_inputs import random_inputs

if TYPE_CHECKING:
    from edgekit.measure import BenchOptions
    from edgekit.runtime import Runtime
    from edgekit.runtime.engines import Session

__all__ = ["ENGINE_OF", "Subject", "open_subject"]

ENGINE_OF: dict[str, Engine] = {".tflite": "litert", ".onnx": "ort", ".ort": "ort"}


class Subject(Protocol):
    """A loaded file and the inputs it is timed with."""

    engine: Engine
    engine_version: str
    feeds: dict[str, Array]

    def run(self) -> object:
        """One answer."""

    def close(self) -> None:
        """Free the engine."""


class _Model:
    """A model file, in an engine without anything around it."""

    def __init__(self, path: str, options: BenchOptions) -> None:
        from edgekit.runtime.engines import open_session

        engine = ENGINE_OF[Path(path).suffix.lower()]
        if options.engine not in ("auto", engine):
            raise BadRecipe(f"'{path}' runs on the engine '{engine}' only.", "Leave out the choice of an engine.")
        self._session: Session = open_session(engine, Path(path).read_bytes(), options.threads)
        self.engine = engine
        self.engine_version = self._session.engine_version
        self.feeds = _random_feeds(path, self._session.inputs, options.shapes)

    def run(self) -> object:
        return self._session.run(self.feeds)

    def close(self) -> None:
        self._session.close()


class _Bundle:
    """A bundle in the runtime, as an app would run it; its inputs are those of its first test vector.

    Of an adaptive bundle that is its largest network, run to the end: what its plan saves depends on the inputs.
    """

    def __init__(self, path: str, options: BenchOptions) -> None:
        from edgekit.runtime import AdaptiveRuntime, RuntimeOptions, load

        self._loaded = load(path, options.engine, RuntimeOptions(
            threads=options.threads, public_key=options.public_key, require_signature=options.require_signature))
        self._runtime: Runtime = (
            self._loaded.whole() if isinstance(self._loaded, AdaptiveRuntime) else self._loaded)
        self.engine = self._runtime.engine
        self.engine_version = self._runtime.engine_version
        feeds = {} if options.shapes else _vector_feeds(path)
        self.feeds = feeds or _random_feeds(path, self._runtime.inputs, options.shapes)

    def run(self) -> object:
        return self._runtime.run(self.feeds)

    def close(self) -> None:
        self._loaded.close()


def open_subject(path: str, options: BenchOptions) -> Subject:
    """The file at ``path`` in its engine.

    Raises BadModel, BadBundle, BadInput, BadRecipe, UnknownName, EngineError, MissingExtra.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".edge":
        return _Bundle(path, options)
    if suffix not in ENGINE_OF:
        raise UnknownName.of("suffix of a model file", suffix, (".edge", *ENGINE_OF))
    try:
        return _Model(path, options)
    except OSError as error:
        raise BadModel(f"'{path}' cannot be read: {error.strerror or error}.", "Check the path.") from error


def _vector_feeds(path: str) -> dict[str, Array]:
    from edgekit.bundle import Bundle

    with Bundle.open(Path(path)) as bundle:
        return {blob.name: np.frombuffer(bundle.read(blob.entry), np.dtype(blob.dtype)).reshape(blob.shape)
                for vector in bundle.manifest.test_vectors[:1] for blob in vector.inputs}


def _random_feeds(path: str, specs: Sequence[TensorSpec], given: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    names = [spec.name for spec in specs]
    for name in given:
        if name not in names:
            raise UnknownName.of(f"input of '{path}'", name, names)
    shapes = {}
    for spec in specs:
        one_at_a_time = (1, *spec.shape[1:]) if spec.shape[:1] == (-1,) else spec.shape
        shapes[spec.name] = given.get(spec.name, one_at_a_time)
        if -1 in shapes[spec.name]:
            raise BadInput(f"The input '{spec.name}' of '{path}' has dynamic dimensions: {list(spec.shape)}.",
                           f"Give its shape, such as --shape {spec.name}=1,224,224,3.")
    return random_inputs(specs, shapes)
