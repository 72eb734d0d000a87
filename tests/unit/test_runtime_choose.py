"""Which variant is taken."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit.artifacts import TensorSpec
from edgekit.bundle import Manifest, Provenance, Variant
from edgekit.errors import BadRecipe, UnknownName
from edgekit.runtime import RuntimeOptions
from edgekit.runtime.choose import best_variants, takes_resolution


def variant(name: str, engine: str = "litert", resolution: tuple[int, int] | None = None,
            shape: tuple[int, ...] | None = None) -> Variant:
    height, width = resolution or (-1, -1)
    shape = shape or (1, height, width, 3)
    return Variant(name, engine, "tflite" if engine == "litert" else "onnx", "fp32", "m",  # type: ignore[arg-type]
                   (TensorSpec("x", "float32", shape, "nhwc" if len(shape) == 4 else "onnx"),),
                   (TensorSpec("y", "float32", (1, 2)),), resolution)


def manifest(*variants: Variant) -> Manifest:
    return Manifest(1, "net", "arrays", (), variants, (), Provenance("a", "0" * 64, {}, {}))


def choose(bundle: Manifest, engine: str, *wishes: Any) -> Variant:
    (only,) = best_variants(bundle, (engine,), *wishes)  # type: ignore[arg-type]
    return only


SEVERAL = manifest(variant("any"), variant("128", resolution=(128, 128)), variant("224", resolution=(224, 224)),
                   variant("ort", "ort"))


@pytest.mark.parametrize(("resolution", "wanted"), [
    (None, "any"), ((224, 224), "224"), ((128, 128), "128"), ((160, 160), "any"), ((128, 224), "any"),
])
def test_a_fixed_variant_beats_the_dynamic_one(resolution: tuple[int, int] | None, wanted: str) -> None:
    assert choose(SEVERAL, "litert", resolution).id == wanted


def test_only_the_engine_that_was_asked_for() -> None:
    assert choose(SEVERAL, "ort", (224, 224)).id == "ort"
    with pytest.raises(UnknownName, match=r"'ort'.*Known: litert"):
        choose(manifest(variant("any")), "ort")


def test_without_a_resolution_the_first_one_listed_is_taken() -> None:
    fixed_first = manifest(variant("128", resolution=(128, 128)), variant("any"), variant("ort", "ort"))
    assert choose(fixed_first, "litert").id == "128"
    assert choose(fixed_first, "litert", (64, 64)).id == "any"


def test_one_for_each_engine_in_the_order_of_preference() -> None:
    def ids(*wishes: Any) -> list[str]:
        return [each.id for each in best_variants(SEVERAL, ("ort", "litert"), *wishes)]

    assert ids() == ["ort", "any"]
    assert ids((128, 128)) == ["ort", "128"]
    assert ids(None, "224") == ["224"]
    only_128 = manifest(variant("128", resolution=(128, 128)), variant("ort", "ort"))
    assert [each.id for each in best_variants(only_128, ("litert", "ort"), (64, 64))] == ["ort"]
    with pytest.raises(UnknownName, match=r"for litert or ort 'nope'.*Known: 128, ort"):
        best_variants(only_128, ("litert", "ort"), None, "nope")


def test_an_unknown_resolution_lists_the_known_ones() -> None:
    fixed = manifest(variant("128", resolution=(128, 128)), variant("224", resolution=(224, 224)))
    with pytest.raises(UnknownName, match=r"'160x160'.*Known: 128x128, 224x224"):
        choose(fixed, "litert", (160, 160))


def test_a_network_that_takes_no_image_has_no_resolution() -> None:
    with pytest.raises(UnknownName, match="Known: none"):
        choose(manifest(variant("flat", shape=(1, 12))), "litert", (160, 160))


def test_a_variant_by_name() -> None:
    assert choose(SEVERAL, "litert", None, "224").id == "224"
    with pytest.raises(UnknownName, match=r"'ort'.*Known: any, 128, 224"):
        choose(SEVERAL, "litert", None, "ort")
    with pytest.raises(UnknownName, match=r"'128x128'.*Known: 224x224"):
        choose(SEVERAL, "litert", (128, 128), "224")


def test_a_partly_fixed_size_takes_what_fits() -> None:
    strip = variant("strip", shape=(1, 32, -1, 3))
    assert takes_resolution(strip, (32, 300))
    assert not takes_resolution(strip, (33, 300))


@pytest.mark.parametrize("wrong", [
    {"threads": 0}, {"threads": True}, {"threads": 100_000}, {"threads": 1.5}, {"top": 0}, {"resolution": (0, 5)},
    {"resolution": (5,)}, {"array_layout": "nhwc"},
])
def test_impossible_options_cannot_be_built(wrong: dict[str, object]) -> None:
    with pytest.raises(BadRecipe):
        RuntimeOptions(**wrong)  # type: ignore[arg-type]
