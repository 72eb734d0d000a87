"""From the scores of a classifier to labels (runtimes/SPEC.md, "Classification")."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array, TensorSpec
from edgekit.bundle import Bundle
from edgekit.bundle.manifest import Manifest, Variant
from edgekit.errors import BadBundle, EngineError
from edgekit.runtime.decide import softmax

__all__ = ["Classifier", "classifier_of", "parse_labels", "probabilities", "read_labels"]

_SUM_TOLERANCE = 1e-3  # of float16 probabilities over 1000 classes
_FEW = 48


def parse_labels(data: bytes, entry: str) -> tuple[str, ...]:
    """One label a line, UTF-8. Raises BadBundle."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadBundle(f"The labels in entry '{entry}' are not UTF-8 text: {error}.") from error
    # Not splitlines(), which also breaks at characters that may stand inside a label (U+2028 and others).
    lines = tuple(line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))
    if not text:
        raise BadBundle(f"The labels entry '{entry}' is empty.")
    return lines


def probabilities(scores: Array) -> npt.NDArray[np.float64]:
    """Softmax of a vector of scores, or the vector itself where it is a distribution already.

    It is one when no value is negative and they sum to 1 within 0.001, as after a softmax inside the network.
    """
    values = scores.astype(np.float64)
    if values.min() >= 0 and abs(values.sum() - 1) <= _SUM_TOLERANCE:
        return values
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def _few(values: list[float]) -> list[float]:
    """``probabilities`` of few scores: each call of numpy takes some microseconds, as long as a whole list of 48."""
    if min(values) >= 0 and abs(sum(values) - 1) <= _SUM_TOLERANCE:
        return values
    found = softmax(values)
    assert isinstance(found, list)
    return found


def read_labels(bundle: Bundle) -> tuple[str, ...]:
    """The labels of a bundle, () where it has none. Raises BadBundle."""
    entry = bundle.manifest.labels_entry
    return parse_labels(bundle.read(entry), entry) if entry else ()


def classifier_of(manifest: Manifest, variant: Variant, labels: tuple[str, ...], top: int) -> Classifier | None:
    """What names the classes of a variant's first output; None where that holds none. Raises BadBundle."""
    if manifest.task != "classification":
        return None
    if not labels:
        raise BadBundle(f"The bundle '{manifest.name}' is for classification, but names no labels.")
    return Classifier(labels, variant.outputs[0], top)


class Classifier:
    """Names the best ``top`` classes of the output ``spec``, the first output of the network."""

    def __init__(self, labels: tuple[str, ...], spec: TensorSpec, top: int) -> None:
        """Raises BadBundle when the output is not one float score for each label."""
        if not spec.shape or not spec.dtype.startswith("float"):
            raise BadBundle(f"The bundle has labels, but its output '{spec.name}' ({spec.dtype}, shape "
                            f"{list(spec.shape)}) holds no float scores.")
        self._labels = labels
        self._name = spec.name
        self._top = min(top, len(labels))
        if spec.shape[-1] != -1:
            self._check_count(spec.shape[-1])

    def __call__(self, scores: Array) -> tuple[tuple[str, float], ...]:
        """(label, probability) pairs, the best first, equal ones in the order of labels; () for a batch of several.

        ``scores``: (..., classes) of one image. Raises BadBundle, and EngineError when they are not finite.
        """
        self._check_count(scores.shape[-1])
        if scores.size != len(self._labels):
            return ()
        flat = scores.reshape(-1)
        return self.named(_few(flat.tolist()) if flat.size <= _FEW else probabilities(flat))

    def named(self, chances: npt.NDArray[np.float64] | list[float]) -> tuple[tuple[str, float], ...]:
        """The same for probabilities (classes,). Raises EngineError when they are not finite."""
        if not math.isfinite(sum(chances) if isinstance(chances, list) else chances.sum()):
            raise EngineError(f"The scores in output '{self._name}' are not finite, so no class can be named.",
                              "The network overflows for this input: check its values and the preprocessing.")
        if isinstance(chances, list):
            order = sorted(range(len(chances)), key=chances.__getitem__, reverse=True)[:self._top]
            return tuple([(self._labels[index], chances[index]) for index in order])
        best = np.argsort(-chances, kind="stable")[:self._top]
        return tuple(zip([self._labels[index] for index in best.tolist()], chances[best].tolist(), strict=True))

    def _check_count(self, classes: int) -> None:
        if classes != len(self._labels):
            raise BadBundle(f"The bundle has {len(self._labels)} labels, but its output '{self._name}' has {classes} "
                            "classes.", "Build it again with one label for each class.")
