"""Rules about accelerators, and what is told of where ops run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import BadModel, EngineError, UnknownName
from edgekit.pipeline import convert
from edgekit.report.accelerators import ACCELERATORS, OpFacts, hints
from edgekit.report.accelerators.coreml import COREML
from edgekit.report.accelerators.gpu import GPU
from edgekit.report.accelerators.nnapi import NNAPI
from edgekit.report.accelerators.qnn import QNN
from edgekit.report.op_facts import op_facts
from edgekit.report.placed import placement_of
from edgekit.report.placement import place


def op(kind: str, **facts: object) -> OpFacts:
    return OpFacts(name="x", kind=kind, **facts)  # type: ignore[arg-type]


def test_each_table_says_what_it_is_and_refuses_what_nobody_has() -> None:
    assert len({each.id for each in ACCELERATORS}) == len(ACCELERATORS)
    for each in ACCELERATORS:
        assert each.source
        assert "NoSuchOp" in each.why_not(op("NoSuchOp"))
        found = hints(each, [op("NoSuchOp")])
        assert found.static
        assert (found.taken, found.partitions, len(found.left)) == (0, 0, 1)


def test_pieces_are_counted_in_the_order_of_the_file() -> None:
    ops = [op("ADD"), op("MUL"), op("TOPK_V2"), op("ADD"), op("TOPK_V2"), op("TOPK_V2")]
    found = hints(GPU, ops)
    assert (found.ops, found.taken, found.partitions) == (6, 3, 2)
    assert {left.kind for left in found.left} == {"TOPK_V2"}
    assert hints(GPU, ops[:2]).partitions == 1


def test_gpu() -> None:
    assert GPU.why_not(op("CONV_2D", ranks=(4, 4, 4))) == ""
    assert "4 axes" in GPU.why_not(op("ADD", ranks=(5, 5)))
    assert "dynamic" in GPU.why_not(op("ADD", dynamic=True))
    assert "floating point" in GPU.about([op("ADD", dtypes=("int8",))])[0]
    assert "float16" in GPU.about([op("ADD", dtypes=("float32",))])[0]


def test_nnapi() -> None:
    assert NNAPI.why_not(op("Conv", window=2, constant=(False, True, True))) == ""
    assert "3 axes" in NNAPI.why_not(op("Conv", window=3, constant=(False, True)))
    assert "constant" in NNAPI.why_not(op("Conv", window=2, constant=(False, False)))
    assert "DCR" in NNAPI.why_not(op("DepthToSpace", attributes={"mode": "CRD"}))
    assert "constant" in NNAPI.why_not(op("Pad", attributes={"mode": "reflect"}, constant=(False, True)))
    assert "transB" in NNAPI.why_not(op("Gemm", constant=(False, False)))
    assert NNAPI.why_not(op("Gemm", constant=(False, False), attributes={"transB": 1})) == ""
    assert "dynamic" in NNAPI.why_not(op("Relu", dynamic=True))
    assert "deprecated" in NNAPI.about([])[0]


def test_qnn() -> None:
    assert QNN.why_not(op("Conv", window=3)) == ""
    assert "dynamic" in QNN.why_not(op("Conv", dynamic=True))
    assert "p = 2" in QNN.why_not(op("LpNormalization", attributes={"p": 1}))
    assert any("float16" in note for note in QNN.about([op("Conv")]))
    assert not any("float16" in note for note in QNN.about([op("DequantizeLinear")]))


def test_coreml() -> None:
    assert COREML.why_not(op("Conv", window=1, constant=(False, True))) == ""
    assert "3 axes" in COREML.why_not(op("Conv", window=3))
    assert "bias" in COREML.why_not(op("Conv", window=2, constant=(False, True, False)))
    assert "matrix" in COREML.why_not(op("Gemm", constant=(False, False)))
    assert "constant" in COREML.why_not(op("Slice", constant=(False, False)))
    assert "fixed" in COREML.why_not(op("DepthToSpace", attributes={"mode": "CRD"}, dynamic=True))
    assert COREML.about([op("QuantizeLinear", dynamic=True)])[0].startswith("It takes no QDQ")


@pytest.fixture
def cut_onnx(tmp_path: Path) -> Path:
    """Convolution, sine of whole numbers in between, convolution: XNNPACK has to give the middle away."""
    weight = np.random.default_rng(5).normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["a"], ["b"], "whole", to=TensorProto.INT32),
        helper.make_node("Cast", ["b"], ["c"], "back", to=TensorProto.FLOAT),
        helper.make_node("Conv", ["c", "w"], ["y"], "second", pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes, "cut", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 12, 12])], [numpy_helper.from_array(weight, "w")])
    path = tmp_path / "cut.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_xnnpack_s_part_comes_from_a_compilation(cut_onnx: Path, tmp_path: Path) -> None:
    convert(cut_onnx, "litert", tmp_path / "cut.tflite")
    found = placement_of(tmp_path / "cut.tflite")
    assert found.xnnpack is not None
    assert found.xnnpack.partitions == 2
    assert [left.kind for left in found.xnnpack.left] == ["CAST", "CAST"]
    assert found.xnnpack.left[0].reason == "it makes int32"
    assert found.xnnpack.taken + 2 == found.xnnpack.ops
    assert [each.accelerator for each in found.hints] == ["gpu"]


def test_onnx_files_are_told_about_by_rules_alone(cut_onnx: Path, small_onnx: Path) -> None:
    found = placement_of(cut_onnx)
    assert found.xnnpack is None
    assert [each.accelerator for each in found.hints] == ["nnapi", "qnn", "coreml"]
    assert all(each.taken == each.ops == 4 for each in found.hints)
    dynamic = {each.accelerator: each for each in placement_of(small_onnx).hints}
    assert dynamic["qnn"].taken == 0
    assert dynamic["qnn"].left[0].reason == "a shape is dynamic"


def test_an_open_batch_does_not_count_as_dynamic_in_litert_and_a_refused_file_is_an_error(
    small_onnx: Path, tmp_path: Path
) -> None:
    convert(small_onnx, "litert", tmp_path / "m.tflite")
    (found,) = placement_of(tmp_path / "m.tflite").hints
    assert found.taken == found.ops
    data = (tmp_path / "m.tflite").read_bytes()
    with pytest.raises((EngineError, BadModel)):
        place(data[: len(data) // 2])


def test_the_facts_of_ops(cut_onnx: Path, tmp_path: Path) -> None:
    first, whole, *_ = op_facts(cut_onnx)
    assert (first.kind, first.window, first.constant) == ("Conv", 2, (False, True))
    assert whole.attributes == {"to": TensorProto.INT32}
    convert(cut_onnx, "litert", tmp_path / "cut.tflite")
    kinds = {each.kind: each for each in op_facts(tmp_path / "cut.tflite")}
    assert kinds["CONV_2D"].ranks == (4, 4, 1, 4)
    assert kinds["CAST"].dtypes in (("float32", "int32"), ("int32", "float32"))
    with pytest.raises(UnknownName):
        op_facts(tmp_path / "m.pt")
