"""Adaptive bundles: a network with several exits, at several resolutions, cut into stages on shared weights.

``export_exits`` takes it from torch to ONNX, ``split`` cuts an ONNX graph, ``build_adaptive`` writes the bundle.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.adaptive.build import build_adaptive
    from edgekit.adaptive.export import export_exits
    from edgekit.adaptive.recipe import AdaptiveRecipe
    from edgekit.adaptive.split_onnx import StageGraph, split

__all__ = ["AdaptiveRecipe", "StageGraph", "build_adaptive", "export_exits", "split"]

_MODULE_OF = {
    "AdaptiveRecipe": "recipe", "StageGraph": "split_onnx", "build_adaptive": "build", "export_exits": "export",
    "split": "split_onnx",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
