"""One training loop: SGD or AdamW, warm-up and cosine, an average of the weights, and a checkpoint to go on from.

A run is a function of its recipe, its data and its seed: a run that was killed and resumed from its checkpoint ends
with the same weights as one that was not.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from edgekit.atomic import write_atomically
from edgekit.errors import BadRecipe

__all__ = ["Batches", "Epoch", "Progress", "TrainRecipe", "fit"]


class Epoch(Protocol):
    """The batches of one pass over the data: inputs and targets."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


Batches = Callable[[int], Epoch]
"""From the number of an epoch to its batches; the same number gives the same batches."""
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """How to train. Impossible values raise BadRecipe.

    ``learning_rate`` rises over ``warmup_epochs`` and falls as a half cosine to 0 at the end. ``average``: the decay
    of the exponential moving average of the weights, which is what ``fit`` leaves in the network; 0 for none.
    ``clip``: the largest norm of the gradient. Biases and norms have no weight decay.
    """

    epochs: int = 30
    learning_rate: float = 0.1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 1.0
    average: float = 0.0
    clip: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 < self.learning_rate < math.inf or not 0 <= self.average < 1:
            raise BadRecipe(f"{self.epochs} epochs with the learning rate {self.learning_rate} and the average "
                            f"{self.average}.", "Give at least 1 epoch, a rate above 0 and an average from 0 to 1.")


class Progress(NamedTuple):
    """After an epoch: its number from 1, the mean loss, the learning rate of its last step."""

    epoch: int
    loss: float
    learning_rate: float


def fit(network: nn.Module, batches: Batches, loss: Loss, recipe: TrainRecipe, checkpoint: Path | None = None,
        on_epoch: Callable[[Progress], None] = lambda _: None) -> None:
    """Train ``network`` in place on ``batches`` by ``loss(network, inputs, targets)``.

    With ``checkpoint``, everything that the run depends on is written there after each epoch, whole or not at all, and
    a file that is there is gone on from. Parameters that need no gradient stay as they are.
    Raises BadRecipe for a checkpoint of another recipe, and where the loss is not finite (naming the epoch).
    """
    torch.manual_seed(recipe.seed)
    run = _Run(network, recipe)
    first = run.resume(checkpoint) if checkpoint is not None and checkpoint.is_file() else 0
    for epoch in range(first, recipe.epochs):
        network.train()
        total, count = 0.0, 0
        epoch_batches = batches(epoch)
        for step, (inputs, targets) in enumerate(epoch_batches):
            rate = run.set_rate(epoch + step / len(epoch_batches))
            value = loss(network, inputs, targets)
            total, count = total + float(value.detach()) * len(targets), count + len(targets)
            run.step(value, epoch)
        on_epoch(Progress(epoch + 1, total / max(count, 1), rate))
        if checkpoint is not None:
            run.save(checkpoint, epoch + 1)
    run.finish()
    network.eval()


class _Run:
    """The state of a run: optimizer, averaged weights, random numbers."""

    def __init__(self, network: nn.Module, recipe: TrainRecipe) -> None:
        self._network = network
        self._recipe = recipe
        self._parameters = [each for each in network.parameters() if each.requires_grad]
        if not self._parameters:
            raise BadRecipe("The network has no parameters to train.", "Leave some with requires_grad.")
        decayed = [each for each in self._parameters if each.dim() > 1]
        others = [each for each in self._parameters if each.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._optimizer = _optimizer([group for group in groups if group["params"]], recipe)
        self._average = copy.deepcopy(network.state_dict()) if recipe.average else None
        self._updates = 0

    def set_rate(self, at: float) -> float:
        """The learning rate ``at`` epochs since the start, set and returned."""
        recipe = self._recipe
        warm = min(1.0, at / recipe.warmup_epochs) if recipe.warmup_epochs else 1.0
        rate = recipe.learning_rate * max(warm, 1e-3) * 0.5 * (1 + math.cos(math.pi * at / recipe.epochs))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def step(self, value: Tensor, epoch: int) -> None:
        if not torch.isfinite(value):
            raise BadRecipe(f"The loss is {float(value.detach())} in epoch {epoch + 1}.", "Lower the learning rate.")
        self._optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        if self._recipe.clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip)
        self._optimizer.step()
        self._follow()

    def _follow(self) -> None:
        """Move the average towards the weights; early on it forgets faster, so that it does not hold the start."""
        if self._average is None:
            return
        self._updates += 1
        decay = min(self._recipe.average, (1 + self._updates) / (10 + self._updates))
        with torch.no_grad():
            for name, value in self._network.state_dict().items():
                if value.dtype.is_floating_point:
                    self._average[name].lerp_(value, 1 - decay)
                else:
                    self._average[name].copy_(value)

    def finish(self) -> None:
        if self._average is not None:
            self._network.load_state_dict(self._average)

    def save(self, path: Path, epoch: int) -> None:
        state = {"recipe": repr(self._recipe), "epoch": epoch, "network": self._network.state_dict(),
                 "optimizer": self._optimizer.state_dict(), "average": self._average, "updates": self._updates,
                 "random": torch.get_rng_state()}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(path, buffer.getvalue())

    def resume(self, path: Path) -> int:
        """The number of epochs that are done."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["recipe"] != repr(self._recipe):
            raise BadRecipe(f"The checkpoint '{path}' is of another recipe.", "Remove it, or give the same recipe.")
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average, self._updates = state["average"], state["updates"]
        torch.set_rng_state(state["random"])
        return int(state["epoch"])


def _optimizer(groups: list[dict[str, Any]], recipe: TrainRecipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
