"""Observations whose truth is known: images differ in how easy they are, and exits in how much they see."""

from __future__ import annotations

import numpy as np

from edgekit.plan import Observations

HASH = "0" * 64
#: two resolutions with two exits each; skill is what decides the accuracy of an exit
SKILLS = ((1.3, 2.6), (2.2, 4.2))
STAGE_MS = ((1.0, 1.0), (3.0, 3.0))


def difficulty(samples: int, seed: int, classes: int = 10, skills: tuple[tuple[float, ...], ...] = SKILLS,
               stage_ms: tuple[tuple[float, ...], ...] = STAGE_MS) -> Observations:
    """Logits of label x skill x ease of the image, plus noise that all exits share and noise of their own."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=samples)
    ease = random.gamma(2.0, 0.6, size=(samples, 1))
    signal = np.eye(classes)[labels] * ease
    shared = random.standard_normal((samples, classes))
    logits = tuple(
        tuple((1.7 * (signal * skill + 0.6 * shared + 0.8 * random.standard_normal((samples, classes)))).astype(
            np.float32) for skill in row) for row in skills)
    return Observations(logits, labels, stage_ms, 0.05, "simulated", "litert", "measured", HASH)


def blind(samples: int, seed: int, accuracies: tuple[float, ...] = (0.6, 0.8), classes: int = 5) -> Observations:
    """One ladder for each accuracy, whose confidence says nothing, and which are right on the same images.

    No combination of two of them can be right where both are wrong, so nothing beats random mixing.
    """
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=samples)
    wrong = (labels + random.integers(1, classes, size=samples)) % classes
    luck = random.random(samples)
    rows = []
    for accuracy in accuracies:
        answers = np.where(luck < accuracy, labels, wrong)
        heights = random.uniform(0.5, 4.0, size=(samples, 1))
        rows.append(((np.eye(classes)[answers] * heights).astype(np.float32),))
    times = tuple((2.0 * 4.0**index,) for index in range(len(accuracies)))
    return Observations(tuple(rows), labels, times, 0.05, "simulated", "litert", "measured", HASH)
