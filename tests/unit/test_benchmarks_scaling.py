"""Graphs of a given size, the growth that is read off their times, resizing, and cutting at the middle."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks import resizing, scaling, signatures
from benchmarks.resizing import Resized
from benchmarks.scaling import Point
from benchmarks.signatures import FileResult
from edgekit.artifacts import LiteRTModel
from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.errors import UnknownName
from edgekit.parity import compare, reference_sample
from tests.graphs import model_of


@pytest.mark.parametrize("family", scaling.FAMILIES)
def test_graphs_have_the_size_asked_for_and_convert_right(family: str) -> None:
    proto = scaling.build(family, 100)
    onnx.checker.check_model(proto, full_check=True)
    assert 84 < len(proto.graph.node) <= 100
    model = describe(proto)
    converted = to_litert(model).model
    assert isinstance(converted, LiteRTModel)
    assert compare(converted, model).passed


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="attention"):
        scaling.build("recurrent", 100)


def points(power: float) -> list[Point]:
    return [Point("attention", nodes, 1e-4 * nodes ** power) for nodes in (100, 1000, 3000, 10000)]


def test_the_exponent_of_a_power_law_is_found_and_judged() -> None:
    assert scaling.exponent(points(1.0)) == pytest.approx(1.0)
    assert scaling.exponent(points(2.0)) == pytest.approx(2.0)
    assert scaling.misses(points(1.05)) == []
    assert scaling.misses(points(1.3)) == ["attention: converting time grows as nodes ^ 1.30"]
    assert "| attention | 10,000 | 1.000 | 100         |" in scaling.section(points(1.0))


def test_a_real_file_is_resized_in_one_session(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
             helper.make_node("Relu", ["c"], ["r"]), helper.make_node("GlobalAveragePool", ["r"], ["y"])]
    model = model_of(nodes, {"x": ["n", 3, "h", "w"]}, {"y": ["n", 4, 1, 1]}, {"w": [4, 3, 3, 3]})
    path = tmp_path / "net.onnx"
    path.write_bytes(model.data)
    assert resizing.has_dynamic_sides(str(path))
    cases = [reference_sample(model, {"x": shape}) for shape in ((1, 3, 8, 8), (2, 3, 9, 5), (1, 3, 8, 8))]
    said = resizing.resize_ours(str(path), cases)
    assert said.said == ("right", "right", "right")
    inputs, wanted = cases[1]
    assert resizing.resize_ours(str(path), [cases[0], (inputs, {"y": wanted["y"] + 1})]).said == ("right", "wrong")


def test_a_size_with_wrong_answers_is_named() -> None:
    result = Resized("net", ((1, 8, 8), (2, 9, 5)), ("right", "wrong"), ("right", "refused"), 0.5, 1.0)
    assert resizing.misses([result]) == ["net: resized to 2x9x5 our file is wrong"]
    row = resizing.section([result]).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")][1:7] == [
        "net", "1x8x8, 2x9x5", "1 of 2", "5.0e-01", "1.00", "1 of 2"]


def test_the_middle_is_where_one_tensor_carries_everything() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
             helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:])
    # after the second node both a and b are still needed: the cut is at a or c
    assert signatures.middle_tensor(graph) in ("a", "c")


def file_result(name: str, size_bytes: int, private_mb: float = 10.0, **changes: object) -> FileResult:
    costs = {"CompiledModel": signatures.Cost(1, 1, 50, 40), "cache, again": signatures.Cost(1, 1, 50, private_mb)}
    fields = {"errors": {"one": 1e-6, "two": 1e-6}, "chain_equal": None, "costs": costs} | changes
    return FileResult(name, size_bytes, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("second", "words"), [
    (file_result("b", 1100), None),
    (file_result("b", 1101), "b: 1,101 bytes against 1,000"),
    (file_result("b", 1000, errors={"full": float("nan")}), "b, full: off by nan of the range"),
    (file_result("b", 1000, chain_equal=False), "b: the stages in a row do not give the bits of the full network"),
    (file_result("b", 1000, private_mb=40), "b: the weight cache saves no memory (40 MB private, 40 without)"),
])
def test_each_bar_on_signatures_is_named_when_it_is_missed(second: FileResult, words: str | None) -> None:
    assert signatures.misses([file_result("a", 1000), second]) == ([words] if words else [])
