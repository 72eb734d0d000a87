"""From the ladders and the plan of an opened bundle to an AdaptiveRuntime (runtimes/SPEC.md, 3.6)."""

from __future__ import annotations

from typing import Literal

from edgekit.artifacts import Engine
from edgekit.bundle import Bundle
from edgekit.bundle.adaptive import Plan
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.plan import ladders_of
from edgekit.bundle.sidecar import read_plan
from edgekit.errors import BadRecipe, MissingExtra
from edgekit.runtime.adaptive import AdaptiveRuntime, as_variant, largest
from edgekit.runtime.chain import LadderInput
from edgekit.runtime.classify import classifier_of, read_labels
from edgekit.runtime.engines import ENGINES, is_available
from edgekit.runtime.options import RuntimeOptions
from edgekit.runtime.session import Loaded
from edgekit.runtime.stages import StagedNetwork

__all__ = ["adaptive_engine", "open_adaptive", "plan_for"]


def plan_for(bundle: Bundle, options: RuntimeOptions) -> Plan | None:
    """The plan of the options' file, else the bundle's own. Raises BadBundle, SignatureMismatch, BadKey, BadRecipe."""
    if options.plan is None:
        return bundle.plan()
    if not bundle.manifest.ladders:
        raise BadRecipe(f"A plan was given, but the bundle '{bundle.manifest.name}' has no ladders.",
                        "Only adaptive bundles are planned: leave the plan out.")
    return read_plan(options.plan, bundle.manifest, public_key=options.public_key,
                     require_signature=options.require_signature)


def adaptive_engine(manifest: Manifest, engine: Engine | Literal["auto"], plan: Plan | None,
                    options: RuntimeOptions) -> Engine | None:
    """The engine whose ladders are to run; None when a variant is. Raises BadRecipe, MissingExtra."""
    if not manifest.ladders:
        return None
    if options.variant is not None or options.resolution is not None:
        if manifest.variants:
            return None
        raise BadRecipe(f"The bundle '{manifest.name}' has no variants, of which one could be named.",
                        "Its plan chooses the resolution; AdaptiveRuntime.fixed runs one point.")
    if plan is not None and engine in ("auto", plan.engine) and (engine != "auto" or is_available(plan.engine)):
        return plan.engine
    if options.plan is not None and plan is not None:
        if engine == "auto":
            raise MissingExtra(f"The plan '{options.plan}' is for {plan.engine}, no package of which can be imported.",
                               f"Install it with: pip install 'edgekit-sdk[{plan.engine}]'")
        raise BadRecipe(f"The plan '{options.plan}' is for {plan.engine}, but {engine} was asked for.",
                        "Leave the engine or the plan out.")
    wanted: tuple[Engine, ...] = ENGINES if engine == "auto" else (engine,)
    if any(variant.engine in wanted for variant in manifest.variants):
        return None
    having = [each for each in wanted if ladders_of(manifest, each)]
    if engine != "auto":
        # Without ladders of this engine either, the choice of variants says what there is.
        return having[0] if having else None
    return next((each for each in having if is_available(each)), having[0])


def open_adaptive(bundle: Bundle, engine: Engine, plan: Plan | None, options: RuntimeOptions) -> AdaptiveRuntime:
    """The runtime for the ladders of ``engine``, which takes over ``bundle``. Raises BadBundle, EngineError."""
    manifest = bundle.manifest
    ladder = ladders_of(manifest, engine)[largest(ladders_of(manifest, engine))]
    variant = as_variant(ladder, len(ladder.stages) - 1)
    labels = read_labels(bundle)
    image = LadderInput(ladder, manifest.preprocess, options.array_layout == "stored").image
    loaded = Loaded(manifest, variant, labels, classifier_of(manifest, variant, labels, options.top), image,
                    ladder.resolution, bundle.signed, bundle.signature_checked, len(ladder.stages) - 1)
    network = StagedNetwork(bundle, engine, options.threads)
    try:
        return AdaptiveRuntime(network, loaded, plan, options)
    except BaseException:
        network.close()
        raise
