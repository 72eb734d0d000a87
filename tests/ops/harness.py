"""Build small ONNX graphs, run them in ONNX Runtime and, converted, in LiteRT; compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekit.artifacts import Array, Conversion
from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.recipe import ConvertRecipe


@dataclass(frozen=True)
class Fed:
    """An operand with these values that the network is given at run time."""

    array: Array | np.generic


def _describe(given: Any) -> str:
    if given is None:
        return "none"
    if isinstance(given, Fed):
        return "x".join(map(str, np.shape(given.array))) + "f"
    constant = isinstance(given, np.ndarray | np.generic)
    return "x".join(map(str, given.shape if constant else given)) + "c" * constant


@dataclass(frozen=True)
class Case:
    """One op: ``inputs`` are shapes (fed at run time with random values), Fed arrays, or arrays (constants).

    An input that is None is left out.

    ``dynamic``: axes of the first input that are dynamic in the ONNX file. ``tolerance`` is relative to the range.
    ``expect``: how many LiteRT ops of a kind there must be. ``by_onnx``: compare with ONNX's own reference, where ONNX
    Runtime lacks the op or the type.
    """

    op: str
    inputs: Sequence[Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 20
    outputs: int = 1
    dynamic: Sequence[int] = ()
    low: float = -2.0
    high: float = 2.0
    dtype: str = "float32"
    tolerance: float = 2e-6
    expect: Mapping[str, int] = field(default_factory=dict)
    by_onnx: bool = False

    @property
    def id(self) -> str:
        """A readable name for pytest."""
        shapes = "_".join(_describe(given) for given in self.inputs)
        plain = {key: value for key, value in self.attributes.items() if not hasattr(value, "SerializeToString")}
        details = ",".join(f"{key}={value}" for key, value in plain.items())
        return f"{self.op}{self.opset}-{shapes}-{details}{'-dyn' if self.dynamic else ''}".replace(" ", "")


def model_of(case: Case) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The one-op model of ``case`` and the arrays to feed it."""
    rng = np.random.default_rng(7)
    names, infos, constants, feeds = [], [], [], {}
    for index, given in enumerate(case.inputs):
        name = "" if given is None else f"in{index}"
        names.append(name)
        if isinstance(given, np.ndarray | np.generic):
            constants.append(numpy_helper.from_array(np.asarray(given), name))
        elif given is not None:
            data = np.asarray(given.array) if isinstance(given, Fed) else random_array(rng, tuple(given), case)
            feeds[name] = data
            shape = [f"d{axis}" if index == 0 and axis in case.dynamic else dim for axis, dim in enumerate(data.shape)]
            infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(data.dtype), shape))
    outputs = [f"out{index}" for index in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, name=f"the_{case.op}", **case.attributes)
    return build([node], infos, outputs, constants, case.opset), feeds


def random_array(rng: np.random.Generator, shape: tuple[int, ...], case: Case) -> Array:
    """Uniform values of the case's dtype."""
    dtype = np.dtype(case.dtype)
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.kind in "iu":
        low = max(int(case.low), 0) if dtype.kind == "u" else int(case.low)
        return rng.integers(low, int(case.high) + 1, shape).astype(dtype)
    return rng.uniform(case.low, case.high, shape).astype(dtype)


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str],
    constants: Sequence[onnx.TensorProto] = (),
    opset: int = 20,
) -> onnx.ModelProto:
    """A model with the types of its outputs found by ONNX's shape inference."""
    graph = helper.make_graph(
        list(nodes), "case", list(inputs), [onnx.ValueInfoProto(name=name) for name in outputs], list(constants)
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in inferred.graph.output:
        if not value.type.WhichOneof("value"):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return inferred


def reference(model: onnx.ModelProto, feeds: Mapping[str, Array], by_onnx: bool = False) -> list[Array]:
    """ONNX Runtime's answer, or that of ONNX's reference implementation."""
    if by_onnx:
        return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, dict(feeds))]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [np.asarray(result) for result in session.run(None, dict(feeds))]


def convert(model: onnx.ModelProto, recipe: ConvertRecipe = ConvertRecipe()) -> Conversion:
    """Our LiteRT file for ``model``."""
    return to_litert(describe(model), recipe)


def run_litert(conversion: Conversion, feeds: Mapping[str, Array]) -> list[Array]:
    """LiteRT's answer, in the ONNX order of axes."""
    interpreter = Interpreter(model_content=conversion.model.data, num_threads=1)
    stored = {
        spec.name: np.moveaxis(feeds[spec.name], 1, -1) if spec.layout == "nhwc" else feeds[spec.name]
        for spec in conversion.model.inputs
    }
    for detail in interpreter.get_input_details():
        if tuple(detail["shape"]) != stored[detail["name"]].shape:
            interpreter.resize_tensor_input(detail["index"], stored[detail["name"]].shape)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], stored[detail["name"]])
    interpreter.invoke()
    results = []
    for detail, spec in zip(interpreter.get_output_details(), conversion.model.outputs, strict=True):
        assert detail["name"] == spec.name
        empty = 0 in detail["shape"]  # the Python binding cannot read a tensor without elements
        data = np.empty(detail["shape"], detail["dtype"]) if empty else interpreter.get_tensor(detail["index"])
        results.append(np.moveaxis(data, -1, 1) if spec.layout == "nhwc" else data)
    return results


def assert_same(actual: Sequence[Array], wanted: Sequence[Array], tolerance: float) -> None:
    """Equal shapes and dtypes; floats within ``tolerance`` of the range, everything else equal."""
    assert len(actual) == len(wanted)
    for ours, theirs in zip(actual, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        if theirs.dtype.kind == "f":
            span = float(np.ptp(theirs)) if theirs.size else 0.0
            scale = max(span, float(np.abs(theirs).max()) if theirs.size else 0.0, 1e-2)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)
        else:
            np.testing.assert_array_equal(ours, theirs)
