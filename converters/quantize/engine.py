"""A .tflite model in the interpreter, fed and read by name, and with every inner value readable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.quantize.flatbuffer import name_of, open_values, read_tables
from edgekit.errors import BadInput, EngineError

__all__ = ["InnerValues", "as_float", "input_names"]


class InnerValues:
    """Runs a model and gives every value that its ops compute, by tensor name, integers turned into floats.

    The file must have been tried in a child process before: a bad one may crash the engine.
    """

    def __init__(self, data: bytes, threads: int = 1, only_outputs: bool = False) -> None:
        """With ``only_outputs`` the file's outputs are all that is read, which is faster.

        Raises EngineError when the engine refuses the file, BadModel when it is damaged.
        """
        from edgekit.runtime.engines.litert import import_interpreter

        self._inputs = input_names(data)
        opened, self.names = (data, _output_tensors(data)) if only_outputs else open_values(data)
        interpreter_class, _ = import_interpreter()
        try:
            self._interpreter: Any = interpreter_class(model_content=opened, num_threads=threads)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"The engine refused the model: {error}") from error
        self._shapes: dict[str, tuple[int, ...]] = {}

    def run(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Name and value of each, in the order of computation; ``feeds`` by input name, in stored layout.

        An array is good until the next run.
        """
        interpreter = self._interpreter
        shapes = {name: array.shape for name, array in feeds.items()}
        try:
            if shapes != self._shapes:
                for name, details in self._details(feeds).items():
                    if tuple(details["shape"]) != shapes[name]:
                        interpreter.resize_tensor_input(details["index"], shapes[name])
                interpreter.allocate_tensors()
                self._shapes = shapes
            interpreter.reset_all_variables()
            for name, details in self._details(feeds).items():
                interpreter.set_tensor(details["index"], _in_dtype(feeds[name], details))
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"The engine failed on the model: {error}") from error
        for name, details in zip(self.names, interpreter.get_output_details(), strict=True):
            yield name, as_float(interpreter.get_tensor(details["index"]), details)

    def _details(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        details = dict(zip(self._inputs, self._interpreter.get_input_details(), strict=True))
        missing = [name for name in details if name not in feeds]
        if missing:
            raise BadInput(f"The sample has no '{missing[0]}'.", f"Wanted: {', '.join(details)}.")
        return details


def _output_tensors(data: bytes) -> tuple[str, ...]:
    subgraph = read_tables(data).subgraphs[0]
    return tuple(name_of(subgraph.tensors[index]) for index in subgraph.outputs)


def input_names(data: bytes) -> tuple[str, ...]:
    """The names by which callers know the inputs of the main subgraph, in its order."""
    model = read_tables(data)
    subgraph = model.subgraphs[0]
    named: dict[int, str] = {}
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == 0:
            for entry in signature.inputs:
                named.setdefault(entry.tensorIndex, _text(entry.name))
    return tuple(named.get(int(index), name_of(subgraph.tensors[index])) for index in subgraph.inputs)


def _text(name: bytes | str | None) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")


def as_float(array: Array, details: Mapping[str, Any]) -> Array:
    """``array`` with its quantization undone; as it is when it has none."""
    parameters = details["quantization_parameters"]
    scales, zero_points = parameters["scales"], parameters["zero_points"]
    if not len(scales) or array.dtype.kind == "f":
        return array
    shape = [1] * array.ndim
    if len(scales) > 1:
        shape[parameters["quantized_dimension"]] = len(scales)
    values: Array = array.astype(np.float32) - zero_points.astype(np.float32).reshape(shape)
    values *= scales.reshape(shape).astype(np.float32)
    return values


def _in_dtype(array: Array, details: Mapping[str, Any]) -> Array:
    """A float ``array`` as the input wants it: quantized where the input is an integer with a scale."""
    dtype = np.dtype(details["dtype"])
    scale, zero_point = details["quantization"]
    if dtype.kind in "iu" and array.dtype.kind == "f" and scale:
        limits = np.iinfo(dtype)
        quantized: Array = np.clip(np.round(array / scale) + zero_point, limits.min, limits.max).astype(dtype)
        return quantized
    return np.ascontiguousarray(array.astype(dtype, copy=False))
