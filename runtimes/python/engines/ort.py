"""ONNX Runtime on the CPU.

The session is given ``bytes``: the very object that was hashed. Its binding copies them into a temporary string, so
``session.use_ort_model_bytes_directly`` and ``..._for_initializers``, which promise to save that copy for .ort files,
leave the session with pointers into freed memory (the second one crashed in our tests) and are not used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.artifacts import Array, TensorSpec
from edgekit.errors import BadModel, EngineError, MissingExtra
from edgekit.runtime.engines.base import Session

__all__ = ["OrtSession", "import_onnxruntime"]

_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bool)": "bool",
    "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
}
_FATAL = 4


class OrtSession(Session):
    """An .onnx or .ort model. It takes any input shape that the model allows without a cost for changing it."""

    engine = "ort"

    def __init__(self, data: bytes, threads: int = 1, external: Mapping[str, bytes] | None = None) -> None:
        """Parse and optimise ``data``. Raises EngineError, BadModel, MissingExtra.

        ``external``: the content of files that the model names as the locations of its weights. They are taken from
        memory; no file is looked for.
        """
        ort = import_onnxruntime()
        version = f"onnxruntime {ort.__version__}"
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL  # errors arrive as exceptions; the log would say them a second time
        try:
            if external:
                options.add_external_initializers_from_files_in_memory(
                    list(external), list(external.values()), [len(each) for each in external.values()])
            self._session: Any = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the boundary to the engine: its binding raises a dozen unrelated types
            raise EngineError(f"{version} refused the model: {error}") from error
        if hasattr(self._session, "_model_bytes"):
            # Kept by the Python class for a change of provider, which never happens here; it is as large as the model.
            self._session._model_bytes = None
        super().__init__([_spec("input", node) for node in self._session.get_inputs()],
                         [_spec("output", node) for node in self._session.get_outputs()], version)
        self._input_names = [spec.name for spec in self.inputs]
        self._output_names = [spec.name for spec in self.outputs]

    def _execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        answers = self._session.run(self._output_names, {name: feeds[name] for name in self._input_names})
        return dict(zip(self._output_names, answers, strict=True))

    def _release(self) -> None:
        self._session = None


def import_onnxruntime() -> Any:
    """The module. Raises MissingExtra."""
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise _broken(error) from error
        raise MissingExtra.of("onnxruntime", "ort") from error
    except Exception as error:  # a binary package built for another numpy fails in many ways
        raise _broken(error) from error


def _broken(error: Exception) -> MissingExtra:
    return MissingExtra(f"onnxruntime is installed but cannot be imported: {error}.",
                        MissingExtra.of("onnxruntime", "ort").remedy)


def _spec(kind: str, node: Any) -> TensorSpec:
    if node.type not in _DTYPES:
        raise BadModel(f"The {kind} '{node.name}' is a {node.type}, which this runtime cannot pass.")
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
    return TensorSpec(node.name, np.dtype(_DTYPES[node.type]).name, shape)
