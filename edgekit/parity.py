"""Whether a converted model answers as the network that it came from.

Engines run in child processes, so that one that crashes on a model becomes an error that says so. Reports are data: a
failed comparison is a report with ``passed`` false, which ``require_passed`` turns into an error.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgekit import isolate
from edgekit.artifacts import Array, Engine, LiteRTModel, OnnxModel, OrtModel, OutputError, TensorSpec, VerifyReport
from edgekit.converters.onnx_model import parse_onnx
from edgekit.errors import BadModel, BadRecipe, EngineError, InternalError, VerificationFailed
from edgekit.recipe import ConvertRecipe
from edgekit.sample_inputs import candidate_shapes, random_inputs

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Sample",
    "compare",
    "compare_on",
    "compare_outputs",
    "reference_sample",
    "require_passed",
    "run_isolated",
    "verify",
    "with_fair_tolerance",
]

#: rounding that two correct engines may differ by, relative to the largest value: 16 units in the last place
_ROUNDING = 16 * float(np.finfo(np.float32).eps)
#: and absolutely: ONNX Runtime's own Sigmoid is off by 1.2e-7 where the true value is 1e-6
_UNIT = 2 * float(np.finfo(np.float32).eps)

_QUANTIZED_TOLERANCE = 0.02
_HALF_TOLERANCE = 0.01
_FLOAT16 = 10  # of ONNX's TensorProto.DataType
_QUANTIZING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"})

Arrays = dict[str, Array]
Sample = tuple[Arrays, Arrays]  # inputs and the reference's outputs, in ONNX order
Specs = tuple[Sequence[TensorSpec], Sequence[TensorSpec]]  # inputs and outputs


def with_fair_tolerance(recipe: ConvertRecipe, reference: OnnxModel) -> ConvertRecipe:
    """``recipe``, its tolerance raised to 2 % of the range for a graph that quantizes its activations, 1 % for float16.

    Two correct engines round a quantized value to neighbouring steps now and then, and later layers carry that on: int8
    networks in ONNX Runtime and LiteRT differ by 0.4 to 0.8 % of the range. A wrong scale or zero point differs by far
    more than 2 %. What a graph computes in float16 (steps of 0.1 % of the value), the reference rounds after each node
    and LiteRT, which computes in float32, does not: the two differ by up to 0.5 %.
    """
    graph = parse_onnx(reference.data).graph
    if any(node.op_type in _QUANTIZING for node in graph.node):
        fair = _QUANTIZED_TOLERANCE
    elif _computes_in_half(graph):
        fair = _HALF_TOLERANCE
    else:
        fair = 0.0
    return msgspec.structs.replace(recipe, tolerance=fair) if fair > recipe.tolerance else recipe


def _computes_in_half(graph: onnx.GraphProto) -> bool:
    """Whether some node computes in float16. Weights that are only stored so, and cast before use, do not count."""
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == _FLOAT16}
    return any(name in halves for node in graph.node if node.op_type != "Cast" for name in node.input)


def compare(
    model: LiteRTModel | OrtModel, reference: OnnxModel, recipe: ConvertRecipe = ConvertRecipe()
) -> VerifyReport:
    """``model`` against ``reference``, run by ONNX Runtime, on the same random inputs (seed 0).

    Dynamic dimensions take the sizes of ``recipe.shapes``, else those of the exporter's example, else modest ones. An
    output passes when its largest difference is at most ``recipe.tolerance`` times its range (or the magnitude of a
    single value), plus float32 rounding (2e-6 of the largest value, and 2.4e-7); NaN must meet NaN; integers and bools
    must be equal. For quantized graphs the tolerance is that of ``with_fair_tolerance``. A model that does not pass is
    compared once more with ONNX Runtime that does not optimize the graph, because its optimized graphs can be off (by
    0.3 % of the range in a ResNetV2, where the plain graph and float64 agree with LiteRT to 1e-5); the report's
    ``reference`` says so.

    Raises BadModel when an engine crashes on a model, EngineError when it refuses one, BadRecipe and UnknownName for
    shapes that do not fit, MissingExtra for an engine that is not installed.
    """
    started = time.perf_counter()
    sample = reference_sample(reference, recipe.shapes)
    tolerance = with_fair_tolerance(recipe, reference).tolerance
    report = compare_on(model, sample, tolerance)
    plain = None if report.passed else _plain_answers(reference, sample[0])
    if plain is not None:
        again = compare_on(model, (sample[0], plain), tolerance,
                           reference="the ONNX model, not optimized by ONNX Runtime,")
        report = again if again.passed else report
    return msgspec.structs.replace(report, seconds=time.perf_counter() - started)


def compare_on(
    model: LiteRTModel | OrtModel,
    sample: Sample,
    tolerance: float,
    subject: str = "",
    reference: str = "the ONNX model",
) -> VerifyReport:
    """``model`` on the inputs of ``sample``, against its outputs; ``subject`` and ``reference`` name the two sides.

    Passes by the rule of ``compare`` and raises what an engine makes it raise.
    """
    started = time.perf_counter()
    engine: Engine = "litert" if isinstance(model, LiteRTModel) else "ort"
    subject = subject or _described(model)
    got = run_isolated(engine, model.data, (model.inputs, model.outputs), sample[0], subject)
    outputs = compare_outputs(sample[1], got, tolerance)
    return VerifyReport(
        subject=subject,
        reference=reference,
        tolerance=tolerance,
        outputs=outputs,
        passed=all(output.passed for output in outputs),
        seconds=time.perf_counter() - started,
    )


def reference_sample(
    reference: OnnxModel, shapes: Mapping[str, tuple[int, ...]], seed: int = 0, given: Mapping[str, Array] | None = None
) -> Sample:
    """Random inputs for ``reference``, but for those that are ``given``, and its answers, by name. Raises as
    ``compare``.
    """
    given = given or {}
    problem = None
    for candidate in candidate_shapes(reference, {**shapes, **{name: array.shape for name, array in given.items()}}):
        inputs = {**random_inputs(reference.inputs, candidate, seed), **given}
        try:
            specs = (reference.inputs, reference.outputs)
            return inputs, run_isolated("ort", reference.data, specs, inputs, "The ONNX model")
        except EngineError as error:
            # another size may suit the network; if none does, the first refusal is the one to show
            problem = problem or EngineError(error.message, "Give sizes that the network accepts (--shape NAME=...).")
    raise problem or BadModel("The model has no inputs to try.")


def _plain_answers(reference: OnnxModel, inputs: Arrays) -> Arrays | None:
    """Those of the graph as it stands; None where ONNX Runtime has no kernel for it without fusing nodes."""
    result = isolate.call(f"{__name__}:_run_plain", reference.data, inputs, subject="The ONNX model")
    if result is not None and not isinstance(result, dict):
        raise InternalError(f"The child process returned a {type(result).__name__} instead of arrays.")
    return result


def _run_plain(data: bytes, inputs: Arrays) -> Arrays | None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, inputs), strict=True))
    except Exception:  # noqa: BLE001 - its binding raises several types; the first comparison is the answer then
        return None


def run_isolated(
    engine: Engine,
    data: bytes,
    specs: Specs,
    inputs: Mapping[str, Array],
    subject: str,
) -> Arrays:
    """The outputs, in ONNX order, of a model run in a child process on ``inputs`` in ONNX order.

    ``specs`` are the model's inputs and outputs with their layouts; ``subject`` names it in messages.
    """
    result = isolate.call(f"{__name__}:_run", engine, data, specs, dict(inputs), subject=subject)
    if not isinstance(result, dict):
        raise InternalError(f"The child process returned a {type(result).__name__} instead of arrays.")
    return result


def _run(engine: Engine, data: bytes, specs: Specs, inputs: Arrays) -> Arrays:
    from edgekit.runtime.engines import open_session
    from edgekit.runtime.inputs import to_onnx, to_stored

    wanted = {spec.name: np.dtype(spec.dtype) for spec in specs[0]}
    feeds = {name: array.astype(wanted[name], copy=False) for name, array in inputs.items() if name in wanted}
    with open_session(engine, data) as session:
        found = [spec.name for spec in session.inputs], [spec.name for spec in session.outputs]
        names = [spec.name for spec in specs[0]], [spec.name for spec in specs[1]]
        if found != names:
            raise BadModel(f"The model has the inputs and outputs {found[0]} -> {found[1]}.",
                           f"The reference has {names[0]} -> {names[1]}; names and order must be the same.")
        outputs = session.run(to_stored(specs[0], feeds))
        return {name: np.array(array) for name, array in to_onnx(specs[1], outputs).items()}


def compare_outputs(want: Mapping[str, Array], got: Mapping[str, Array], tolerance: float) -> tuple[OutputError, ...]:
    """One entry for each array of ``want``, by the rule that ``compare`` states."""
    return tuple(_difference(name, want[name], got.get(name), tolerance) for name in want)


def _difference(name: str, want: Array, got: Array | None, tolerance: float) -> OutputError:
    extent = _extent(want)
    problem = _mismatch(want, got)
    if problem or got is None:
        return OutputError(name, float("inf"), extent, passed=False, problem=problem)
    if want.size == 0:
        return OutputError(name, 0.0, extent, passed=True)
    a, b = want.astype(np.float64), got.astype(np.float64)
    if want.dtype.kind != "f":
        # exact even where float64 cannot tell two int64 apart
        return OutputError(name, float(np.max(np.abs(a - b))), extent, passed=bool(np.array_equal(want, got)))
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        problem = f"{int(np.isnan(b).sum())} NaN where the reference has {int(np.isnan(a).sum())}, or elsewhere"
        return OutputError(name, float("inf"), extent, passed=False, problem=problem)
    equal = np.isnan(a) | (a == b)  # equal infinities have no difference
    worst = float(np.max(np.abs(np.where(equal, 0.0, a) - np.where(equal, 0.0, b))))
    peak = float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0))
    scale = extent or peak
    allowed = tolerance * scale + _ROUNDING * peak + _UNIT
    return OutputError(name, worst, extent, passed=worst <= allowed, allowed_abs_diff=allowed)


def _extent(array: Array) -> float:
    if array.dtype.kind not in "fiub" or array.size == 0:
        return 0.0
    values = array.astype(np.float64)
    finite = values[np.isfinite(values)]
    return float(finite.max() - finite.min()) if finite.size else 0.0


def _mismatch(want: Array, got: Array | None) -> str:
    if got is None:
        return "the model does not have this output"
    if got.shape != want.shape:
        return f"shape {list(got.shape)} instead of {list(want.shape)}"
    if _kind(got) != _kind(want):
        return f"dtype {got.dtype} instead of {want.dtype}"
    return ""


def _kind(array: Array) -> str:
    return "i" if array.dtype.kind == "u" else array.dtype.kind


def require_passed(report: VerifyReport) -> VerifyReport:
    """``report`` if it passed, else VerificationFailed with every output that did not."""
    failed = [output for output in report.outputs if not output.passed]
    if report.passed:
        return report
    lines = [
        f"'{output.name}': " + (output.problem or f"differs by {output.max_abs_diff:.3g} at a range of "
                                f"{output.output_range:.3g}")
        for output in failed
    ]
    raise VerificationFailed(
        f"{report.subject} does not answer as {report.reference} does (tolerance {report.tolerance:g} of the range): "
        f"{'; '.join(lines)}.",
        "Nothing was written. Please report the model, or allow a larger tolerance if the difference is acceptable.",
    )


def verify(
    path: Path | str,
    against: Path | str | OnnxModel | None = None,
    public_key: Path | str | bytes | None = None,
    require_signature: bool = False,
    recipe: ConvertRecipe = ConvertRecipe(),
) -> tuple[VerifyReport, ...]:
    """Check a bundle, or a .tflite, .ort or .onnx file ``against`` the ONNX file it was made from.

    For a bundle: the container, the signature when ``public_key`` is given, the hash of every entry, and each variant
    on each test vector; with ``against`` also each variant on random inputs. ``recipe`` gives shapes and the tolerance
    for comparisons with ``against``; test vectors hold their own.

    Raises BadBundle, SignatureMismatch, BadKey; BadRecipe when there is nothing to compare with; else as ``compare``.
    """
    from edgekit.verify_files import verify_bundle, verify_model_file

    path = Path(path)
    if path.suffix == ".edge":
        return verify_bundle(path, _reference(against), public_key, require_signature, recipe)
    if public_key is not None or require_signature:
        raise BadRecipe(f"{path} is not a bundle, and only bundles are signed.", "Leave the public key out.")
    reference = _reference(against)
    if reference is None:
        raise BadRecipe(f"There is nothing to compare {path} with.", "Name its ONNX file (against, or --against FILE).")
    return (verify_model_file(path, reference, recipe),)


def _reference(against: Path | str | OnnxModel | None) -> OnnxModel | None:
    if against is None or isinstance(against, OnnxModel):
        return against
    from edgekit.converters.onnx_model import load_onnx

    return load_onnx(Path(against))


def _described(model: LiteRTModel | OrtModel) -> str:
    return "The LiteRT model" if isinstance(model, LiteRTModel) else f"The ONNX Runtime model (.{model.format})"
