"""Every op of the table: LiteRT's answer equals ONNX Runtime's; the list of lowerings has no op without a case."""

from __future__ import annotations

import pytest

from edgekit.converters.onnx_to_litert.ops import LOWERINGS
from tests.ops.cases import CASES
from tests.ops.harness import Case, assert_same, convert, model_of, reference, run_litert


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_litert_equals_onnx_runtime(case: Case) -> None:
    model, feeds = model_of(case)
    conversion = convert(model)
    assert_same(run_litert(conversion, feeds), reference(model, feeds, case.by_onnx), case.tolerance)
    for kind, count in case.expect.items():
        assert conversion.op_counts.get(kind, 0) == count, dict(conversion.op_counts)


def test_every_lowering_has_a_case() -> None:
    assert set(LOWERINGS) - {case.op for case in CASES} == set()
