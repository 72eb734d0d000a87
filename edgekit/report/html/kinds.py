"""Which colour an op has in every picture: few enough to be told apart."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.graph.costs import OpClass
from edgekit.report.html.elements import Markup, el

__all__ = ["LEGEND", "colour", "legend"]

LEGEND = {
    "conv": "convolutions", "depthwise": "depthwise and grouped", "product": "matrix products",
    "move": "moving data", "point": "element by element", "other": "pooling and the rest",
}
_OF: dict[OpClass, str] = {
    "conv": "conv", "depthwise": "depthwise", "grouped": "depthwise", "fc": "product", "matmul": "product",
    "copy": "move", "channels": "move", "free": "move", "elementwise": "point", "transcendental": "point",
    "softmax": "point", "norm": "point",
}


def colour(op_class: OpClass) -> str:
    """The name of the style of an op."""
    return _OF.get(op_class, "other")


def legend(shares: Mapping[str, float]) -> Markup:
    """The colours that occur, each with its share of the time."""
    return el("div", *(el("span", el("i", class_=name), f"{LEGEND[name]} {share:.0%}")
                       for name, share in shares.items()), class_="legend")
