"""The thermal level, from folders that look like /sys/class/thermal."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.runtime import linux_thermal_level


def zone(folder: Path, temperature: str, **points: int) -> None:
    """A thermal zone, temperatures in thousandths of a degree; ``points``: kind of trip point -> its temperature."""
    place = folder / f"thermal_zone{len(list(folder.glob('thermal_zone*')))}"
    place.mkdir()
    (place / "temp").write_text(f"{temperature}\n")
    for number, (kind, at) in enumerate(points.items()):
        (place / f"trip_point_{number}_type").write_text(f"{kind}\n")
        (place / f"trip_point_{number}_temp").write_text(f"{at}\n")


@pytest.mark.parametrize(("temperature", "level"), [
    (20_000, 0), (79_999, 0), (80_000, 1), (84_999, 1), (85_000, 2), (99_000, 2), (100_000, 3), (120_000, 3)])
def test_the_level_by_the_trip_points(tmp_path: Path, temperature: int, level: int) -> None:
    zone(tmp_path, str(temperature), passive=85_000, critical=100_000, active=40_000)
    assert linux_thermal_level(tmp_path) == level


def test_the_hottest_zone_counts(tmp_path: Path) -> None:
    zone(tmp_path, "30000", passive=85_000)
    zone(tmp_path, "84000", passive=85_000)
    zone(tmp_path, "90000")
    assert linux_thermal_level(tmp_path) == 1


def test_a_hot_point_is_critical(tmp_path: Path) -> None:
    zone(tmp_path, "95000", hot=95_000)
    assert linux_thermal_level(tmp_path) == 3


def test_what_tells_nothing_does_not_count(tmp_path: Path) -> None:
    assert linux_thermal_level(tmp_path / "none") is None
    assert linux_thermal_level(tmp_path) is None
    zone(tmp_path, "90000")
    zone(tmp_path, "90000", passive=0, critical=-274_000)
    zone(tmp_path, "asleep", passive=85_000)
    (tmp_path / "thermal_zone7").mkdir()
    assert linux_thermal_level(tmp_path) is None
    zone(tmp_path, "20000", critical=100_000)
    assert linux_thermal_level(tmp_path) == 0


def test_this_machine() -> None:
    assert linux_thermal_level() in (None, 0, 1, 2, 3)
