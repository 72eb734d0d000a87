"""ONNX -> ONNX Runtime: a graph optimised once here instead of at every start, as .onnx or in the .ort format.

EdgeKit's portable rewrites come first, then ONNX Runtime's own up to the level "extended", which replaces groups of ops
by fused ones that every CPU build has. Its last level, "layout", would bake in blocked convolutions (NCHWc) for the
instruction set of this machine; an engine that wants them adds them when it loads the .onnx file, at no loss
(measured: equal time and bit-equal answers). It does not add them to a .ort file, which therefore is 2.4 times slower
on x86 for EfficientNet-Lite0; .ort is for the reduced builds of ONNX Runtime on phones.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekit import isolate
from edgekit.artifacts import Conversion, NodeLowering, OnnxModel, OrtModel
from edgekit.converters.fix_shapes import fix_shapes
from edgekit.converters.onnx_model import describe, parse_onnx
from edgekit.converters.ort_format import canonical_ort
from edgekit.converters.ort_support import unsupported_nodes
from edgekit.converters.passes import PORTABLE_PASSES, run_passes
from edgekit.converters.source_lines import SOURCE_KEY, metadata, source_of
from edgekit.errors import BadModel, BadRecipe, EngineError, InternalError, MissingExtra, UnsupportedOps
from edgekit.recipe import ConvertRecipe

if TYPE_CHECKING:
    import onnx

__all__ = ["simplified", "to_ort"]

Format = Literal["onnx", "ort"]
_FIRST_IR_WITH_CONSTANT_WEIGHTS = 4


def to_ort(model: OnnxModel, recipe: ConvertRecipe = ConvertRecipe(), file_format: Format = "onnx") -> Conversion:
    """``model`` optimised for ONNX Runtime on any CPU. Names, order and layout of inputs and outputs stay.

    ``recipe.shapes`` fixes dynamic inputs; the other dynamic dimensions stay dynamic. The same input gives the same
    bytes. The engine runs in a child process.

    Raises UnsupportedOps with every node that this ONNX Runtime cannot run, BadModel for a graph that it refuses or
    that crashes it, BadRecipe and UnknownName for shapes that do not fit, MissingExtra without onnxruntime.
    """
    started = time.perf_counter()
    if recipe.io_layout == "nhwc":
        raise BadRecipe("ONNX Runtime keeps the layout of the ONNX graph.", "Use io_layout 'auto' or 'onnx' for it.")
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        source, optimised = _rewritten(model, recipe.shapes, folder, "ORT_ENABLE_EXTENDED")
        data = optimised.SerializeToString(deterministic=True)
        if file_format == "ort":
            data = _checked_bytes(isolate.call(f"{__name__}:_as_ort", data, folder))
    described = describe(optimised, data)
    if [spec.name for spec in described.inputs + described.outputs] != [s.name for s in model.inputs + model.outputs]:
        raise InternalError("ONNX Runtime changed the inputs or outputs of the model while optimising it.")
    return Conversion(
        model=OrtModel(data=data, format=file_format, inputs=described.inputs, outputs=described.outputs),
        nodes=_lowerings(source, optimised),
        op_counts=dict(Counter(node.op_type for node in optimised.graph.node).most_common()),
        seconds=time.perf_counter() - started,
    )


def simplified(model: OnnxModel, shapes: Mapping[str, tuple[int, ...]] | None = None) -> onnx.ModelProto:
    """``model`` folded and cleaned, its ops still those of the ONNX standard, as quantization wants them.

    EdgeKit's portable rewrites, then ONNX Runtime's at the level "basic". Raises as ``to_ort``.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        return _rewritten(model, shapes or {}, folder, "ORT_ENABLE_BASIC")[1]


def _rewritten(
    model: OnnxModel, shapes: Mapping[str, tuple[int, ...]], folder: str, level: str
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """``model`` with weights constant and ``shapes`` fixed, and the same after our rewrites and ONNX Runtime's."""
    source = parse_onnx(model.data)
    _make_weights_constant(source)
    fix_shapes(source, shapes)
    portable = _portable(source)
    result = isolate.call(f"{__name__}:_optimise", portable.SerializeToString(deterministic=True), folder, level)
    return source, _cleaned(parse_onnx(_checked_bytes(result)), portable)


def _make_weights_constant(proto: onnx.ModelProto) -> None:
    """Take weights off the list of inputs, where they stand in old files as values that a caller may replace.

    Fusions would keep them from being weights, and leave inputs behind that a caller then has to give.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, _FIRST_IR_WITH_CONSTANT_WEIGHTS)


def _portable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto`` after the rewrites that suit every engine."""
    import onnx_ir as ir

    try:
        model = ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, KeyError, TypeError) as error:
        raise BadModel(f"The ONNX graph cannot be read: {error}.", "Check it with onnx.checker.") from error
    return ir.serde.serialize_model(run_passes(model, PORTABLE_PASSES)[0])


