"""torch -> ONNX for networks with exits: outputs exit0, exit1, ... from shallow to deep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.artifacts import OnnxModel
from edgekit.converters.torch_to_onnx import export
from edgekit.errors import BadRecipe
from edgekit.recipe import ExportRecipe

if TYPE_CHECKING:
    import torch

__all__ = ["export_exits"]


def export_exits(
    network: torch.nn.Module, example: torch.Tensor, dynamic_hw: bool = True, dynamic_batch: bool = False
) -> OnnxModel:
    """``network`` (such as ``edgekit.train.multi_exit.MultiExit``) as ONNX, ready for ``build_adaptive``.

    ``forward`` takes an image like ``example`` (N, C, H, W) and returns a tuple of logits (N, classes), which become
    the outputs exit0, exit1, ...; the input is called "image". ``dynamic_hw`` leaves its sides free, which several
    resolutions need. The result is compared with the network.

    Raises BadRecipe for a network that returns anything else, and as ``edgekit.export``.
    """
    count = _count_exits(network, example)
    names = tuple(f"exit{number}" for number in range(count))
    return export(_taking_one(network), example, ExportRecipe(dynamic_batch=dynamic_batch, dynamic_hw=dynamic_hw,
                                                 input_names=("image",), output_names=names))


def _taking_one(network: torch.nn.Module) -> torch.nn.Module:
    """``network`` with a ``forward`` of one argument: torch.export wants the dynamic sizes of ``*inputs`` otherwise."""
    import torch

    class TakingOne(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            outputs: tuple[torch.Tensor, ...] = self.network(image)
            return outputs

    return TakingOne()


def _count_exits(network: torch.nn.Module, example: torch.Tensor) -> int:
    import torch

    was_training = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            outputs = network(example)
    finally:
        for part, training in was_training:
            part.training = training
    if not isinstance(outputs, tuple) or not all(
            isinstance(each, torch.Tensor) and each.dim() == 2 for each in outputs) or not outputs:
        raise BadRecipe("The network does not return a tuple of logits (N, classes).", "Wrap it so that it does.")
    return len(outputs)
