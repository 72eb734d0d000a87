"""Which variant is taken."""

from __future__ import annotations

import pytest

from edgekit.artifacts import TensorSpec
from edgekit.bundle import Manifest, Provenance, Variant
from edgekit.errors import BadRecipe, UnknownName
from edgekit.runtime import RuntimeOptions
from edgekit.runtime.choose import choose_variant, takes_resolution


def variant(name: str, engine: str = "litert", resolution: tuple[int, int] | None = None,
            shape: tuple[int, ...] | None = None) -> Variant:
    height, width = resolution or (-1, -1)
    shape = shape or (1, height, width, 3)
    return Variant(name, engine, "tflite" if engine == "litert" else "onnx", "fp32", "m",  # type: ignore[arg-type]
                   (TensorSpec("x", "float32", shape, "nhwc" if len(shape) == 4 else "onnx"),),
                   (TensorSpec("y", "float32", (1, 2)),), resolution)


def manifest(*variants: Variant) -> Manifest:
    return Manifest(1, "net", "arrays", (), variants, (), Provenance("a", "0" * 64, {}, {}))


SEVERAL = manifest(variant("any"), variant("128", resolution=(128, 128)), variant("224", resolution=(224, 224)),
                   variant("ort", "ort"))


@pytest.mark.parametrize(("resolution", "wanted"), [
    (None, "any"), ((224, 224), "224"), ((128, 128), "128"), ((160, 160), "any"), ((128, 224), "any"),
])
def test_a_fixed_variant_beats_the_dynamic_one(resolution: tuple[int, int] | None, wanted: str) -> None:
    assert choose_variant(SEVERAL, "litert", resolution).id == wanted


def test_only_the_engine_that_was_asked_for() -> None:
    assert choose_variant(SEVERAL, "ort", (224, 224)).id == "ort"
    with pytest.raises(UnknownName, match=r"'ort'.*Known: litert"):
        choose_variant(manifest(variant("any")), "ort")


def test_an_unknown_resolution_lists_the_known_ones() -> None:
    fixed = manifest(variant("128", resolution=(128, 128)), variant("224", resolution=(224, 224)))
    with pytest.raises(UnknownName, match=r"'160x160'.*Known: 128x128, 224x224"):
        choose_variant(fixed, "litert", (160, 160))


def test_a_network_that_takes_no_image_has_no_resolution() -> None:
    with pytest.raises(UnknownName, match="Known: none"):
        choose_variant(manifest(variant("flat", shape=(1, 12))), "litert", (160, 160))


def test_a_variant_by_name() -> None:
    assert choose_variant(SEVERAL, "litert", None, "224").id == "224"
    with pytest.raises(UnknownName, match=r"'ort'.*Known: any, 128, 224"):
        choose_variant(SEVERAL, "litert", None, "ort")
    with pytest.raises(UnknownName, match=r"'128x128'.*Known: 224x224"):
        choose_variant(SEVERAL, "litert", (128, 128), "224")


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
