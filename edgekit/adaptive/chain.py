"""Runs the stages of ladders one after another, in a child process, to see whether they answer as the whole does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgekit import isolate
from edgekit.artifacts import Array
from edgekit.bundle.adaptive import Ladder, Stage
from edgekit.errors import EngineError, InternalError, MissingExtra
from edgekit.runtime.inputs import contiguous, to_onnx, to_stored

__all__ = ["run_chains"]

Arrays = dict[str, Array]
RunStage = Callable[[Stage, Arrays], Mapping[str, Array]]


def run_chains(
    ladders: Sequence[Ladder], blobs: Mapping[str, bytes], images: Sequence[Sequence[Array]]
) -> list[list[Arrays]]:
    """For each ladder (all of one engine) and each of its ``images`` (float32, in ONNX order): the logits of each stage
    by name, in ONNX order. ``blobs`` holds the entries that the ladders name.

    Raises BadModel when the engine crashes, EngineError when it refuses a stage, MissingExtra without the engine.
    """
    wanted = {ladder.weights for ladder in ladders} | {stage.entry for ladder in ladders for stage in ladder.stages}
    files = {name: bytes(blob) for name, blob in blobs.items() if name in wanted}
    result = isolate.call(f"{__name__}:_run", list(ladders), files, [list(each) for each in images],
                          subject="A network in stages")
    if not isinstance(result, list):
        raise InternalError(f"The child process returned a {type(result).__name__} instead of arrays.")
    return result


def _run(ladders: list[Ladder], files: dict[str, bytes], images: list[list[Array]]) -> list[list[Arrays]]:
    engine = _LiteRT(files) if ladders[0].engine == "litert" else _Ort(files)
    return [[_chain(ladder, engine.opened(ladder), image) for image in own]
            for ladder, own in zip(ladders, images, strict=True)]


def _chain(ladder: Ladder, run: RunStage, image: Array) -> Arrays:
    first = ladder.stages[0].inputs[0]
    made: Arrays = {first.name: contiguous(to_stored([first], {first.name: image})[first.name])}
    logits: Arrays = {}
    for number, stage in enumerate(ladder.stages):
        try:
            outputs = run(stage, {spec.name: made[spec.name] for spec in stage.inputs})
        except Exception as error:  # the boundary to the engine: its binding raises several types
            raise EngineError(f"Stage {number} of the ladder '{ladder.id}' failed: {error}") from error
        made |= {name: np.array(array) for name, array in outputs.items()}
        logits |= to_onnx([spec for spec in stage.outputs if spec.name == stage.logits], made)
    return {stage.logits: np.array(logits[stage.logits]) for stage in ladder.stages}


class _LiteRT:
    """One interpreter for each file, a runner for each signature."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        self._interpreters: dict[str, Any] = {}

    def opened(self, ladder: Ladder) -> RunStage:
        """What runs a stage of ``ladder``."""
        from edgekit.runtime.engines.litert import import_interpreter

        entry = ladder.stages[0].entry
        if entry not in self._interpreters:
            interpreter_class, version = import_interpreter()
            try:
                self._interpreters[entry] = interpreter_class(model_content=self._files[entry], num_threads=1)
            except (RuntimeError, ValueError) as error:
                raise EngineError(f"{version} refused the model: {error}") from error
        interpreter = self._interpreters[entry]
        return lambda stage, feeds: interpreter.get_signature_runner(stage.signature)(**feeds)


class _Ort:
    """One session for each file; the weights are handed over in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        self._sessions: dict[str, Any] = {}

    def opened(self, ladder: Ladder) -> RunStage:
        """What runs a stage of ``ladder``."""
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingExtra.of("onnxruntime", "ort") from error
        sessions = self._sessions
        for number, stage in enumerate(ladder.stages):
            if stage.entry in sessions:
                continue
            options = ort.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = 1, 3
            weights = self._files.get(ladder.weights or "")
            if ladder.weights and weights:
                options.add_external_initializers_from_files_in_memory([ladder.weights], [weights], [len(weights)])
            try:
                sessions[stage.entry] = ort.InferenceSession(self._files[stage.entry], options,
                                                             providers=["CPUExecutionProvider"])
            except Exception as error:  # the boundary to the engine: its binding raises several types
                raise EngineError(f"ONNX Runtime refused stage {number} of '{ladder.id}': {error}") from error

        def run(stage: Stage, feeds: Arrays) -> dict[str, Array]:
            names = [spec.name for spec in stage.outputs]
            return dict(zip(names, sessions[stage.entry].run(names, feeds), strict=True))

        return run
