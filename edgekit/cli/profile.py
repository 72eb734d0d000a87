"""``edgekit profile``: how long a network takes on a device that is not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.draw import Drawing, Group, Table, Text
from edgekit.cli.files import refuse_same_file
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, shape_option
from edgekit.errors import BadRecipe

if TYPE_CHECKING:
    from edgekit.device_profiles import DeviceProfile
    from edgekit.profile.predict import LatencyPrediction

__all__ = ["profile"]

_SLOWEST = 12


def _draw(result: LatencyPrediction) -> Drawing:

    low, high = result.band_ms
    like = f"as in '{result.nearest}'" if result.nearest else "on ops like timed ones"
    lines = [
        f"{result.device} ({result.confidence}): {result.latency_ms:.3g} ms, 90 % band {low:.3g} to {high:.3g} ms",
        f"{result.macs / 1e6:,.1f} M multiply-adds in {len(result.ops)} ops; {result.covered:.0%} of the time is spent "
        f"{like}, {'inside' if result.inside_domain else 'OUTSIDE'} the calibrated domain",
        *(f"variant {each.id} ({each.engine}): {each.latency_ms:.3g} ms, {each.band_ms[0]:.3g} to {each.band_ms[1]:.3g}"
          for each in result.variants),
        *(f"note: {finding}" for finding in result.findings),
    ]
    table = Table("op", "kind", ">ms", ">share", "")
    for op in sorted(result.ops, key=lambda each: -each.latency_ms)[:_SLOWEST]:
        table.add_row(Text(op.name), op.kind, f"{op.latency_ms:.3f}", f"{op.share:.1%}", "" if op.known else "UNKNOWN")
    return Group(Text("\n".join(lines) + "\n"), table)


@verb("profile", draw=_draw)
@click.argument("source", metavar="MODEL", type=PATH)
@click.option("--device", required=True, help="A profile's id or device (edgekit devices list), or a .json file.")
@click.option("--html", type=PATH, metavar="REPORT.html", help="Write a page with everything that is known, as well.")
@click.option("--against", type=PATH, metavar="FLOAT.onnx",
              help="For --html: the float model, to see by layer what quantization costs.")
@shape_option
def profile(
    frame: Frame, source: Path, device: str, html: Path | None, against: Path | None,
    shape: tuple[tuple[str, tuple[int, ...]], ...],
) -> LatencyPrediction:
    """Predict the latency of an .onnx, .tflite or .edge file on a device, with a 90 % band and the slowest ops.

    Of a bundle all variants are predicted; the ops are those of the one for the profile's runtime.
    """
    from edgekit.device_profiles import resolve
    from edgekit.profile.files import predict_file

    found = resolve(device)
    with frame.working(f"Reading {source}"):
        prediction = predict_file(source, found, dict(shape))
    if html is not None:
        with frame.working(f"Looking into {source}"):
            _write_page(html, source, found, dict(shape), against)
        frame.say(f"The report is in {html}.")
    elif against is not None:
        raise BadRecipe("--against is for the report.", "Name a file for it, too: --html REPORT.html")
    return prediction


def _write_page(
    html: Path, source: Path, found: DeviceProfile, shapes: dict[str, tuple[int, ...]], against: Path | None
) -> None:
    from edgekit.atomic import write_atomically
    from edgekit.report.html import html_page
    from edgekit.report.profile import profile_report

    refuse_same_file(source, html)
    write_atomically(html, html_page(profile_report(source, found, shapes, against)).encode())
