"""What lies in a .tflite file and what it answers. Engines parse the files of peers here: call through edgekit.isolate.

Every function takes and returns what can be pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.peer_file import CHANNELS_FIRST, CHANNELS_LAST, fitting
from benchmarks.timing import measure_ratios
from edgekit.errors import EngineError
from edgekit.graph.facts_tflite import describe_tflite

__all__ = ["FileFacts", "RatioFacts", "Timing", "cpu_times", "facts", "run_twice"]

Floats = npt.NDArray[np.float32]


class FileFacts(msgspec.Struct, frozen=True):
    """One converted model. ``ops`` are those of all subgraphs; ``partitions``: runs of ops that XNNPACK took, best 1.

    ``max_abs_diff`` is against ONNX Runtime on the same input, in units of the output, whose range (max - min of the
    reference) is ``output_range``. ``repeats``: for each engine what ``run_twice`` said.
    """

    size_bytes: int
    ops: dict[str, int]
    partitions: int
    max_abs_diff: float
    output_range: float
    repeats: dict[str, str] = {}

    @property
    def op_count(self) -> int:
        """Ops in the file."""
        return sum(self.ops.values())

    @property
    def transposes(self) -> int:
        """TRANSPOSE ops in the file."""
        return self.ops.get("TRANSPOSE", 0)

    @property
    def moves(self) -> int:
        """Ops that only move data about: TRANSPOSE and GATHER."""
        return self.transposes + self.ops.get("GATHER", 0)


class RatioFacts(msgspec.Struct, frozen=True):
    """CPU time of our file over that of another's, with a 95 % interval."""

    value: float
    lower: float
    upper: float
    blocks: int


class Timing(msgspec.Struct, frozen=True):
    """Median CPU milliseconds of each file, by converter, and the ratios subject / other by the other's name."""

    cpu_ms: dict[str, float]
    ratios: dict[str, RatioFacts]


def facts(path: str, onnx_path: str, image_path: str) -> FileFacts:
    """Facts about the LiteRT file at ``path``, converted from the ONNX file, on the input in the .npy file."""
    image = np.load(image_path)
    interpreter = _open(path, image)
    partitions = sum(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    reference = _onnx_answer(onnx_path, image)
    interpreter.invoke()
    answer = _like(_output(interpreter), reference.shape, CHANNELS_FIRST)
    return FileFacts(
        size_bytes=Path(path).stat().st_size,
        ops=describe_tflite(Path(path).read_bytes(), path).op_counts or {},
        partitions=partitions,
        max_abs_diff=float(np.abs(answer - reference).max()),
        output_range=float(np.ptp(reference)),
    )


def run_twice(engine: str, path: str, image_path: str) -> str:
    """Whether ``engine`` ("Interpreter" or "CompiledModel") gives the same answer twice in a row: "same" or "differs".

    "dynamic" where CompiledModel is given a file with dynamic inputs, whose output sizes it does not update.
    """
    image = np.load(image_path)
    interpreter = _open(path, image)
    if engine == "CompiledModel":
        detail = interpreter.get_input_details()[0]
        if -1 in detail["shape_signature"]:
            return "dynamic"
        run = _compiled(path, _like(image, tuple(detail["shape"]), CHANNELS_LAST))
    else:
        def run() -> Floats:
            interpreter.invoke()
            return _output(interpreter)
    first = run()
    if not np.allclose(first, _first_answer(interpreter), rtol=1e-3, atol=1e-5):
        return "differs from the Interpreter"
    return "same" if np.array_equal(first, run()) else "differs"


def cpu_times(files: dict[str, str], subject: str, image_path: str, half_width: float, max_seconds: float) -> Timing:
    """Time the files of ``files`` (converter -> path) side by side, one thread each, on the same input."""
    image = np.load(image_path)
    others = [name for name in files if name != subject]
    seconds, ratios = measure_ratios(
        {name: _opener(path, image) for name, path in files.items()}, subject, others,
        half_width=half_width, max_seconds=max_seconds,
    )
    return Timing(
        cpu_ms={name: float(np.median(values)) * 1e3 for name, values in seconds.items()},
        ratios={name: RatioFacts(r.value, r.lower, r.upper, r.blocks) for name, r in ratios.items()},
    )


def _open(path: str, image: Floats) -> Any:
    """An interpreter with ``image`` as its input, resized to it where it is dynamic."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    detail = interpreter.get_input_details()[0]
    stored = _like(image, tuple(detail["shape_signature"]), CHANNELS_LAST)
    if stored.shape != tuple(detail["shape"]):
        interpreter.resize_tensor_input(detail["index"], stored.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(detail["index"], stored)
    return interpreter


def _opener(path: str, image: Floats) -> Callable[[], Callable[[], object]]:
    def open_and_warm_up() -> Callable[[], object]:
        interpreter = _open(path, image)
        for _ in range(3):
            interpreter.invoke()
        run: Callable[[], object] = interpreter.invoke
        return run

    return open_and_warm_up


def _compiled(path: str, stored: Floats) -> Callable[[], Floats]:
    from ai_edge_litert import compiled_model

    # without these paths it looks for the compiler plugins of every vendor and warns for each
    environment = compiled_model.Environment.create(compiler_plugin_path="/nonexistent",
                                                    dispatch_library_path="/nonexistent")
    options = compiled_model.Options(cpu_options=compiled_model.CpuOptions(num_threads=1))
    model: Any = compiled_model.CompiledModel.from_file(path, environment=environment, options=options)
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs[0].write(stored)
    details = next(iter(model.get_output_tensor_details(next(iter(model.get_signature_list()))).values()))

    def run() -> Floats:
        model.run_by_index(0, inputs, outputs)
        answer: Floats = outputs[0].read(int(np.prod(details["shape"])), np.float32)
        return answer.reshape(details["shape"])

    return run


def _first_answer(interpreter: Any) -> Floats:
    interpreter.invoke()
    return _output(interpreter)


def _output(interpreter: Any) -> Floats:
    answer: Floats = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return answer


def _like(array: Floats, shape: tuple[int, ...], permutations: dict[int, tuple[int, ...]]) -> Floats:
    """``array``, permuted if only that gives it ``shape``; no network here is ambiguous, as C differs from H and W."""
    found = fitting(array, shape, permutations)
    if not found:
        raise EngineError(f"A file wants the shape {list(shape)}, and the network's tensor is {list(array.shape)}.",
                          "The conversion changed the interface of the network.")
    return found[0]


def _onnx_answer(path: str, image: Floats) -> Floats:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    answer: Floats = session.run(None, {session.get_inputs()[0].name: image})[0]
    return answer
