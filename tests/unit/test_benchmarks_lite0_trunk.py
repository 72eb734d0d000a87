"""The trunk of EfficientNet-Lite0 that is fine-tuned, and the graph that it becomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from benchmarks import lite0_features, lite0_heads, lite0_trunk


def test_the_graph_answers_as_the_trained_trunk(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0_trunk, "MODEL", shared / "models" / "efficientnet_lite0_dyn.onnx")
    monkeypatch.setattr(lite0_heads, "SHARED", shared)
    monkeypatch.setattr(lite0_heads, "PACK", shared / "data" / lite0_features.PACK.name)
    pytest.importorskip("efficientnet_lite_pytorch")
    model = lite0_trunk.Heads().eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.mul_(1.01)
    lite0_trunk.write_onnx(model, tmp_path / "trunk.onnx")
    images = np.random.default_rng(0).standard_normal((2, 3, 80, 80)).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "trunk.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": images})
    wanted = model(torch.from_numpy(images))[-1].detach().numpy()
    assert np.abs(found[:, lite0_heads.classifier_rows()] - wanted).max() < 1e-3 * np.abs(wanted).max()
    frozen = [name for name, parameter in model.trunk.named_parameters() if not parameter.requires_grad]
    assert "_blocks.4._project_conv.weight" in frozen
    assert "_blocks.5._project_conv.weight" not in frozen
