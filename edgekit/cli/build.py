"""``edgekit build``: ONNX to one .edge bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from edgekit.adaptive.recipe import AdaptiveRecipe
from edgekit.bundle.manifest import Manifest
from edgekit.cli.build_adaptive import adaptive_options, adaptive_recipe, build_adaptive_file, is_adaptive, ladders
from edgekit.cli.draw import Drawing, Group, Text
from edgekit.cli.files import digest, megabytes, refuse_same_file
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import (
    PATH,
    io_layout_option,
    key_option,
    load_key,
    output_option,
    shape_option,
    tolerance_option,
)
from edgekit.errors import BadInput, BadRecipe
from edgekit.recipe import BuildRecipe, Preprocess

__all__ = ["Build", "build", "build_file"]


S = TypeVar("S", bound=msgspec.Struct)


class Build(msgspec.Struct, frozen=True):
    """What was written; ``manifest`` is the one inside the file."""

    source: str
    output: str
    size_bytes: int
    sha256: str
    signed: bool
    manifest: Manifest


def _draw(result: Build) -> Drawing:
    from edgekit.cli.tables import variants

    manifest = result.manifest
    state = "signed" if result.signed else "not signed"
    vectors = len(manifest.test_vectors) + sum(len(ladder.test_vectors) for ladder in manifest.ladders)
    head = Text(f"{result.output}   {megabytes(result.size_bytes)}, {manifest.task}, {state}\n"
                f"{vectors} test vector(s), {len(manifest.entries)} entries\n")
    return Group(head, *([variants(manifest)] if manifest.variants else []),
                 *([ladders(manifest)] if manifest.ladders else []))


def _floats(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    try:
        return None if value is None else tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}' is not a list of numbers such as 127,127,127.") from None


@verb("build", draw=_draw)
@click.argument("source", metavar="IN.onnx", type=PATH)
@output_option
@click.option("--recipe", "recipe_file", type=PATH, metavar="FILE.json",
              help="A build recipe; the options below change it.")
@click.option("--name", help="The bundle's name; by default that of the source file.")
@click.option("--engine", "engines", type=click.Choice(["litert", "ort"]), multiple=True,
              help="Engines to hold a model for; both by default.")
@click.option("--labels", type=PATH, help="A text file with one label a line; makes the bundle a classifier.")
@click.option("--colour", type=click.Choice(["rgb", "bgr", "gray"]), help="Colour order that the network wants.")
@click.option("--resize", type=click.Choice(["center_crop", "stretch"]), help="How an image becomes the input's size.")
@click.option("--crop-fraction", type=float, help="Part of the short side that center_crop keeps.")
@click.option("--mean", callback=_floats, metavar="R,G,B", help="Means in pixel units (0 to 255).")
@click.option("--std", callback=_floats, metavar="R,G,B", help="Deviations in pixel units (0 to 255).")
@click.option("--test-vectors", type=int, help="Test vectors to put in (1 to 16).")
@adaptive_options
@shape_option
@io_layout_option
@tolerance_option
@click.option("--no-verify", is_flag=True, help="Do not run the models against the original.")
@key_option
def build(
    frame: Frame, source: Path, output: Path, recipe_file: Path | None, key: Path | None, labels: Path | None,
    **options: Any,
) -> Build:
    """Put an ONNX model for every engine into one bundle.

    Any of --colour, --resize, --crop-fraction, --mean and --std makes the bundle take images.

    --resolutions makes an adaptive bundle of a network with several exits: stages that are run one after another, at
    each of the resolutions, on shared weights; for LiteRT unless --engine says otherwise.
    """
    adaptive = is_adaptive(options)
    recipe = (_adaptive if adaptive else _recipe)(source, recipe_file, labels, options)
    load_key(key)  # before the work, not after it
    refuse_same_file(source, output)
    with frame.working(f"Building {output}"):
        target, more = (build_adaptive_file, (options["calibration"],)) if adaptive else (build_file, ())
        manifest = frame.guarded(f"{target.__module__}:{target.__name__}", source, output, recipe, key, *more,
                                 subject=f"Building '{output}'")
    assert isinstance(manifest, Manifest)
    return Build(source=str(source), output=str(output), size_bytes=output.stat().st_size, sha256=digest(output),
                 signed=key is not None, manifest=manifest)


def build_file(source: Path, output: Path, recipe: BuildRecipe, key: Path | None) -> Manifest:
    """The work, in a process of its own."""
    from edgekit.pipeline import build as build_bundle

    return build_bundle(source, output, recipe, load_key(key))


def _recipe(source: Path, recipe_file: Path | None, labels: Path | None, options: dict[str, Any]) -> BuildRecipe:
    """The recipe of --recipe, or the default one, with what the options say instead."""
    recipe = BuildRecipe(name=source.stem or "model") if recipe_file is None else _read_recipe(recipe_file)
    given = _common(labels, options, recipe.preprocess)
    convert = {"io_layout": options["io_layout"], "tolerance": options["tolerance"], "shapes": dict(options["shape"])}
    changed = {name: value for name, value in convert.items() if _was_given(name if name != "shapes" else "shape")}
    if options["no_verify"]:
        changed["verify"] = False
    return _replaced(recipe, {**given, "convert": _replaced(recipe.convert, changed)})


def _adaptive(source: Path, recipe_file: Path | None, labels: Path | None, options: dict[str, Any]) -> AdaptiveRecipe:
    typed = {name for name in ("shape", "io_layout", "no_verify", "tolerance") if _was_given(name)}
    plain = adaptive_recipe(source, recipe_file, options, typed)
    return _replaced(plain, _common(labels, options, plain.preprocess))


def _common(labels: Path | None, options: dict[str, Any], preprocess: Preprocess | None) -> dict[str, Any]:
    """What the options say of fields that both kinds of bundle have."""
    given = {name: options[name] for name in ("name", "engines", "test_vectors") if options[name]}
    if labels is not None:
        given["labels"] = _read_labels(labels)
    image = {name: options[name] for name in ("colour", "resize", "crop_fraction", "mean", "std")
             if options[name] is not None}
    if image:
        given["preprocess"] = Preprocess(**{**_fields(preprocess), **image})
    return given


def _was_given(option: str) -> bool:
    """Whether the person typed it: only then it changes a recipe from a file."""
    source = click.get_current_context().get_parameter_source(option)
    return source is not None and source != click.core.ParameterSource.DEFAULT


def _fields(value: msgspec.Struct | None) -> dict[str, Any]:
    return {} if value is None else msgspec.structs.asdict(value)


def _replaced(value: S, changes: dict[str, Any]) -> S:
    """``value`` with ``changes``, checked as at construction (msgspec's own replace checks too)."""
    return msgspec.structs.replace(value, **changes)


def _read_recipe(path: Path) -> BuildRecipe:
    try:
        return msgspec.json.decode(path.read_bytes(), type=BuildRecipe)
    except OSError as error:
        raise BadRecipe(f"The recipe '{path}' cannot be read: {error.strerror or error}.", "Check the path.") from error
    except msgspec.MsgspecError as error:
        raise BadRecipe(f"The recipe '{path}' is not right: {error}.", "docs/bundle.md lists its fields.") from error


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The labels '{path}' cannot be read: {error}.", "Give a UTF-8 text file, one label a line.") \
            from error
    return tuple(line.strip() for line in lines if line.strip())
