"""What a person should know about how the quality of candidates was judged."""

from __future__ import annotations

import math

from edgekit.converters.quantize.samples import Samples
from edgekit.converters.quantize.workbench import Quality

__all__ = ["about_judgement"]

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
