"""export_exits: from a torch network with exits to an ONNX file that build_adaptive takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.adaptive import AdaptiveRecipe, build_adaptive, export_exits
from edgekit.errors import BadRecipe
from edgekit.train.multi_exit import ExitRecipe, MultiExit
from tests.unit.adaptive_nets import run_onnx

EXAMPLE = torch.zeros(1, 3, 16, 16)


def network(carry: float) -> MultiExit:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    return MultiExit(backbone, ["2", "4"], EXAMPLE, ExitRecipe(carry=carry))


@pytest.mark.parametrize("carry", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_exits_are_exported_and_built(tmp_path: Path, carry: float) -> None:
    made = network(carry).train()
    model = export_exits(made, EXAMPLE)
    assert made.training
    assert [spec.name for spec in model.inputs] == ["image"]
    assert [spec.name for spec in model.outputs] == ["exit0", "exit1", "exit2"]
    assert model.inputs[0].shape == (1, 3, -1, -1)
    x = torch.rand(1, 3, 20, 24)
    want = made.eval()(x)
    got = run_onnx(model, {"image": x.numpy()})
    for number, logits in enumerate(want):
        np.testing.assert_allclose(got[f"exit{number}"], logits.detach().numpy(), atol=1e-5)
    manifest = build_adaptive(model, tmp_path / "n.edge", AdaptiveRecipe(resolutions=((16, 16), (20, 24))))
    for ladder in manifest.ladders:
        running = "exit0" in {spec.name for spec in ladder.stages[1].inputs}
        assert running == (carry > 0)


def test_fixed_sides() -> None:
    assert export_exits(network(0.0), EXAMPLE, dynamic_hw=False).inputs[0].shape == (1, 3, 16, 16)


class NoLogits(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_a_network_without_exits_is_refused() -> None:
    with pytest.raises(BadRecipe, match="tuple of logits"):
        export_exits(NoLogits(), EXAMPLE)
