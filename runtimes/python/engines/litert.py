"""LiteRT through whichever of its three Python packages is there.

The interpreter is given ``bytes``: the very object that was hashed, which nothing can change afterwards and of which it
makes no copy. The alternatives were measured with an 18.6 MB model. A sealed memfd (its path is /proc/self/fd/N) takes
as much memory and 6 to 10 ms longer to load, since shared-memory pages are dearer to fill than anonymous ones; the
bundle's own pages cannot be handed over, because the packages take a file from its first byte on or ``bytes``, and
because a file can change between the check and its use.
"""

from __future__ import annotations

import importlib
import operator
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from edgekit.artifacts import Array, TensorSpec
from edgekit.errors import BadModel, EngineError, MissingExtra
from edgekit.runtime.engines.base import Session
from edgekit.runtime.inputs import copy_into

__all__ = ["LiteRTSession", "import_interpreter", "tensor_specs"]

_PACKAGES = (
    ("ai_edge_litert.interpreter", "Interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "Interpreter", "tflite-runtime"),
    ("tensorflow", "lite.Interpreter", "tensorflow"),  # the module tensorflow.lite is another thing than this attribute
)
"""The newest first; the other two run the same models, but lag behind (tflite-runtime needs numpy 1)."""


class LiteRTSession(Session):
    """A .tflite model of one signature. A changed input shape resizes the interpreter, which costs about 1 ms.

    Variable tensors (the state of recurrent ops) start from zero at every run, as in ONNX.
    """

    engine = "litert"

    def __init__(self, data: bytes, threads: int = 1) -> None:
        """Parse ``data``; fixed shapes are allocated at once, and dynamic ones at the first run or ``prepare``.

        Raises EngineError, BadModel, MissingExtra.
        """
        interpreter_class, version = import_interpreter()
        try:
            self._interpreter: Any = interpreter_class(model_content=data, num_threads=threads)
            inputs, outputs = _signature(self._interpreter)
        except (BadModel, MissingExtra):
            raise
        except Exception as error:  # the boundary to the engine: its binding raises several types
            raise EngineError(f"{version} refused the model: {error}") from error
        self._input_index = {name: details["index"] for name, details in inputs.items()}
        self._output_index = {name: details["index"] for name, details in outputs.items()}
        super().__init__(tensor_specs("input", inputs), tensor_specs("output", outputs), version)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._allocated = False
        if all(-1 not in spec.shape for spec in self.inputs):
            self.prepare({spec.name: spec.shape for spec in self.inputs})

    def _prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._allocated = False  # until the end: a failure leaves the interpreter in between
        for spec in self.inputs:
            if -1 in spec.shape:
                self._interpreter.resize_tensor_input(self._input_index[spec.name], shapes[spec.name], strict=True)
        self._interpreter.allocate_tensors()
        self._shapes = dict(shapes)
        self._allocated = True

    def _execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        interpreter = self._interpreter
        shapes = {name: feeds[name].shape for name in self._input_index}
        if not self._allocated or shapes != self._shapes:
            self._prepare(shapes)
        interpreter.reset_all_variables()
        for name, index in self._input_index.items():
            if feeds[name].flags.c_contiguous:
                interpreter.set_tensor(index, feeds[name])
            else:
                copy_into(interpreter.tensor(index)(), feeds[name])
        interpreter.invoke()
        return {name: self._fetch(index) for name, index in self._output_index.items()}

    def _fetch(self, index: int) -> Array:
        """The tensor ``index``. The binding refuses an empty one ("Invalid tensor size") where its size is dynamic."""
        try:
            return np.asarray(self._interpreter.get_tensor(index))
        except ValueError:
            for details in self._interpreter.get_output_details():
                if details["index"] == index and 0 in details["shape"]:
                    return np.empty(tuple(details["shape"]), details["dtype"])
            raise

    def _release(self) -> None:
        self._interpreter = None


def import_interpreter() -> tuple[Any, str]:
    """The Interpreter class of the first package that can be imported, and "package version".

    Raises MissingExtra, with the reason for each package that is installed but broken.
    """
    broken = []
    for module, attribute, package in _PACKAGES:
        parent = module.partition(".")[0]
        try:
            interpreter = operator.attrgetter(attribute)(importlib.import_module(module))
        except ModuleNotFoundError as error:
            if error.name not in (parent, module):
                broken.append(f"{package}: {error}")
        except Exception as error:  # noqa: BLE001 - a binary package built for another numpy fails in many ways
            broken.append(f"{package}: {error}")
        else:
            # Not importlib.metadata, whose import takes longer than loading a small model.
            version = f"{package} {getattr(sys.modules[parent], '__version__', '(unknown version)')}"
            if parent != "tflite_runtime" or np.lib.NumpyVersion(np.__version__) < "2.0.0":
                return interpreter, version
            # It can be imported, and fails (or, numpy warns, crashes) when the first array is passed.
            broken.append(f"{version} needs numpy below 2, and this is {np.__version__}")
    missing = MissingExtra.of("ai-edge-litert", "litert")
    if broken:
        raise MissingExtra(f"No LiteRT package can be imported ({'; '.join(broken)}).", missing.remedy)
    raise missing


def _signature(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs by name: those of the signature, or the tensors' own names where there is none."""
    plain_inputs, plain_outputs = interpreter.get_input_details(), interpreter.get_output_details()
    signatures = interpreter.get_signature_list()
    if not signatures:
        return ({details["name"]: details for details in plain_inputs},
                {details["name"]: details for details in plain_outputs})
    key = "serving_default" if "serving_default" in signatures else next(iter(signatures))
    runner = interpreter.get_signature_runner(key)
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    if (_tensors(inputs.values()), _tensors(outputs.values())) != (_tensors(plain_inputs), _tensors(plain_outputs)):
        raise BadModel(f"The signature '{key}' is not about the inputs and outputs of the first subgraph.",
                       f"Only the first subgraph is run; the signatures of the file are: {', '.join(signatures)}.")
    # The dictionary of a signature is sorted by name; the subgraph has the order of the source graph.
    return _ordered(inputs, plain_inputs), _ordered(outputs, plain_outputs)


def _tensors(details: Iterable[Any]) -> set[tuple[int, str]]:
    return {(entry["index"], entry["name"]) for entry in details}


def _ordered(by_name: Mapping[str, Any], plain: list[Any]) -> dict[str, Any]:
    position = {entry["index"]: number for number, entry in reversed(list(enumerate(plain)))}
    return dict(sorted(by_name.items(), key=lambda item: position[item[1]["index"]]))


def tensor_specs(kind: str, details: Mapping[str, Any]) -> list[TensorSpec]:
    """Specs from the package's details by name. Raises BadModel for a dtype that cannot be passed."""
    specs = []
    for name, entry in details.items():
        dtype = np.dtype(entry["dtype"])
        if dtype.kind not in "fiub":
            raise BadModel(f"The {kind} '{name}' has the dtype {dtype.name}, which this runtime cannot pass.")
        # shape_signature is empty in files that predate it; then every dimension is fixed.
        shape = entry["shape_signature"] if len(entry["shape_signature"]) else entry["shape"]
        specs.append(TensorSpec(name, dtype.name, tuple(int(dim) for dim in shape)))
    return specs
