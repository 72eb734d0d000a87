"""EdgeKit: takes trained networks to phones.

=========  ================================================================  ==================
stage      what it does                                                      returns
=========  ================================================================  ==================
export     ``nn.Module`` and an example input to ONNX                        ``OnnxModel``
convert    ONNX to LiteRT or ONNX Runtime, checked against the original      ``Conversion``
build      ONNX to one ``.edge`` file with a variant for each engine         ``Manifest``
verify     a bundle by its hashes, signature and test vectors; or a model    ``VerifyReport`` s
           file by the ONNX file it was made from
load       a bundle, ready to run                                            ``Runtime``
=========  ================================================================  ==================

Names are looked up when they are first used: ``import edgekit`` loads neither numpy nor an engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit import errors
    from edgekit.artifacts import Conversion, LiteRTModel, OnnxModel, OrtModel, Prediction, TensorSpec, VerifyReport
    from edgekit.bundle.manifest import Manifest
    from edgekit.converters.torch_to_onnx import export
    from edgekit.errors import EdgeKitError
    from edgekit.parity import verify
    from edgekit.pipeline import build, convert
    from edgekit.recipe import BuildRecipe, ConvertRecipe, ExportRecipe, Preprocess, QuantRecipe, QuantRule
    from edgekit.runtime import Runtime, RuntimeOptions, load

__version__ = "0.1.0"

__all__ = [
    "BuildRecipe",
    "Conversion",
    "ConvertRecipe",
    "EdgeKitError",
    "ExportRecipe",
    "LiteRTModel",
    "Manifest",
    "OnnxModel",
    "OrtModel",
    "Prediction",
    "Preprocess",
    "QuantRecipe",
    "QuantRule",
    "Runtime",
    "RuntimeOptions",
    "TensorSpec",
    "VerifyReport",
    "__version__",
    "build",
    "convert",
    "errors",
    "export",
    "load",
    "verify",
]

_HOME = {
    "edgekit.artifacts": (
        "Conversion", "LiteRTModel", "OnnxModel", "OrtModel", "Prediction", "TensorSpec", "VerifyReport",
    ),
    "edgekit.bundle.manifest": ("Manifest",),
    "edgekit.converters.torch_to_onnx": ("export",),
    "edgekit.errors": ("EdgeKitError",),
    "edgekit.parity": ("verify",),
    "edgekit.pipeline": ("build", "convert"),
    "edgekit.recipe": ("BuildRecipe", "ConvertRecipe", "ExportRecipe", "Preprocess", "QuantRecipe", "QuantRule"),
    "edgekit.runtime": ("Runtime", "RuntimeOptions", "load"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("edgekit.errors")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'edgekit' has no attribute '{name}'")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
