"""What an engine must do to be used by the runtime: the base of its sessions."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Self

from edgekit.artifacts import Array, Engine, TensorSpec
from edgekit.errors import EngineError, UserError
from edgekit.runtime.inputs import FeedCheck

__all__ = ["Session"]


class Session(ABC):
    """A model loaded into an engine. Close it, or use it as a context manager.

    ``inputs`` and ``outputs`` are as the engine tells them, in the order of the model; an engine knows no layouts, so
    each says "onnx" and its shape is the stored one. ``engine_version`` is "package version".
    Calls from several threads are safe and run one after another; for parallel runs open a session for each thread.
    """

    engine: ClassVar[Engine]

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], engine_version: str) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.engine_version = engine_version
        self._check = FeedCheck(self.inputs)
        self._lock = threading.Lock()
        self._closed = False

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name, all in stored order. Raises BadInput and what ``execute`` raises."""
        self._check(feeds)
        return self.execute(feeds)

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """``run`` for arrays that have been checked already; they may be views that are not contiguous, and others
        than the inputs may be among them.

        The returned arrays are new and belong to the caller. Raises EngineError with the engine's own text, UserError
        after ``close``.
        """
        with self._lock:
            if self._closed:
                self._check_open()
            try:
                return self._execute(feeds)
            except Exception as error:  # whatever type the engine's binding raises: the boundary translates it
                raise EngineError(f"{self.engine_version} failed while running: {error}") from error

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Do ahead of the first run what depends on the shapes of the inputs. Raises EngineError, UserError."""
        with self._lock:
            self._check_open()
            try:
                self._prepare(shapes)
            except Exception as error:  # as in execute
                raise EngineError(f"{self.engine_version} refused the input shapes "
                                  f"{', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}: {error}",
                                  ) from error

    def close(self) -> None:
        """Free the model. Waits for a run that is under way; doing so twice is harmless."""
        with self._lock:
            self._closed = True
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UserError("The session is closed.", "Load the model again, or run it before closing.")

    @abstractmethod
    def _execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the engine; its exceptions may pass through."""

    @abstractmethod
    def _release(self) -> None:
        """Drop every reference to the engine's objects."""

    def _prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:  # noqa: B027 - most engines need none
        """Nothing, where the engine takes shapes as they come."""
