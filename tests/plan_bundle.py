"""An adaptive bundle that needs no training: four colours, which the first exit judges by every 16th pixel only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.adaptive import AdaptiveRecipe, build_adaptive
from edgekit.artifacts import Engine
from edgekit.converters.onnx_model import describe
from edgekit.recipe import Preprocess

LABELS = ("red", "green", "blue", "yellow")
COLOURS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.7, 0.7, 0]], np.float32)


def write_bundle(path: Path, engines: tuple[Engine, ...]) -> None:
    """Two resolutions, 8 and 16 pixels, two exits each."""
    build_adaptive(describe(_network()), path, AdaptiveRecipe(
        resolutions=((8, 8), (16, 16)), exits=("exit0", "exit1"), name="colours", engines=engines, labels=LABELS,
        preprocess=Preprocess(resize="stretch", mean=(127.5,) * 3, std=(127.5,) * 3)))


def write_images(path: Path, count: int, seed: int = 0, labelled: bool = True) -> None:
    """Noisy colours of varied strength, 16 x 16."""
    random = np.random.default_rng(seed)
    labels = random.integers(4, size=count)
    strength = random.gamma(1.5, 14, size=(count, 1, 1, 1))
    pixels = 100 + strength * COLOURS[labels][:, None, None] + random.normal(0, 60, (count, 16, 16, 3))
    arrays: dict[str, npt.NDArray[np.generic]] = {"images": pixels.clip(0, 255).astype(np.uint8)}
    if labelled:
        arrays["labels"] = labels.astype(np.uint8)
    np.savez(path, **arrays)  # type: ignore[arg-type]  # the stub takes the names for options


def _network() -> onnx.ModelProto:
    centred = COLOURS - COLOURS.mean(axis=1, keepdims=True)
    constants = {
        "same": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
        "blur": np.full((3, 1, 3, 3), 1 / 9, np.float32),
        "colours": (12 * centred).T.copy(),
        "bias": np.array([0, 0, 0, -0.2], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "same"], ["trunk"]),
        helper.make_node("AveragePool", ["trunk"], ["few"], kernel_shape=[1, 1], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["few"], ["mean0"]),
        helper.make_node("Flatten", ["mean0"], ["flat0"]),
        helper.make_node("Gemm", ["flat0", "colours", "bias"], ["exit0"]),
        helper.make_node("Conv", ["trunk", "blur"], ["smooth"], pads=[1, 1, 1, 1], group=3),
        helper.make_node("GlobalAveragePool", ["smooth"], ["mean1"]),
        helper.make_node("Flatten", ["mean1"], ["flat1"]),
        helper.make_node("Gemm", ["flat1", "colours", "bias"], ["exit1"]),
    ]
    graph = helper.make_graph(
        nodes, "colours", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("exit0", "exit1")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
