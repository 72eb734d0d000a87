"""torch -> ONNX: ``nn.Module`` and an example become an ``OnnxModel``.

The network is traced by torch.export and translated by torch's dynamo exporter. Around them this module sees to what
they leave open: dynamic axes that are not really dynamic are refused (edgekit.converters.dynamic_dims), every node
carries the user's source line (edgekit.converters.source_lines), the same input gives the same bytes, the exporters'
messages appear only with an error, and the caller's network comes back in the mode it was in.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from edgekit.artifacts import OnnxModel
from edgekit.converters.dynamic_dims import AxisGroup, DynamicAxis, dynamic_axes, find_groups, torch_shapes, traceable
from edgekit.converters.onnx_model import describe
from edgekit.converters.quiet import captured_output
from edgekit.converters.source_lines import annotate, innermost_user_line
from edgekit.converters.torch_to_onnx_check import check_export
from edgekit.errors import BadInput, BadModel, BadRecipe, EdgeKitError, MissingExtra
from edgekit.recipe import ExportRecipe

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["EXAMPLE_SHAPES_KEY", "SIZE_STEPS_KEY", "export"]

#: model metadata, JSON: input name -> shape of the example, so that a dynamic axis has a sensible size to try
EXAMPLE_SHAPES_KEY = "edgekit.example_shapes"
#: model metadata, JSON: input name -> the step in which each axis may grow, where a dynamic axis has one above 1
SIZE_STEPS_KEY = "edgekit.size_steps"
_MAX_BYTES = 2**31 - 1
#: how torch.export says that a dynamic axis is none: input, axis, size
_SPECIALISED = re.compile(
    r"L\['(\w+)'\]\.size\(\)\[(\d+)\] as dynamic but your code specialized it to be a constant \((\d+)\)"
)


def export(
    module: torch.nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    recipe: ExportRecipe = ExportRecipe(),
) -> OnnxModel:
    """``module`` in eval mode as ONNX, traced with ``example`` (the tensors of one call of ``forward``).

    Inputs and outputs keep torch's names unless ``recipe`` gives others; a returned dictionary names its outputs. Each
    node has the metadata "edgekit.source" = "file.py:LINE in function". ``module`` is left as it was. With
    ``recipe.verify`` the file is run by ONNX Runtime and compared with the network before it is returned.

    Raises BadInput for an example that is not made of tensors; BadRecipe for wrong names, an opset that torch cannot
    write, or a dynamic axis that the network or its translation does not allow; BadModel, with torch's reason and the
    line of the source, for a network that cannot be exported; MissingExtra without torch.
    """
    tensors = _checked(module, example)
    shapes = [tuple(tensor.shape) for tensor in tensors]
    axes = dynamic_axes(shapes, recipe)
    with captured_output() as captured, _in_eval_mode(module):
        try:
            traced = traceable(tensors, axes)
            program = _traced(module, traced, axes)
            names = _names(program, recipe)
            groups = find_groups(program, names[0], [tuple(tensor.shape) for tensor in traced], axes)
            proto = _translated(program, names, recipe)
            _tidy(proto, shapes, groups)
            model = _serialised(proto)
            if recipe.verify:
                check_export(module, tensors, model, groups)
        except EdgeKitError as error:
            captured.attach(error)
            raise
    return model


def _checked(module: torch.nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    try:
        import onnxscript  # noqa: F401 - torch.onnx needs it and would fail later, less clearly
        import torch
    except ImportError as error:
        raise MissingExtra.of(error.name or "torch", "train") from error
    if not isinstance(module, torch.nn.Module):
        raise BadModel(f"A {type(module).__name__} cannot be exported.", "Give a torch.nn.Module.")
    tensors = (example,) if isinstance(example, torch.Tensor) else example
    if not isinstance(tensors, tuple) or not tensors:
        raise BadInput(f"The example is a {type(example).__name__}.", "Give a tensor, or a tuple of tensors.")
    for position, tensor in enumerate(tensors):
        if not isinstance(tensor, torch.Tensor):
            raise BadInput(f"Element {position} of the example is a {type(tensor).__name__}.", "Give only tensors.")
    return tensors


@contextmanager
def _in_eval_mode(module: torch.nn.Module) -> Iterator[None]:
    """Every submodule has its own training flag (a frozen BatchNorm, say), so each is put back by itself."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def _traced(
    module: torch.nn.Module, tensors: tuple[torch.Tensor, ...], axes: Sequence[DynamicAxis]
) -> torch.export.ExportedProgram:
    import torch
    from torch.fx.experimental import _config

    try:
        # backed_size_oblivious: as in torch's own ONNX export; without it a length of 1 counts as another network
        with torch.no_grad(), _full_stack_traces(), _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            return torch.export.export(module, tensors, dynamic_shapes=torch_shapes(len(tensors), axes), strict=False)
    except Exception as error:  # torch raises whatever the user's code and its own tracer raise
        if axes and (fixed := _SPECIALISED.search(str(error))):
            raise BadRecipe(
                f"The network does not allow a dynamic axis {fixed[2]} of '{fixed[1]}': inside it becomes the constant "
                f"{fixed[3]}.",
                "Export with a fixed size there, or leave out int() and other conversions of sizes in the network.",
            ) from error
        raise BadModel(
            f"torch.export cannot trace {type(module).__name__}{_at(_user_line(error))}: {_essential(error)}",
            "The example must fit forward(), and forward() must not branch on tensor values.",
        ) from error


