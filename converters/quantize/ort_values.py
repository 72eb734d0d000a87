"""An ONNX model in ONNX Runtime with every inner float value readable, sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
import numpy as np

from edgekit.artifacts import Array, OrtModel
from edgekit.converters.onnx_model import parse_onnx
from edgekit.converters.quantize.histogram import RangeFinder
from edgekit.converters.quantize.ort_graph import float_values, typed
from edgekit.converters.quantize.samples import Feeds, Samples
from edgekit.converters.quantize.sensitivity import Layer, Op, compare_layers
from edgekit.errors import EngineError
from edgekit.recipe import QuantRecipe

__all__ = ["OrtInnerValues", "calibrate_ort", "sensitivity_ort"]

#: what onnxruntime.quantization calls a value after its quantization
_ROUNDED = "_DequantizeLinear_Output"


class OrtInnerValues:
    """Runs a model, as it stands and unfused, and gives the float values of its main graph by name.

    A value that the file quantizes is given as its readers see it. The file must have been tried in a child process
    before.
    """

    def __init__(self, data: bytes) -> None:
        """Raises EngineError when the engine refuses the file, MissingExtra."""
        import onnx

        from edgekit.runtime.engines.ort import import_onnxruntime

        proto = typed(data)
        given = {value.name for value in proto.graph.input}
        known = [name for name in float_values(proto) if name not in given]
        rounded = {name.removesuffix(_ROUNDED) for name in known if name.endswith(_ROUNDED)}
        outputs = {value.name for value in proto.graph.output}
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in known if name not in outputs)
        self.names = [(name.removesuffix(_ROUNDED), name) for name in known if name not in rounded]
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the binding raises many unrelated types
            raise EngineError(f"ONNX Runtime refused the model: {error}") from error

    def run(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Name and value of each, in the order of computation."""
        try:
            values = self._session.run([name for _, name in self.names], dict(feeds))
        except Exception as error:  # as above
            raise EngineError(f"ONNX Runtime failed on the model: {error}") from error
        yield from ((name, np.asarray(value)) for (name, _), value in zip(self.names, values, strict=True))


def calibrate_ort(
    model: OrtModel, recipe: QuantRecipe, samples: Samples, on_sample: Callable[[int], None] | None = None
) -> QuantRecipe:
    """``recipe`` with the range of every float value of ``model``, found on ``samples`` by its method.

    Memory holds the values of one sample. ``on_sample`` is told how many are done. Raises BadInput, EngineError.
    """
    finder, inner = RangeFinder(recipe.method, recipe.percentile), OrtInnerValues(model.data)
    for done, feeds in enumerate(samples, 1):
        finder.add((name, array) for name, array in feeds.items() if array.dtype == np.float32)
        finder.add(inner.run(feeds))
        if on_sample is not None:
            on_sample(done)
    return msgspec.structs.replace(recipe, ranges=finder.ranges())


def sensitivity_ort(float_data: bytes, data: bytes, samples: Iterable[Feeds], count: int = 4) -> tuple[Layer, ...]:
    """The nodes of ``float_data`` in order, compared in ``data`` on the first ``count`` samples. Raises EngineError."""
    ops = [Op(node.op_type, node.output[0], tuple(node.input)) for node in parse_onnx(float_data).graph.node]
    return compare_layers(OrtInnerValues(float_data), OrtInnerValues(data), ops, samples, count)
