"""``convert`` and ``build``: the stages in their order.

Each stage takes the work and returns it with one thing more; a stage that fails raises, and since only the last one
touches the disk, nothing half-done is left behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgekit.artifacts import Conversion, Engine, OnnxModel
from edgekit.atomic import write_atomically
from edgekit.bundle import Manifest, write_bundle
from edgekit.errors import InternalError, UnknownName
from edgekit.manifest_parts import check_recipe, make_manifest
from edgekit.parity import Sample, compare, compare_on, reference_sample, require_passed, with_fair_tolerance
from edgekit.recipe import BuildRecipe, ConvertRecipe

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["build", "convert"]

_ENGINES: tuple[Engine, ...] = ("litert", "ort")


@dataclass(frozen=True, slots=True)
class Work:
    """What the stages hand on; everything below ``key`` is filled in by them."""

    source: Path | OnnxModel
    recipe: BuildRecipe
    out: Path | None
    key: Ed25519PrivateKey | None = None
    model: OnnxModel | None = None
    conversions: Mapping[Engine, Conversion] = field(default_factory=dict)
    vectors: tuple[Sample, ...] = ()
    manifest: Manifest | None = None
    blobs: Mapping[str, bytes] = field(default_factory=dict)


Stage = Callable[[Work], Work]


def convert(
    source: Path | str | OnnxModel,
    to: Engine,
    out: Path | str | None = None,
    recipe: ConvertRecipe = ConvertRecipe(),
    on_stage: Callable[[str], None] | None = None,
) -> Conversion:
    """``source`` (an .onnx file or a model in memory) for the engine ``to``, written to ``out`` when that is given.

    With ``recipe.verify`` the result is compared with the source on random inputs, and the report is in it. For "ort",
    ``recipe.ort_format`` "auto" means the .ort format when ``out`` ends so, else ONNX. ``on_stage`` is told the name of
    each stage as it begins.

    Raises BadModel, UnsupportedOps (every op at once), BadRecipe, UnknownName, VerificationFailed, WriteFailed and
    MissingExtra; ``out`` is untouched then.
    """
    if to not in _ENGINES:
        raise UnknownName.of("engine", to, _ENGINES)
    work = Work(
        source=source if isinstance(source, OnnxModel) else Path(source),
        recipe=BuildRecipe(engines=(to,), convert=recipe),
        out=None if out is None else Path(out),
    )
    return _run(work, CONVERT_STAGES, on_stage).conversions[to]


def build(
    source: Path | str | OnnxModel,
    out: Path | str,
    recipe: BuildRecipe = BuildRecipe(),
    key: Ed25519PrivateKey | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Manifest:
    """An .edge bundle at ``out``: a variant for each engine of ``recipe``, test vectors, provenance, signed by ``key``.

    The same source and recipe give the same bytes with the same versions of the tools on the same kind of CPU (the
    answers in the test vectors are ONNX Runtime's, whose last bits depend on the instruction set).

    Raises as ``convert``, and BadRecipe for labels or preprocessing that do not fit the network.
    """
    work = Work(
        source=source if isinstance(source, OnnxModel) else Path(source), recipe=recipe, out=Path(out), key=key
    )
    manifest = _run(work, BUILD_STAGES, on_stage).manifest
    assert manifest is not None
    return manifest


def _run(work: Work, stages: tuple[tuple[str, Stage], ...], on_stage: Callable[[str], None] | None) -> Work:
    for name, stage in stages:
        if on_stage is not None:
            on_stage(name)
        work = stage(work)
    return work


def _load(work: Work) -> Work:
    if isinstance(work.source, OnnxModel):
        return _with_model(work, work.source)
    from edgekit.converters.onnx_model import load_onnx

    return _with_model(work, load_onnx(work.source))


def _with_model(work: Work, model: OnnxModel) -> Work:
    """``work`` with its model, and with the tolerance that is fair for it."""
    convert = with_fair_tolerance(work.recipe.convert, model)
    return dataclasses.replace(work, model=model, recipe=msgspec.structs.replace(work.recipe, convert=convert))


def _check_recipe(work: Work) -> Work:
    check_recipe(_model(work), work.recipe)
    return work


def _lower(work: Work) -> Work:
    return dataclasses.replace(work, conversions={engine: _lowered(work, engine) for engine in work.recipe.engines})


def _lowered(work: Work, engine: Engine) -> Conversion:
    recipe = work.recipe.convert
    if engine == "litert":
        from edgekit.converters.onnx_to_litert import to_litert

        return to_litert(_model(work), recipe)
    from edgekit.converters.onnx_to_ort import to_ort

    as_ort = recipe.ort_format == "ort" or (
        recipe.ort_format == "auto" and work.out is not None and work.out.suffix == ".ort")
    if len(work.recipe.engines) > 1 and recipe.io_layout == "nhwc":
        # the wish is for the engine that has a choice of layouts
        recipe = msgspec.structs.replace(recipe, io_layout="auto")
    return to_ort(_model(work), recipe, "ort" if as_ort else "onnx")


def _make_vectors(work: Work) -> Work:
    seeds = range(work.recipe.test_vectors)
    shapes = work.recipe.convert.shapes
    return dataclasses.replace(work, vectors=tuple(reference_sample(_model(work), shapes, seed) for seed in seeds))


def _compare(work: Work) -> Work:
    recipe = work.recipe.convert
    if not recipe.verify:
        return work
    checked = {
        engine: msgspec.structs.replace(
            conversion, verification=require_passed(compare(conversion.model, _model(work), recipe)))
        for engine, conversion in work.conversions.items()
    }
    return dataclasses.replace(work, conversions=checked)


def _check_vectors(work: Work) -> Work:
    for engine, conversion in work.conversions.items() if work.recipe.convert.verify else ():
        for number, vector in enumerate(work.vectors):
            subject, reference = f"The variant for '{engine}'", f"the ONNX model on test vector {number}"
            tolerance = work.recipe.convert.tolerance
            require_passed(compare_on(conversion.model, vector, tolerance, subject, reference))
    return work


def _describe(work: Work) -> Work:
    name = work.source.name if isinstance(work.source, Path) else f"{work.recipe.name}.onnx"
    manifest, blobs = make_manifest(name, _model(work), work.recipe, work.conversions, work.vectors)
    return dataclasses.replace(work, manifest=manifest, blobs=blobs)


def _write_model(work: Work) -> Work:
    if work.out is not None:
        (conversion,) = work.conversions.values()
        write_atomically(work.out, conversion.model.data)
    return work


def _write_bundle(work: Work) -> Work:
    if work.out is None or work.manifest is None:
        raise InternalError("The bundle was to be written before it was described.")
    return dataclasses.replace(work, manifest=write_bundle(work.out, work.manifest, work.blobs, work.key))


def _model(work: Work) -> OnnxModel:
    if work.model is None:
        raise InternalError("A stage needs the model before it was loaded.")
    return work.model


CONVERT_STAGES: tuple[tuple[str, Stage], ...] = (
    ("load", _load),  # first: everything else looks at the graph; refuses what is not a valid ONNX file
    ("lower", _lower),  # before any engine runs: ops that the target lacks are found without one
    ("verify", _compare),  # before writing: a file that answers wrongly must not come to exist
    ("write", _write_model),  # last, in one step: an interrupted or failed conversion leaves nothing behind
)
BUILD_STAGES: tuple[tuple[str, Stage], ...] = (
    ("load", _load),  # first: as above
    ("check", _check_recipe),  # before the slow stages: labels and preprocessing that cannot fit are seen in the graph
    ("lower", _lower),  # before the test vectors: an unsupported op is reported without running the network
    ("vectors", _make_vectors),  # from the source, before any variant is judged: they are what it is judged by
    ("verify", _check_vectors),  # on the very vectors that the device will use, so that a bundle passes its own check
    ("describe", _describe),  # after the checks: the manifest vouches for what it lists
    ("write", _write_bundle),  # last, in one step: hashes, signature and file appear together or not at all
)
