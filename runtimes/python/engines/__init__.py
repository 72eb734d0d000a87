"""The engines behind one interface. Each is imported when a session of it is opened, not before."""

from __future__ import annotations

from edgekit.artifacts import Engine
from edgekit.errors import MissingExtra, UnknownName
from edgekit.runtime.engines.base import Session

__all__ = ["ENGINES", "Session", "is_available", "open_session"]

ENGINES: tuple[Engine, ...] = ("litert", "ort")
"""In the order in which "auto" tries them: LiteRT loads faster and needs less memory for the same network."""


def open_session(engine: Engine, data: bytes, threads: int = 1) -> Session:
    """Load a model (.tflite for "litert"; .onnx or .ort for "ort") from exactly these bytes, on the CPU.

    ``data`` goes straight to the engine's parser, which can crash on a damaged model: check its hash first, or work in
    a child process (edgekit.isolate). Raises EngineError, MissingExtra, UnknownName.
    """
    if engine == "litert":
        from edgekit.runtime.engines.litert import LiteRTSession

        return LiteRTSession(data, threads)
    if engine == "ort":
        from edgekit.runtime.engines.ort import OrtSession

        return OrtSession(data, threads)
    raise UnknownName.of("engine", engine, ENGINES)


def is_available(engine: Engine) -> bool:
    """Whether a package of the engine can be imported; imports it."""
    try:
        if engine == "litert":
            from edgekit.runtime.engines.litert import import_interpreter

            import_interpreter()
        else:
            from edgekit.runtime.engines.ort import import_onnxruntime

            import_onnxruntime()
    except MissingExtra:
        return False
    return True
