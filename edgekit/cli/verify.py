"""``edgekit verify``: whether a bundle or a model file computes what it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click
import msgspec

from edgekit.artifacts import VerifyReport
from edgekit.cli.draw import Drawing, Group, Table, Text
from edgekit.cli.frame import Frame, Partial, verb
from edgekit.cli.options import PATH, public_key_options, shape_option, tolerance_option
from edgekit.error_growth import ErrorGrowth
from edgekit.errors import VerificationFailed
from edgekit.recipe import ConvertRecipe

__all__ = ["Verify", "verify"]

_SHOWN_LAYERS = 12


class Verify(msgspec.Struct, frozen=True):
    """Every comparison that was made; a failed one is in ``reports`` too. ``signature_checked``: with --public-key.

    ``growth``: how the error of a quantized .tflite file grows; null for other files.
    """

    source: str
    passed: bool
    signature_checked: bool
    reports: tuple[VerifyReport, ...]
    growth: ErrorGrowth | None = None


def _draw(result: Verify) -> Drawing:
    from edgekit.cli.tables import comparisons

    signature = ", signature right" if result.signature_checked else ""
    hashes = "hashes right" if result.source.endswith(".edge") else "compared"
    parts: list[Drawing] = [comparisons(result.reports)]
    if result.growth is not None:
        parts += [Text(), _layers(result.growth), Text(_in_words(result.growth) + "\n")]
    return Group(*parts, Text(f"{result.source}: {hashes}{signature}"))


def _layers(growth: ErrorGrowth) -> Drawing:
    """Every layer of a small network, else those that add most, in order of computation."""
    most = sorted(growth.layers, key=lambda each: _or_best(each.added_sqnr_db))[:_SHOWN_LAYERS]
    kept = {each.tensor for each in most} | set(growth.first_below_20_db)
    table = Table("layer", "op", ">SQNR dB", ">of its inputs", ">added alone", ">range", ">outlier channels")
    for each in growth.layers:
        if each.tensor in kept:
            mark = "bold red" if each.tensor in growth.first_below_20_db else ""
            table.add_row(Text(each.tensor, mark), each.kind, f"{each.sqnr_db:.1f}", _db(each.input_sqnr_db),
                          _db(each.added_sqnr_db), f"{each.low:.3g} to {each.high:.3g}", str(each.outlier_channels))
    return table


def _or_best(value: float | None) -> float:
    return 1e3 if value is None else value


def _db(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f}"


def _in_words(growth: ErrorGrowth) -> str:
    below = ", ".join(f"'{name}'" for name in growth.first_below_20_db) or "none"
    lines = [f"{growth.compared} of {growth.ops} layers compared on {growth.samples} samples; shown are those that add "
             f"most error. The first below 20 dB: {below}.", *growth.notes]
    return "\n".join(lines)


@verb("verify", draw=_draw)
@click.argument("source", metavar="FILE", type=PATH)
@click.option("--against", type=PATH, metavar="ORIGINAL",
              help="Compare with this ONNX model, or a .tflite file with its float .tflite file; needed for anything "
                   "but a bundle.")
@click.option("--data", metavar="DATA",
              help="For a quantized .tflite file: inputs as edgekit quantize takes them, instead of random ones.")
@shape_option
@tolerance_option
@public_key_options
def verify(
    frame: Frame, source: Path, against: Path | None, public_key: Path | None, require_signature: bool,
    **options: Any,
) -> Verify:
    """Check that a bundle or a model file computes what it should.

    A bundle (.edge) by every hash, its signature and its test vectors on every engine; a .tflite, .ort or .onnx file
    --against the ONNX model that it was made from. --shape and --tolerance are for --against; test vectors hold their
    own. Of a quantized .tflite file it is also shown where its error enters and how it grows, layer by layer; its
    outputs may be off by a tenth of their range.
    """
    recipe = ConvertRecipe(shapes=dict(options["shape"]), tolerance=options["tolerance"])
    with frame.working(f"Verifying {source}"):
        reports, growth = cast("tuple[tuple[VerifyReport, ...], ErrorGrowth | None]", frame.guarded(
            "edgekit.error_growth:check", source, against, public_key, require_signature, recipe, options["data"],
            subject=f"Verifying '{source}'"))
    passed = all(report.passed for report in reports)
    result = Verify(source=str(source), passed=passed, signature_checked=public_key is not None, reports=reports,
                    growth=growth)
    if not passed:
        failed = [f"{each.subject} ('{output.name}', {output.problem or f'differs by {output.max_abs_diff:.3g}'})"
                  for each in reports for output in each.outputs if not output.passed]
        raise Partial(VerificationFailed(f"{source} does not answer as it should: {'; '.join(failed)}.",
                                         "Do not ship it; convert or build it anew."), result)
    return result
