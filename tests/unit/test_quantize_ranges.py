from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit.converters.quantize.histogram import Histogram, RangeFinder
from edgekit.converters.quantize.quality import MAX_DB, Noise, sqnr_db


def quantized(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scale = max(high - low, 1e-9) / 255
    return low + np.clip(np.round((values - low) / scale), 0, 255) * scale


def test_minmax_is_over_all_samples_and_average_follows_slowly() -> None:
    minmax, average = RangeFinder("minmax", 99.9), RangeFinder("average", 99.9)
    for low, high in ((-1.0, 2.0), (-3.0, 1.0)):
        for finder in (minmax, average):
            finder.add([("t", np.array([low, 0, high], np.float32))])
    assert minmax.ranges() == {"t": (-3.0, 2.0)}
    assert average.ranges()["t"] == pytest.approx((-0.95 - 0.15, 1.9 + 0.05))


@settings(max_examples=50)
@given(st.lists(arrays(np.float32, 40, elements=st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=4))
def test_a_histogram_counts_every_value_whatever_the_order(chunks: list[np.ndarray]) -> None:
    histogram = Histogram()
    for chunk in chunks:
        histogram.add(chunk)
    assert histogram.counts.sum() == sum(chunk.size for chunk in chunks)
    whole = histogram.percentile(100.0)
    everything = np.concatenate(chunks)
    width = 2 * histogram.limit / 2048
    assert whole[0] <= everything.min() + 1e-6 * histogram.limit
    assert whole[1] >= everything.max() - 1e-6 * histogram.limit
    assert whole[1] - whole[0] <= np.ptp(everything) + 2.01 * width + 1e-8


def test_percentile_leaves_the_tails_out() -> None:
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    finder = RangeFinder("percentile", 99.0)
    for chunk in np.split(values, 10):
        finder.add([("t", chunk)])
    low, high = finder.ranges()["t"]
    assert low == pytest.approx(np.quantile(values, 0.005), abs=0.02)
    assert high == pytest.approx(np.quantile(values, 0.995), abs=0.02)


def test_entropy_cuts_a_lone_outlier_and_keeps_an_even_spread() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(100_000).astype(np.float32)
    finder = RangeFinder("entropy", 99.99)
    finder.add([("outlier", np.append(values, np.float32(40))), ("even", rng.uniform(-1, 1, 100_000))])
    ranges = finder.ranges()
    assert ranges["outlier"][1] < 20
    body = values[np.abs(values) < 3]
    cut = np.mean((quantized(body, *ranges["outlier"]) - body) ** 2)
    full = np.mean((quantized(body, float(values.min()), 40.0) - body) ** 2)
    assert cut < full / 3
    assert ranges["even"][0] == pytest.approx(-1, abs=0.05)
    assert ranges["even"][1] == pytest.approx(1, abs=0.05)


def test_tensors_with_nan_or_infinity_have_no_range() -> None:
    finder = RangeFinder("minmax", 99.9)
    finder.add([("good", np.ones(3, np.float32)), ("bad", np.array([1, np.inf], np.float32))])
    finder.add([("good", np.zeros(3, np.float32)), ("bad", np.ones(2, np.float32))])
    assert finder.ranges() == {"good": (0.0, 1.0)}
    assert finder.not_finite == {"bad"}


def test_sqnr() -> None:
    assert sqnr_db(100.0, 1.0) == pytest.approx(20)
    assert sqnr_db(1.0, 0.0) == MAX_DB
    assert sqnr_db(0.0, 1.0) == -MAX_DB
    assert sqnr_db(1.0, float("nan")) == -MAX_DB


def test_noise_takes_the_worst_output_and_counts_nan_as_failure() -> None:
    noise = Noise()
    want = {"a": np.ones(10), "b": np.ones(10)}
    noise.add_all(want, {"a": np.ones(10) + 0.1, "b": np.ones(10) + 0.01})
    assert noise.worst_db(["a", "b"]) == pytest.approx(20)
    noise.add("b", np.ones(2), np.array([1.0, np.nan]))
    assert noise.db("b") == -MAX_DB


def test_extreme_leaves_room_by_the_spread_of_the_samples_maxima() -> None:
    rng = np.random.default_rng(0)
    tall = rng.gumbel(10, 2, (3000, 1)).astype(np.float32)
    exceeded = []
    for start in range(0, 1000, 50):
        finder = RangeFinder("extreme", 99.9)
        for peak in tall[start:start + 50, 0]:
            finder.add([("t", np.array([0, peak], np.float32)), ("relu6", np.array([0, min(peak, 11)], np.float32))])
        (low, high), capped = finder.ranges()["t"], finder.ranges()["relu6"]
        assert low == 0.0, "what every sample reaches is a bound"
        assert high >= tall[start:start + 50].max()
        assert capped == (0.0, 11.0)
        exceeded.append(float((tall[1000:] > high).mean()))
    assert 0 < np.mean(exceeded) < 0.005


def test_extreme_of_a_few_samples_is_what_was_seen() -> None:
    finder = RangeFinder("extreme", 99.9)
    for value in range(7):
        finder.add([("t", np.array([-value, value], np.float32))])
    assert finder.ranges() == {"t": (-6.0, 6.0)}
