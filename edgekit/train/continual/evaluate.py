"""How well a network knows each task after each task: the accuracy matrix and what is read off it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgekit.train.continual.streams import Stream, Task

__all__ = ["Accuracies", "accuracies", "as_input", "average_accuracy", "forgetting", "only_classes"]

_BATCH = 256


class Accuracies(NamedTuple):
    """One row of the two matrices: on each task's test samples, among all classes and among the task's own."""

    class_incremental: tuple[float, ...]
    task_incremental: tuple[float, ...]


def as_input(images: Tensor) -> Tensor:
    """What a network is given for uint8 pixels: float32 from -1 to 1, channels last, which is faster on CPUs."""
    return images.float().sub_(127.5).div_(127.5).contiguous(memory_format=torch.channels_last)


def only_classes(logits: Tensor, classes: tuple[int, ...]) -> Tensor:
    """``logits`` (N, classes) with minus infinity for all but ``classes``."""
    mask = torch.full((logits.shape[1],), -torch.inf)
    mask[list(classes)] = 0
    return logits + mask


def accuracies(network: nn.Module, stream: Stream, known: int) -> Accuracies:
    """On the first ``known`` tasks of ``stream``, from 0 to 1; ``network`` stays in the mode that it is in."""
    training = network.training
    network.eval()
    rows = [_on_task(network, task) for task in stream.tasks[:known]]
    network.train(training)
    return Accuracies(tuple(row[0] for row in rows), tuple(row[1] for row in rows))


def _on_task(network: nn.Module, task: Task) -> tuple[float, float]:
    right = torch.zeros(2)
    with torch.no_grad():
        batches = torch.split(task.test_images, _BATCH), torch.split(task.test_labels, _BATCH)
        for images, labels in zip(*batches, strict=True):
            logits = network(as_input(images))
            right[0] += (logits.argmax(1) == labels).sum()
            right[1] += (only_classes(logits, task.classes).argmax(1) == labels).sum()
    return tuple((right / len(task.test_labels)).tolist())


def average_accuracy(matrix: list[tuple[float, ...]]) -> float:
    """The mean of the last row: row t holds the accuracies on tasks 0 to t after task t."""
    return sum(matrix[-1]) / len(matrix[-1])


def forgetting(matrix: list[tuple[float, ...]]) -> float:
    """How far each earlier task fell from its best, in the mean (Chaudhry et al., ECCV 2018); 0 for a single task."""
    if len(matrix) < 2:
        return 0.0
    best = [max(row[task] for row in matrix[task:-1]) for task in range(len(matrix) - 1)]
    return sum(top - matrix[-1][task] for task, top in enumerate(best)) / len(best)