@contextmanager
def _full_stack_traces() -> Iterator[None]:
    """Let torch record all frames from the outermost ``forward`` inwards.

    By default it keeps only the frames whose function is called "forward", so that an op in a helper function or in
    ``extract_features`` would be blamed on the line that called it.
    """
    from torch.fx.proxy import TracerBase

    def from_first_forward(_: TracerBase, frames: traceback.StackSummary) -> traceback.StackSummary:
        first = next((at for at, frame in enumerate(frames) if frame.name == "forward"), len(frames))
        return traceback.StackSummary.from_list(list(frames[first:]))

    with mock.patch.object(TracerBase, "_filter_traceback_frames", from_first_forward):
        yield


def _names(program: torch.export.ExportedProgram, recipe: ExportRecipe) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of inputs and outputs; empty outputs mean: those that torch gives."""
    inputs, outputs = _tensor_names(program)
    for kind, wanted, known in (("input", recipe.input_names, inputs), ("output", recipe.output_names, outputs)):
        if wanted and len(wanted) != len(known):
            raise BadRecipe(
                f"{len(wanted)} {kind} names were given and the network has {len(known)} {kind}s.",
                f"torch calls them: {', '.join(known)}.",
            )
    names = recipe.input_names or inputs
    results = recipe.output_names or _dictionary_keys(program)
    if len({*names, *results}) != len(names) + len(results):
        raise BadRecipe(f"The names {[*names, *results]} are not all different.", "Give every tensor its own.")
    return names, results


def _tensor_names(program: torch.export.ExportedProgram) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What torch calls the inputs and outputs. Raises BadModel unless all are tensors."""
    from torch.export.graph_signature import InputKind, OutputKind, TensorArgument

    signature = program.graph_signature
    inputs = [spec.arg for spec in signature.input_specs if spec.kind == InputKind.USER_INPUT]
    outputs = [spec.arg for spec in signature.output_specs if spec.kind == OutputKind.USER_OUTPUT]
    tensors = [arg for arg in (*inputs, *outputs) if isinstance(arg, TensorArgument)]
    if not outputs or len(tensors) != len(inputs) + len(outputs):
        raise BadModel("The network takes or returns something that is not a tensor.", "Only tensors can be exported.")
    names = tuple(tensor.name for tensor in tensors)
    return names[: len(inputs)], names[len(inputs) :]


