"""How files of other converters are read, and the verdicts on the corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpus import Outcome, Result, misses, tables
from benchmarks.peer_file import CHANNELS_FIRST, CHANNELS_LAST, closest, fitting, of_allowed, verdict
from edgekit.converters.onnx_model import load_onnx
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.errors import EngineError
from edgekit.parity import reference_sample

RNG = np.random.default_rng(3)
RIGHT, REFUSED = Outcome("right", error=1e-6), Outcome("refused", "UnsupportedOps: no such kernel")
MALFORMED = Result("broken", False, Outcome("refused", "BadModel: no opset"), RIGHT)


def test_an_array_fits_a_shape_as_it_is_or_channels_last() -> None:
    image = RNG.standard_normal((1, 3, 4, 5))
    assert [view.shape for view in fitting(image, (1, 4, 5, 3), CHANNELS_LAST)] == [(1, 4, 5, 3)]
    assert [view.shape for view in fitting(image, (-1, -1, -1, -1), CHANNELS_LAST)] == [(1, 3, 4, 5), (1, 4, 5, 3)]
    assert fitting(image, (1, 5, 4, 3), CHANNELS_LAST) == []
    (back,) = fitting(fitting(image, (1, 4, 5, 3), CHANNELS_LAST)[0], (1, 3, 4, 5), CHANNELS_FIRST)
    np.testing.assert_array_equal(back, image)


def test_outputs_are_matched_by_their_values_in_any_order_of_outputs_and_axes() -> None:
    wanted = {"map": RNG.standard_normal((1, 3, 4, 5)).astype(np.float32), "score": np.array([[1.0, 2.0]], np.float32)}
    got = [wanted["score"], wanted["map"].transpose(0, 2, 3, 1)]
    assert [error.passed for error in closest(wanted, got, 1e-4)] == [True, True]


def test_an_output_counts_for_one_of_the_reference_only() -> None:
    same = RNG.standard_normal((2, 3)).astype(np.float32)
    first, second = closest({"a": same, "b": same}, [same, same + 1], 1e-4)
    assert (first.passed, second.passed) == (True, False)
    assert closest({"a": same, "b": same}, [same], 1e-4)[1].problem == "the file lacks this output"


def test_an_error_is_told_in_units_of_what_is_allowed() -> None:
    wanted = np.array([0.0, 10.0], np.float32)
    (error,) = closest({"y": wanted}, [wanted + np.float32(5e-4)], 1e-4)
    assert error.passed
    assert 0.4 < of_allowed(error) < 0.5
    counts = np.array([1, 2])
    assert of_allowed(closest({"n": counts}, [counts], 1e-4)[0]) == 0
    assert of_allowed(closest({"n": counts}, [counts + 1], 1e-4)[0]) == float("inf")


def test_a_file_is_judged_by_what_it_answers(small_onnx: Path, tmp_path: Path) -> None:
    model = load_onnx(small_onnx)
    inputs, wanted = reference_sample(model, {"image": (2, 3, 16, 16)})
    path = tmp_path / "model.tflite"
    path.write_bytes(to_litert(model).model.data)
    assert all(error.passed for error in verdict(str(path), inputs, wanted, 1e-4))
    wrong = {name: array + 0.1 for name, array in wanted.items()}
    assert not any(error.passed for error in verdict(str(path), inputs, wrong, 1e-4))


def test_a_file_that_the_engine_refuses_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"no flatbuffer at all, and long enough to be read as one")
    with pytest.raises(EngineError, match="refused the file"):
        verdict(str(path), {}, {}, 1e-4)


def test_enough_right_ones_and_a_named_malformed_one_miss_nothing() -> None:
    fixed = Result("b", True, Outcome("fixed", "UnsupportedOps: a branch"), RIGHT)
    assert misses([Result("a", True, RIGHT, REFUSED), fixed, MALFORMED], least=2) == []


def test_each_bar_of_the_corpus_is_named_when_it_is_missed() -> None:
    refused = Result("a", True, REFUSED, RIGHT)
    assert misses([refused, Result("b", True, RIGHT, RIGHT)], least=2) == [
        "1 of 2 models convert and match; the bar is 2"]
    wrong = Result("c", True, Outcome("wrong", "'y': off by 3"), RIGHT)
    assert misses([wrong], least=0) == ["c: wrong: 'y': off by 3"]
    taken = Result("broken", False, RIGHT, REFUSED)
    assert misses([taken], least=0) == ["broken is malformed and gave: right "]


def test_the_table_counts_sound_models_and_gives_reasons() -> None:
    text = tables([Result("a", True, RIGHT, REFUSED), MALFORMED])
    assert "Of 1 sound models convert and answer as ONNX Runtime does: ours 1, onnx2tf 0" in text
    assert "- onnx2tf, a: UnsupportedOps: no such kernel" in text
    assert "- ours, broken: BadModel: no opset" in text
