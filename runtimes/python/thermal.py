"""How hot the device is, as Linux tells in /sys/class/thermal."""

from __future__ import annotations

from pathlib import Path

__all__ = ["linux_thermal_level"]

_FAIR_BELOW = 5_000  # thousandths of a degree below the point at which the system slows the processor down


def linux_thermal_level(folder: Path | str = "/sys/class/thermal") -> int | None:
    """The level for ``AdaptiveRuntime.limits``: that of the hottest zone by its own trip points; None if none has any.

    3 (critical): at a "hot" or "critical" point; 2 (serious): at a "passive" one, from which on the kernel slows the
    processor down; 1 (fair): less than 5 degrees below that; else 0. Read anew at every call, which opens a few small
    files for each zone: call it now and then, not for every frame. Never raises: what cannot be read does not count.
    """
    levels = [level for zone in sorted(Path(folder).glob("thermal_zone*")) if (level := _level(zone)) is not None]
    return max(levels, default=None)


def _level(zone: Path) -> int | None:
    temperature = _number(zone / "temp")
    points: dict[str, list[int]] = {"passive": [], "hot": [], "critical": []}
    for file in sorted(zone.glob("trip_point_*_type")):
        kind = _text(file)
        at = _number(file.with_name(file.name.replace("_type", "_temp")))
        # Firmware fills points that it does not use with 0 or a negative temperature.
        if kind in points and at is not None and at > 0:
            points[kind].append(at)
    if temperature is None or not any(points.values()):
        return None
    if any(temperature >= at for at in points["hot"] + points["critical"]):
        return 3
    if any(temperature >= at for at in points["passive"]):
        return 2
    return int(any(temperature >= at - _FAIR_BELOW for at in points["passive"]))


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # zones come and go, and some refuse to be read while asleep
        return None


def _number(file: Path) -> int | None:
    text = _text(file)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
