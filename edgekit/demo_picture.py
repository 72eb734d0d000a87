"""The picture of the adaptive demo: the plan's curve, and which step answered which images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edgekit.artifacts import Array
from edgekit.plan import Planned
from edgekit.plan.plot import INK, draw_curve, text

__all__ = ["Stop", "draw_demo"]

_WIDTH, _CURVE_HEIGHT, _ROW, _THUMB = 760, 470, 78, 64
_BAR_LEFT, _BAR_WIDTH, _THUMBS_LEFT = 150, 150, 330
_BLUE = "#1f6fd6"


class Stop(NamedTuple):
    """A step of the route: the part of the images it answered, and some of them, uint8 (n, side, side, 3)."""

    name: str
    share: float
    examples: Array


def draw_demo(planned: Planned, stops: Sequence[Stop]) -> str:
    """An SVG document: the curve of ``draw_curve`` above a row for each step. Raises MissingExtra without Pillow."""
    height = _CURVE_HEIGHT + 44 + _ROW * len(stops)
    curve = draw_curve(planned, "Digits on canvases: accuracy against time, on validation images")
    rows = [part for number, stop in enumerate(stops) for part in _row(stop, _CURVE_HEIGHT + 36 + _ROW * number)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>', curve,
        text(20, _CURVE_HEIGHT + 20, "Which step of the default route answered which test images",
             'font-size="16" font-weight="600"'),
        *rows, "</svg>", ""])


def _row(stop: Stop, top: float) -> Iterator[str]:
    middle = top + _THUMB / 2 + 4
    yield text(20, middle, stop.name)
    yield (f'<rect x="{_BAR_LEFT}" y="{top + 20}" width="{max(_BAR_WIDTH * stop.share, 1):.1f}" height="{_THUMB - 40}" '
           f'fill="{_BLUE}"/>')
    yield text(_BAR_LEFT + _BAR_WIDTH * stop.share + 6, middle, f"{100 * stop.share:.0f} %")
    for number, image in enumerate(stop.examples):
        yield (f'<image x="{_THUMBS_LEFT + number * (_THUMB + 6)}" y="{top}" width="{_THUMB}" height="{_THUMB}" '
               f'href="data:image/png;base64,{_png(image)}"/>')


def _png(image: Array) -> str:
    from edgekit.errors import MissingExtra

    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra.of("pillow", "image") from error
    buffer = io.BytesIO()
    Image.fromarray(image).convert("L").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
