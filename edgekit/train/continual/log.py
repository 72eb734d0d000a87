"""What a run says while it goes: a JSON object a line, and TensorBoard's events where that is installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.atomic import write_atomically
from edgekit.train.continual.evaluate import Accuracies, average_accuracy, forgetting
from edgekit.train.continual.learner import EpochNote

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["RunLog"]


class RunLog:
    """Writes ``folder``/log.jsonl, whole each time, so that a run that was killed has no line twice."""

    def __init__(self, folder: Path, tensorboard: bool, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._wants_events = tensorboard
        self._events: SummaryWriter | None = None
        if tensorboard and importlib.util.find_spec("tensorboard") is None:
            self._wants_events = False
            say("TensorBoard is not installed, so only log.jsonl is written. "
                "Install it with: pip install 'edgekit-sdk[tensorboard]'")

    def write(self, notes: list[EpochNote], rows: list[Accuracies]) -> None:
        """``notes`` and ``rows`` so far; the last of ``notes`` is new."""
        lines = []
        for number, note in enumerate(notes):
            lines.append({"kind": "epoch", **note._asdict()})
            ends = number + 1 == len(notes) or notes[number + 1].task != note.task
            if ends and note.task < len(rows):
                lines.append({"kind": "task", "task": note.task, **rows[note.task]._asdict(),
                              **_summary(rows[:note.task + 1])})
        write_atomically(self._folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
        if self._wants_events:
            self._send(notes, rows)

    def _send(self, notes: list[EpochNote], rows: list[Accuracies]) -> None:
        step, note = len(notes), notes[-1]
        if self._events is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._events = SummaryWriter(str(self._folder), purge_step=step)
        values = {f"epoch/{name}": getattr(note, name) for name in ("loss", "samples", "density", "full_flops")}
        if len(rows) == note.task + 1:
            values |= {f"task/{name}": value for name, value in _summary(rows).items()}
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    def close(self) -> None:
        """Ends TensorBoard's file."""
        if self._events is not None:
            self._events.close()


def _summary(rows: list[Accuracies]) -> dict[str, float]:
    matrix = [row.class_incremental for row in rows]
    return {"average_accuracy": average_accuracy(matrix), "forgetting": forgetting(matrix),
            "average_task_accuracy": average_accuracy([row.task_incremental for row in rows])}
