"""What a search is to find."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from edgekit.converters.quantize.quality import MAX_DB
from edgekit.converters.quantize.workbench import Quality
from edgekit.errors import BadRecipe

__all__ = ["Goal"]

#: what the SQNR on the samples must be above the one wanted, because other inputs differ from them
_MARGIN_DB = 1.0


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted: the fastest or the smallest file whose quality is good enough.

    With ``max_drop_points`` a classifier may lose so many points of top-1 accuracy (with labels), or answer otherwise
    than the float file on so many percent of the samples (without); one sample may always differ. With
    ``min_agreement`` (0 to 1) that part of its answers must also be the float file's. Otherwise, and for other
    networks, the worst output's signal to noise ratio must be at least ``min_sqnr_db``, and 1 dB more on the samples;
    and one more sample may fall below ``min_sqnr_db`` only once in twenty times (``Quality.low_db``).
    """

    objective: Literal["latency", "size"] = "latency"
    min_sqnr_db: float = 30.0
    max_drop_points: float | None = None
    max_seconds: float = 120.0
    min_agreement: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.min_sqnr_db < MAX_DB:
            raise BadRecipe(f"The lowest SQNR is {self.min_sqnr_db} dB.", f"It must lie between 0 and {MAX_DB:g}.")
        if self.max_drop_points is not None and not 0 <= self.max_drop_points <= 100:
            raise BadRecipe(f"The largest drop is {self.max_drop_points} points.", "It must lie between 0 and 100.")
        if not 0 <= self.min_agreement <= 1:
            raise BadRecipe(f"The lowest agreement is {self.min_agreement}.", "It must lie between 0 and 1.")

    def met(self, quality: Quality) -> bool:
        """Whether ``quality`` is good enough."""
        if self.max_drop_points is None or quality.agreement is None:
            return quality.sqnr_db >= self.min_sqnr_db + _MARGIN_DB and not self.risky(quality)
        other, allowed = self._answers(quality, quality.agreement)
        return other <= allowed and (quality.drop_points is None or quality.drop_points <= self.max_drop_points)

    def risky(self, quality: Quality) -> bool:
        """Whether another sample may well fall below the noise that is allowed, whatever the samples at hand say."""
        return quality.low_db is not None and quality.low_db < self.min_sqnr_db

    def possible(self, quality: Quality) -> bool:
        """Whether ``quality``, which is from a few of the samples, leaves it open that all would be good enough."""
        if self.max_drop_points is None or quality.agreement is None:
            return self.met(msgspec.structs.replace(quality, low_db=None))  # a spread of a few samples says little
        other, allowed = self._answers(quality, quality.agreement)
        near = other <= allowed + 2 * math.sqrt(allowed)
        return near and (quality.drop_low is None or quality.drop_low <= self.max_drop_points)

    def _answers(self, quality: Quality, agreement: float) -> tuple[int, float]:
        """How many answers are other than the float file's, and how many may be."""
        assert self.max_drop_points is not None
        share = 1 - self.min_agreement
        if quality.drop_points is None:
            share = min(share, self.max_drop_points / 100)
        return round((1 - agreement) * quality.samples), max(1.0, share * quality.samples)
