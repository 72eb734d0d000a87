"""From an .edge file to a Runtime: check, choose, hash what is used, and only then let an engine parse it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from edgekit.bundle import Bundle
from edgekit.bundle.manifest import Manifest, Variant
from edgekit.errors import BadBundle, EngineError, MissingExtra, UnknownName
from edgekit.runtime.adaptive_loading import adaptive_engine, open_adaptive, plan_for
from edgekit.runtime.agreement import compare_specs
from edgekit.runtime.choose import best_variants, image_axes
from edgekit.runtime.classify import classifier_of, read_labels
from edgekit.runtime.engines import ENGINES, Session, is_available, open_session
from edgekit.runtime.options import RuntimeOptions
from edgekit.runtime.preprocess import ImageInput
from edgekit.runtime.session import Loaded, Runtime

__all__ = ["load"]

_LOG = logging.getLogger(__name__)
_EngineChoice = Literal["auto", "litert", "ort"]
_PACKAGE = {"litert": "ai-edge-litert", "ort": "onnxruntime"}


def load(path: Path | str, engine: _EngineChoice = "auto", options: RuntimeOptions = RuntimeOptions()) -> Runtime:
    """Open the bundle at ``path`` and load one of its variants, or its adaptive network.

    An AdaptiveRuntime comes when the bundle has ladders and a plan for them (its own, or ``options.plan``), and when it
    has nothing but ladders; unless the options name a variant or a resolution. "auto" takes the plan's engine; without
    a plan LiteRT when the bundle has a fitting variant for it and a package of it can be imported, else ONNX Runtime.
    Only the entries that are used (the models, the labels) are read and hashed, once, before an engine sees them.

    Raises BadBundle (SchemaTooNew, SignatureMismatch), BadKey, UnknownName (an engine, a resolution or a variant that
    the bundle does not have), MissingExtra (no engine installed), BadRecipe (a plan for a bundle without ladders),
    EngineError.
    """
    if engine not in get_args(_EngineChoice):
        raise UnknownName.of("engine", engine, get_args(_EngineChoice))
    bundle = Bundle.open(path, public_key=options.public_key, require_signature=options.require_signature)
    try:
        plan = plan_for(bundle, options)
        chosen = adaptive_engine(bundle.manifest, engine, plan, options)
        if chosen is not None:
            return open_adaptive(bundle, chosen, plan if plan and plan.engine == chosen else None, options)
    except BaseException:
        bundle.close()
        raise
    with bundle:
        return _load_variant(bundle, engine, options)


def _load_variant(bundle: Bundle, engine: _EngineChoice, options: RuntimeOptions) -> Runtime:
    engines = ENGINES if engine == "auto" else (engine,)
    variants = best_variants(bundle.manifest, engines, options.resolution, options.variant)
    variant = _first_available(bundle.manifest, variants) if engine == "auto" else variants[0]
    # All that the manifest alone can have wrong is found before the engine is started.
    loaded = _describe(bundle, variant, options)
    session = _open(bundle, variant, options)
    try:
        compare_specs(f"variant '{variant.id}'", "input", variant.inputs, session.inputs)
        compare_specs(f"variant '{variant.id}'", "output", variant.outputs, session.outputs)
        _prepare(session, variant, loaded.resolution)
        return Runtime(session, loaded, options)
    except BaseException:
        session.close()
        raise


def _first_available(manifest: Manifest, variants: Sequence[Variant]) -> Variant:
    for variant in variants:
        if is_available(variant.engine):
            return variant
    engines = [variant.engine for variant in variants]
    lines = " or ".join(MissingExtra.of(_PACKAGE[engine], engine).remedy.partition(": ")[2] for engine in engines)
    raise MissingExtra(f"The bundle '{manifest.name}' has a variant for {' and '.join(engines)}, and no package for "
                       f"{'either' if len(engines) > 1 else 'it'} can be imported.", f"Install one with: {lines}")


def _describe(bundle: Bundle, variant: Variant, options: RuntimeOptions) -> Loaded:
    manifest = bundle.manifest
    labels = read_labels(bundle)
    resolution = _resolution(manifest, variant, options.resolution)
    return Loaded(manifest, variant, labels, classifier_of(manifest, variant, labels, options.top),
                  _image_input(manifest, variant, resolution), resolution, bundle.signed, bundle.signature_checked)


def _open(bundle: Bundle, variant: Variant, options: RuntimeOptions) -> Session:
    data = bundle.read(variant.entry)
    fixed = all(-1 not in spec.shape for spec in variant.inputs + variant.outputs)
    if variant.engine == "litert" and options.cache_dir is not None and fixed:
        from edgekit.runtime.engines.compiled import CompiledSession

        sha256 = next(entry.sha256 for entry in bundle.manifest.entries if entry.name == variant.entry)
        try:
            return CompiledSession(data, options.threads, Path(options.cache_dir), sha256)
        except (EngineError, MissingExtra) as error:
            _LOG.info("Variant '%s' runs without a weight cache: %s", variant.id, error)
    return open_session(variant.engine, data, options.threads)


def _image_input(manifest: Manifest, variant: Variant, resolution: tuple[int, int] | None) -> ImageInput | None:
    if manifest.preprocess is None:
        return None
    if len(variant.inputs) != 1:
        raise BadBundle(f"The manifest asks for image preprocessing, but variant '{variant.id}' has "
                        f"{len(variant.inputs)} inputs.")
    return ImageInput(variant.inputs[0], manifest.preprocess, resolution)


def _resolution(manifest: Manifest, variant: Variant, wanted: tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) for images: the variant's own, the one asked for, or that of the first test vector."""
    axes = image_axes(variant.inputs[0])
    if len(variant.inputs) != 1 or axes is None or (manifest.preprocess is None and variant.inputs[0].layout != "nhwc"):
        return variant.resolution
    height, width = (variant.inputs[0].shape[axis] for axis in axes)
    usual = wanted or variant.resolution or _test_resolution(manifest)
    if usual is None:
        return (height, width) if height > 0 and width > 0 else None
    return (height if height > 0 else usual[0], width if width > 0 else usual[1])


def _test_resolution(manifest: Manifest) -> tuple[int, int] | None:
    shapes = [blob.shape for vector in manifest.test_vectors[:1] for blob in vector.inputs]
    return (shapes[0][2], shapes[0][3]) if len(shapes) == 1 and len(shapes[0]) == 4 else None


def _prepare(session: Session, variant: Variant, resolution: tuple[int, int] | None) -> None:
    """Where the shape of the first run can be told, let the engine get ready for it now."""
    spec = variant.inputs[0]
    axes = image_axes(spec)
    if len(variant.inputs) != 1 or axes is None or resolution is None or -1 not in spec.shape:
        return
    shape = dict(enumerate(spec.shape)) | dict(zip(axes, resolution, strict=True))
    if shape[0] == -1:
        shape[0] = 1  # one image at a time is the usual case; another batch size costs a resize
    if -1 not in shape.values():
        session.prepare({spec.name: tuple(shape.values())})
