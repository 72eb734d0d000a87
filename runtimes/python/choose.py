"""Which variant of a bundle runs: pure functions of the manifest and the wishes (runtimes/SPEC.md, "Choosing")."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.artifacts import Engine, TensorSpec
from edgekit.bundle.manifest import Manifest, Variant
from edgekit.errors import UnknownName

__all__ = ["best_variants", "image_axes", "takes_resolution"]


def image_axes(spec: TensorSpec) -> tuple[int, int] | None:
    """The axes of height and width in the stored shape of ``spec``, or None when it is not of rank 4."""
    if len(spec.shape) != 4:
        return None
    return (1, 2) if spec.layout == "nhwc" else (2, 3)


def takes_resolution(variant: Variant, resolution: tuple[int, int]) -> bool:
    """Whether the variant can run at (height, width): fixed to it, or one rank-4 input that leaves both free."""
    if variant.resolution is not None:
        return variant.resolution == resolution
    axes = image_axes(variant.inputs[0]) if len(variant.inputs) == 1 else None
    return axes is not None and all(
        variant.inputs[0].shape[axis] in (-1, side) for axis, side in zip(axes, resolution, strict=True))


def best_variants(manifest: Manifest, engines: Sequence[Engine], resolution: tuple[int, int] | None = None,
                  variant_id: str | None = None) -> tuple[Variant, ...]:
    """The variant to run on each of ``engines`` that has one, in the order of ``engines``; at least one.

    ``variant_id`` names it. Else, with ``resolution``, the first one fixed to exactly that, else the first one that
    takes it; without, the first one listed. Raises UnknownName with what the bundle has.
    """
    variants = [variant for engine in engines for variant in manifest.variants if variant.engine == engine]
    if not variants:
        raise UnknownName.of(f"engine of bundle '{manifest.name}'", " or ".join(engines),
                             dict.fromkeys(variant.engine for variant in manifest.variants))
    named = [variant for variant in variants if variant_id in (None, variant.id)]
    if not named:
        raise UnknownName.of(f"variant of bundle '{manifest.name}' for {' or '.join(engines)}", str(variant_id),
                             [variant.id for variant in variants])
    if resolution is not None:
        # Stable: what is fixed to it moves ahead of what merely takes it, and the order stays otherwise.
        named = sorted(_taking(named, resolution, manifest.name), key=lambda variant: variant.resolution != resolution)
    first = {variant.engine: variant for variant in reversed(named)}
    return tuple(first[engine] for engine in engines if engine in first)


def _taking(variants: Sequence[Variant], resolution: tuple[int, int], bundle: str) -> list[Variant]:
    fitting = [variant for variant in variants if takes_resolution(variant, resolution)]
    if not fitting:
        raise UnknownName.of(f"resolution of bundle '{bundle}'", _text(resolution), _resolutions(variants))
    return fitting


def _resolutions(variants: Sequence[Variant]) -> list[str]:
    fixed = [variant.resolution or _fixed_size(variant) for variant in variants]
    return [_text(resolution) for resolution in sorted({each for each in fixed if each is not None})]


def _fixed_size(variant: Variant) -> tuple[int, int] | None:
    axes = image_axes(variant.inputs[0]) if len(variant.inputs) == 1 else None
    if axes is None:
        return None
    height, width = (variant.inputs[0].shape[axis] for axis in axes)
    return (height, width) if height > 0 and width > 0 else None


def _text(resolution: tuple[int, int]) -> str:
    return f"{resolution[0]}x{resolution[1]}"
