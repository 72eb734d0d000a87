"""The search with times that profiles of a device predict, where that device is not at hand."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgekit.artifacts import LiteRTModel
from edgekit.converters.quantize.goal import Goal
from edgekit.converters.quantize.plan import Plan
from edgekit.converters.quantize.samples import Samples
from edgekit.converters.quantize.search import Search, search_on
from edgekit.converters.quantize.speed import Speed
from edgekit.converters.quantize.workbench import Trial, Workbench
from edgekit.graph.costs_tflite import tflite_costs
from edgekit.profile.mixed import MixedProfile, Price
from edgekit.recipe import QuantRecipe

__all__ = ["search_for"]

_LEAST_COVERED = 0.5
#: forms that no profile is made of
_UNPRICED = frozenset({"dynamic4", "weight8"})


class _PricedWorkbench(Workbench):
    """The workbench whose clock is a pair of profiles."""

    def __init__(self, model: LiteRTModel, samples: Samples, base: QuantRecipe, device: MixedProfile) -> None:
        self._device = device
        self.prices: dict[bytes, Price] = {}
        super().__init__(model, samples, base)

    def make(self, plans: Sequence[Plan], on_step: Callable[[str], None]) -> list[Trial]:
        """As the base class; forms whose kernels no profile holds become failed trials."""
        unpriced = _UNPRICED if self._device.hybrids is not None else {*_UNPRICED, "dynamic8"}
        known = [plan for plan in plans if not unpriced & {*plan.kinds.values(), plan.keep_as}]
        return super().make(known, on_step) + [
            Trial(plan, failure="The profiles hold no times of such kernels.") for plan in plans if plan not in known]

    def compared(self, files: Sequence[bytes], seconds: float) -> tuple[Speed, ...]:
        """Predicted times; ``low`` and ``high`` of a ratio are the two bands together, as if independent."""
        del seconds  # nothing is run
        prices = [self.price(data) for data in files]
        first = prices[0]
        found = []
        for price in prices:
            ratio = price.latency_ms / first.latency_ms
            width = math.hypot(price.half_width, first.half_width)
            found.append(Speed(price.latency_ms, ratio, ratio * math.exp(-width), ratio * math.exp(width)))
        return tuple(found)

    def price(self, data: bytes) -> Price:
        """What the profiles say about a file of ours."""
        if data not in self.prices:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "candidate.tflite"
                path.write_bytes(data)
                self.prices[data] = self._device.price(tflite_costs(str(path), self._shapes()))
        return self.prices[data]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.feeds.items()}


def search_for(
    device: MixedProfile, model: LiteRTModel, samples: Samples, goal: Goal, base: QuantRecipe,
    on_step: Callable[[str], None] | None = None,
) -> Search:
    """As ``search``, for another machine than this one: quality is measured here, times are predicted.

    Notes say how wide the bands are, what they do not cover, and which candidates they cannot tell from the chosen one.
    """
    made: list[_PricedWorkbench] = []

    def opened() -> Workbench:
        made.append(_PricedWorkbench(model, samples, base, device))
        return made[0]

    found = search_on(opened, goal, base, on_step or (lambda _: None))
    return msgspec.structs.replace(found, notes=(*found.notes, *_notes(found, made[0], device, goal)))


def _notes(found: Search, bench: _PricedWorkbench, device: MixedProfile, goal: Goal) -> list[str]:
    whole = bench.price(bench.model.data)
    chosen = whole if found.chosen is None else bench.price(bench.files[found.chosen.name])
    names = " and ".join(f"'{profile.id}'" for profile in device if profile is not None)
    notes = [
        f"Times are predicted by {names} ({device.floats.soc}), not measured: "
        f"float {whole.latency_ms:.3g} ms, chosen {chosen.latency_ms:.3g} ms, within "
        f"{math.expm1(chosen.half_width):.0%} for 90 % of networks; {chosen.covered:.0%} of the time is on ops like "
        "measured ones. What XNNPACK leaves to slower kernels is seen on this machine's build.",
    ]
    if device.hybrids is None:
        notes.append("There is no profile of dynamic8 kernels, so forms that quantize activations at run time were not "
                     "tried.")
    if min(whole.covered, chosen.covered) < _LEAST_COVERED:
        notes.append("Less than half of the time is on ops like measured ones, so the choice is not to be trusted: "
                     "measure on the device with edgekit bench --remote.")
    ratio = 1.0 if found.chosen is None or found.chosen.speed is None else found.chosen.speed.ratio
    close = [trial.name for trial in found.trials
             if trial.speed is not None and trial is not found.chosen and goal.met(trial.quality)
             and abs(math.log(trial.speed.ratio / ratio)) < chosen.half_width]
    if close:
        shown = "; ".join(close[:3]) + ("; ..." if len(close) > 3 else "")
        notes.append(f"{len(close)} other candidates lie within the band ({shown}): where it matters, measure them on "
                     "the device with edgekit bench --remote.")
    return notes
