"""What lies in a .tflite file and what it answers. Engines parse the files of peers here: call through edgekit.isolate.

Every function takes and returns what can be pickled.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.timing import measure_ratios
from edgekit.errors import EngineError

__all__ = ["FileFacts", "RatioFacts", "Timing", "cpu_times", "facts"]

Floats = npt.NDArray[np.float32]
_TO_NHWC = (0, 2, 3, 1)
_TO_NCHW = (0, 3, 1, 2)


class FileFacts(msgspec.Struct, frozen=True):
    """One converted model. ``partitions``: runs of ops that XNNPACK took; 1 with ``undelegated`` 0 is the ideal.

    ``max_abs_diff`` is against ONNX Runtime on the same input, in units of the output, whose range (max - min of the
    reference) is ``output_range``.
    """

    size_bytes: int
    ops: dict[str, int]
    partitions: int
    max_abs_diff: float
    output_range: float

    @property
    def op_count(self) -> int:
        """Ops in the file."""
        return sum(self.ops.values())

    @property
    def transposes(self) -> int:
        """TRANSPOSE ops in the file."""
        return self.ops.get("TRANSPOSE", 0)


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
    interpreter = _open(path)
    names = collections.Counter(op["op_name"] for op in interpreter._get_ops_details())
    partitions = names.pop("DELEGATE", 0)
    image = np.load(image_path)
    reference = _onnx_answer(onnx_path, image)
    _feed(interpreter, image)
    interpreter.invoke()
    answer = _like(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), reference.shape, _TO_NCHW)
    return FileFacts(
        size_bytes=Path(path).stat().st_size,
        ops=dict(sorted(names.items())),
        partitions=partitions,
        max_abs_diff=float(np.abs(answer - reference).max()),
        output_range=float(np.ptp(reference)),
    )


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


def _open(path: str) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _opener(path: str, image: Floats) -> Callable[[], Callable[[], object]]:
    def open_and_warm_up() -> Callable[[], object]:
        interpreter = _open(path)
        _feed(interpreter, image)
        for _ in range(3):
            interpreter.invoke()
        run: Callable[[], object] = interpreter.invoke
        return run

    return open_and_warm_up


def _feed(interpreter: Any, image: Floats) -> None:
    detail = interpreter.get_input_details()[0]
    interpreter.set_tensor(detail["index"], _like(image, tuple(detail["shape"]), _TO_NHWC))


def _like(array: Floats, shape: tuple[int, ...], permutation: tuple[int, ...]) -> Floats:
    """``array``, permuted if only that gives it ``shape``; no network here is ambiguous, as C differs from H and W."""
    if array.shape == shape:
        return array
    permuted = array.transpose(permutation) if array.ndim == 4 else array
    if permuted.shape != shape:
        raise EngineError(f"A file wants the shape {list(shape)}, and the network's tensor is {list(array.shape)}.",
                          "The conversion changed the interface of the network.")
    return np.ascontiguousarray(permuted)


def _onnx_answer(path: str, image: Floats) -> Floats:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    answer: Floats = session.run(None, {session.get_inputs()[0].name: image})[0]
    return answer
