"""How a bundle is opened and run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.errors import BadRecipe

__all__ = ["RuntimeOptions"]

_MAX_THREADS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeOptions:
    """What ``load`` may be told. Impossible values raise BadRecipe.

    ``threads``: of the engine. ``public_key`` (PEM bytes, or the path of a PEM file) asks for a right signature;
    ``require_signature`` makes it an error to have given no key.
    ``resolution``: (height, width) in pixels of the network's input. None takes the first variant that the bundle
    lists and, where its size is free, that of the bundle's first test vector. ``variant``: the id of the one to take.
    ``array_layout``: the order of axes of the arrays that go into and come out of ``run``: "onnx" is that of the ONNX
    graph, the same for every engine; "stored" is the variant's own, which saves a transposition.
    ``top``: how many answers a classifier gives. ``cache_dir``: a folder, this user's alone, for the prepared weights
    of LiteRT models with fixed shapes (edgekit.runtime.engines.compiled says what that is worth).
    ``plan``: the path of an .edgeplan file, which is used in place of the plan in an adaptive bundle. ``touch_up``: let
    the thresholds of the plan follow the inputs (edgekit.runtime.touchup).
    """

    threads: int = 1
    public_key: Path | str | bytes | None = None
    require_signature: bool = False
    resolution: tuple[int, int] | None = None
    variant: str | None = None
    array_layout: Literal["onnx", "stored"] = "onnx"
    top: int = 5
    cache_dir: Path | str | None = None
    plan: Path | str | None = None
    touch_up: bool = False

    def __post_init__(self) -> None:
        if not _is_count(self.threads) or self.threads > _MAX_THREADS:
            raise BadRecipe(f"The number of threads is {self.threads!r}.", f"It must be from 1 to {_MAX_THREADS}.")
        if not _is_count(self.top):
            raise BadRecipe(f"The number of answers (top) is {self.top!r}.", "It must be at least 1.")
        if self.resolution is not None and not _is_resolution(self.resolution):
            raise BadRecipe(f"The resolution is {self.resolution!r}.", "Give (height, width), both at least 1.")
        if self.plan is not None and (self.variant is not None or self.resolution is not None):
            raise BadRecipe("A plan was given, and a variant or a resolution.",
                            "The plan chooses the resolution: leave the others out.")
        if self.array_layout not in ("onnx", "stored"):
            raise BadRecipe(f"The array layout is {self.array_layout!r}.", "Known: onnx, stored.")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_resolution(value: tuple[int, ...]) -> bool:
    return len(value) == 2 and all(_is_count(side) for side in value)
