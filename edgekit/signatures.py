"""One LiteRT file with several signatures that share their weights: resolutions of a network, its stages, or both.

``resolutions``, ``stages`` or ``parts_of`` say what the signatures are; ``convert_signatures`` makes the file, runs
every signature against ONNX Runtime and writes it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgekit import isolate
from edgekit.artifacts import Array, Conversion, Layout, LiteRTModel, OnnxModel, Signature, TensorSpec, VerifyReport
from edgekit.atomic import write_atomically
from edgekit.converters.fix_shapes import fix_shapes
from edgekit.converters.onnx_model import describe, parse_onnx
from edgekit.errors import BadModel, BadRecipe, EngineError, InternalError, UnknownName
from edgekit.graph.stages import split_stages, with_fixed_shapes
from edgekit.parity import Sample, compare_outputs, reference_sample, require_passed, with_fair_tolerance
from edgekit.recipe import ConvertRecipe

__all__ = ["FULL", "PackedSignatures", "Parts", "compare_signatures", "convert_signatures", "parts_of", "resolutions",
           "run_signatures", "stages"]

#: name of the signature -> the graph behind it, and how it is lowered
Parts = Mapping[str, tuple[OnnxModel, ConvertRecipe]]
Shapes = Mapping[str, tuple[int, ...]]
Arrays = dict[str, Array]

#: name of the signature of the whole network beside its stages
FULL = "full"


class PackedSignatures(msgspec.Struct, frozen=True):
    """``conversion.model.signatures`` are in the order of the file. ``verifications``: by signature, those that were
    run; ``conversion.verification`` has all of them in one, the outputs named SIGNATURE:OUTPUT, or None. ``parts``:
    the graphs with the recipes that were used in the end.
    """

    conversion: Conversion
    verifications: dict[str, VerifyReport]
    parts: dict[str, tuple[OnnxModel, ConvertRecipe]]


def parts_of(
    model: OnnxModel,
    signatures: Sequence[tuple[str, Shapes]] = (),
    cuts: Sequence[str] = (),
    recipe: ConvertRecipe = ConvertRecipe(),
) -> Parts:
    """``resolutions`` for ``signatures``, ``stages`` for ``cuts``; for both the stages of every resolution, called
    NAME_stage1, NAME_stage2, ... and NAME_full. Raises as these two, and BadRecipe when neither is given.
    """
    if not (signatures or cuts):
        raise BadRecipe("Neither signatures nor tensors to cut at are given.", "Give one of them.")
    if not cuts:
        return resolutions(model, signatures, recipe)
    if not signatures:
        return stages(model, cuts, recipe)
    return {
        f"{name}_{stage}": part
        for name, (network, own) in resolutions(model, signatures, recipe).items()
        for stage, part in stages(network, cuts, own).items()
    }


def resolutions(
    model: OnnxModel, signatures: Sequence[tuple[str, Shapes]], recipe: ConvertRecipe = ConvertRecipe()
) -> Parts:
    """``model`` once for each (name, shapes of its inputs in ONNX order); other inputs take those of ``recipe``.

    Raises BadRecipe for a name without letters or given twice and for a shape that does not fit, UnknownName for an
    input that is not there; both name the signature.
    """
    parts: dict[str, tuple[OnnxModel, ConvertRecipe]] = {}
    for name, shapes in signatures:
        if not name.strip():
            raise BadRecipe("A signature has no name.", "Give each a name of its own.")
        if name in parts:
            raise BadRecipe(f"Two signatures are called '{name}'.", "Give each a name of its own.")
        own = msgspec.structs.replace(recipe, shapes={**recipe.shapes, **shapes})
        try:
            fix_shapes(parse_onnx(model.data), own.shapes)
        except (BadRecipe, UnknownName) as error:
            raise type(error)(f"In the signature '{name}': {error.message}", error.remedy) from error
        parts[name] = model, own
    return parts


def stages(model: OnnxModel, cuts: Sequence[str], recipe: ConvertRecipe = ConvertRecipe()) -> Parts:
    """``model`` cut at the tensors ``cuts`` (in whichever order): stage1, stage2, ... and, whole, ``FULL``.

    What a stage takes from the one before has the shape that this one gives it, so fixed shapes stay fixed. The stages
    in a row give what the whole gives. Raises as ``edgekit.graph.stages.split_stages``, and UnknownName or BadRecipe
    for shapes of ``recipe`` that do not fit.
    """
    whole = with_fixed_shapes(model, recipe.shapes)
    own = msgspec.structs.replace(recipe, shapes={})  # they are in the graph now
    fixed = all(-1 not in spec.shape for spec in whole.inputs)
    parts: dict[str, tuple[OnnxModel, ConvertRecipe]] = {}
    for number, part in enumerate(split_stages(whole, cuts), 1):
        unclear = [spec.name for spec in part.inputs if not spec.shape or -1 in spec.shape]
        made: Shapes = {}
        if fixed and unclear and number > 1:
            # ONNX's shape inference did not get there; the lowering follows more
            made = _made_shapes(*parts[f"stage{number - 1}"])
        unknown = [spec.name for spec in part.inputs if not (spec.shape or spec in whole.inputs or spec.name in made)]
        if unknown:
            raise BadRecipe(f"The shape of the tensor '{unknown[0]}' cannot be told ahead.",
                            "Fix the shapes of the network's inputs, or cut at another tensor.")
        parts[f"stage{number}"] = _reshaped(part, {name: made[name] for name in unclear if name in made}), own
    return {**parts, FULL: (whole, own)}


def _made_shapes(model: OnnxModel, recipe: ConvertRecipe) -> dict[str, tuple[int, ...]]:
    """The shapes of the outputs in ONNX order, as far as they are fixed."""
    from edgekit.converters.onnx_to_litert import to_litert
    from edgekit.runtime.inputs import in_onnx_order

    specs = in_onnx_order(to_litert(model, recipe).model.outputs)
    return {spec.name: spec.shape for spec in specs if spec.shape and min(spec.shape) > 0}


def _reshaped(model: OnnxModel, shapes: Shapes) -> OnnxModel:
    if not shapes:
        return model
    proto = parse_onnx(model.data)
    fix_shapes(proto, shapes)
    return describe(proto)


def convert_signatures(parts: Parts, out: Path | str | None = None) -> PackedSignatures:
    """``parts`` as one LiteRT file, a signature each, written to ``out`` when that is given.

    A tensor that one part makes and a later one takes is stored in the same order of axes in both: where "auto" would
    choose differently, both get ``io_layout`` "nhwc". Parts whose recipe says ``verify`` are compared with their graph.

    Raises UnsupportedOps (every op at once), BadModel, BadRecipe, VerificationFailed, WriteFailed and MissingExtra;
    ``out`` is untouched then.
    """
    from edgekit.converters.onnx_to_litert import SIGNATURE

    if not parts:
        raise BadRecipe("No signatures are given.", "Give at least one.")
    # the first one is what an engine runs when it is asked for none; some look for this name
    ordered = {name: parts[name] for name in sorted(parts, key=lambda name: name != SIGNATURE)}
    conversion, ordered = _packed(ordered)
    assert isinstance(conversion.model, LiteRTModel)
    checked = {name: part for name, part in ordered.items() if part[1].verify}
    reports = compare_signatures(conversion.model, checked) if checked else {}
    if reports:
        conversion = msgspec.structs.replace(conversion, verification=require_passed(_joint(reports)))
    if out is not None:
        write_atomically(Path(out), conversion.model.data)
    return PackedSignatures(conversion, reports, ordered)


def _packed(
    parts: dict[str, tuple[OnnxModel, ConvertRecipe]],
) -> tuple[Conversion, dict[str, tuple[OnnxModel, ConvertRecipe]]]:
    from edgekit.converters.onnx_to_litert import pack_signatures

    while True:  # every round but the last leaves fewer parts with "auto"
        conversion = pack_signatures(parts)
        assert isinstance(conversion.model, LiteRTModel)
        apart = [name for name in _disagreeing(conversion.model.signatures) if parts[name][1].io_layout == "auto"]
        if not apart:
            return conversion, parts
        parts = {name: (model, msgspec.structs.replace(recipe, io_layout="nhwc") if name in apart else recipe)
                 for name, (model, recipe) in parts.items()}


def _disagreeing(signatures: Sequence[Signature]) -> list[str]:
    """Signatures that store a tensor in another order than the one that makes or takes it."""
    made: dict[str, tuple[str, Layout]] = {}
    apart: list[str] = []
    for signature in signatures:
        for spec in signature.inputs:
            maker, layout = made.get(spec.name, ("", spec.layout))
            if layout != spec.layout:
                apart += [maker, signature.name]
        made |= {spec.name: (signature.name, spec.layout) for spec in signature.outputs}
    return apart


def compare_signatures(model: LiteRTModel, parts: Parts) -> dict[str, VerifyReport]:
    """The signatures of ``model`` named in ``parts`` against their graphs, run by ONNX Runtime; by ``parity.compare``'s
    rule.

    Inputs are random (seed 0), except that what an earlier part makes is handed to the later ones that take it.
    Raises as ``parity.compare``, and BadModel for a signature that the file does not have.
    """
    samples: dict[str, Sample] = {}
    seconds: dict[str, float] = {}
    made: Arrays = {}
    for name, (network, recipe) in parts.items():
        started = time.perf_counter()
        given = {spec.name: made[spec.name] for spec in network.inputs
                 if spec.name in made and _fits(spec, made[spec.name], recipe.shapes.get(spec.name))}
        samples[name] = reference_sample(network, recipe.shapes, given=given)
        made |= samples[name][1]
        seconds[name] = time.perf_counter() - started
    got = _run_in_child(model, {name: inputs for name, (inputs, _) in samples.items()})
    reports = {}
    for name, (network, recipe) in parts.items():
        arrays, taken_s = got[name]
        tolerance = with_fair_tolerance(recipe, network).tolerance
        outputs = compare_outputs(samples[name][1], arrays, tolerance)
        reports[name] = VerifyReport(f"The signature '{name}'", "the ONNX model", tolerance, outputs,
                                     all(output.passed for output in outputs), seconds[name] + taken_s)
    return reports


def _fits(spec: TensorSpec, array: Array, fixed: tuple[int, ...] | None) -> bool:
    wanted = fixed or spec.shape
    return (array.dtype == np.dtype(spec.dtype) and len(wanted) == array.ndim
            and all(want in (-1, have) for want, have in zip(wanted, array.shape, strict=True)))


def _joint(reports: Mapping[str, VerifyReport]) -> VerifyReport:
    outputs = tuple(msgspec.structs.replace(output, name=f"{name}:{output.name}")
                    for name, report in reports.items() for output in report.outputs)
    return VerifyReport("The LiteRT model", "the ONNX model", max(report.tolerance for report in reports.values()),
                        outputs, all(output.passed for output in outputs),
                        sum(report.seconds for report in reports.values()))


def run_signatures(model: LiteRTModel, inputs: Mapping[str, Mapping[str, Array]]) -> dict[str, Arrays]:
    """The outputs of each signature in ``inputs`` for its arrays; all in ONNX order. LiteRT runs in a child process.

    Raises BadModel for a signature that the file does not have or that crashes the engine, EngineError where the engine
    refuses the model, MissingExtra where it is not installed.
    """
    return {name: arrays for name, (arrays, _) in _run_in_child(model, inputs).items()}


def _run_in_child(
    model: LiteRTModel, inputs: Mapping[str, Mapping[str, Array]]
) -> dict[str, tuple[Arrays, float]]:
    """Outputs and seconds by signature."""
    from edgekit.runtime.inputs import to_onnx, to_stored

    known = {signature.name: signature for signature in model.signatures}
    for name in inputs:
        if name not in known:
            raise BadModel(f"The model has no signature '{name}'.", f"It has: {', '.join(known) or 'none'}.")
    feeds = {name: to_stored(known[name].inputs, arrays) for name, arrays in inputs.items()}
    found = isolate.call(f"{__name__}:_run", model.data, feeds, subject="The LiteRT model")
    if not isinstance(found, dict):
        raise InternalError(f"The child process returned a {type(found).__name__} instead of arrays.")
    wanted = {name: {spec.name for spec in known[name].outputs} for name in found}
    for name, (arrays, _) in found.items():
        if set(arrays) != wanted[name]:
            raise BadModel(f"The signature '{name}' gives {sorted(arrays)} instead of {sorted(wanted[name])}.")
    return {name: (to_onnx(known[name].outputs, arrays), taken_s) for name, (arrays, taken_s) in found.items()}


def _run(data: bytes, feeds: dict[str, Arrays]) -> dict[str, tuple[Arrays, float]]:
    from edgekit.runtime.engines.litert import import_interpreter
    from edgekit.runtime.inputs import contiguous

    interpreter_class, version = import_interpreter()
    results = {}
    name = ""
    try:
        interpreter = interpreter_class(model_content=data, num_threads=1)
        for name, arrays in feeds.items():
            started = time.perf_counter()
            runner = interpreter.get_signature_runner(name)
            outputs = runner(**{key: contiguous(array) for key, array in arrays.items()})
            results[name] = {key: np.array(value) for key, value in outputs.items()}, time.perf_counter() - started
    except Exception as error:  # the boundary to the engine: its binding raises several types
        where = f"failed on the signature '{name}'" if name else "refused the model"
        raise EngineError(f"{version} {where}: {error}") from error
    return results
