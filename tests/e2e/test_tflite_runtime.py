"""The oldest engine that is accepted: tflite-runtime 2.14.0, which needs numpy 1, in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from edgekit.runtime import load
from tests.runtime_models import write_colours

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tflite-runtime==2.14.0", "numpy==1.26.4", "msgspec")
_UNREACHABLE = ("No matching distribution", "Failed to establish a new connection", "Temporary failure in name",
                "ConnectionError", "ProxyError", "Read timed out")

_SCRIPT = """
import json, sys
import numpy as np
from edgekit.runtime import RuntimeOptions, load

answers = []
for resolution in (None, (7, 9), (4, 6)):
    options = RuntimeOptions(resolution=resolution, cache_dir=sys.argv[2])
    with load(sys.argv[1], options=options) as runtime:
        image = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
        image[:, :, 2] //= 2
        answer = runtime.run(image)
        array = np.linspace(0, 1, 2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 3, 5, 7)
        answers.append({
            "version": runtime.engine_version, "label": answer.label, "resolution": answer.resolution,
            "scores": answer.outputs["scores"].tolist(), "array": runtime.run(array).outputs["scores"].tolist(),
        })
loaded = sorted({name.partition(".")[0] for name in sys.modules} & {"ai_edge_litert", "onnxruntime", "tensorflow"})
print(json.dumps({"numpy": np.__version__, "answers": answers, "loaded": loaded}))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment with the old engine, kept in .cache between runs; skips without packages."""
    if sys.version_info >= (3, 12) or sys.platform != "linux":
        pytest.skip("tflite-runtime 2.14.0 has files for Python up to 3.11 on Linux only")
    folder = ROOT / ".cache" / "tflite-runtime"
    executable = folder / "bin" / "python"
    ready = folder / ".ready"
    if ready.is_file() and ready.read_text() == repr(PACKAGES):
        return executable
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder.parent / ".gitignore").write_text("*\n")
    venv.create(folder, with_pip=True)
    done = subprocess.run([str(executable), "-m", "pip", "install", "--quiet", *PACKAGES], capture_output=True,
                          text=True, check=False)
    if done.returncode and any(sign in done.stderr for sign in _UNREACHABLE):
        pytest.skip(f"pip reaches no packages: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    ready.write_text(repr(PACKAGES))
    return executable


@pytest.mark.slow
def test_a_bundle_runs_on_tflite_runtime_and_numpy_1(python: Path, tmp_path: Path) -> None:
    path = write_colours(tmp_path / "colours.edge")
    done = subprocess.run([str(python), "-c", _SCRIPT, str(path), str(tmp_path / "cache")], cwd=tmp_path, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["numpy"].startswith("1.26")
    assert told["loaded"] == []
    image = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    image[:, :, 2] //= 2
    array = np.linspace(0, 1, 2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 3, 5, 7)
    for answer, resolution in zip(told["answers"], ([4, 6], [7, 9], [4, 6]), strict=True):
        assert answer["version"] == "tflite-runtime 2.14.0"
        assert answer["resolution"] == resolution
        np.testing.assert_allclose(answer["array"], array.mean((2, 3)), rtol=1e-5)
    with load(path, "litert") as runtime:
        here = runtime.run(image)
    assert told["answers"][0]["label"] == here.label
    np.testing.assert_allclose(told["answers"][0]["scores"], here.outputs["scores"], rtol=1e-5)
