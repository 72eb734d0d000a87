"""The accuracy matrix as an SVG picture."""

from __future__ import annotations

from edgekit.plan.plot import INK, text

__all__ = ["draw_matrix"]

_CELL, _LEFT, _TOP = 62, 96, 74


def draw_matrix(matrix: list[tuple[float, ...]], title: str, note: str = "") -> str:
    """Row t: the accuracies, from 0 to 1, on tasks 0 to t after task t. An SVG document."""
    size = len(matrix)
    width, height = max(_LEFT + size * _CELL + 24, 420), _TOP + size * _CELL + 20
    parts = [text(_LEFT + (task + 0.5) * _CELL, _TOP - 8, f"task {task + 1}", 'text-anchor="middle"')
             for task in range(size)]
    for after, row in enumerate(matrix):
        down = _TOP + after * _CELL
        parts.append(text(_LEFT - 8, down + _CELL / 2 + 4, f"after {after + 1}", 'text-anchor="end"'))
        for task, value in enumerate(row):
            across = _LEFT + task * _CELL
            parts.append(f'<rect x="{across}" y="{down}" width="{_CELL - 2}" height="{_CELL - 2}" fill="#1f6fd6" '
                         f'fill-opacity="{0.06 + 0.84 * max(0.0, min(1.0, value)):.3f}"/>')
            ink = "white" if value > 0.55 else INK
            parts.append(text(across + _CELL / 2 - 1, down + _CELL / 2 + 4, f"{100 * value:.1f}",
                              f'text-anchor="middle" fill="{ink}"'))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        text(16, 22, title, 'font-size="16" font-weight="600"'), text(16, 42, note), *parts, "</svg>", "",
    ])