def _dictionary_keys(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    spec = program.call_spec.out_spec
    if spec is None or spec.type is not dict or not all(child.is_leaf() for child in spec.children()):
        return ()
    return tuple(map(str, spec.context))


def _translated(
    program: torch.export.ExportedProgram, names: tuple[tuple[str, ...], tuple[str, ...]], recipe: ExportRecipe
) -> onnx.ModelProto:
    import torch

    try:
        result = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=list(names[0]),
            output_names=list(names[1]) or None,
            opset_version=recipe.opset,
        )
        assert result is not None
        proto: onnx.ModelProto = result.model_proto
    except Exception as error:  # the translator raises whatever its op functions raise
        raise BadModel(
            f"torch cannot write this network as ONNX{_at(_failing_node_line(program, error))}: {_essential(error)}",
            "Replace the op in the network by ones that ONNX has.",
        ) from error
    written = {opset.domain: opset.version for opset in proto.opset_import}.get("", 0)
    if written != recipe.opset:
        raise BadRecipe(f"Opset {recipe.opset} was asked for and torch wrote {written}.", f"Ask for {written}.")
    return proto


def _essential(error: BaseException) -> str:
    """The first line that says something, from the innermost cause: torch wraps it in advice and in its own errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(error))
    if missing:
        return f"ONNX has no counterpart of the op '{missing[1]}'."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    facts = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    first = next(iter(facts or lines), type(error).__name__)
    return first if first.endswith(".") else f"{first}."


def _at(line: str) -> str:
    return f" ({line})" if line else ""


def _user_line(error: BaseException) -> str:
    """The user's line from torch's message where it names one, else from the Python traceback."""
    return innermost_user_line(str(error)) or innermost_user_line("".join(traceback.format_tb(error.__traceback__)))


def _failing_node_line(program: torch.export.ExportedProgram, error: BaseException) -> str:
    """The user's line of the FX node that the translator names. Some exist only after decomposition."""
    found = re.search(r"translating node %(\w+)", f"{error}\n{error.__cause__}")
    if not found:
        return ""
    for stage in (lambda: program, program.run_decompositions):
        for node in stage().graph.nodes:
            if node.name == found[1]:
                return innermost_user_line(node.meta.get("stack_trace") or "")
    return ""


def _tidy(proto: onnx.ModelProto, shapes: Sequence[tuple[int, ...]], groups: Sequence[AxisGroup]) -> None:
    """Source lines, readable names of dynamic axes, and what of the machine or the session must not reach the file."""
    annotate(proto)
    proto.producer_version = proto.producer_version.split("+")[0]
    _name_axes(proto, groups)
    steps = {axis: group.step for group in groups for axis in group.axes}
    names = [value.name for value in proto.graph.input]
    notes: dict[str, Any] = {EXAMPLE_SHAPES_KEY: dict(zip(names, shapes, strict=True))}
    stepped = {
        name: [steps.get((position, axis), 1) for axis in range(len(shapes[position]))]
        for position, name in enumerate(names)
        if any(step > 1 for (at, _), step in steps.items() if at == position)
    }
    if stepped:
        notes[SIZE_STEPS_KEY] = stepped
    for key, value in notes.items():
        proto.metadata_props.add(key=key, value=json.dumps(value, sort_keys=True))


def _name_axes(proto: onnx.ModelProto, groups: Sequence[AxisGroup]) -> None:
    """Replace torch's symbols ("s53") by "batch", "height" and "width", also inside expressions ("s53//2")."""
    names: dict[str, str] = {}
    for group in groups:
        position, axis = group.axes[0]
        value = proto.graph.input[position]
        plain = {0: "batch", 2: "height", 3: "width"}[axis]
        symbol = value.type.tensor_type.shape.dim[axis].dim_param
        names[symbol] = f"{value.name}_{plain}" if plain in names.values() else plain
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\b[a-z]\d+\b", lambda m: names.get(m[0], m[0]), dim.dim_param)


def _serialised(proto: onnx.ModelProto) -> OnnxModel:
    if proto.ByteSize() > _MAX_BYTES:
        raise BadModel(f"The network has {proto.ByteSize()} bytes as ONNX; one file holds at most 2 GiB.", "Shrink it.")
    return describe(proto)
