"""Labels and probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.artifacts import TensorSpec
from edgekit.errors import BadBundle, EngineError
from edgekit.runtime.classify import Classifier, parse_labels, probabilities

SCORES = TensorSpec("scores", "float32", (1, 3))


@given(hnp.arrays(np.float32, st.integers(2, 50), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_probabilities_are_a_distribution_that_keeps_the_order(scores: np.ndarray) -> None:
    chances = probabilities(scores)
    assert abs(chances.sum() - 1) < 2e-3
    assert (chances >= 0).all()
    assert chances[np.argmax(scores)] == chances.max()


def test_softmax_of_large_scores_does_not_overflow() -> None:
    np.testing.assert_allclose(probabilities(np.array([1000, 1001], np.float32)),
                               [1 / (1 + np.e), np.e / (1 + np.e)])


def test_a_network_that_ends_in_softmax_is_not_softened_a_second_time() -> None:
    chances = np.array([0.9, 0.07, 0.03], np.float32)
    np.testing.assert_array_equal(probabilities(chances), chances.astype(np.float64))
    assert probabilities(np.array([0.9, 0.7, 0.3], np.float32)).max() < 0.5


def test_the_best_come_first_and_equal_ones_in_the_order_of_labels() -> None:
    classify = Classifier(("a", "b", "c"), SCORES, top=5)
    top = classify(np.array([[2.0, 5.0, 2.0]], np.float32))
    assert [label for label, _ in top] == ["b", "a", "c"]
    assert sum(score for _, score in top) == pytest.approx(1)
    many = tuple(map(str, range(100)))
    equal = Classifier(many, TensorSpec("scores", "float32", (100,)), top=99)(np.zeros(100, np.float32))
    assert [label for label, _ in equal] == list(many[:99])
    assert len(Classifier(("a", "b", "c"), SCORES, top=2)(np.zeros((1, 3), np.float32))) == 2


def test_a_batch_of_several_gets_no_label() -> None:
    free = TensorSpec("scores", "float32", (-1, 3))
    assert Classifier(("a", "b", "c"), free, top=5)(np.zeros((2, 3), np.float32)) == ()


@pytest.mark.parametrize("count", [2, 4])
def test_labels_that_do_not_fit_the_output_are_refused(count: int) -> None:
    with pytest.raises(BadBundle, match=rf"{count} labels.*'scores' has 3 classes"):
        Classifier(("label",) * count, SCORES, top=5)


def test_an_output_of_unknown_width_is_checked_when_it_arrives() -> None:
    classify = Classifier(("a", "b"), TensorSpec("scores", "float32", (1, -1)), top=5)
    with pytest.raises(BadBundle, match=r"2 labels.*3 classes"):
        classify(np.zeros((1, 3), np.float32))


@pytest.mark.parametrize("spec", [TensorSpec("scores", "int8", (1, 3)), TensorSpec("scores", "float32", ())])
def test_an_output_without_float_scores_is_refused(spec: TensorSpec) -> None:
    with pytest.raises(BadBundle, match="no float scores"):
        Classifier(("a", "b", "c"), spec, top=5)


def test_scores_that_are_not_finite_name_no_class() -> None:
    with pytest.raises(EngineError, match="'scores'"):
        Classifier(("a", "b", "c"), SCORES, top=5)(np.array([[0, np.nan, 1]], np.float32))


def test_labels_are_lines() -> None:
    assert parse_labels(b"one\ntwo words\r\n\xc3\xa9t\xc3\xa9\n", "l") == ("one", "two words", "\u00e9t\u00e9")
    assert parse_labels("a\u2028b\nc".encode(), "l") == ("a\u2028b", "c")


@pytest.mark.parametrize("data", [b"", b"\xff\xfe"])
def test_labels_that_are_no_text_are_refused(data: bytes) -> None:
    with pytest.raises(BadBundle, match=r"labels\.txt"):
        parse_labels(data, "labels.txt")
