"""``edgekit profile``: how long a network takes on a device that is not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, shape_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgekit.profile.predict import LatencyPrediction

__all__ = ["profile"]

_SLOWEST = 12


def _draw(result: LatencyPrediction) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from edgekit.cli.tables import grid

    low, high = result.band_ms
    lines = [
        f"{result.device} ({result.confidence}): {result.latency_ms:.3g} ms, 90 % band {low:.3g} to {high:.3g} ms",
        f"{result.macs / 1e6:,.1f} M multiply-adds in {len(result.ops)} ops; {result.covered:.0%} of the time is spent "
        f"as in '{result.nearest}', {'inside' if result.inside_domain else 'OUTSIDE'} the calibrated domain",
        *(f"note: {finding}" for finding in result.findings),
    ]
    table = grid("op", "kind", ">ms", ">share", "")
    for op in sorted(result.ops, key=lambda each: -each.latency_ms)[:_SLOWEST]:
        table.add_row(Text(op.name), op.kind, f"{op.latency_ms:.3f}", f"{op.share:.1%}", "" if op.known else "UNKNOWN")
    return Group(Text("\n".join(lines) + "\n"), table)


@verb("profile", draw=_draw)
@click.argument("source", metavar="MODEL", type=PATH)
@click.option("--device", required=True, help="Id of a profile, or its device: see edgekit devices list.")
@shape_option
def profile(
    frame: Frame, source: Path, device: str, shape: tuple[tuple[str, tuple[int, ...]], ...]
) -> LatencyPrediction:
    """Predict the latency of an .onnx or .tflite file on a device, with a 90 % band and the slowest ops."""
    from edgekit.device_profiles import resolve
    from edgekit.graph.costs_read import graph_costs
    from edgekit.profile.predict import predict

    found = resolve(device)
    with frame.working(f"Reading {source}"):
        costs = graph_costs(source, dict(shape))
    return predict(costs, found)
