"""Ops by themselves: cut out, they compute what they do in the network, and their times are told with the whole's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.converters.onnx_to_litert import to_litert
from edgekit.errors import BadInput, BadModel, BadRecipe, UnknownName
from edgekit.graph.tflite_pieces import Piece, cut_ops
from edgekit.measure import BenchOptions
from edgekit.measure_ops import measure_ops
from edgekit.profile.host.nets import Micro, Step, build
from edgekit.profile.host.timing import HostRecipe, engine_file
from edgekit.runtime.engines import open_session

CHAIN = Micro("chain", (8, 16, 16), (
    Step("conv", 16, 3, 2, "Relu"), Step("depthwise", 0, 3), Step("hard_swish"), Step("conv", 24), Step("conv", 12),
    Step("flatten"), Step("linear", 10),
))
OPTIONS = BenchOptions(max_seconds=2.0, runs=10, warmup=2)


def pieces(micro: Micro, precision: str = "float32") -> tuple[bytes, tuple[Piece, ...]]:
    recipe = HostRecipe(engine="litert", precision="int8" if precision == "int8" else "float32")
    data, _ = engine_file(build(micro), recipe)
    return data, cut_ops(data, {})


def test_pieces_in_a_row_compute_what_the_network_does() -> None:
    data, found = pieces(CHAIN)
    value = np.random.default_rng(0).standard_normal((1, 16, 16, 8)).astype(np.float32)
    with open_session("litert", data) as session:
        wanted = next(iter(session.run({session.inputs[0].name: value}).values()))
    assert all(len(piece.names) == 1 for piece in found)
    for piece in found:
        with open_session("litert", piece.data) as session:
            value = next(iter(session.run({session.inputs[0].name: value}).values()))
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


def test_alike_ops_are_one_piece() -> None:
    _, found = pieces(Micro("twice", (16, 8, 8), (Step("conv", 16), Step("conv", 16), Step("conv", 16, act="Relu"))))
    assert sorted(len(piece.names) for piece in found) == [1, 2]


def test_quantized_pieces_keep_their_scales() -> None:
    _, found = pieces(CHAIN, "int8")
    conv = next(piece for piece in found if piece.kind == "CONV_2D")
    with open_session("litert", conv.data) as session:
        assert session.inputs[0].dtype == "int8"
        answer = next(iter(session.run({session.inputs[0].name: np.full((1, 16, 16, 8), 50, np.int8)}).values()))
    assert answer.dtype == np.int8
    assert len(np.unique(answer)) > 4


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_ops_and_their_sum_are_told(suffix: str, tmp_path: Path) -> None:
    model = build(CHAIN)
    path = tmp_path / f"m{suffix}"
    path.write_bytes(model.data if suffix == ".onnx" else to_litert(model).model.data)
    found = measure_ops(path, OPTIONS)
    assert found.engine == ("ort" if suffix == ".onnx" else "litert")
    assert found.clock == ("wall" if suffix == ".onnx" else "cpu")
    assert found.sum_ms == pytest.approx(sum(op.total_ms for op in found.ops))
    assert sum(op.share for op in found.ops) == pytest.approx(1)
    assert 0.1 < found.factor < 10
    assert not found.unmeasured
    kinds = " ".join(op.kind for op in found.ops)
    assert "CONV_2D" in kinds if suffix == ".tflite" else "Conv" in kinds
    assert [op.total_ms for op in found.ops] == sorted((op.total_ms for op in found.ops), reverse=True)


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(build(CHAIN).data)
    with pytest.raises(BadRecipe, match="one thread"):
        measure_ops(path, BenchOptions(threads=2))
    with pytest.raises(BadModel, match="There is no file"):
        measure_ops(tmp_path / "absent.tflite")
    with pytest.raises(UnknownName):
        measure_ops(tmp_path / "m.pt")
    with pytest.raises(BadRecipe, match="bundle"):
        measure_ops(tmp_path / "m.edge")
    broken = tmp_path / "b.tflite"
    broken.write_bytes(b"TFL3" * 10)
    with pytest.raises((BadModel, BadInput)):
        measure_ops(broken, OPTIONS)
