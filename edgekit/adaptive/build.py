"""``build_adaptive``: a network with several exits becomes ladders, one for each resolution, in a bundle.

Each stage takes the work and returns it with one thing more; only the last one touches the disk.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgekit.adaptive.chain import run_chains
from edgekit.adaptive.recipe import AdaptiveRecipe
from edgekit.adaptive.split_onnx import plan_split
from edgekit.artifacts import Array, Engine, LiteRTModel, OnnxModel, OutputError, VerifyReport
from edgekit.bundle import SCHEMA_VERSION, Manifest, Provenance, TestVector, write_bundle
from edgekit.bundle.adaptive import Ladder, Stage
from edgekit.errors import BadRecipe, InternalError
from edgekit.manifest_parts import add_blob, check_recipe, tool_versions
from edgekit.parity import Sample, compare_outputs, reference_sample, require_passed, run_isolated
from edgekit.recipe import BuildRecipe, ConvertRecipe
from edgekit.sample_inputs import random_inputs

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from edgekit.adaptive.quantized import Calibration

__all__ = ["build_adaptive"]

Resolution = tuple[int, int]
Source = Path | str | OnnxModel
_LABELS = "labels.txt"
#: of the range: what two correct engines differ by on an int8 network, and the steps of the last layer that make up
_QUANTIZED_TOLERANCE, _STEPS = 0.02, 4


@dataclass(frozen=True, slots=True)
class _Work:
    """What the stages hand on; what stands below ``calibration`` is filled in by them.

    ``models``: the network at each resolution, the same one or with other weights. ``wholes``: the int8 networks in one
    piece. ``samples``: images and the answers that the bundle will hold, by
    resolution. ``steps``: the width of a step of each exit's logits, 0 for floats.
    """

    models: Mapping[Resolution, OnnxModel]
    source_name: str
    recipe: AdaptiveRecipe
    exits: tuple[str, ...]
    calibration: Calibration | None
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    ladders: tuple[Ladder, ...] = ()
    samples: Mapping[Resolution, tuple[Sample, ...]] = field(default_factory=dict)
    wholes: Mapping[Resolution, LiteRTModel] = field(default_factory=dict)
    steps: Mapping[str, float] = field(default_factory=dict)


def build_adaptive(
    source: Source | Mapping[Resolution, Source],
    out: Path | str,
    recipe: AdaptiveRecipe,
    key: Ed25519PrivateKey | None = None,
    calibration: Calibration | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Manifest:
    """An .edge bundle at ``out`` with a ladder for each engine and resolution of ``recipe``, signed by ``key``.

    ``source``: an ONNX network with one image as input (1 or dynamic, C, H, W; float32) and an output with logits
    (N, classes) for each exit; or one such network for each resolution, say with heads of its own: weights that are the
    same, as those of a shared trunk, are stored once. ``calibration``, for int8: a folder of images, a file of arrays,
    uint8 images (N, H, W, 3), arrays as the network sees them (for a single resolution), or "random". The bundle has no
    plan yet.

    Before anything is written, the stages in a row are run on the test vectors: fp32 against ONNX Runtime on the
    source, int8 against the quantized network in one piece, whose bits they must give.

    Raises BadModel, BadRecipe, BadInput, UnknownName, UnsupportedOps, VerificationFailed, WriteFailed, MissingExtra;
    ``out`` is untouched then.
    """
    models, name = _loaded(source, recipe)
    outputs = next(iter(models.values())).outputs
    work = _Work(models, name, recipe, recipe.exits or tuple(spec.name for spec in outputs), calibration)
    _check_alike(models)
    for resolution in recipe.resolutions:
        _check(work, resolution)
    for title, stage in _STAGES:
        if on_stage is not None:
            on_stage(title)
        work = stage(work)
    if on_stage is not None:
        on_stage("write")
    manifest, blobs = _described(work)
    return write_bundle(Path(out), manifest, blobs, key)


def _loaded(source: Source | Mapping[Resolution, Source], recipe: AdaptiveRecipe,
            ) -> tuple[dict[Resolution, OnnxModel], str]:
    if isinstance(source, Mapping):
        if set(source) != set(recipe.resolutions):
            raise BadRecipe(f"There are networks for {sorted(source)}, the recipe has {sorted(recipe.resolutions)}.",
                            "Give one for each resolution.")
        models = {resolution: _read(source[resolution]) for resolution in recipe.resolutions}
        first = source[recipe.resolutions[-1]]
    else:
        models, first = dict.fromkeys(recipe.resolutions, _read(source)), source
    return models, f"{recipe.name}.onnx" if isinstance(first, OnnxModel) else Path(first).name


def _read(source: Source) -> OnnxModel:
    if isinstance(source, OnnxModel):
        return source
    from edgekit.converters.onnx_model import load_onnx

    return load_onnx(Path(source))


def _check_alike(models: Mapping[Resolution, OnnxModel]) -> None:
    """Ladders must be interchangeable: same image, same exits."""
    kinds = {(tuple((spec.name, spec.dtype, spec.shape[:2]) for spec in model.inputs),
              tuple(spec.name for spec in model.outputs)) for model in models.values()}
    if len(kinds) > 1:
        raise BadRecipe("The networks of the resolutions have different inputs or outputs.",
                        "Give them the same names, channels and exits.")


def _check(work: _Work, resolution: Resolution) -> None:
    """Everything that can be seen without converting."""
    model = work.models[resolution]
    outputs = {spec.name: spec for spec in model.outputs}
    image = model.inputs[0] if len(model.inputs) == 1 else None
    if image is None or len(image.shape) != 4 or image.dtype != "float32" or image.shape[0] not in (-1, 1):
        shown = ", ".join(f"'{spec.name}' {spec.dtype} {list(spec.shape)}" for spec in model.inputs)
        raise BadRecipe(f"The network takes {shown}.", "It must take one float32 image of shape 1, C, H, W.")
    if image.shape[1] < 1:
        raise BadRecipe(f"The number of channels of the input '{image.name}' is not fixed: {list(image.shape)}.",
                        "Export the network with a fixed one.")
    plan_split(model, work.exits)  # on the source, whose nodes the person knows, and before the slow stages
    if any(have not in (-1, want) for have, want in zip(image.shape[2:], resolution, strict=True)):
        raise BadRecipe(f"The input '{image.name}' is {list(image.shape)} and cannot take "
                        f"{resolution[0]} x {resolution[1]} pixels.", "Export the network with dynamic sides.")
    plain = BuildRecipe(preprocess=work.recipe.preprocess, labels=work.recipe.labels,
                        convert=ConvertRecipe(shapes=_shapes(work, resolution)))
    for name in work.exits:
        check_recipe(msgspec.structs.replace(model, outputs=(outputs[name],)), plain)


def _shapes(work: _Work, resolution: Resolution) -> dict[str, tuple[int, ...]]:
    image = work.models[resolution].inputs[0]
    return {image.name: (1, image.shape[1], *resolution)}


def _answer(work: _Work) -> _Work:
    """Test vectors and what the source says to them."""
    samples = {}
    for resolution in work.recipe.resolutions:
        shapes = _shapes(work, resolution)
        drawn = [_sample(work.models[resolution], shapes, seed) for seed in range(work.recipe.test_vectors)]
        samples[resolution] = tuple((inputs, {name: outputs[name] for name in work.exits}) for inputs, outputs in drawn)
    for name in work.exits:
        logits = samples[work.recipe.resolutions[0]][0][1][name]
        if logits.ndim != 2 or logits.dtype != np.float32:
            raise BadRecipe(f"The exit '{name}' gives {logits.dtype} of shape {list(logits.shape)}.",
                            "An exit gives logits: float32 of shape (batch, classes).")
    if len({samples[work.recipe.resolutions[0]][0][1][name].shape[1] for name in work.exits}) > 1:
        raise BadRecipe("The exits have different numbers of classes.", "Name those of one task.")
    return dataclasses.replace(work, samples=samples)


def _sample(model: OnnxModel, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Sample:
    """A random image whose values float16 holds, since images are most of what ladders add to a bundle."""
    drawn = random_inputs(model.inputs, shapes, seed)
    halves = {name: array.astype(np.float16).astype(array.dtype) for name, array in drawn.items()}
    return reference_sample(model, shapes, given=halves)


def _make_ladders(work: _Work) -> _Work:
    for engine in work.recipe.engines:
        work = _litert_ladders(work) if engine == "litert" else _ort_ladders(work)
    return work


def _litert_ladders(work: _Work) -> _Work:
    from edgekit.adaptive.litert_stages import pack_stages
    from edgekit.adaptive.quantized import logit_steps, quantize_resolutions
    from edgekit.converters.onnx_to_litert import to_litert

    recipe = work.recipe
    models: dict[Resolution, LiteRTModel] = {}
    for resolution in _ordered(recipe):
        model = to_litert(work.models[resolution], ConvertRecipe(shapes=_shapes(work, resolution))).model
        assert isinstance(model, LiteRTModel)
        models[resolution] = model
    if recipe.precision == "int8":
        models = quantize_resolutions(models, recipe.quantize, work.calibration, recipe.preprocess)
        steps = [logit_steps(model, work.exits) for model in models.values()]
        work = dataclasses.replace(work, wholes=models,
                                   steps={name: max(each[name] for each in steps) for name in work.exits})
    packed, signatures = pack_stages({_prefix(resolution): model for resolution, model in models.items()}, work.exits)
    entry = f"models/litert-{recipe.precision}.tflite"
    ladders = tuple(
        _ladder("litert", recipe.precision, resolution, tuple(
            Stage(entry, signature.name, signature.inputs, signature.outputs, name)
            for name, signature in zip(work.exits, signatures[_prefix(resolution)], strict=True)))
        for resolution in models)
    return dataclasses.replace(work, blobs={**work.blobs, entry: packed.data}, ladders=(*work.ladders, *ladders))


def _ort_ladders(work: _Work) -> _Work:
    from edgekit.adaptive.ort_stages import Weights, ort_stages, shared_graph

    weights = Weights("models/ort-fp32.weights")
    models = {}
    for resolution in _ordered(work.recipe):
        (shape,) = _shapes(work, resolution).values()
        models[resolution] = ort_stages(work.models[resolution], work.exits, shape, weights)
    blobs: dict[str, bytes] = {}
    stages: dict[Resolution, list[Stage]] = {resolution: [] for resolution in models}
    for number, name in enumerate(work.exits):
        shared = shared_graph([made[number].data for made in models.values()])
        for resolution, made in models.items():
            entry = f"models/ort-fp32-{'' if shared else _prefix(resolution)}s{number}.onnx"
            blobs[entry] = shared or made[number].data
            stages[resolution].append(Stage(entry, "", made[number].inputs, made[number].outputs, name))
    if weights.data:
        blobs[weights.location] = weights.data
    ladders = tuple(
        msgspec.structs.replace(_ladder("ort", "fp32", resolution, tuple(own)),
                                weights=weights.location if weights.data else None)
        for resolution, own in stages.items())
    return dataclasses.replace(work, blobs={**work.blobs, **blobs}, ladders=(*work.ladders, *ladders))


def _ordered(recipe: AdaptiveRecipe) -> list[Resolution]:
    return sorted(recipe.resolutions, key=lambda resolution: (resolution[0] * resolution[1], resolution))


def _prefix(resolution: Resolution) -> str:
    return f"r{resolution[0]}x{resolution[1]}"


def _ladder(engine: Engine, precision: str, resolution: Resolution, stages: tuple[Stage, ...]) -> Ladder:
    return Ladder(id=f"{engine}-{precision}-{resolution[0]}x{resolution[1]}", engine=engine,
                  format="tflite" if engine == "litert" else "onnx", precision=precision, resolution=resolution,
                  stages=stages)


def _verify(work: _Work) -> _Work:
    """The stages in a row against what must come out."""
    if work.wholes:
        work = dataclasses.replace(work, samples=_answers_of_wholes(work))
    for engine in work.recipe.engines:
        ladders = [ladder for ladder in work.ladders if ladder.engine == engine]
        images = [[next(iter(inputs.values())) for inputs, _ in work.samples[ladder.resolution]] for ladder in ladders]
        for ladder, answers in zip(ladders, run_chains(ladders, work.blobs, images), strict=True):
            for number, (got, (_, want)) in enumerate(zip(answers, work.samples[ladder.resolution], strict=True)):
                require_passed(_compared(work, ladder, number, want, got))
    return work


def _answers_of_wholes(work: _Work) -> dict[Resolution, tuple[Sample, ...]]:
    found = {}
    for resolution, whole in work.wholes.items():
        specs = whole.inputs, whole.outputs
        found[resolution] = tuple(
            (inputs, {name: array for name, array in
                      run_isolated("litert", whole.data, specs, inputs, "The quantized network").items()
                      if name in work.exits})
            for inputs, _ in work.samples[resolution])
    return found


def _compared(
    work: _Work, ladder: Ladder, number: int, want: Mapping[str, Array], got: Mapping[str, Array]
) -> VerifyReport:
    outputs: tuple[OutputError, ...] = compare_outputs(want, got, work.recipe.tolerance)
    if ladder.precision == "int8":
        outputs = tuple(msgspec.structs.replace(output, passed=bool(np.array_equal(want[output.name],
                                                                                   got[output.name])))
                        for output in outputs)
    reference = "the quantized network in one piece" if ladder.precision == "int8" else "the ONNX model"
    return VerifyReport(
        subject=f"The ladder '{ladder.id}'", reference=f"{reference} on test vector {number}",
        tolerance=0.0 if ladder.precision == "int8" else work.recipe.tolerance, outputs=outputs,
        passed=all(output.passed for output in outputs), seconds=0.0)


_STAGES: tuple[tuple[str, Callable[[_Work], _Work]], ...] = (
    ("vectors", _answer),  # first: the sizes that the network refuses, and exits that are none, are seen here
    ("stages", _make_ladders),  # lower, quantize, cut
    ("verify", _verify),  # before writing: a bundle whose stages answer otherwise must not come to exist
)


def _described(work: _Work) -> tuple[Manifest, dict[str, bytes]]:
    blobs = dict(work.blobs)
    ladders = tuple(msgspec.structs.replace(ladder, test_vectors=_vectors(work, ladder, blobs))
                    for ladder in work.ladders)
    recipe = work.recipe
    if recipe.labels:
        blobs[_LABELS] = "".join(f"{label}\n" for label in recipe.labels).encode()
    plain = msgspec.json.encode(msgspec.structs.replace(recipe, labels=()))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=recipe.name,
        task="classification" if recipe.labels else "arrays",
        entries=(),
        variants=(),
        test_vectors=(),
        provenance=Provenance(
            source_name=work.source_name,
            source_sha256=_sha256(work.models),
            recipe=msgspec.json.decode(plain, type=dict[str, object]),
            tools=tool_versions(),
        ),
        preprocess=recipe.preprocess,
        labels_entry=_LABELS if recipe.labels else None,
        ladders=ladders,
    )
    return manifest, blobs


def _sha256(models: Mapping[Resolution, OnnxModel]) -> str:
    """Of the network; of several, that of their hashes in the order of the recipe."""
    found = list(dict.fromkeys(hashlib.sha256(model.data).hexdigest() for model in models.values()))
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _vectors(work: _Work, ladder: Ladder, blobs: dict[str, bytes]) -> tuple[TestVector, ...]:
    """Engines share the image; their answers differ only where they are quantized, and then there is one engine."""
    made = []
    for number, (inputs, outputs) in enumerate(work.samples[ladder.resolution]):
        folder = f"test/{_prefix(ladder.resolution)}/{number}"
        if set(outputs) != set(work.exits):
            raise InternalError(f"The ladder '{ladder.id}' has answers for {sorted(outputs)}.")
        made.append(TestVector(
            inputs=tuple(add_blob(f"{folder}/in{at}.bin", name, array.astype(np.float16), blobs)
                         for at, (name, array) in enumerate(inputs.items())),
            outputs=tuple(add_blob(f"{folder}/out{at}.bin", name, outputs[name], blobs)
                          for at, name in enumerate(work.exits)),
            tolerance=_tolerance(work, ladder, outputs)))
    return tuple(made)


def _tolerance(work: _Work, ladder: Ladder, outputs: Mapping[str, Array]) -> float:
    if ladder.precision != "int8":
        return work.recipe.tolerance
    spread = {name: float(np.ptp(array)) for name, array in outputs.items()}
    steps = [_STEPS * work.steps[name] / spread[name] for name in work.exits if spread[name] > 0]
    return min(max(_QUANTIZED_TOLERANCE, *steps), 0.5) if steps else _QUANTIZED_TOLERANCE

