"""Verifying files: bundles by what they carry, bare models by the network they came from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgekit import isolate
from edgekit.artifacts import Array, Engine, Layout, LiteRTModel, OnnxModel, OrtModel, TensorSpec, VerifyReport
from edgekit.errors import BadModel, InternalError, UnknownName
from edgekit.parity import compare, compare_on, compare_outputs, reference_sample, with_fair_tolerance
from edgekit.recipe import ConvertRecipe

if TYPE_CHECKING:
    from edgekit.bundle import BlobRef, Bundle, TestVector, Variant

__all__ = ["verify_bundle", "verify_model_file"]

_SUFFIXES = (".edge", ".tflite", ".ort", ".onnx")


def verify_bundle(
    path: Path,
    reference: OnnxModel | None,
    public_key: Path | str | bytes | None,
    require_signature: bool,
    recipe: ConvertRecipe,
) -> tuple[VerifyReport, ...]:
    """Hashes, signature and plan; variants and ladders on their test vectors, variants against ``reference`` too."""
    from edgekit.bundle import Bundle

    reports: list[VerifyReport] = []
    sample = None if reference is None else reference_sample(reference, recipe.shapes)
    recipe = recipe if reference is None else with_fair_tolerance(recipe, reference)
    with Bundle.open(path, public_key=public_key, require_signature=require_signature) as bundle:
        bundle.verify_all()
        for variant in bundle.manifest.variants:
            for number, vector in enumerate(bundle.manifest.test_vectors):
                reports.append(_on_vector(bundle, variant, vector, number))
            if sample is not None:
                model = _model_of(bundle, variant)
                reports.append(compare_on(model, sample, recipe.tolerance, _name(bundle, variant)))
        reports += _on_ladders(bundle)
    return tuple(reports)


def _on_ladders(bundle: Bundle) -> Iterator[VerifyReport]:
    """Each ladder on each of its test vectors, stage after stage, as a runtime runs it."""
    counts: dict[Engine, int] = {}
    for ladder in bundle.manifest.ladders:
        index = counts.get(ladder.engine, 0)
        counts[ladder.engine] = index + 1
        for number, vector in enumerate(ladder.test_vectors):
            started = time.perf_counter()
            subject = f"Ladder '{ladder.id}' of {bundle.path.name}"
            image = _array(bundle, vector.inputs[0])
            got = isolate.call(f"{__name__}:_exits", str(bundle.path), ladder.engine, index, image, subject=subject)
            if not isinstance(got, dict):
                raise InternalError(f"The child process returned a {type(got).__name__} instead of arrays.")
            outputs = compare_outputs({blob.name: _array(bundle, blob) for blob in vector.outputs}, got,
                                      vector.tolerance)
            yield VerifyReport(subject, f"test vector {number}", vector.tolerance, outputs,
                               all(output.passed for output in outputs), time.perf_counter() - started)


def _exits(path: str, engine: Engine, index: int, image: Array) -> dict[str, Array]:
    """The logits of every stage of a ladder, by name; run in a child process, which checks the hashes again."""
    from edgekit.bundle import Bundle
    from edgekit.runtime.inputs import to_stored
    from edgekit.runtime.stages import Pass, StagedNetwork

    network = StagedNetwork(Bundle.open(path), engine, 1)
    try:
        stages = network.ladders[index].stages
        spec = stages[0].inputs[0]
        stored = to_stored((spec,), {spec.name: image.astype(spec.dtype, copy=False)})[spec.name]
        walk = Pass(network, lambda _ladder: stored)
        return {stage.logits: np.array(walk.advance(index, number)) for number, stage in enumerate(stages)}
    finally:
        network.close()


def _on_vector(bundle: Bundle, variant: Variant, vector: TestVector, number: int) -> VerifyReport:
    sample = ({blob.name: _array(bundle, blob) for blob in vector.inputs},
              {blob.name: _array(bundle, blob) for blob in vector.outputs})
    model, subject = _model_of(bundle, variant), _name(bundle, variant)
    return compare_on(model, sample, vector.tolerance, subject, f"test vector {number}")


def _name(bundle: Bundle, variant: Variant) -> str:
    return f"Variant '{variant.id}' of {bundle.path.name}"


def _array(bundle: Bundle, blob: BlobRef) -> Array:
    # the manifest's check has made sure that the sizes agree
    dtype = np.dtype(blob.dtype).newbyteorder("<")
    return np.frombuffer(bundle.read(blob.entry), dtype).reshape(blob.shape)


def _model_of(bundle: Bundle, variant: Variant) -> LiteRTModel | OrtModel:
    data = bundle.read(variant.entry)
    if variant.engine == "litert":
        return LiteRTModel(data=data, inputs=variant.inputs, outputs=variant.outputs)
    return OrtModel(data=data, format="ort" if variant.format == "ort" else "onnx", inputs=variant.inputs,
                    outputs=variant.outputs)


def verify_model_file(path: Path, reference: OnnxModel, recipe: ConvertRecipe) -> VerifyReport:
    """A .tflite, .ort or .onnx file against ``reference``. Raises UnknownName for another kind of file."""
    if path.suffix not in _SUFFIXES:
        raise UnknownName.of("kind of model file", path.suffix or path.name, _SUFFIXES)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadModel(f"{path} cannot be read: {error.strerror or error}.") from error
    if not data:
        raise BadModel(f"{path} is empty (0 bytes).")
    engine: Engine = "litert" if path.suffix == ".tflite" else "ort"
    inputs, outputs = _specs(engine, data, str(path))
    for layouts in product(_layouts(inputs, reference.inputs), _layouts(outputs, reference.outputs)):
        model = _as_model(path.suffix, data, _laid_out(inputs, layouts[0]), _laid_out(outputs, layouts[1]))
        report = compare(model, reference, recipe)
        if report.passed:
            break
    return msgspec.structs.replace(report, subject=str(path))


Specs = tuple[TensorSpec, ...]


def _as_model(suffix: str, data: bytes, inputs: Specs, outputs: Specs) -> LiteRTModel | OrtModel:
    if suffix == ".tflite":
        return LiteRTModel(data=data, inputs=inputs, outputs=outputs)
    return OrtModel(data=data, format="ort" if suffix == ".ort" else "onnx", inputs=inputs, outputs=outputs)


def _specs(engine: Engine, data: bytes, name: str) -> tuple[Specs, Specs]:
    """Inputs and outputs as the engine tells them."""
    result = isolate.call(f"{__name__}:_read_specs", engine, data, subject=f"The model '{name}'")
    assert isinstance(result, tuple)
    inputs, outputs = result
    return inputs, outputs


def _read_specs(engine: Engine, data: bytes) -> tuple[Specs, Specs]:
    from edgekit.runtime.engines import open_session

    with open_session(engine, data) as session:
        return session.inputs, session.outputs


def _layouts(found: Specs, wanted: Specs) -> list[dict[str, Layout]]:
    """The layouts that the tensors ``found`` can have: one entry, or two to try where the shapes leave it open.

    They follow from the shapes alone, so that files of other converters, which say nothing of layouts, can be verified.
    """
    shapes = {spec.name: spec.shape for spec in wanted}
    certain: dict[str, Layout] = {}
    for spec in found:
        layout = _layout(spec.shape, shapes.get(spec.name, ()))
        if layout is not None:
            certain[spec.name] = layout
    both: tuple[Layout, Layout] = ("nhwc", "onnx")
    open_names = [spec.name for spec in found if spec.name not in certain]
    return [certain | dict.fromkeys(open_names, layout) for layout in (both if open_names else both[:1])]


def _layout(stored: tuple[int, ...], onnx: tuple[int, ...]) -> Layout | None:
    """The order of axes in which more dimensions of ``stored`` equal those of ``onnx``; None when both do as well."""
    if len(stored) != 4 or len(onnx) != 4:
        return "onnx"
    as_it_is = sum(have == want for have, want in zip(stored, onnx, strict=True))
    as_nhwc = sum(have == onnx[axis] for have, axis in zip(stored, (0, 2, 3, 1), strict=True))
    if as_it_is == as_nhwc:
        return None
    return "nhwc" if as_nhwc > as_it_is else "onnx"


def _laid_out(specs: Specs, layouts: dict[str, Layout]) -> Specs:
    return tuple(msgspec.structs.replace(spec, layout=layouts[spec.name]) for spec in specs)
