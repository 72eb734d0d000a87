"""Several signatures of one .tflite file, run one by one: the stages of an adaptive network.

One interpreter holds the file, so weights that the signatures share are in memory once as they are in the file; but
XNNPACK prepares them anew for each signature, at loading. EfficientNet-Lite0 in 4 stages takes 47 MB of private
memory at one resolution and 105 MB at four (float32; 32 MB at four as int8), by RssAnon in /proc before and after
``load``. Each signature has tensors of its own: what a run leaves in them is copied out, and a run of another
signature cannot touch it.

The package's SignatureRunner resizes its inputs and allocates at every call, which takes 5 to 14 us and changes nothing
where the shapes are fixed. The stages of a small int8 network take 40 us, so such signatures are run by the calls under
the runner, which are private to the package: where one of them is missing, the runner itself is used.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgekit.artifacts import Array
from edgekit.errors import BadModel, EngineError, MissingExtra
from edgekit.runtime.engines.base import Session
from edgekit.runtime.engines.litert import import_interpreter, tensor_specs
from edgekit.runtime.inputs import contiguous

__all__ = ["SignatureSession", "open_signatures"]


class SignatureSession(Session):
    """One signature of an interpreter that it shares with others; their calls wait for each other."""

    engine = "litert"

    def __init__(self, runner: Any, version: str, lock: threading.Lock) -> None:
        """``lock`` is that of the interpreter. Raises BadModel for a dtype that cannot be passed."""
        super().__init__(tensor_specs("input", runner.get_input_details()),
                         tensor_specs("output", runner.get_output_details()), version)
        self._lock = lock
        self._runner = runner
        self._outputs = {spec.name for spec in self.outputs}
        fixed = all(-1 not in spec.shape for spec in self.inputs + self.outputs)
        self._calls = _calls_of(runner) if fixed else None

    def _execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._calls is None:
            answers = self._runner(**{spec.name: contiguous(feeds[spec.name]) for spec in self.inputs})
            return {name: np.asarray(answers[name]) for name in self._outputs}
        wrapper, subgraph, inputs, outputs = self._calls
        for name, index in inputs:
            wrapper.SetTensor(index, contiguous(feeds[name]), subgraph)
        wrapper.Invoke(subgraph)
        return {name: wrapper.GetTensor(index, subgraph) for name, index in outputs}

    def _release(self) -> None:
        self._runner = self._calls = None


class _Calls(NamedTuple):
    """What the runner itself calls: the wrapped interpreter, and names with indices of tensors of its subgraph."""

    wrapper: Any
    subgraph: int
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


def _calls_of(runner: Any) -> _Calls | None:
    """Allocates the tensors, once for all runs; None where the package is built otherwise."""
    try:
        found = _Calls(runner._interpreter_wrapper, runner._subgraph_index, tuple(runner._inputs.items()),
                       tuple(runner._outputs))
        known = all(callable(getattr(found.wrapper, name)) for name in ("SetTensor", "Invoke", "GetTensor"))
        found.wrapper.AllocateTensors(found.subgraph)
    except (AttributeError, TypeError):
        return None
    return found if known else None


def open_signatures(data: bytes, names: Sequence[str], threads: int = 1) -> dict[str, Session]:
    """A session for each of the signatures ``names`` of the .tflite file ``data``, over one interpreter.

    Raises EngineError, BadModel (a signature that the file does not have), MissingExtra.
    """
    interpreter_class, version = import_interpreter()
    try:
        interpreter = interpreter_class(model_content=data, num_threads=threads)
        known = interpreter.get_signature_list()
        missing = [name for name in names if name not in known]
        if missing:
            raise BadModel(f"The model has no signature '{missing[0][:100]}'.",
                           f"It has: {', '.join(list(known)[:20]) or 'none'}.")
        runners = {name: interpreter.get_signature_runner(name) for name in names}
    except (BadModel, MissingExtra):
        raise
    except Exception as error:  # the boundary to the engine: its binding raises several types
        raise EngineError(f"{version} refused the model: {error}") from error
    lock = threading.Lock()
    return {name: SignatureSession(runner, version, lock) for name, runner in runners.items()}
