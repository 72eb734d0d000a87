"""The runner of ONNX's backend tests tells its classes apart; some tests of every kind give what they gave before."""

from __future__ import annotations

import faulthandler
import importlib
import os
import sys
from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.backend.test.case import node
from onnx.backend.test.case.test_case import TestCase

from benchmarks import onnx_backend
from benchmarks.onnx_backend import Job, Result, run_tests
from benchmarks.onnx_backend_case import Outcome, load_tests

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the runner forks"),
    pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning"),  # the package computes its own test data
]


def _relu(wanted: list[float], op: str = "Relu", element_type: int = TensorProto.FLOAT) -> TestCase:
    """A test of one op on [-1, 2] that expects ``wanted``."""
    infos = [helper.make_tensor_value_info(name, element_type, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    dtype = helper.tensor_dtype_to_np_dtype(element_type)
    data = [([np.array([-1, 2], dtype)], [np.array(wanted, dtype)])]
    return TestCase("test_own", "own", None, None, model, data, "node", 1e-3, 1e-7)


def _run(test: TestCase, limit_s: float = 60) -> Result:
    (result,) = run_tests([Job("node", "own", test)], 1, limit_s)
    return result


def test_right_values_pass() -> None:
    assert _run(_relu([0, 2])).status == "passed"


def test_other_values_are_wrong() -> None:
    result = _run(_relu([0, 3]))
    assert result.status == "wrong"
    assert "2" in result.reason


def test_what_litert_cannot_express_is_refused_with_the_reason() -> None:
    result = _run(_relu([0, 2], "Exp", TensorProto.DOUBLE))
    assert result.status == "refused"
    assert "float64" in result.reason


def test_a_dead_process_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def abort(_test: TestCase, stage: Callable[[str], None], _xnnpack: bool) -> Outcome:
        stage("running")
        faulthandler.disable()  # pytest's would write the child's stack into the report
        os.abort()

    monkeypatch.setattr(onnx_backend, "judge", abort)
    result = _run(_relu([0, 2]))
    assert result.status == "crash"
    assert result.reason.startswith("SIGABRT while running")


def test_a_process_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(_test: TestCase, _stage: Callable[[str], None], _xnnpack: bool) -> Outcome:
        while True:
            pass

    monkeypatch.setattr(onnx_backend, "judge", hang)
    result = _run(_relu([0, 2]), limit_s=1)
    assert (result.status, "not done within 1 s" in result.reason) == ("error", True)


def _own_tests(kind: str, name: str) -> list[TestCase]:
    """Of kind "node" those of one op: to make all of them takes seconds."""
    if kind != "node":
        return load_tests(kind)
    module = {"attention": "attention", "cast": "cast", "reduce": "reducesum", "slice": "slice"}[name.split("_")[1]]
    importlib.import_module(f"{node.__name__}.{module}")
    return node._NodeTestCases


@pytest.mark.parametrize(
    ("kind", "name", "status"),
    [
        ("node", "test_reduce_sum_keepdims_random", "passed"),
        ("node", "test_slice", "passed"),
        ("node", "test_attention_3d_causal", "passed"),
        ("node", "test_cast_FLOAT_to_FLOAT8E5M2", "refused"),
        ("pytorch-converted", "test_Conv3d_groups", "passed"),
        ("pytorch-operator", "test_operator_pad", "passed"),
        ("simple", "test_sequence_model1", "refused"),
    ],
)
def test_results_of_the_package_s_own_tests(kind: str, name: str, status: str) -> None:
    (test,) = [test for test in _own_tests(kind, name) if test.name == name]
    result = _run(test)
    assert result.status == status, result.reason


@pytest.mark.slow
def test_no_backend_test_gives_a_wrong_answer_or_crashes() -> None:
    assert onnx_backend.main(["--workers", "2"]) == 0
