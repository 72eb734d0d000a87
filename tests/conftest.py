"""Fixtures that several test files share."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit import isolate
from tests.nursery import Nursery

ROOT = Path(__file__).resolve().parent.parent

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: a pool of threads in each of them, and in their children, would wait for the others.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with data sets and models that are not part of this repository; skips where it is absent."""
    folder = Path(os.environ.get("EDGEKIT_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the folder of data sets and models (EDGEKIT_SHARED, here {folder}), which is absent")
    return folder


@pytest.fixture(scope="session", autouse=True)
def nursery() -> Iterator[Nursery | None]:
    """Where the child processes of this test process come from; None where nothing can be forked."""
    if sys.platform != "linux":
        yield None
        return
    with pytest.MonkeyPatch.context() as patch:
        made = Nursery()
        patch.setattr(isolate, "_start", made.isolated)
        yield made
    made.close()


@pytest.fixture(scope="session")
def edgekit_in(nursery: Nursery | None) -> Cli:
    """Run ``edgekit ARGUMENTS`` in a process of its own in the folder that is given first.

    Only a process with a changed environment, apart from EDGEKIT_*, is an interpreter of its own from start to end.
    """

    def run(
        folder: Path, *arguments: object, timeout_s: float = 240, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EDGEKIT_")}
        wanted, words = {**clean, **environment}, [str(each) for each in arguments]
        if nursery is not None and all(name.startswith("EDGEKIT_") for name in environment):
            return nursery.run(words, folder, wanted, timeout_s)
        return subprocess.run([sys.executable, "-m", "edgekit", *words], cwd=folder, env=wanted,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False)

    return run


@pytest.fixture
def cli(tmp_path: Path, edgekit_in: Cli) -> Cli:
    """Run ``edgekit ARGUMENTS`` in a process of its own, in the test's temporary folder."""
    return functools.partial(edgekit_in, tmp_path)


@pytest.fixture(scope="session")
def small_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier: ``image`` (batch, 3, 16, 16) float32 to ``scores`` (batch, 5), the batch dynamic."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(7)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "w0", "b0"], ["c0"], "conv", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], "relu"),
        helper.make_node("GlobalAveragePool", ["r0"], ["p0"], "pool"),
        helper.make_node("Flatten", ["p0"], ["f0"], "flatten"),
        helper.make_node("Gemm", ["f0", "w1", "b1"], ["scores"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 5])],
        [weight("w0", 8, 3, 3, 3), weight("b0", 8), weight("w1", 5, 8), weight("b1", 5)],
    )
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
