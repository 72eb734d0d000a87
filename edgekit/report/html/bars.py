"""The pictures that are made of boxes, so that their text stays readable on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.report.html.elements import Markup, el, join, number
from edgekit.report.html.kinds import colour, legend
from edgekit.report.layers import LayerNoise
from edgekit.report.profile import DeviceRow, ProfileReport

__all__ = ["device_bars", "layer_bars", "op_bars", "share_stack"]

_SHOWN = 25


def _bar(name: Markup, track: Markup, value: str, class_: str = "") -> Markup:
    return el("div", el("span", name, class_="name"), track, el("span", value, class_="value"),
              class_=f"bar {class_}".rstrip())


def _named(name: str, kind: str) -> Markup:
    return join([el("span", name, title=name), " ", el("small", kind)])


def _track(class_: str, start: float, end: float) -> Markup:
    style = f"left:{100 * start:.2f}%;width:{100 * (end - start):.2f}%"
    return el("span", el("i", class_=class_ or None, style=style), class_="track")


def share_stack(report: ProfileReport) -> Markup:
    """The whole time in one bar, by kind of work, with what the colours mean."""
    shares: dict[str, float] = {}
    for op, op_class in zip(report.prediction.ops, report.classes, strict=True):
        shares[colour(op_class)] = shares.get(colour(op_class), 0) + op.share
    shares = dict(sorted(shares.items(), key=lambda item: -item[1]))
    parts = [el("i", class_=name, style=f"width:{100 * share:.2f}%") for name, share in shares.items()]
    return join([el("div", *parts, class_="stack"), legend(shares)])


def op_bars(report: ProfileReport) -> Markup:
    """The slowest ops."""
    timed = sorted(zip(report.prediction.ops, report.classes, strict=True), key=lambda pair: -pair[0].latency_ms)
    longest = timed[0][0].latency_ms
    return join(
        _bar(_named(op.name, op.kind), _track(colour(op_class), 0, op.latency_ms / longest),
             number(op.latency_ms, "ms"))
        for op, op_class in timed[:_SHOWN] if op.latency_ms > 0
    )


def layer_bars(layers: Sequence[LayerNoise]) -> Markup:
    """The layers whose own noise costs most, by the decibels that it costs."""
    worst = sorted(layers, key=lambda each: -each.gain_db)[:_SHOWN]
    most = max(worst[0].gain_db, 1e-9)
    return join(
        _bar(_named(each.tensor, f"{each.kind}, {_outliers(each)}{each.sqnr_db:.1f} dB after it"),
             _track("other" if each.outlier_channels else "conv", 0, each.gain_db / most), f"{each.gain_db:.2f} dB")
        for each in worst if each.gain_db > 0
    )


def _outliers(layer: LayerNoise) -> str:
    return f"{layer.outlier_channels} outlier channels, " if layer.outlier_channels else ""


def device_bars(rows: Sequence[DeviceRow], here: str) -> Markup:
    """Latency on every calibrated device with its band, by logarithm."""
    low, high = math.log(min(row.low_ms for row in rows)), math.log(max(row.high_ms for row in rows))
    wide = max(high - low, 1e-9)

    def at(ms: float) -> float:
        return (math.log(ms) - low) / wide

    bars = []
    for row in rows:
        band = f"left:{100 * at(row.low_ms):.2f}%;width:{100 * (at(row.high_ms) - at(row.low_ms)):.2f}%"
        told = f"90 % band {number(row.low_ms)} to {number(row.high_ms, 'ms')}"
        track = el("span", el("i", style=band), el("em", style=f"left:{100 * at(row.latency_ms):.2f}%"),
                   class_="track range", title=told)
        classes = [name for name, wanted in (("here", row.profile == here), ("outside", not row.inside_domain))
                   if wanted]
        bars.append(_bar(el("span", row.device, title=row.profile), track, number(row.latency_ms, "ms"),
                         " ".join(classes)))
    return join(bars)
