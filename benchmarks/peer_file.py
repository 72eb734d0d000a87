"""What a .tflite file of another converter answers, as one that keeps names, order or layout of its interface or not.

Nothing is held against such a file that a caller could put right: an input takes the axes in either order, and an
output counts as the one of the reference that it comes closest to. Engines parse the files: call ``answer`` through
edgekit.isolate.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.artifacts import Array, OutputError
from edgekit.errors import BadModel, EngineError
from edgekit.parity import compare_outputs

__all__ = ["CHANNELS_FIRST", "CHANNELS_LAST", "answer", "closest", "fitting", "of_allowed", "verdict"]

CHANNELS_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
CHANNELS_FIRST = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}


def verdict(path: str, inputs: Mapping[str, Array], wanted: Mapping[str, Array], tolerance: float) -> tuple[
        OutputError, ...]:
    """The file at ``path`` on ``inputs`` (in ONNX order of axes), against ``wanted``: the best of all readings.

    Raises EngineError where the engine refuses the file or the inputs fit in no order of axes.
    """
    best: tuple[OutputError, ...] = ()
    refusal: EngineError | None = None
    for feeds in _readings(path, inputs):
        try:
            found = closest(wanted, answer(path, feeds), tolerance)
        except EngineError as error:
            refusal = refusal or error  # another order of axes may suit the file
            continue
        if all(one.passed for one in found):
            return found
        best = min((best or found), found, key=lambda errors: max(one.max_abs_diff for one in errors))
    if refusal is not None and not best:
        raise refusal
    return best


def answer(path: str, feeds: Sequence[Array]) -> list[Array]:
    """The outputs of the file for ``feeds``, in the order of its inputs; dynamic ones are resized."""
    interpreter = _open(path)
    details = interpreter.get_input_details()
    try:
        for detail, feed in zip(details, feeds, strict=True):
            if tuple(detail["shape"]) != feed.shape:
                interpreter.resize_tensor_input(detail["index"], feed.shape)
        interpreter.allocate_tensors()
        for detail, feed in zip(details, feeds, strict=True):
            interpreter.set_tensor(detail["index"], feed.astype(detail["dtype"]))
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"LiteRT refused the file: {str(error).strip()[-300:]}") from error
    return [np.array(interpreter.get_tensor(detail["index"])) for detail in interpreter.get_output_details()]


def closest(wanted: Mapping[str, Array], got: Sequence[Array], tolerance: float) -> tuple[OutputError, ...]:
    """For each array of ``wanted`` the nearest of ``got`` that is not taken yet, with its axes in either order."""
    left = list(range(len(got)))
    found = []
    for name, want in wanted.items():
        if not left:
            found.append(OutputError(name, float("inf"), 0.0, passed=False, problem="the file lacks this output"))
            continue
        compared = [(index, _compared(name, want, view, tolerance)) for index in left
                    for view in _either(got[index], want.shape, CHANNELS_FIRST)]
        index, error = min(compared, key=lambda pair: (not pair[1].passed, pair[1].max_abs_diff))
        left.remove(index)
        found.append(error)
    return tuple(found)


def _compared(name: str, want: Array, got: Array, tolerance: float) -> OutputError:
    return compare_outputs({name: want}, {name: got}, tolerance)[0]


def of_allowed(error: OutputError) -> float:
    """The difference over what the rule of ``edgekit.parity.compare`` allows: up to 1 passes."""
    if error.max_abs_diff == 0:
        return 0.0
    return error.max_abs_diff / error.allowed_abs_diff if error.allowed_abs_diff else float("inf")


def fitting(array: Array, shape: Sequence[int], permutations: Mapping[int, Sequence[int]]) -> list[Array]:
    """``array`` as it is and with its axes permuted (by rank), as far as they fit ``shape`` (-1: any)."""
    views = [array]
    if array.ndim in permutations:
        views.append(np.ascontiguousarray(array.transpose(permutations[array.ndim])))
    return [view for view in views if view.ndim == len(shape)
            and all(want in (-1, have) for want, have in zip(shape, view.shape, strict=True))]


def _open(path: str) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        return Interpreter(path, num_threads=1)
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"LiteRT refused the file: {str(error).strip()[-300:]}") from error


def _readings(path: str, inputs: Mapping[str, Array]) -> Iterator[list[Array]]:
    """Feeds in the order of the file's inputs, for every order of axes that fits."""
    details = _open(path).get_input_details()
    if len(details) > len(inputs):
        raise BadModel(f"The file has {len(details)} inputs, and the network {len(inputs)}.")
    choices = [_either(array, tuple(detail["shape_signature"]), CHANNELS_LAST)
               for detail, (_, array) in zip(details, _paired(details, inputs), strict=True)]
    return (list(feeds) for feeds in itertools.product(*choices))


def _paired(details: Sequence[Mapping[str, Any]], inputs: Mapping[str, Array]) -> list[tuple[str, Array]]:
    """The network's inputs in the file's order: by name where all agree but for punctuation, else as they come."""
    by_name = {_plain(name): (name, array) for name, array in inputs.items()}
    found = [by_name.get(_plain(detail["name"])) for detail in details]
    if all(found) and len(set(map(id, found))) == len(found):
        return [pair for pair in found if pair is not None]
    return list(inputs.items())[:len(details)]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^serving_default_|:0$", "", name).lower())


def _either(array: Array, shape: Sequence[int], permutations: Mapping[int, Sequence[int]]) -> list[Array]:
    """What ``fitting`` gives; where nothing fits, ``array`` as it is, or a single element in the shape asked for."""
    single = -1 not in shape and array.size == np.prod(shape, dtype=np.int64) == 1
    return fitting(array, shape, permutations) or [array.reshape(tuple(shape)) if single else array]
