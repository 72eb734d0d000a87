"""After each task a bundle, and the delta that turns the one before into it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from edgekit.artifacts import Engine, OnnxModel
from edgekit.bundle.delta import make_delta
from edgekit.converters.torch_to_onnx import export
from edgekit.pipeline import build
from edgekit.recipe import BuildRecipe, ExportRecipe, Preprocess
from edgekit.train.continual.streams import Stream

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Update", "emit", "to_onnx"]


class Update(NamedTuple):
    """What a task ended with; ``delta`` is None after the first. Sizes in bytes."""

    bundle: Path
    bundle_bytes: int
    delta: Path | None
    delta_bytes: int


def to_onnx(network: nn.Module, image: tuple[int, ...]) -> OnnxModel:
    """``image`` float32 (1, C, H, W) from -1 to 1 -> ``logits`` (1, classes), checked against torch.

    Masked weights are true zeros, masked channels are not there.
    """
    example = torch.rand(1, *image, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return export(copy.deepcopy(network), example, ExportRecipe(input_names=("image",), output_names=("logits",)))


def emit(network: nn.Module, stream: Stream, task: int, folder: Path, engines: tuple[Engine, ...],
         key: Ed25519PrivateKey | None = None) -> Update:
    """Write taskN.edge (N from 1) to ``folder``, signed with ``key``, and taskN.edgedelta from the one before.

    Raises as ``edgekit.build`` and ``make_delta``.
    """
    channels = stream.image[0]
    grey = channels == 1
    recipe = BuildRecipe(
        name=f"task{task + 1}", engines=engines, labels=stream.names,
        preprocess=Preprocess(colour="gray" if grey else "rgb", resize="stretch", mean=(127.5,) * channels,
                              std=(127.5,) * channels) if channels in (1, 3) else None)
    bundle, before = folder / f"task{task + 1}.edge", folder / f"task{task}.edge"
    build(to_onnx(network, stream.image), bundle, recipe, key)
    if not before.is_file():
        return Update(bundle, bundle.stat().st_size, None, 0)
    delta = folder / f"task{task + 1}.edgedelta"
    make_delta(before, bundle, delta)
    return Update(bundle, bundle.stat().st_size, delta, delta.stat().st_size)
