"""Small networks of the zoo through both engines, with dynamic sizes where they have them."""

from __future__ import annotations

import pytest

from edgekit.pipeline import convert
from edgekit.recipe import ExportRecipe
from edgekit.zoo import ZOO, build, find
from edgekit.zoo.to_onnx import to_onnx

#: one of each file; those left out are made of the same blocks as others
FAMILIES = {entry.family: entry.name for entry in sorted(ZOO, key=lambda entry: -(entry.parameters or 0))
            if entry.family not in ("deit", "mobilenet_v2", "mobilenet_v3")}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES.values())
def test_both_engines_answer_as_torch(name: str) -> None:
    entry, resolution = find(name), 64
    network = build(name, width=0.25, depth=0.2, resolution=resolution, classes=10, seed=0)
    recipe = ExportRecipe(dynamic_hw=entry.dynamic, dynamic_batch=entry.dynamic, input_names=("image",),
                          output_names=("logits",))
    model = to_onnx(network, entry, resolution, recipe)  # compared with torch, also at other sizes
    found = convert(model, "litert")  # compared with ONNX Runtime
    assert found.verification is not None
    assert found.verification.passed
    assert ("TRANSPOSE" in found.op_counts) == (entry.family == "levit"), "only attention moves data about"
