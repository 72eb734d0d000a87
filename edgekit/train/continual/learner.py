"""Learning a stream of tasks with replay, on a network that may be sparse.

The three parts of SparCL (arXiv 2209.09476) are separate: masks of the weights (``masks``, ``channels``), removal of
easy samples (``removal``), masks of the gradients (``gradients``). Each is used when the recipe has it.
A run is a function of its recipe, the stream, the network and its weights: one that was killed and goes on from its
checkpoint ends with the same weights, bit for bit, with the same number of threads on the same kind of CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.errors import BadRecipe
from edgekit.train.continual.buffer import Reservoir
from edgekit.train.continual.channels import ChannelMasks
from edgekit.train.continual.checkpoint import read_checkpoint, write_checkpoint
from edgekit.train.continual.evaluate import Accuracies, accuracies, as_input, only_classes
from edgekit.train.continual.flops import FlopsMeter, count_macs
from edgekit.train.continual.gradients import GradientMask
from edgekit.train.continual.masks import Dense, WeightMasks
from edgekit.train.continual.nets import Resizable, prunable_weights
from edgekit.train.continual.recipe import ContinualRecipe
from edgekit.train.continual.removal import DataRemoval
from edgekit.train.continual.streams import Stream, Task

__all__ = ["EpochNote", "Learner", "Outcome"]

_SHIFT = 4


class EpochNote(NamedTuple):
    """After an epoch: numbers from 0, the mean loss, samples that are left in the task, density, FLOPs so far."""

    task: int
    epoch: int
    loss: float
    samples: int
    density: float
    paper_flops: float
    full_flops: float


class Outcome(NamedTuple):
    """Of a finished run: a row for each task, and what training cost."""

    rows: list[Accuracies]
    paper_flops: float
    full_flops: float


class Learner:
    """Teaches ``network`` the tasks of ``stream``; ``state.network`` is what has been learned so far.

    ``density``: the part of the prunable weights that is not masked.
    """

    def __init__(self, network: nn.Module, stream: Stream, recipe: ContinualRecipe) -> None:
        """``network``: float32 (N, C, H, W) from -1 to 1 -> logits (N, all classes). Raises BadRecipe."""
        self.recipe = recipe
        self._stream = stream
        self._random = torch.Generator().manual_seed(recipe.seed)
        torch.manual_seed(recipe.seed)  # for what the network itself may draw, such as dropout
        self._full_size = sum(network.get_parameter(name).numel() for name in prunable_weights(network))
        self.state = self._masked(network)
        self._buffer = Reservoir(recipe.buffer, stream.image, len(stream.names), self._random)
        self._gradients = GradientMask(recipe.gradients, prunable_weights(self.state.network))
        self.meter = FlopsMeter()
        self._removal = DataRemoval(len(stream.tasks[0].train_labels), recipe.removal)
        self._at = (0, 0)
        self.rows: list[Accuracies] = []
        self.notes: list[EpochNote] = []
        self._network_changed()

    def _masked(self, network: nn.Module) -> Dense:
        masks = self.recipe.masks
        if masks is None:
            return Dense(network)
        if masks.unit == "weights":
            return WeightMasks(network, prunable_weights(network), masks, self.recipe.epochs, self._random)
        if not isinstance(network, Resizable):
            raise BadRecipe("Channels can only be masked in a network that knows its channels.",
                            "Derive it from edgekit.train.continual.nets.Resizable, or mask weights.")
        return ChannelMasks(network, masks, self.recipe.epochs, self._random)

    def _network_changed(self) -> None:
        network, recipe = self.state.network, self.recipe
        network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
        self._count()

    def _count(self) -> None:
        prunable = prunable_weights(self.state.network)
        alive = self.state.alive
        densities = {name: float(alive[name].float().mean()) if name in alive else 1.0 for name in prunable}
        layers = count_macs(self.state.network, self._stream.image)
        self.meter.set_network(layers, densities, self._gradients.keep)
        sizes = {name: self.state.network.get_parameter(name).numel() for name in prunable}
        self.density = sum(densities[name] * sizes[name] for name in prunable) / max(1, self._full_size)

    def run(self, checkpoint: Path | None = None, on_epoch: Callable[[EpochNote], None] = lambda _: None,
            on_task: Callable[[int, Accuracies], None] = lambda *_: None) -> Outcome:
        """Learn what is left of the stream.

        With ``checkpoint``, everything that the run depends on is written there after each epoch, whole or not at all,
        and a file that is there is gone on from. ``on_task`` is called after each task, again where the run was killed
        meanwhile. Raises BadRecipe for a checkpoint of another recipe and where the loss is not finite.
        """
        if checkpoint is not None and checkpoint.is_file():
            self._load(read_checkpoint(checkpoint, self.recipe))
        while self._at[0] < len(self._stream.tasks):
            task, epoch = self._at
            note = self._epoch(self._stream.tasks[task], task, epoch)
            self.notes.append(note)
            on_epoch(note)
            if epoch + 1 < self.recipe.task_epochs(len(self._stream.tasks[task].train_labels)):
                self._at = task, epoch + 1
            else:
                self._end_task(task, on_task)
            if checkpoint is not None:
                write_checkpoint(checkpoint, self.recipe, self._state())
        return Outcome(self.rows, self.meter.paper, self.meter.full)

    def _end_task(self, task: int, on_task: Callable[[int, Accuracies], None]) -> None:
        row = accuracies(self.state.network, self._stream, task + 1)
        self.rows.append(row)
        on_task(task, row)
        self._at = task + 1, 0
        if task + 1 < len(self._stream.tasks):
            self._removal = DataRemoval(len(self._stream.tasks[task + 1].train_labels), self.recipe.removal)

    def _epoch(self, task: Task, number: int, epoch: int) -> EpochNote:
        if self.state.begin_epoch(number, epoch, lambda network: self._importance(network, task)):
            self._gradients.restart()
            self._network_changed()
        order = self._removal.kept[torch.randperm(len(self._removal.kept), generator=self._random)]
        steps = self.recipe.epoch_steps(len(task.train_labels), epoch, len(order))
        batches = torch.split(order, self.recipe.batch)[:steps]
        total = sum(self._step(task, number, chosen) * len(chosen) for chosen in batches)
        self._removal.end_epoch(epoch)
        mean = total / max(1, sum(map(len, batches)))
        return EpochNote(number, epoch, mean, len(self._removal.kept), self.density, self.meter.paper, self.meter.full)

    def _step(self, task: Task, number: int, chosen: Tensor) -> float:
        """Forward, loss, backward, gradient mask, clip, SGD, weight mask, buffer: the order of the authors' code."""
        recipe, network = self.recipe, self.state.network
        images, labels = task.train_images[chosen], task.train_labels[chosen]
        replays = [self._buffer.draw(recipe.replay_batch) for _ in range(recipe.replays if number else 0)]
        # one pass over all of it: the same as several for a network without BatchNorm, and faster
        pictures = self._augmented(torch.cat([images, *(replay.images for replay in replays)]))
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            logits = network(pictures)
        own, *others = logits.float().split([len(labels), *(len(replay.labels) for replay in replays)])
        target = only_classes(own, task.classes) if recipe.task_classes_only else own
        loss = functional.cross_entropy(target, labels)
        if others:
            loss = loss + recipe.beta * functional.cross_entropy(others[-1], replays[-1].labels)
        if len(others) > 1:
            loss = loss + recipe.alpha * functional.mse_loss(others[0], replays[0].logits)
        if not torch.isfinite(loss):
            raise BadRecipe(f"The loss of task {number} is {float(loss.detach())}.", "Lower the learning rate.")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        selecting = self._gradients.apply(network, self.state.alive)
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        self._optimizer.step()
        self.state.after_step()
        self.meter.step(len(labels), sum(len(replay.labels) for replay in replays), selecting)
        with torch.no_grad():
            if recipe.replays:
                self._buffer.add(images, labels, own)
            if recipe.removal is not None:
                self._removal.observe(chosen, target.argmax(1) == labels)
        return float(loss.detach())

    def _importance(self, network: nn.Module, task: Task) -> dict[str, Tensor]:
        """CWI (eq. 1): |w| + current |dL/dw| on fresh samples of the task + replay |dL/dw| on the buffer."""
        masks = self.recipe.masks
        assert masks is not None
        chosen = self._removal.kept[torch.randperm(len(self._removal.kept), generator=self._random)[:masks.samples]]
        labels = task.train_labels[chosen]
        parameters = dict(network.named_parameters())
        score = {name: value.detach().abs() for name, value in parameters.items()}
        logits = only_classes(network(as_input(task.train_images[chosen])), task.classes)
        losses = [(masks.current, functional.cross_entropy(logits, labels))]
        count = len(labels)
        if len(self._buffer):
            replay = self._buffer.draw(masks.samples)
            losses.append((masks.replay, functional.cross_entropy(network(as_input(replay.images)), replay.labels)))
            count += len(replay.labels)
        for factor, loss in losses:
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            for name, gradient in zip(parameters, gradients, strict=True):
                score[name] += factor * gradient.abs()
        self.meter.importance(count)
        return score

    def _augmented(self, images: Tensor) -> Tensor:
        """Shifted by up to 4 pixels, each its own way, and flipped."""
        x = as_input(images)
        if self.recipe.augment == "none":
            return x
        count, _, height, width = x.shape
        down, across = torch.randint(0, 2 * _SHIFT + 1, (2, count, 1), generator=self._random)
        columns = across + torch.arange(width)
        if self.recipe.augment == "shift_flip":
            flip = torch.rand((count, 1), generator=self._random) < 0.5
            columns = torch.where(flip, columns.flip(1), columns)
        rows = down + torch.arange(height)
        x = functional.pad(x, (_SHIFT,) * 4, value=-1.0)
        return x[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def _state(self) -> dict[str, Any]:
        return {
            "at": self._at, "masks": self.state.state(), "buffer": self._buffer.state(),
            "gradients": self._gradients.state(), "removal": self._removal.state(),
            "optimizer": self._optimizer.state_dict(), "random": self._random.get_state(),
            "torch_random": torch.get_rng_state(), "flops": (self.meter.paper, self.meter.full),
            "rows": [tuple(row) for row in self.rows], "notes": [tuple(note) for note in self.notes],
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._at = tuple(state["at"])
        self.state.load(state["masks"])
        self._network_changed()
        self._buffer.load(state["buffer"])
        self._gradients.load(state["gradients"])
        self._removal.load(state["removal"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._random.set_state(state["random"])
        torch.set_rng_state(state["torch_random"])
        self.meter.paper, self.meter.full = state["flops"]
        self.rows = [Accuracies(*row) for row in state["rows"]]
        self.notes = [EpochNote(*note) for note in state["notes"]]
