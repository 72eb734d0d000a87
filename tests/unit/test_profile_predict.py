"""Predictions: sensible for any network, wider where nothing alike was measured, and never zero for what is unknown."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.device_profiles import DeviceProfile, find, load_population, load_profiles, resolve
from edgekit.errors import BadRecipe, UnknownName
from edgekit.graph.costs import OP_CLASSES, GraphCosts, OpClass, OpCost
from edgekit.profile.predict import predict
from edgekit.profile.terms import SHAPE_PRIOR, TERMS, OpTable, term_amounts

FITTED = [profile for profile in load_profiles() if profile.fit]


def conv(cin: int = 64, cout: int = 64, side: int = 28, kernel: int = 1, stride: int = 1, name: str = "c") -> OpCost:
    pixels = side * side
    return OpCost(
        name=name,
        kind="Conv",
        op_class="conv",
        macs=pixels * cin * cout * kernel**2,
        cin=cin,
        cout=cout,
        out_h=side,
        out_w=side,
        kernel_h=kernel,
        kernel_w=kernel,
        stride=stride,
        in_elements=pixels * stride**2 * cin,
        out_elements=pixels * cout,
        weight_elements=cin * cout * kernel**2,
    )


def depthwise(channels: int = 64, side: int = 28) -> OpCost:
    pixels = side * side
    return OpCost(
        name="d",
        kind="Conv",
        op_class="depthwise",
        macs=9 * pixels * channels,
        cin=channels,
        cout=channels,
        out_h=side,
        out_w=side,
        kernel_h=3,
        kernel_w=3,
        groups=channels,
        in_elements=pixels * channels,
        out_elements=pixels * channels,
        weight_elements=9 * channels,
    )


def network(*ops: OpCost) -> GraphCosts:
    return GraphCosts(ops, 0, 0)


MOBILE = (conv(3, 32, 112, 3, 2), *(op for _ in range(6) for op in (depthwise(), conv())))
PI = resolve("raspberry-pi-4")


def test_thirty_arm_boards_with_one_thread_are_calibrated() -> None:
    calibrated = [profile for profile in FITTED if profile.confidence == "calibrated"]
    assert len(calibrated) >= 30
    assert all(profile.threads == 1 and profile.backend == "cpu" for profile in calibrated)
    assert all(profile.confidence == "low" for profile in FITTED if profile.backend == "cpu" and profile.threads != 1)
    assert all(profile.confidence == "indicative" for profile in FITTED if profile.backend == "gpu")


@pytest.mark.parametrize("profile", FITTED, ids=lambda profile: profile.id)
def test_a_fitted_profile_is_complete_and_sensible(profile: DeviceProfile) -> None:
    assert profile.fit is not None
    assert set(profile.fit.costs_ms) == set(TERMS)
    assert load_population(profile.fit.population).boards >= 10
    assert profile.fit.accuracy.networks >= 15
    found = predict(network(*MOBILE), profile)
    low, high = found.band_ms
    assert 0 < low < found.latency_ms < high
    assert sum(op.latency_ms for op in found.ops) == pytest.approx(found.latency_ms)
    assert sum(op.share for op in found.ops) == pytest.approx(1)


def test_a_faster_board_is_predicted_faster() -> None:
    times = [predict(network(*MOBILE), resolve(f"raspberry-pi-{n}")).latency_ms for n in (3, 4, 5)]
    assert times == sorted(times, reverse=True)
    assert times[0] > 3 * times[2]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 60),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 2]),
    st.sampled_from(["cin", "cout", "side"]),
)
def test_a_larger_op_never_costs_less(cin: int, cout: int, side: int, kernel: int, stride: int, grown: str) -> None:
    small: dict[str, Any] = {"cin": cin, "cout": cout, "side": side, "kernel": kernel, "stride": stride}
    large = {**small, grown: 2 * small[grown]}
    # Convolutions change their algorithm at a few channels; within one algorithm more is never cheaper.
    if (min(cin, cout) < 16) == (min(large["cin"], large["cout"]) < 16) and (cin <= 4) == (large["cin"] <= 4):
        first, second = (predict(network(conv(**sizes)), PI).latency_ms for sizes in (small, large))
        assert second >= first


@given(st.sampled_from(OP_CLASSES), st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**9))
def test_no_term_is_negative_and_only_renaming_is_free(op_class: OpClass, read: int, written: int, macs: int) -> None:
    op = OpCost(name="o", kind="k", op_class=op_class, in_elements=read, out_elements=written, macs=macs)
    amounts = term_amounts(OpTable([[op]]), SHAPE_PRIOR)
    assert amounts.shape == (1, len(TERMS))
    assert (amounts >= 0).all()
    assert (amounts.sum() > 0) == (op_class != "free")


def test_amounts_of_two_graphs_do_not_mix() -> None:
    both = OpTable([MOBILE, (conv(),)])
    sums = both.per_graph(term_amounts(both))
    alone = [term_amounts(table).sum(axis=0) for table in (OpTable([MOBILE]), OpTable([(conv(),)]))]
    np.testing.assert_allclose(sums, np.stack(alone))


def test_an_unknown_op_takes_time_is_marked_and_widens_the_band() -> None:
    strange = OpCost(name="s", kind="vendor.Thing", op_class="unknown", in_elements=10**6, out_elements=10**6)
    plain, odd = predict(network(*MOBILE), PI), predict(network(*MOBILE, strange), PI)
    assert odd.latency_ms > plain.latency_ms
    assert [op.name for op in odd.ops if not op.known] == ["s"]
    assert odd.covered < plain.covered
    assert odd.band_ms[1] / odd.latency_ms > plain.band_ms[1] / plain.latency_ms
    assert any("vendor.Thing" in finding for finding in odd.findings)
    assert not predict(network(strange), PI).inside_domain


def test_a_network_like_those_of_the_fit_is_inside_the_domain_and_a_pure_softmax_is_not() -> None:
    assert predict(network(*MOBILE, *MOBILE[1:] * 6), PI).inside_domain  # one stem before several blocks
    softmax = OpCost(name="s", kind="Softmax", op_class="softmax", in_elements=10**6, out_elements=10**6)
    found = predict(network(softmax), PI)
    assert not found.inside_domain
    assert found.findings


def test_a_quantized_network_is_outside_a_profile_of_float_ones() -> None:
    small = tuple(msgspec.structs.replace(op, bits=8) for op in MOBILE)
    found = predict(network(*small), PI)
    assert not found.inside_domain
    assert any("quantized" in finding for finding in found.findings)


def test_what_cannot_be_predicted_is_refused() -> None:
    (look_up,) = find("Google Pixel 3", backend="cpu", precision="float32", threads=4)
    with pytest.raises(BadRecipe, match="measured latencies only"):
        predict(network(*MOBILE), look_up)
    with pytest.raises(BadRecipe, match="no ops"):
        predict(network(), PI)
    with pytest.raises(UnknownName, match="raspberry-pi-4"):
        resolve("raspberry-py-4")
