"""HTML by function calls: whatever is not ``Markup`` is text and is escaped. Names in models are not to be trusted."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

__all__ = ["Child", "Markup", "el", "join", "number", "text"]

_VOID = frozenset({"meta", "link", "br"})
#: characters that no HTML document may hold, and those that reorder the text around them
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069"
                        "\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Finished HTML. Made by ``el`` and ``join``; anything else must not come from outside this package."""

    __slots__ = ()


Child = Markup | str | int | None


def text(value: object) -> Markup:
    """``value`` as text: escaped, and without characters that could disturb the page."""
    return Markup(html.escape(_FORBIDDEN.sub("\ufffd", str(value)), quote=True))


def el(tag: str, *children: Child, **attributes: object) -> Markup:
    """``<tag attributes>children</tag>``. ``class_`` is class, "_" is "-"; None leaves an attribute out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"' for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """One after the other; None is nothing."""
    return Markup("".join(
        child if isinstance(child, Markup) else text(child) for child in children if child is not None
    ))


def number(value: float, unit: str = "") -> str:
    """Three significant digits, without exponents in the usual range."""
    size = abs(value)
    if size >= 1000:
        written = f"{value:,.0f}"
    elif size >= 100:
        written = f"{value:.0f}"
    elif size >= 10:
        written = f"{value:.1f}"
    elif size >= 1 or size == 0:
        written = f"{value:.2f}"
    else:
        written = f"{value:.3g}"
    return f"{written} {unit}".rstrip()
