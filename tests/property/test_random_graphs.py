"""Random graphs of the ops that the converter lowers: LiteRT's answer equals ONNX Runtime's."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from edgekit.artifacts import Array
from edgekit.errors import UnsupportedOps
from edgekit.recipe import ConvertRecipe
from tests.onnx_graphs import answer
from tests.ops.harness import convert, run_litert
from tests.property.graphs import Options, RandomGraph, graphs
from tests.property.ops import INPUTS, SCALAR_STEPS, STEPS

TOLERANCE = 1e-4
_REFUSED = (Fail, InvalidArgument, RuntimeException)
_QUICK = settings(max_examples=120, deadline=None, derandomize=True, database=None,
                  suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])  # fmt: skip
_FULL = settings(_QUICK, max_examples=3000)
_OPTIONS = Options(STEPS, SCALAR_STEPS, INPUTS)


def check(graph: RandomGraph) -> str:
    """Compare the engines on ``graph``; a dynamic one also on a second size where ONNX Runtime takes it."""
    try:
        wanted = answer(graph.model, graph.feeds)
    except _REFUSED:  # ONNX's inference of ceil_mode is off by one at times, so that a later Reshape does not fit
        reject()
    assume(all(np.isfinite(array).all() for array in wanted))
    try:
        conversion = convert(graph.model, ConvertRecipe(io_layout=graph.io_layout))
    except UnsupportedOps:
        if not graph.dynamic:
            raise
        return "refused"
    _assert_close(run_litert(conversion, graph.feeds), wanted)
    if not graph.dynamic:
        return "static"
    larger = {name: _doubled(array, graph.dynamic) for name, array in graph.feeds.items()}
    try:
        wanted = answer(graph.model, larger)
    except _REFUSED:  # some constant holds a size
        return "dynamic"
    _assert_close(run_litert(conversion, larger), wanted)
    return "resized"


def _assert_close(actual: list[Array], wanted: list[Array]) -> None:
    """Within ``TOLERANCE`` of the range, or of 0.1 where everything cancels out, up to rounding, to about 0."""
    for ours, theirs in zip(actual, wanted, strict=True):
        assert ours.shape == theirs.shape
        scale = max(float(np.ptp(theirs)), float(np.abs(theirs).max()), 0.1)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * scale)


def _doubled(array: Array, axes: tuple[int, ...]) -> Array:
    for axis in axes:
        if axis < array.ndim:
            array = np.concatenate([array, array[::-1]], axis)
    return array


@given(graphs(_OPTIONS))
@_QUICK
def test_random_graphs(graph: RandomGraph) -> None:
    check(graph)


@pytest.mark.slow
def test_thousands_of_random_graphs() -> None:
    found: Counter[str] = Counter()

    @given(graphs(_OPTIONS))
    @_FULL
    def run(graph: RandomGraph) -> None:
        found[check(graph)] += 1

    run()
    print(f"{sum(found.values())} random graphs: {dict(found)}")  # noqa: T201 - the count is part of the claim
    assert sum(found.values()) >= 2000
    assert found["static"] > found["refused"]
