"""What a person should know about how the quality of candidates was judged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from edgekit.converters.quantize.goal import Goal
from edgekit.converters.quantize.samples import Samples
from edgekit.converters.quantize.workbench import Quality, Trial

__all__ = ["about_judgement", "about_risk"]

_DOUBTFUL_ACCURACY = 0.3


def about_judgement(quality: Quality, samples: Samples, max_drop_points: float | None, min_sqnr_db: float) -> list[str]:
    """Sentences on what the figures cannot show, and on what was asked for and could not be used."""
    found = []
    if quality.agreement is None and (samples.labels is not None or max_drop_points is not None):
        unused = [what for what, given in (("labels", samples.labels is not None),
                                           ("a largest drop", max_drop_points is not None)) if given]
        found.append(f"The network is no classifier with one row of scores, so {' and '.join(unused)} cannot be used: "
                     f"quality is the SQNR of the worst output, at least {min_sqnr_db:g} dB.")
    elif max_drop_points and 100 / max(quality.samples, 1) > max_drop_points:
        found.append(f"{quality.samples} samples cannot show a drop of {max_drop_points:g} points, since one answer is "
                     f"{100 / max(quality.samples, 1):.1f} points; {math.ceil(100 / max_drop_points)} or more can.")
    if quality.float_accuracy is not None and quality.float_accuracy < _DOUBTFUL_ACCURACY:
        found.append(f"The float file itself is right on only {100 * quality.float_accuracy:.1f} % of the samples: "
                     "check the labels and the preprocessing.")
    return found


def about_risk(trials: Sequence[Trial], chosen: Trial | None, goal: Goal) -> list[str]:
    """A sentence on the first of ``trials``, from the fastest, that only the spread of the samples speaks against.

    Nothing where that one is not faster than ``chosen``.
    """
    limit = 1.0 if chosen is None or chosen.speed is None else chosen.speed.ratio
    for trial in trials:
        if trial.speed is None or trial.speed.ratio >= limit:
            break
        quality = trial.quality
        if quality.low_db is not None and not goal.met(quality) and goal.met(
                msgspec.structs.replace(quality, low_db=None)):
            return [f"'{trial.name}' is faster ({trial.speed.ratio:.2f} times float32's time) and has "
                    f"{quality.sqnr_db:.1f} dB on the samples, which differ so much that another one may have "
                    f"less than {quality.low_db:.1f} dB once in twenty times. More samples make this surer."]
    return []
