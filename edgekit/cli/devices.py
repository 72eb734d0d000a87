"""``edgekit devices``: for which devices latencies are known or can be predicted, and how well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from edgekit.cli.frame import Frame, verb
from edgekit.device_profiles import DeviceProfile, load_profiles, resolve
from edgekit.errors import BadRecipe

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["DeviceRow", "Devices", "devices"]


class DeviceRow(msgspec.Struct, frozen=True):
    """One profile. ``median_ape``: of networks whose family was left out of the fit; None for a look-up."""

    id: str
    device: str
    soc: str
    runtime: str
    backend: str
    threads: int | None
    precision: str
    confidence: str
    networks: int
    median_ape: float | None


class Devices(msgspec.Struct, frozen=True):
    """``rows`` for list; ``profile`` for show."""

    rows: tuple[DeviceRow, ...]
    profile: DeviceProfile | None = None


def _row(profile: DeviceProfile) -> DeviceRow:
    fit = profile.fit
    return DeviceRow(
        profile.id,
        profile.device,
        profile.soc,
        profile.runtime,
        profile.backend,
        profile.threads,
        profile.precision,
        profile.confidence,
        fit.accuracy.networks if fit else len(profile.measured),
        fit.accuracy.median_ape if fit else None,
    )


def _draw(result: Devices) -> RenderableType:
    from rich.text import Text

    from edgekit.cli.tables import grid

    if result.profile is not None:
        return Text(msgspec.json.format(msgspec.json.encode(result.profile), indent=1).decode())
    table = grid(
        "id", "device", "runtime", "backend", ">threads", "precision", "confidence", ">networks", ">median error"
    )
    for row in result.rows:
        error = "" if row.median_ape is None else f"{row.median_ape:.1%}"
        threads = "" if row.threads is None else str(row.threads)
        table.add_row(
            Text(row.id),
            Text(row.device),
            row.runtime,
            row.backend,
            threads,
            row.precision,
            row.confidence,
            str(row.networks),
            error,
        )
    return table


@verb("devices", draw=_draw)
@click.argument("action", type=click.Choice(["list", "show"]), default="list")
@click.argument("device", required=False)
@click.option("--filter", "text", default="", help="Only profiles whose id, device or chip has this text.")
@click.option("--backend", type=click.Choice(["cpu", "gpu", "npu", "nnapi"]), help="Only this backend.")
@click.option("--threads", type=int, help="Only this number of threads.")
def devices(
    frame: Frame,  # noqa: ARG001 - every verb gets one
    action: str,
    device: str | None,
    text: str,
    backend: str | None,
    threads: int | None,
) -> Devices:
    """List the device profiles, or show one.

    The median error is that of predictions for networks whose architecture family was left out of the fit; without one,
    the profile is a look-up of measured networks.
    """
    if action == "show":
        if device is None:
            raise BadRecipe("No device was named.", "Give an id: edgekit devices show ID")
        profile = resolve(device)
        return Devices((_row(profile),), profile)
    wanted = (device or text).lower()
    rows = [
        _row(profile)
        for profile in load_profiles()
        if wanted in f"{profile.id} {profile.device} {profile.soc}".lower()
        and backend in (None, profile.backend)
        and threads in (None, profile.threads)
    ]
    return Devices(tuple(rows))
