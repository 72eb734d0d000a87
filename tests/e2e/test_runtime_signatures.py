"""Signatures of a .tflite file in the engine, by the package's runner and by the calls under it."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.runtime.engines import signatures
from edgekit.runtime.engines.litert import import_interpreter
from tests.quantize_models import images, litert, swish_classifier

pytest.importorskip("ai_edge_litert")


def test_without_the_private_calls_the_runner_gives_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    data = litert(swish_classifier(width=8)).data
    (name,) = import_interpreter()[0](model_content=data).get_signature_list()
    feeds = {"x": np.ascontiguousarray(images(1).transpose(0, 2, 3, 1))}
    with signatures.open_signatures(data, [name])[name] as session:
        assert isinstance(session, signatures.SignatureSession)
        assert session._calls is not None, "the package is built otherwise: the slower path is used everywhere"
        direct = session.run(feeds)["scores"].copy()
    monkeypatch.setattr(signatures, "_Calls", lambda *_: _gone())
    with signatures.open_signatures(data, [name])[name] as session:
        assert isinstance(session, signatures.SignatureSession)
        assert session._calls is None
        np.testing.assert_array_equal(session.run(feeds)["scores"], direct)


def _gone() -> None:
    raise AttributeError("'SignatureRunner' object has no attribute '_subgraph_index'")
