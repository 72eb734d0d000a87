"""Open a model in its engine. Only ever called in a child process: a hostile model may crash the engine."""

from __future__ import annotations

from pathlib import Path

from edgekit.artifacts import Engine, TensorSpec
from edgekit.errors import EngineError

__all__ = ["DYNAMIC_SIZES", "open_once"]

DYNAMIC_SIZES = (1, 32, 224)
"""What dynamic dimensions are set to, one after the other, until the engine can allocate the tensors."""


def open_once(engine: Engine, path: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs as ``engine`` reports them after it has loaded the file and allocated its tensors.

    Raises EngineError or BadModel when the engine refuses, MissingExtra when it is not installed.
    """
    from edgekit.runtime.engines import open_session

    with open_session(engine, Path(path).read_bytes()) as session:
        for size in DYNAMIC_SIZES:
            shapes = {spec.name: tuple(size if dim < 0 else dim for dim in spec.shape) for spec in session.inputs}
            try:
                session.prepare(shapes)
                break
            except EngineError:
                fixed = all(dim >= 0 for spec in session.inputs for dim in spec.shape)
                if fixed or size == DYNAMIC_SIZES[-1]:
                    raise
        return session.inputs, session.outputs
