"""Which channels of which parameters must go together: labels on positions, joined as a graph says.

Every position of every axis of every parameter has a label. An op that needs two positions to be kept or removed
together joins their labels; one whose meaning would change with the number of channels freezes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Axes", "Labels", "Positions", "reshaped"]

Positions = npt.NDArray[np.int64]
Axes = tuple[Positions | None, ...]
"""For each axis of a tensor the label of each position; None where nothing depends on the positions."""


class Labels:
    """Disjoint sets of labels, some of which are frozen: their positions stay."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._frozen: set[int] = set()

    def fresh(self, count: int) -> Positions:
        """``count`` new labels."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, label: int) -> int:
        """The label that stands for the set of ``label``."""
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def join(self, one: Positions | None, other: Positions | None) -> None:
        """Position by position; where the sizes differ or one side is unlabelled, the labels are frozen."""
        if one is None or other is None or len(one) != len(other):
            self.freeze(one)
            self.freeze(other)
            return
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            first, second = self.root(a), self.root(b)
            if first == second:
                continue
            self._parents[second] = first
            if second in self._frozen:
                self._frozen.add(first)

    def freeze(self, positions: Positions | None) -> None:
        """Keep these positions, and all that go with them."""
        if positions is not None:
            self._frozen.update(self.root(label) for label in positions.tolist())

    def is_frozen(self, label: int) -> bool:
        """Whether the positions with this label must stay."""
        return self.root(label) in self._frozen


def reshaped(labels: Labels, axes: Axes, before: Sequence[int], after: Sequence[int]) -> Axes:
    """The axes of a tensor of shape ``before`` that becomes ``after``.

    An axis that is merged with unlabelled ones keeps its labels, each as often as the others ask. One that is divided,
    or merged with another labelled one, is frozen: networks write the sizes of such parts as numbers.
    """
    found: list[Positions | None] = [None] * len(after)
    for ins, outs in _blocks(before, after):
        wide_in = [axis for axis in ins if before[axis] > 1]
        wide_out = [axis for axis in outs if after[axis] > 1]
        labelled = [axis for axis in wide_in if axes[axis] is not None]
        if len(labelled) == 1 and len(wide_out) == 1:
            own = axes[labelled[0]]
            assert own is not None
            places = [1] * len(ins)
            places[ins.index(labelled[0])] = len(own)
            found[wide_out[0]] = np.broadcast_to(own.reshape(places), [before[axis] for axis in ins]).reshape(-1)
            continue
        for axis in ins:
            labels.freeze(axes[axis])
    return tuple(found)


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of axes on both sides with equal products, as short as can be."""
    blocks = []
    i = j = 0
    while i < len(before) or j < len(after):
        ins, outs = ([i] if i < len(before) else []), ([j] if j < len(after) else [])
        i, j = i + 1, j + 1
        left = before[ins[0]] if ins else 1
        right = after[outs[0]] if outs else 1
        while left != right:
            if left < right and i < len(before):
                ins.append(i)
                left, i = left * before[i], i + 1
            elif j < len(after):
                outs.append(j)
                right, j = right * after[j], j + 1
            else:
                break
        blocks.append((ins, outs))
    return blocks
