"""The drawn pictures of the report, as SVG inside the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.report.html.elements import Markup, el, join, number
from edgekit.report.html.kinds import colour
from edgekit.report.profile import Roof, RooflinePoint

__all__ = ["memory_plot", "roofline_plot"]

_WIDTH, _HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 16, 46
_NAMED = 3


class _Scale:
    """From values to pixels, even or by logarithm."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        self._log, self._start, self._end = log, start, end
        self.low, self.high = low, high if high > low else low + 1

    def at(self, value: float) -> float:
        """The pixel of ``value``, kept inside."""
        low, high = self.low, self.high
        if self._log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-12))
        part = min(max((value - low) / (high - low), 0.0), 1.0)
        return round(self._start + part * (self._end - self._start), 1)

    def ticks(self) -> list[float]:
        """Round values along the axis."""
        if self._log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= 3 else (1,)
            return [v for exponent in range(first, last + 1) for step in steps
                    if self.low <= (v := step * 10.0**exponent) <= self.high]
        rough = (self.high - self.low) / 5
        step = 10.0 ** math.floor(math.log10(rough))
        step *= next((factor for factor in (1, 2, 5) if step * factor >= rough), 10)
        return [step * index for index in range(math.floor(self.high / step) + 1)]


def _x_scale(low: float, high: float, log: bool = False) -> _Scale:
    return _Scale(low, high, _LEFT, _WIDTH - _RIGHT, log)


def _y_scale(low: float, high: float, log: bool = False) -> _Scale:
    return _Scale(low, high, _HEIGHT - _BOTTOM, _TOP, log)


def _axes(x: _Scale, y: _Scale, x_name: str, y_name: str) -> Markup:
    bottom, left, right = _HEIGHT - _BOTTOM, _LEFT, _WIDTH - _RIGHT
    parts = []
    for tick in x.ticks():
        parts += [el("line", x1=x.at(tick), x2=x.at(tick), y1=_TOP, y2=bottom, class_="axis"),
                  el("text", f"{tick:g}", x=x.at(tick), y=bottom + 17, text_anchor="middle")]
    for tick in y.ticks():
        parts += [el("line", x1=left, x2=right, y1=y.at(tick), y2=y.at(tick), class_="axis"),
                  el("text", f"{tick:g}", x=left - 8, y=y.at(tick) + 4, text_anchor="end")]
    middle = (_TOP + bottom) / 2
    parts += [el("text", x_name, x=(left + right) / 2, y=_HEIGHT - 8, text_anchor="middle"),
              el("text", y_name, x=16, y=middle, text_anchor="middle", transform=f"rotate(-90 16 {middle})")]
    return join(parts)


def _svg(label: str, *children: Markup) -> Markup:
    picture = el("svg", *children, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label)
    return el("div", picture, class_="wide")


def roofline_plot(points: Sequence[RooflinePoint], roof: Roof) -> Markup:
    """Multiply-adds a second over multiply-adds for each byte, both by logarithm; the area of a dot is its time."""
    speeds = [point.gmacs_per_s for point in points]
    densities = [point.macs_per_byte for point in points]
    x = _x_scale(min(*densities, 0.5) / 1.5, max(*densities, roof.gmacs_per_s / roof.gbytes_per_s) * 2, log=True)
    y = _y_scale(min(*speeds, roof.gmacs_per_s) / 2, max(*speeds, roof.gmacs_per_s) * 1.5, log=True)
    knee = roof.gmacs_per_s / roof.gbytes_per_s
    start = max(x.low, y.low / roof.gbytes_per_s)
    corners = [(start, start * roof.gbytes_per_s), (knee, roof.gmacs_per_s), (x.high, roof.gmacs_per_s)]
    line = " ".join(f"{x.at(a)},{y.at(b)}" for a, b in corners)
    longest = max(point.latency_ms for point in points)
    dots = [
        el("circle", el("title", f"{point.name} ({point.kind}): {number(point.latency_ms, 'ms')}, "
                                 f"{number(point.gmacs_per_s, 'GMAC/s')}, {number(point.macs_per_byte, 'MAC/B')}"),
           cx=x.at(point.macs_per_byte), cy=y.at(point.gmacs_per_s), class_=f"dot {colour(point.op_class)}",
           r=round(3 + 11 * math.sqrt(point.latency_ms / longest), 1))
        for point in sorted(points, key=lambda each: -each.latency_ms)
    ]
    names = [
        el("text", _short(point.name), x=x.at(point.macs_per_byte), y=y.at(point.gmacs_per_s) - 16,
           class_="label", text_anchor="end" if x.at(point.macs_per_byte) > _WIDTH / 2 else "start")
        for point in _apart(points, x, y)
    ]
    told = el("text", f"{number(roof.gmacs_per_s)} GMAC/s at best", x=_WIDTH - _RIGHT - 4,
              y=y.at(roof.gmacs_per_s) - 6, text_anchor="end")
    return _svg("Roofline: speed of each op over its arithmetic density",
                _axes(x, y, "multiply-adds for each byte moved", "10⁹ multiply-adds a second"),
                el("polyline", points=line, class_="roof"), told, *dots, *names)


def _apart(points: Sequence[RooflinePoint], x: _Scale, y: _Scale) -> list[RooflinePoint]:
    """The slowest ops whose names would not lie on each other."""
    chosen: list[RooflinePoint] = []
    for point in sorted(points, key=lambda each: -each.latency_ms):
        here = (x.at(point.macs_per_byte), y.at(point.gmacs_per_s))
        if all(abs(here[1] - y.at(o.gmacs_per_s)) > 18 or abs(here[0] - x.at(o.macs_per_byte)) > 300 for o in chosen):
            chosen.append(point)
        if len(chosen) == _NAMED:
            break
    return chosen


def memory_plot(live: Sequence[int], arena: int, names: Sequence[str]) -> Markup:
    """Activations in use while each op runs, and the arena that holds them all."""
    x = _x_scale(0, len(live))
    y = _y_scale(0, max(arena, *live) / 1e6 * 1.12)
    steps = [(x.at(index + side), y.at(size / 1e6)) for index, size in enumerate(live) for side in (0, 1)]
    edge = " ".join(f"{a},{b}" for a, b in steps)
    floor = y.at(0)
    area = f"{steps[0][0]},{floor} {edge} {steps[-1][0]},{floor}"
    top = max(range(len(live)), key=lambda index: live[index])
    name_x = x.at(top + 0.5)
    hovers = [
        el("rect", el("title", f"{name}: {size / 1e6:.3f} MB"), x=x.at(index), y=y.at(size / 1e6), fill="transparent",
           width=round(max(x.at(index + 1) - x.at(index), 0.5), 1), height=round(floor - y.at(size / 1e6), 1))
        for index, (size, name) in enumerate(zip(live, names, strict=True))
    ]
    return _svg("Memory of the activations, op by op", _axes(x, y, "op, in the order of execution", "MB"),
                el("polygon", points=area, class_="area"), el("polyline", points=edge, class_="edge"),
                el("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y.at(arena / 1e6), y2=y.at(arena / 1e6), class_="peak"),
                el("text", f"arena {arena / 1e6:.2f} MB", x=_WIDTH - _RIGHT - 4, y=y.at(arena / 1e6) - 5,
                   text_anchor="end"),
                *hovers,
                el("text", _short(names[top]), x=name_x, y=y.at(live[top] / 1e6) + 16, class_="label",
                   text_anchor="end" if name_x > _WIDTH / 2 else "start"))


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:12]}…{name[-20:]}"
