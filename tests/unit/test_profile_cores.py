"""What headings of benchmark tables tell about processors."""

from __future__ import annotations

import datetime as dt

import pytest

from edgekit.profile.cores import half_precision, in_order, thirty_two_bit
from edgekit.profile.tables import BoardRun


@pytest.mark.parametrize(("device", "half", "slow", "old"), [
    ("Raspberry Pi 3 Model B+ Broadcom BCM2837B0, Cortex-A53", 0, True, False),
    ("Raspberry Pi 4 Model B Broadcom BCM2711B0, Cortex-A72", 0, False, False),
    ("Raspberry Pi 5 Broadcom BCM2712, Cortex-A76", 1, False, False),
    ("Rockchip RK3566 (Cortex-A55 1.8GHz x 4)", 1, True, False),
    ("Rockchip RK3288 (Cortex-A17 1.8GHz x 4)", 0, False, True),
    ("Freescale i.MX7 Dual (Cortex A7 1.0GHz x 2)", 0, True, True),
    ("iPhone 5S (Apple A7 1.3GHz x 2)", 0, False, False),
    ("Qualcomm Snapdragon 835 (Kyro 2.45GHz x 4)", 0, False, False),
    ("Qualcomm Snapdragon 855+", 1, False, False),
    ("a board of nobody", 0.5, False, False),
])
def test_names_tell_what_the_cores_can_do(device: str, half: float, slow: bool, old: bool) -> None:
    assert half_precision(device) == half
    assert in_order(device, "0") == slow
    assert thirty_two_bit(device) == old


def test_the_slow_cluster_of_a_chip_with_two_kinds_is_in_order_when_it_is_the_one_that_ran() -> None:
    both = "Rockchip RK3399 (Cortex-A72 1.8GHz x 2 + Cortex-A53 1.5GHz x 4)"
    assert in_order(both, "1")
    assert not in_order(both, "2")


def test_a_date_is_a_fact_and_its_absence_is_the_middle() -> None:
    def run(date: str) -> BoardRun:
        return BoardRun("Cortex-A53", "1", 1, "0", "cpu", date, "", "", {"m": 1.0})

    late, early = run("2026-07-01").facts, run("2020-07-01").facts
    assert late[:3] == early[:3] == run("").facts[:3] == (-0.5, 0.5, -0.5)
    assert late[3] - early[3] == pytest.approx((dt.date(2026, 7, 1) - dt.date(2020, 7, 1)).days / 730.5)
    assert run("unknown").facts[3] == 0
