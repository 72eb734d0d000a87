"""A network of the zoo as ONNX, with its BatchNorms folded and its inputs and outputs named."""

from __future__ import annotations

import torch
from torch import nn

from edgekit.artifacts import OnnxModel
from edgekit.converters.torch_to_onnx import export
from edgekit.errors import BadRecipe
from edgekit.recipe import ExportRecipe
from edgekit.zoo.fuse import fuse_batch_norm
from edgekit.zoo.registry import ZooEntry

__all__ = ["to_onnx"]


def to_onnx(network: nn.Module, entry: ZooEntry, resolution: int, recipe: ExportRecipe) -> OnnxModel:
    """``network``, which ``entry`` made, as ONNX: ``image`` float32 (N, 3, H, W) -> ``logits``, checked against torch.

    ``network`` is left as it was. Raises BadRecipe for a dynamic size where the network has none, and as
    edgekit.export does.
    """
    if recipe.dynamic_hw and not entry.dynamic:
        raise BadRecipe(f"{entry.title} computes at the size only that it was built for.",
                        "Leave out the dynamic height and width, and give the resolution instead.")
    image = torch.randn(1, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    return export(fuse_batch_norm(network), image, recipe)
