"""One backend test of the ``onnx`` package: convert its model, run it in LiteRT, compare with the expected arrays.

``judge`` is meant for a process of its own (``benchmarks.onnx_backend`` forks one a test), since a wrong conversion can
take the interpreter's process down.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.artifacts import Array, Conversion
from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.errors import EdgeKitError, InternalError

if TYPE_CHECKING:
    import onnx
    from onnx.backend.test.case.test_case import TestCase

__all__ = ["KINDS", "STATUSES", "Outcome", "judge", "load_tests", "op_of"]

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
STATUSES = ("passed", "refused", "wrong", "crash", "error", "exempt")
#: their results are random numbers, of which the test holds one draw
_RANDOM_OPS = frozenset({"Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
                         "Multinomial"})
_EXPANDED = re.compile(r"^(?P<base>.+?)_expanded(_.*)?$")


@dataclass(frozen=True, slots=True)
class Outcome:
    """``status`` is one of STATUSES; ``reason`` says why it is not "passed"; ``ops`` are the LiteRT ops made."""

    status: str
    reason: str = ""
    ops: tuple[tuple[str, int], ...] = ()


def load_tests(kind: str) -> list[TestCase]:
    """The tests of one of KINDS, by name."""
    from onnx.backend.test.loader import load_model_tests

    return sorted(load_model_tests(kind=kind), key=lambda test: test.name)


def op_of(test: TestCase, by_name: dict[str, str]) -> str:
    """What the test is counted under: its op, with a mark where the op is written out as its function body.

    ``by_name`` collects the ops of the tests seen so far (the expanded ones sort behind their originals).
    """
    if test.model is None:
        return test.name.removeprefix("test_").removeprefix("operator_").partition("_")[0]
    match = _EXPANDED.match(test.name)
    if match and match["base"] in by_name:
        return f"{by_name[match['base']]} (expanded)"
    kinds = list(dict.fromkeys(node.op_type for node in test.model.graph.node))
    by_name[test.name] = "+".join(kinds[:2])
    return by_name[test.name]


def judge(test: TestCase, stage: Callable[[str], None], xnnpack: bool = True) -> Outcome:
    """Run ``test``; ``stage`` is told what is about to happen, so that a crash can be placed.

    Without ``xnnpack``, LiteRT computes with its own kernels alone, as it does where that delegate is not built in.
    """
    stage("loading")
    model = _model(test)
    stage("converting")
    try:
        conversion = to_litert(describe(model))
    except InternalError as error:
        return Outcome("error", str(error))
    except EdgeKitError as error:
        return Outcome("refused", f"{type(error).__name__}: {error}")
    made = tuple(conversion.op_counts.items())
    for feeds, wanted in _data_sets(test, model):
        stage("running")
        got = _run(conversion, feeds, xnnpack)
        problem = _difference(got, wanted, test.rtol, test.atol)
        if problem:
            is_random = any(node.op_type in _RANDOM_OPS for node in model.graph.node)
            return Outcome("exempt" if is_random else "wrong", problem, made)
    return Outcome("passed", ops=made)


# -- what the tests hold ---------------------------------------------------------------------------------------------


def _light_path(test: TestCase) -> Path | None:
    """The file of a "real" test whose weights were replaced by constants: it ships with the package."""
    import onnx

    if test.url is None or not test.url.startswith("onnx/"):
        return None
    return Path(onnx.__file__).parent.parent / test.url


def _model(test: TestCase) -> onnx.ModelProto:
    import onnx

    if test.model is not None:
        return test.model
    path = _light_path(test)
    if path is None:
        if test.model_dir is None:
            raise FileNotFoundError(f"{test.name} would have to be downloaded from {test.url}")
        path = Path(test.model_dir) / "model.onnx"
    return onnx.load(path)


def _data_sets(test: TestCase, model: onnx.ModelProto) -> Iterator[tuple[dict[str, Array], list[Any]]]:
    """(inputs by name, expected outputs) of each set of the test."""
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in weights]
    path = _light_path(test)
    if path is not None:
        yield _ramps(model, names), [_read(path.with_name(f"{path.stem}_output_0.pb"))]
    elif test.model_dir is not None:
        for folder in sorted(Path(test.model_dir).glob("test_data_set*")):
            arrays = _read_all(folder, "input")
            yield dict(zip(names, arrays, strict=True)), _read_all(folder, "output")
    else:
        for inputs, outputs in test.data_sets or ():
            yield dict(zip(names, map(_as_array, inputs), strict=True)), [_as_array(value) for value in outputs]


def _ramps(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, Array]:
    """What the package's own runner feeds to a light model: 0 to 1 in even steps."""
    from onnx.backend.test.runner import Runner

    values = {value.name: value for value in model.graph.input}
    return {name: Runner.generate_dummy_data(values[name], name=name) for name in names}


def _read_all(folder: Path, which: str) -> list[Array]:
    count = len(list(folder.glob(f"{which}_*.pb")))
    return [_read(folder / f"{which}_{index}.pb") for index in range(count)]


def _read(path: Path) -> Array:
    import onnx

    return _as_array(onnx.TensorProto.FromString(path.read_bytes()))


def _as_array(value: Any) -> Array:
    import onnx
    from onnx import numpy_helper

    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


# -- running and comparing -------------------------------------------------------------------------------------------


def _run(conversion: Conversion, feeds: dict[str, Array], xnnpack: bool) -> list[Array]:
    """LiteRT's answer, in the ONNX order of axes."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        model_content=conversion.model.data, num_threads=1, experimental_op_resolver_type=kernels
    )
    stored = {
        spec.name: np.moveaxis(feeds[spec.name], 1, -1) if spec.layout == "nhwc" else np.asarray(feeds[spec.name])
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
        # the Python binding cannot read a tensor without elements
        empty = 0 in detail["shape"]
        data = np.empty(detail["shape"], detail["dtype"]) if empty else interpreter.get_tensor(detail["index"])
        results.append(np.moveaxis(data, -1, 1) if spec.layout == "nhwc" else data)
    return results


def _difference(got: Sequence[Array], wanted: Sequence[Any], rtol: float, atol: float) -> str:
    """What is wrong with ``got``, by the rules of the package's own runner; "" if nothing is."""
    if len(got) != len(wanted):
        return f"{len(got)} outputs instead of {len(wanted)}"
    for index, (ours, theirs) in enumerate(zip(got, map(np.asarray, wanted), strict=True)):
        if ours.shape != theirs.shape:
            return f"output {index} has the shape {ours.shape} instead of {theirs.shape}"
        if ours.dtype != theirs.dtype:
            return f"output {index} is {ours.dtype} instead of {theirs.dtype}"
        try:
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)
        except AssertionError as error:
            return f"output {index} differs: {' '.join(str(error).split())[:300]}"
    return ""
