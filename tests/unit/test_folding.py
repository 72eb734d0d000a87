"""Constants that are computed during conversion."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.converters.onnx_to_litert.folding import fold


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 4, 5, 2)])
def test_the_global_maximum_of_a_constant_is_over_all_axes_of_space(shape: tuple[int, ...]) -> None:
    constant = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = fold(ir.node("GlobalMaxPool", [ir.val("k")]), [constant], 18)
    assert found is not None
    assert np.array_equal(found[0], constant.reshape(2, 3, -1).max(axis=2).reshape(2, 3, *[1] * (len(shape) - 2)))
