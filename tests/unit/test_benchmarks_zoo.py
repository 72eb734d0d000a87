"""The rows and the table of benchmarks.zoo, without converting anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.zoo import (
    DEVICES,
    NETS,
    Chosen,
    Converted,
    Predicted,
    Row,
    chosen,
    converted,
    rows_table,
    settled,
)
from edgekit.converters.quantize import Speed
from edgekit.device_profiles import resolve
from edgekit.zoo import ZOO, find


def test_there_is_one_network_of_each_architecture_and_every_device_predicts() -> None:
    assert {find(name).family for name in NETS} == {entry.family for entry in ZOO}
    assert all(resolve(device).fit is not None for device in DEVICES)


def test_a_row_shows_what_was_measured_and_gaps_where_nothing_was() -> None:
    predicted = dict.fromkeys(DEVICES, Predicted(2.0, 1.5, 3.0, False))
    made = Converted(macs=40_600_000, differences={"litert": 2e-6, "ort": 1e-6}, output_range=3.0, transposes=4, ops=9,
                     partitions=2, sizes={"litert": 1_234_567, "ort": 1}, predicted=predicted)
    found = Chosen(float_ms={"litert": 5.0, "ort": 6.0}, precision="static8", speed=Speed(2.5, 0.5, 0.4, 0.625),
                   sqnr_db=33.3, size_bytes=345_678, seconds=1.0)
    lines = rows_table([Row("resnet20_cifar", made), Row("resnet32_cifar", made, found)]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2][:7] == ["resnet20_cifar", "41", "2.0e-06 / 1.0e-06", "3", "4", "2", "1.23"]
    assert cells[2][7:13] == [""] * 6
    assert cells[3][7:13] == ["5.00 / 6.00", "static8", "2.50", "2.00 [1.60, 2.50]", "0.35", "33.3"]
    assert cells[3][13] == "2 (1.5 to 3), outside"


@pytest.mark.parametrize("name", ["resnet20_cifar"])
def test_settled_networks_are_the_same_each_time_and_none_of_their_branches_is_nothing(name: str) -> None:
    first, second = settled(find(name)), settled(find(name))
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    norms = [each for each in first.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    assert all(each.weight.min() >= 0.7 and each.running_var is not None and not (each.running_var == 1).all()
               for each in norms)


def test_columns_of_times_are_left_out_where_nothing_was_timed() -> None:
    made = Converted(macs=1, differences={"litert": 2e-6, "ort": 1e-6}, output_range=3.0, transposes=4, ops=9,
                     partitions=2, sizes={"litert": 1, "ort": 1},
                     predicted=dict.fromkeys(DEVICES, Predicted(2.0, 1.5, 3.0, False)))
    head, _, row = rows_table([Row("resnet20_cifar", made)]).splitlines()
    assert "SQNR" not in head
    assert head.count("|") == row.count("|")


@pytest.mark.slow
def test_a_network_from_torch_to_a_precision(tmp_path: Path) -> None:
    entry = find("resnet20_cifar")
    made = converted(entry, tmp_path)
    assert max(made.differences.values()) < 1e-4 * made.output_range
    assert (made.transposes, made.partitions) == (0, 1)
    found = chosen(entry, tmp_path, whole_search=False)
    assert found.precision == "float32" or (found.size_bytes < 0.4 * made.sizes["litert"] and found.speed.ratio < 1)
    assert found.sqnr_db > 20
