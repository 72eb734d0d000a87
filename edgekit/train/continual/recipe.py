"""What a run of sparse continual learning does, as frozen data that a YAML or JSON file can hold."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgekit.errors import BadRecipe

__all__ = ["ContinualRecipe", "GradientRecipe", "MaskRecipe", "RemovalRecipe"]


class MaskRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Task-aware dynamic masking (TDM, SparCL section 3.2). Impossible values raise BadRecipe.

    ``sparsity``: the part of each prunable tensor (or, with ``unit`` "channels", of each group of channels) that is
    masked. ``multiple``: live channels of a group are rounded down to a multiple, since engines compute them in blocks.
    ``whole``: groups of channels that are not masked: those that cost little time but are worth much.
    Every ``every`` epochs the part ``p_intra`` with the least importance is dropped and as much is grown at random;
    a later task starts with ``p_inter`` more, which is removed after ``every`` epochs. After ``until`` of a task's
    epochs the mask stays. ``dynamic`` False: the start mask stays for good. ``start``: which weights are kept at
    the start. ``rescale``: what is kept is scaled so that each tensor keeps its norm (by 1 / sqrt(density) for a
    random start), which networks without BatchNorm need. Importance: |w| + ``current`` |dL/dw| on ``samples`` fresh
    samples of the task + ``replay`` |dL/dw| on as many of the buffer (eq. 1).
    """

    sparsity: float = 0.9
    unit: Literal["weights", "channels"] = "weights"
    multiple: int = 1
    whole: tuple[str, ...] = ()
    dynamic: bool = True
    every: int = 5
    p_intra: float = 0.01
    p_inter: float = 0.01
    until: float = 0.9
    start: Literal["magnitude", "random"] = "magnitude"
    rescale: bool = True
    samples: int = 128
    current: float = 0.5
    replay: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.sparsity < 1 and 0 <= self.p_intra < 1 - self.sparsity and 0 <= self.p_inter < self.sparsity):
            raise BadRecipe(f"The sparsity is {self.sparsity}, p_intra {self.p_intra}, p_inter {self.p_inter}.",
                            "Sparsity lies in (0, 1), p_intra is less than what is alive, p_inter less than what is "
                            "masked.")
        if self.multiple < 1:
            raise BadRecipe(f"Channels are to be a multiple of {self.multiple}.", "Give 1 or more.")
        if self.every < 1 or self.samples < 1 or not 0 <= self.until <= 1:
            raise BadRecipe(f"Masks change every {self.every} epochs, on {self.samples} samples, until {self.until}.",
                            "Give at least 1 epoch and 1 sample, and a part of the epochs from 0 to 1.")


class RemovalRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dynamic data removal (DDR): after every ``every`` epochs the easiest samples leave the task, ``rounds`` times.

    ``share``: of the task's samples, by the last round.
    """

    share: float = 0.3
    every: int = 5
    rounds: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.every < 1 or self.rounds < 1:
            raise BadRecipe(f"{self.share} of the data leaves in {self.rounds} rounds, one in {self.every} epochs.",
                            "Give a part in (0, 1) and at least 1 epoch and 1 round.")


class GradientRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dynamic gradient masking (DGM): of each prunable tensor's live weights only ``keep`` are updated.

    They are those with the largest gradients, chosen anew every ``refresh_steps`` steps.
    """

    keep: float = 0.8
    refresh_steps: int = 30

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1 or self.refresh_steps < 1:
            raise BadRecipe(f"{self.keep} of the weights are updated, chosen every {self.refresh_steps} steps.",
                            "Give a part in (0, 1] and at least 1 step.")


class ContinualRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run over a stream of tasks. Impossible values raise BadRecipe.

    ``base``: "er" (replay of labels), "derpp" (DER++, arXiv 2004.07211: labels and the logits at insertion) or "none".
    ``buffer``: samples that are kept for replay. ``alpha``, ``beta``: weights of the logits' and the labels' part.
    ``epochs``: for each task; ``steps``: at most that many batches of each task. ``task_classes_only``: the loss of the
    current batch is over the classes of its task only. SGD with ``learning_rate``, constant. ``clip``: the
    largest norm of the gradient; without BatchNorm the logits' part can spike. ``augment``: random
    shifts, and flips, of what is trained on; the buffer holds what was not augmented. ``bfloat16``: training steps run
    the network in bfloat16 where autocast allows it; weights, losses, importance and the buffer's logits are float32.
    """

    base: Literal["er", "derpp", "none"] = "derpp"
    buffer: int = 200
    alpha: float = 0.1
    beta: float = 0.5
    epochs: int = 50
    steps: int | None = None
    batch: int = 32
    replay_batch: int = 32
    learning_rate: float = 0.03
    momentum: float = 0.0
    clip: float | None = None
    augment: Literal["none", "shift", "shift_flip"] = "none"
    task_classes_only: bool = True
    bfloat16: bool = False
    seed: int = 0
    masks: MaskRecipe | None = None
    removal: RemovalRecipe | None = None
    gradients: GradientRecipe | None = None

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.replay_batch, self.steps or 1) < 1 or self.learning_rate <= 0:
            raise BadRecipe(f"{self.epochs} epochs, {self.steps} steps, batches of {self.batch} and "
                            f"{self.replay_batch}, the rate {self.learning_rate}.", "Each must be above 0.")
        if self.base != "none" and self.buffer < 1:
            raise BadRecipe(f"Replay needs a buffer; it has {self.buffer} samples.", "Give 1 at least, or base none.")
        if self.clip is not None and not self.clip > 0:
            raise BadRecipe(f"The gradient is clipped to {self.clip}.", "Give a norm above 0, or none.")
        if not 0 <= self.momentum < 1 or min(self.alpha, self.beta) < 0:
            raise BadRecipe(f"Momentum is {self.momentum}, alpha {self.alpha}, beta {self.beta}.",
                            "Momentum lies in [0, 1), the others are not negative.")

    @property
    def replays(self) -> int:
        """Draws from the buffer in each step."""
        return {"none": 0, "er": 1, "derpp": 2}[self.base]

    def task_epochs(self, samples: int) -> int:
        """Epochs of a task of ``samples``: fewer than ``epochs`` where ``steps`` ends it before."""
        return self.epochs if self.steps is None else min(self.epochs, -(-self.steps // -(-samples // self.batch)))

    def epoch_steps(self, samples: int, epoch: int, left: int) -> int:
        """Batches in ``epoch`` (from 0) of a task of ``samples``, of which ``left`` have not been removed."""
        steps = -(-left // self.batch)
        return steps if self.steps is None else max(0, min(steps, self.steps - epoch * -(-samples // self.batch)))
