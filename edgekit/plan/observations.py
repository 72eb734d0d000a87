"""What a plan is made from: the answers of every exit on validation data, what each costs, and what is wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Engine
from edgekit.bundle.adaptive import Confidence
from edgekit.errors import BadInput, BadRecipe

__all__ = ["Observations", "PlanRecipe", "Point", "Points", "chain_costs"]

Floats = npt.NDArray[np.float32]
Points = tuple["Point", ...]

_FEWEST = 100  # fewer samples cannot tell routes apart: the 95 % interval of an accuracy is then +-10 points


class Point(NamedTuple):
    """Ladder ``ladder`` run up to stage ``stage``."""

    ladder: int
    stage: int


@dataclass(frozen=True)
class Observations:
    """The logits of every exit on validation data, and the times of the stages on the device.

    ``logits[l][s]``: (samples, classes) float32 of stage s of ladder l, as the stages that will run give them (the
    quantized ones of a quantized bundle). ``labels``: (samples,) integers, or None: agreement with the point of the
    largest cost then stands for accuracy. ``stage_ms[l][s]``: milliseconds of that stage alone; ``overhead_ms``: what
    each step costs on top. ``ladders_sha256``: what the plan will be bound to. ``notes``: what the plan is to say.

    Raises BadInput when shapes, numbers or labels do not fit together, or there are fewer than 100 samples.
    """

    logits: tuple[tuple[Floats, ...], ...]
    labels: npt.NDArray[np.int64] | None
    stage_ms: tuple[tuple[float, ...], ...]
    overhead_ms: float
    device: str
    engine: Engine
    source: Literal["measured", "predicted"]
    ladders_sha256: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.logits or not all(self.logits):
            raise BadInput("There are no logits to plan from.", "Give those of every stage of every ladder.")
        if [len(row) for row in self.logits] != [len(row) for row in self.stage_ms]:
            raise BadInput(f"The ladders have {[len(row) for row in self.logits]} stages with logits and "
                           f"{[len(row) for row in self.stage_ms]} with times.", "Give both for every stage.")
        shapes = {array.shape for row in self.logits for array in row}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2 or 0 in next(iter(shapes)):
            raise BadInput(f"The logits have the shapes {sorted(shapes)}.", "All must be (samples, classes).")
        if not all(np.isfinite(array).all() for row in self.logits for array in row):
            raise BadInput("Some logits are not finite.", "Run edgekit verify on the bundle.")
        times = [self.overhead_ms, *(ms for row in self.stage_ms for ms in row)]
        if not all(math.isfinite(ms) and ms >= 0 for ms in times) or min(times[1:]) <= 0:
            raise BadInput("A stage time is not a positive number of milliseconds.")
        if self.samples < _FEWEST:
            raise BadInput(f"{self.samples} validation samples are too few to plan from.",
                           f"Give at least {_FEWEST}; 2,000 or more make the promises narrow.")
        self._check_labels()

    def _check_labels(self) -> None:
        if self.labels is None:
            return
        if self.labels.shape != (self.samples,):
            raise BadInput(f"There are {self.labels.size} labels for {self.samples} samples.")
        if self.labels.min() < 0 or self.labels.max() >= self.classes:
            raise BadInput(f"The labels lie in {self.labels.min()} to {self.labels.max()}.",
                           f"The network has classes 0 to {self.classes - 1}.")

    @property
    def samples(self) -> int:
        """How many inputs were seen."""
        return int(self.logits[0][0].shape[0])

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.logits[0][0].shape[1])

    @property
    def points(self) -> Points:
        """Every exit of every ladder, from the cheapest to the dearest."""
        points = [Point(ladder, stage) for ladder, row in enumerate(self.logits) for stage in range(len(row))]
        return tuple(sorted(points, key=lambda point: (self.cost_ms((point,))[0], point)))

    def of(self, point: Point) -> Floats:
        """The logits of a point, (samples, classes)."""
        return self.logits[point.ladder][point.stage]

    def cost_ms(self, chain: Points) -> tuple[float, ...]:
        """The time until each step of a chain is done, in milliseconds."""
        return chain_costs(chain, self.stage_ms, self.overhead_ms)


def chain_costs(chain: Points, stage_ms: tuple[tuple[float, ...], ...], overhead_ms: float) -> tuple[float, ...]:
    """The time until each step is done; a step of a ladder that has run goes on from its last stage."""
    done: dict[int, int] = {}
    total, costs = 0.0, []
    for point in chain:
        first = done.get(point.ladder, -1) + 1
        total += overhead_ms + sum(stage_ms[point.ladder][first:point.stage + 1])
        done[point.ladder] = max(first - 1, point.stage)
        costs.append(total)
    return tuple(costs)


class PlanRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is wanted of a plan. At most one of the first two; neither asks for the whole front ("sweep").

    ``budget_ms``: the most accurate route whose mean time (or 95th percentile, see ``budget_on``) is at most this.
    ``max_drop``: the cheapest route that loses at most so many percentage points against the most accurate fixed
    point. The default route of a sweep is that of a drop of 0. ``slack``: percentage points taken off the
    cross-validated accuracy of adaptive routes (None: measured on blind halves of the data). ``measures`` are those
    that may be used; ``max_steps`` limits the length of a route, ``max_routes`` their number. ``folds`` and ``seed``
    are those of the cross-validation. Impossible values raise BadRecipe.
    """

    budget_ms: float | None = None
    max_drop: float | None = None
    budget_on: Literal["mean", "p95"] = "mean"
    slack: float | None = None
    measures: tuple[Confidence, ...] = ("margin", "max_probability", "gate")
    max_steps: int = 3
    max_routes: int = 12
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.budget_ms is not None and self.max_drop is not None:
            raise BadRecipe("A budget and a drop were given.", "Give one of the two, or neither for the whole front.")
        for name, least in (("budget_ms", 1e-9), ("max_drop", 0.0), ("slack", 0.0)):
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise BadRecipe(f"{name} is {value}.", "It must be finite and not negative.")
        for name, low, high in (("max_steps", 1, 4), ("max_routes", 1, 12), ("folds", 2, 20)):
            if not low <= getattr(self, name) <= high:
                raise BadRecipe(f"{name} is {getattr(self, name)}.", f"It must be between {low} and {high}.")
        if not self.measures:
            raise BadRecipe("No confidence measure is allowed.", "Known: margin, max_probability, gate.")

    @property
    def objective(self) -> str:
        """In words, for the plan."""
        if self.budget_ms is not None:
            return f"{self.budget_on} <= {self.budget_ms:g} ms"
        return "sweep" if self.max_drop is None else f"drop <= {self.max_drop:g} points"
