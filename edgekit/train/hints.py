"""The hints of Be Your Own Teacher (Zhang et al., ICCV 2019, eq. 7): features of the exits learn from the deepest one.

    hinted = Hinted(network, deepest="layer4", example=image)
    logits = hinted(images)
    loss = self_distilled(logits, labels) + hinted.distance(1e-6)

The layers that bring features to one size are needed for training alone: ``hinted.network`` is what gets exported.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import BadInput, UnknownName
from edgekit.train.multi_exit import MultiExit

__all__ = ["Hinted"]


class Hinted(nn.Module):
    """``network`` and, for each of its exits but the last, a linear layer from its features to those of ``deepest``.

    ``deepest``: the submodule of the backbone whose output the last classifier reads; ``example``: as for
    ``MultiExit``. Features (N, C, H, W) or (N, tokens, C) are averaged over places first. ``forward`` is that of
    ``network``. Raises UnknownName for a submodule that is not there.
    """

    def __init__(self, network: MultiExit, deepest: str, example: Tensor) -> None:
        super().__init__()
        self.network = network
        modules = dict(network.backbone.named_modules())
        if deepest not in modules:
            raise UnknownName.of("submodule", deepest, [key for key in modules if key][:60])
        self._seen: dict[str, Tensor] = {}
        self._exits, self._deepest = network.exits, deepest
        for name in (*network.exits, deepest):
            modules[name].register_forward_hook(self._tap(name))
        parts, training = list(network.modules()), [part.training for part in network.modules()]
        network.eval()
        with torch.no_grad():
            network(example)
        for part, was in zip(parts, training, strict=True):
            part.training = was
        width = self._seen[deepest].shape[1]
        self.adapters = nn.ModuleList(nn.Linear(self._seen[name].shape[1], width) for name in network.exits)
        self._seen.clear()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self._seen.clear()
        found: tuple[Tensor, ...] = self.network(*inputs)
        return found

    def distance(self, weight: float) -> Tensor:
        """``weight`` times the squared distances of the last call, averaged over images, summed over exits.

        The deepest features are detached. Raises BadInput before the first call.
        """
        if not self._seen:
            raise BadInput("There are no features yet.", "Call the network first.")
        aim = self._seen[self._deepest].detach()
        found = [(adapter(self._seen[name]) - aim).square().sum(dim=1).mean()
                 for name, adapter in zip(self._exits, self.adapters, strict=True)]
        return weight * torch.stack(found).sum()

    def _tap(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._seen[name] = output.float().mean(dim=(2, 3) if output.dim() == 4 else 1)

        return hook
