"""``edgekit devices``: for which devices latencies are known or can be predicted, and how well."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import click
import msgspec

from edgekit.cli.draw import Drawing, Table, Text
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH
from edgekit.device_profiles import DeviceProfile, KernelAccuracy, load_profiles, resolve, user_folder
from edgekit.errors import BadRecipe

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
    """``rows`` for list and fit; ``profile`` for show. ``file``: what fit wrote, ``accuracy`` what it found of it."""

    rows: tuple[DeviceRow, ...]
    profile: DeviceProfile | None = None
    file: str = ""
    accuracy: KernelAccuracy | None = None


def _row(profile: DeviceProfile) -> DeviceRow:
    checked = profile.fit or profile.kernels
    networks = profile.fit.accuracy.networks if profile.fit else 0
    if profile.kernels is not None:
        networks = profile.kernels.accuracy.fitted
    return DeviceRow(
        profile.id,
        profile.device,
        profile.soc,
        profile.runtime,
        profile.backend,
        profile.threads,
        profile.precision,
        profile.confidence,
        networks if checked else len(profile.measured),
        checked.accuracy.median_ape if checked else None,
    )


def _draw(result: Devices) -> Drawing:

    if result.profile is not None:
        return Text(msgspec.json.format(msgspec.json.encode(result.profile), indent=1).decode())
    if result.file:
        return Text(_written(result))
    table = Table(
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


def _written(result: Devices) -> str:
    row, found = result.rows[0], result.accuracy
    lines = [f"{row.id} ({row.soc}): written to {result.file}"]
    if found is not None:
        lines.append(f"fitted to {found.fitted} timings; on {found.checked} networks kept out: median error "
                     f"{found.median_ape:.1%}, within 15 %: {found.within_15:.0%}, predicted / measured "
                     f"{found.bias:.3f}")
    return "\n".join([*lines, f"use it: edgekit profile MODEL --device {result.file}"])


@verb("devices", draw=_draw)
@click.argument("action", type=click.Choice(["list", "show", "fit"]), default="list")
@click.argument("device", required=False)
@click.option("--filter", "text", default="", help="Only profiles whose id, device or chip has this text.")
@click.option("--backend", type=click.Choice(["cpu", "gpu", "npu", "nnapi"]), help="Only this backend.")
@click.option("--threads", type=int, help="Only this number of threads.")
@click.option("--host", is_flag=True, help="For fit: measure this machine, one thread.")
@click.option("--engine", type=click.Choice(["litert", "ort"]), default="litert", show_default=True,
              help="With --host: the engine to measure.")
@click.option("--precision", type=click.Choice(["float32", "int8", "dynamic8"]), default="float32", show_default=True,
              help="With --host: int8 is LiteRT's static quantization.")
@click.option("--seconds", type=float, default=150.0, show_default=True, help="With --host: time for measuring.")
@click.option("--measurements", type=PATH, help="For fit: CSV (model, latency_ms) or JSON of measured model files.")
@click.option("--from", "start", metavar="PROFILE", help="With --measurements: the profile to adjust.")
@click.option("-o", "--output", type=PATH, help="For fit: the file to write, else one in the user's cache folder.")
def devices(
    frame: Frame, action: str, device: str | None, text: str, backend: str | None, threads: int | None, host: bool,
    engine: str, precision: str, seconds: float, measurements: Path | None, start: str | None, output: Path | None,
) -> Devices:
    """List the device profiles, show one, or fit one.

    The median error is that of predictions for networks whose architecture family was left out of the fit; without one,
    the profile is a look-up of measured networks. fit --host times some hundred small networks on this machine; fit
    --measurements TABLE --from PROFILE adjusts a profile to a board on which a few networks were measured.
    """
    if action == "show":
        if device is None:
            raise BadRecipe("No device was named.", "Give an id: edgekit devices show ID")
        profile = resolve(device)
        return Devices((_row(profile),), profile)
    if action == "fit":
        if host == (measurements is not None):
            raise BadRecipe("A profile is fitted either to this machine or to measurements.",
                            "Give --host, or --measurements TABLE --from PROFILE.")
        if measurements is not None:
            return _keep(_adjusted(measurements, start, device), output)
        with frame.working(f"Measuring this machine for {seconds:g} s"):
            return _keep(_fitted(engine, precision, seconds), output)
    wanted = (device or text).lower()
    rows = [
        _row(profile)
        for profile in load_profiles()
        if wanted in f"{profile.id} {profile.device} {profile.soc}".lower()
        and backend in (None, profile.backend)
        and threads in (None, profile.threads)
    ]
    return Devices(tuple(rows))


def _fitted(engine: str, precision: str, seconds: float) -> DeviceProfile:
    from edgekit.profile.host.profile import fit_host
    from edgekit.profile.host.timing import HostRecipe

    return fit_host(HostRecipe(
        engine=cast("Literal['litert', 'ort']", engine), precision=cast("Literal['float32', 'int8']", precision),
        seconds=seconds))


def _adjusted(measurements: Path, start: str | None, device: str | None) -> DeviceProfile:
    from edgekit.profile.adjust import adjusted, read_measurements

    if start is None:
        raise BadRecipe("The profile to adjust is not named.", "Give one: --from raspberry-pi-4")
    return adjusted(resolve(start), read_measurements(measurements), device or "")


def _keep(profile: DeviceProfile, output: Path | None) -> Devices:
    from edgekit.atomic import write_atomically

    path = output or user_folder() / f"{profile.id}.json"
    if output is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(profile) + b"\n")
    accuracy = profile.kernels.accuracy if profile.kernels else None
    return Devices((_row(profile),), file=str(path), accuracy=accuracy)
