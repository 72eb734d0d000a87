"""Open a model in its engine. Only ever called in a child process: a hostile model may crash the engine."""

from __future__ import annotations

from pathlib import Path

from edgekit.artifacts import Engine, TensorSpec

__all__ = ["open_once"]


def open_once(engine: Engine, path: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs as ``engine`` reports them after it has loaded the file and allocated its tensors.

    Raises EngineError or BadModel when the engine refuses, MissingExtra when it is not installed.
    """
    from edgekit.runtime.engines import open_session

    session = open_session(engine, Path(path).read_bytes())
    try:
        return session.inputs, session.outputs
    finally:
        session.close()
