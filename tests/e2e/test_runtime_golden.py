"""The golden bundle of runtimes/conformance on both engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.runtime import RuntimeOptions, load

CONFORMANCE = Path(__file__).resolve().parents[2] / "runtimes" / "conformance"


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads((CONFORMANCE / "golden.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("engine", ["litert", "ort"])
@pytest.mark.parametrize("key", [None, CONFORMANCE / "test_key.pub"])
def test_the_golden_bundle_gives_the_golden_answer(golden: Any, engine: Any, key: Path | None) -> None:
    options = RuntimeOptions(public_key=key, require_signature=key is not None)
    with load(CONFORMANCE / "golden.edge", engine, options) as runtime:
        assert runtime.signed is golden["signed"]
        assert runtime.signature_checked is (key is not None)
        assert list(runtime.labels) == golden["labels"]
        answer = runtime.run({name: np.array(values, np.float32) for name, values in golden["inputs"].items()})
    for name, values in golden["outputs"].items():
        np.testing.assert_allclose(answer.outputs[name], values, rtol=1e-6)
    scores = np.array(golden["outputs"]["scores"][0])
    chances = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    order = np.argsort(-chances)
    assert [label for label, _ in answer.top] == [golden["labels"][index] for index in order]
    np.testing.assert_allclose([score for _, score in answer.top], chances[order], rtol=1e-6)
