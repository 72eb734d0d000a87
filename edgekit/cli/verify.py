"""``edgekit verify``: whether a bundle or a model file computes what it should."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click
import msgspec

from edgekit.artifacts import VerifyReport
from edgekit.cli.frame import Frame, Partial, verb
from edgekit.cli.options import PATH, public_key_options, shape_option, tolerance_option
from edgekit.errors import VerificationFailed
from edgekit.recipe import ConvertRecipe

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Verify", "verify"]


class Verify(msgspec.Struct, frozen=True):
    """Every comparison that was made; a failed one is in ``reports`` too. ``signature_checked``: with --public-key."""

    source: str
    passed: bool
    signature_checked: bool
    reports: tuple[VerifyReport, ...]


def _draw(result: Verify) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from edgekit.cli.tables import comparisons

    signature = ", signature right" if result.signature_checked else ""
    hashes = "hashes right" if result.source.endswith(".edge") else "compared"
    return Group(comparisons(result.reports), Text(f"{result.source}: {hashes}{signature}"))


@verb("verify", draw=_draw)
@click.argument("source", metavar="FILE", type=PATH)
@click.option("--against", type=PATH, metavar="ORIGINAL.onnx",
              help="Compare with this ONNX model on random inputs; needed for anything but a bundle.")
@shape_option
@tolerance_option
@public_key_options
def verify(
    frame: Frame, source: Path, against: Path | None, shape: tuple[tuple[str, tuple[int, ...]], ...],
    tolerance: float, public_key: Path | None, require_signature: bool,
) -> Verify:
    """Check that a bundle or a model file computes what it should.

    A bundle (.edge) by every hash, its signature and its test vectors on every engine; a .tflite, .ort or .onnx file
    --against the ONNX model that it was made from. --shape and --tolerance are for --against; test vectors hold their
    own.
    """
    recipe = ConvertRecipe(shapes=dict(shape), tolerance=tolerance)
    with frame.working(f"Verifying {source}"):
        reports = cast("tuple[VerifyReport, ...]", frame.guarded(
            "edgekit.parity:verify", source, against, public_key, require_signature, recipe,
            subject=f"Verifying '{source}'"))
    passed = all(report.passed for report in reports)
    result = Verify(source=str(source), passed=passed, signature_checked=public_key is not None, reports=reports)
    if not passed:
        failed = [f"{each.subject} ('{output.name}', {output.problem or f'differs by {output.max_abs_diff:.3g}'})"
                  for each in reports for output in each.outputs if not output.passed]
        raise Partial(VerificationFailed(f"{source} does not answer as it should: {'; '.join(failed)}.",
                                         "Do not ship it; convert or build it anew."), result)
    return result
