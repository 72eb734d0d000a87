"""The curve of accuracy against time as an SVG file: the plan's routes, the fixed points and their hull."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from html import escape
from typing import NamedTuple

from edgekit.bundle.adaptive import Promise
from edgekit.plan.make import FixedPoint, Planned

__all__ = ["INK", "draw_curve", "text"]

_WIDTH, _HEIGHT = 760, 470
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 66, 56
_GREY, _BLUE, _ORANGE, INK = "#8a8f98", "#1f6fd6", "#d9640b", "#22262b"


class _Scale(NamedTuple):
    """From values to pixels, linear; ``ticks`` are the values that are labelled."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def draw_curve(planned: Planned, title: str) -> str:
    """An SVG document. Bars are 95 % intervals; the dashed line is what random mixing of fixed points reaches."""
    plan = planned.plan
    promises = [route.promise for route in plan.routes]
    fixed = [point for point in planned.fixed if point.on_hull or len(point.chain) == 1]
    everything: list[Promise | FixedPoint] = [*promises, *fixed]
    times = [each.mean_ms for each in everything]
    values = [100 * end for each in everything for end in (*each.interval, each.accuracy)]
    x = _scale(0, max(times) * 1.03, _LEFT, _WIDTH - _RIGHT)
    y = _scale(min(values), max(values), _HEIGHT - _BOTTOM, _TOP)
    hull = sorted((point for point in fixed if point.on_hull), key=lambda point: point.mean_ms)
    default = promises[plan.default]
    parts = [
        *_axes(x, y, "mean milliseconds per input", "accuracy, %" if _labelled(plan.notes) else "agreement, %"),
        _line(((x(p.mean_ms), y(100 * p.accuracy)) for p in hull), _GREY, 'stroke-dasharray="6 4"'),
        *(part for point in fixed for part in _marked(x, y, point, _GREY)),
        _line(((x(p.mean_ms), y(100 * p.accuracy)) for p in promises), _BLUE),
        *(part for promise in promises for part in _marked(x, y, promise, _BLUE)),
        f'<circle cx="{x(default.mean_ms):.1f}" cy="{y(100 * default.accuracy):.1f}" r="8" fill="none" '
        f'stroke="{_ORANGE}" stroke-width="2.5"/>',
        *_legend(),
    ]
    note = f"{plan.device}, {plan.source} times, {default.samples} samples; objective: {plan.objective}"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        text(_LEFT, 22, title, 'font-size="16" font-weight="600"'), text(_LEFT, 40, note, f'fill="{_GREY}"'),
        *parts, "</svg>", "",
    ])


def _labelled(notes: Iterable[str]) -> bool:
    return not any("no labels" in note for note in notes)


def _scale(low: float, high: float, start: float, end: float) -> _Scale:
    """Round ticks, 4 to 9 of them; the scale ends at the outer ones."""
    span = max(high - low, 1e-6)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if span / (each * power) <= 7)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return _Scale(first * step, last * step, start, end, tuple(index * step for index in range(first, last + 1)))


def _axes(x: _Scale, y: _Scale, below: str, beside: str) -> Iterator[str]:
    for tick in x.ticks:
        yield f'<path d="M{x(tick):.1f} {y.start} V{y.end}" stroke="#eceef1"/>'
        yield text(x(tick), y.start + 18, f"{tick:g}", 'text-anchor="middle"')
    for tick in y.ticks:
        yield f'<path d="M{x.start} {y(tick):.1f} H{x.end}" stroke="#eceef1"/>'
        yield text(x.start - 8, y(tick) + 4, f"{tick:g}", 'text-anchor="end"')
    yield f'<path d="M{x.start} {y.end} V{y.start} H{x.end}" fill="none" stroke="{INK}"/>'
    yield text((x.start + x.end) / 2, y.start + 42, below, 'text-anchor="middle"')
    middle = (y.start + y.end) / 2
    yield text(18, middle, beside, f'text-anchor="middle" transform="rotate(-90 18 {middle})"')


def _marked(x: _Scale, y: _Scale, point: FixedPoint | Promise, colour: str) -> Iterator[str]:
    """A dot with its interval."""
    at, low, high = x(point.mean_ms), *(y(100 * end) for end in point.interval)
    yield f'<path d="M{at:.1f} {low:.1f} V{high:.1f}" stroke="{colour}" stroke-opacity="0.45"/>'
    yield f'<circle cx="{at:.1f}" cy="{y(100 * point.accuracy):.1f}" r="3.5" fill="{colour}"/>'


def _line(points: Iterable[tuple[float, float]], colour: str, more: str = "") -> str:
    path = " L".join(f"{across:.1f} {up:.1f}" for across, up in points)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6" {more}/>'


def _legend() -> Iterator[str]:
    entries = ((_BLUE, "routes of the plan"), (_GREY, "fixed points, and their hull by random mixing"),
               (_ORANGE, "default"))
    across = float(_LEFT)
    for colour, words in entries:
        yield f'<circle cx="{across + 5}" cy="54" r="4" fill="{colour}"/>'
        yield text(across + 14, 58, words)
        across += 36 + 6.4 * len(words)


def text(across: float, down: float, words: str, more: str = "") -> str:
    """An SVG text element, escaped; ``more``: further attributes."""
    return f'<text x="{across:.1f}" y="{down:.1f}" {more}>{escape(words)}</text>'
