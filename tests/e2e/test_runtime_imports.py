"""What is imported when: a phone-sized install must not pay for what it does not use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime_models import write_colours

_HEAVY = ("torch", "onnx", "onnxruntime", "PIL", "cryptography", "ai_edge_litert", "tflite_runtime", "tensorflow",
          "click", "rich", "scipy")
_SCRIPT = """
import json, sys
from edgekit.runtime import RuntimeOptions, load
if len(sys.argv) > 1:
    with load(sys.argv[1], sys.argv[2]) as runtime:
        import numpy
        runtime.run(numpy.zeros((5, 5, 3), numpy.uint8))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", _SCRIPT, *arguments], check=True, capture_output=True, text=True)
    modules = json.loads(done.stdout)
    return [name for name in _HEAVY if name in modules]


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    assert loaded() == []


@pytest.mark.parametrize(("engine", "package"), [("auto", "ai_edge_litert"), ("litert", "ai_edge_litert"),
                                                 ("ort", "onnxruntime")])
def test_running_a_bundle_loads_one_engine_and_nothing_else(tmp_path: Path, engine: str, package: str) -> None:
    path = write_colours(tmp_path / "a.edge")
    assert loaded(str(path), engine) == [package]
