"""The part of ``edgekit build`` that makes adaptive bundles: a network with several exits at several resolutions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from edgekit.adaptive.recipe import AdaptiveRecipe
from edgekit.bundle.check import ITEM_BYTES
from edgekit.bundle.manifest import Manifest
from edgekit.cli.draw import Table, Text
from edgekit.cli.files import megabytes
from edgekit.cli.options import load_key
from edgekit.errors import BadRecipe

__all__ = ["adaptive_options", "adaptive_recipe", "build_adaptive_file", "is_adaptive", "ladders"]

F = TypeVar("F", bound=Callable[..., Any])
#: options of plain bundles that have no meaning here
_PLAIN_ONLY = {"shape": "--shape", "io_layout": "--io-layout", "no_verify": "--no-verify"}


def _resolutions(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[tuple[int, int], ...] | None:
    """"128,160x224" as (height, width) each."""
    if value is None:
        return None
    found = []
    for part in value.split(","):
        sides = part.strip().split("x")
        if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
            raise click.BadParameter(f"'{part}' is not a size such as 224 or 192x256 (height x width).")
        found.append((int(sides[0]), int(sides[-1])))
    return tuple(found)


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"'{value}' is not a list of names such as exit0,exit1.")
    return names


def adaptive_options(function: F) -> F:
    """``--resolutions``, ``--exits``, ``--precision``, ``--data``."""
    for option in (
        click.option("--data", "--calibration", "calibration", metavar="DATA",
                     help="For int8: a folder of images, a .npz or .npy file (uint8 images, or arrays as the network "
                          "sees them), or random."),
        click.option("--precision", type=click.Choice(["fp32", "int8"]), help="Of an adaptive bundle's stages."),
        click.option("--exits", callback=_names, metavar="NAME,NAME",
                     help="Outputs with logits, from shallow to deep; with --resolutions, all outputs by default."),
        click.option("--resolutions", callback=_resolutions, metavar="SIZE,HxW",
                     help="Make an adaptive bundle: the network in stages at each of these sizes."),
    ):
        function = option(function)
    return function


def is_adaptive(options: dict[str, Any]) -> bool:
    """Whether the person asks for an adaptive bundle. Raises BadRecipe for options that need --resolutions."""
    if options["resolutions"] is not None:
        return True
    for name, shown in (("exits", "--exits"), ("precision", "--precision"), ("calibration", "--data")):
        if options[name] is not None:
            raise BadRecipe(f"{shown} is for adaptive bundles.", "Give --resolutions, such as --resolutions 160,224.")
    return False


def adaptive_recipe(
    source: Path, recipe_file: Path | None, options: dict[str, Any], typed: Collection[str]
) -> AdaptiveRecipe:
    """The recipe of --recipe, or the default one, with what the options of adaptive bundles say instead.

    ``typed``: options that stand on the command line. Raises BadRecipe.
    """
    odd = [shown for name, shown in _PLAIN_ONLY.items() if name in typed]
    if odd:
        raise BadRecipe(f"{odd[0]} is not for adaptive bundles.",
                        "Their sizes are those of --resolutions, images are stored as N, H, W, C for LiteRT, and they "
                        "are always verified.")
    changes = {name: options[name] for name in ("resolutions", "exits", "precision") if options[name] is not None}
    if "tolerance" in typed:
        changes["tolerance"] = options["tolerance"]
    if recipe_file is None:
        return AdaptiveRecipe(**{"name": source.stem or "model", **changes})
    return msgspec.structs.replace(_read(recipe_file), **changes)


def _read(path: Path) -> AdaptiveRecipe:
    try:
        return msgspec.json.decode(path.read_bytes(), type=AdaptiveRecipe)
    except OSError as error:
        raise BadRecipe(f"The recipe '{path}' cannot be read: {error.strerror or error}.", "Check the path.") from error
    except msgspec.MsgspecError as error:
        raise BadRecipe(f"The recipe '{path}' is not right: {error}.", "docs/adaptive.md lists its fields.") from error


def build_adaptive_file(
    source: Path, output: Path, recipe: AdaptiveRecipe, key: Path | None, calibration: str | None
) -> Manifest:
    """The work, in a process of its own."""
    from edgekit.adaptive import build_adaptive

    return build_adaptive(source, output, recipe, load_key(key), calibration)


def ladders(manifest: Manifest) -> Table:
    """One row for each ladder: its stages and what is handed from one to the next."""
    table = Table("ladder", "engine", "precision", ">stages", ">handed on")
    for ladder in manifest.ladders:
        carried = [sum(_bytes(spec.dtype, spec.shape) for spec in stage.inputs) for stage in ladder.stages[1:]]
        table.add_row(Text(ladder.id), ladder.engine, Text(ladder.precision), str(len(ladder.stages)),
                      ", ".join(megabytes(size) for size in carried))
    return table


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return prod(max(dim, 1) for dim in shape) * ITEM_BYTES[dtype]