def _checked_bytes(result: object) -> bytes:
    if not isinstance(result, bytes):
        raise InternalError(f"The child process returned a {type(result).__name__} instead of a model.")
    return result


def _optimise(data: bytes, folder: str, level: str) -> bytes:
    """In the child: ``data`` after ONNX Runtime's optimisations up to ``level``, as ONNX."""
    proto = parse_onnx(data)
    refused = unsupported_nodes(proto)
    if refused:
        heading = f"{len(refused)} node{'s' * (len(refused) > 1)} cannot be run by ONNX Runtime:"
        raise UnsupportedOps("\n".join([heading, *(f"  - {line}" for line in refused)]))
    return _saved(data, Path(folder) / "optimised.onnx", "ONNX", level)


def _as_ort(data: bytes, folder: str) -> bytes:
    """In the child: ``data``, optimised already, in the .ort format."""
    result = canonical_ort(_saved(data, Path(folder) / "optimised.ort", "ORT", "ORT_DISABLE_ALL"))
    _open(result)
    return result


def _saved(data: bytes, path: Path, file_format: str, level: str) -> bytes:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", file_format)
    _open(data, options)
    return path.read_bytes()


def _open(data: bytes, options: object = None) -> None:
    """Load ``data``; what the engine refuses becomes an error of ours."""
    try:
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as native
    except ImportError as error:
        raise MissingExtra.of("onnxruntime", "ort") from error
    options = options or ort.SessionOptions()
    assert isinstance(options, ort.SessionOptions)
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except native.NotImplemented as error:
        raise UnsupportedOps(f"ONNX Runtime cannot run this model: {_reason(error)}") from error
    except (native.Fail, native.InvalidGraph, native.InvalidProtobuf, native.InvalidArgument) as error:
        raise BadModel(f"ONNX Runtime refuses this model: {_reason(error)}", "Check the graph's shapes.") from error
    except RuntimeError as error:  # the base of the binding's remaining errors
        raise EngineError(f"ONNX Runtime failed while it loaded the model: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """ONNX Runtime's message without its code and without the path of the C++ source."""
    text = str(error).split(" : ", 3)[-1].strip()
    return " ".join(text.split())


def _cleaned(optimised: onnx.ModelProto, before: onnx.ModelProto) -> onnx.ModelProto:
    """``optimised`` with source lines on fused nodes too, and without the opsets that it lists and does not use."""
    domains = {node.domain for node in optimised.graph.node} | {"", "com.microsoft"}
    used = [opset for opset in optimised.opset_import if opset.domain in domains]
    if any(domain.startswith("com.microsoft.nchwc") for domain in domains):
        raise InternalError("ONNX Runtime baked ops of this machine's instruction set into the model.")
    if not any(node.domain == "com.microsoft" for node in optimised.graph.node):
        used = [opset for opset in used if opset.domain != "com.microsoft"]
    del optimised.opset_import[:]
    optimised.opset_import.extend(used)
    lines = {name: source_of(node) for node in before.graph.node for name in node.output if name}
    for node in optimised.graph.node:
        line = next((lines[name] for name in node.output if lines.get(name)), "")
        if line and not metadata(node).get(SOURCE_KEY):
            node.metadata_props.add(key=SOURCE_KEY, value=line)
    return optimised


def _lowerings(source: onnx.ModelProto, optimised: onnx.ModelProto) -> tuple[NodeLowering, ...]:
    """Each node of ``source`` with the op that makes its result, or the first result further on that still exists."""
    made_by = {name: node.op_type for node in optimised.graph.node for name in node.output if name}
    for node in reversed(source.graph.node):
        for name in node.output:
            if name in made_by:
                # what only led here was fused into the op that makes it, unless it still exists by itself
                for operand in node.input:
                    made_by.setdefault(operand, made_by[name])
    return tuple(
        NodeLowering(
            node=node.name,
            op_type=node.op_type,
            target_ops=tuple(dict.fromkeys(made_by[name] for name in node.output if name in made_by)),
            source=source_of(node),
        )
        for node in source.graph.node
    )
