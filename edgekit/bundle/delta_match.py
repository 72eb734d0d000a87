"""Which stretches of an old entry predict a new one: those between pieces that both hold, at equal distances.

Weights change in place, but tables in front of them may grow, which shifts all that follows. Pieces of 32 bytes that
occur once in the old entry and are found in the new one say by how much; what lies between two such pieces follows the
shift of the piece before it, or of the one behind it where that comes first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit.bundle.delta_residual import Stretch

__all__ = ["stretches"]

_PIECE = 32
_STEP = 4  # weights and tables are aligned to this
_AGREE = 3  # pieces in a row with one shift before it is believed


def stretches(base: bytes, new: bytes) -> tuple[Stretch, ...]:
    """A prediction for all of ``new``; stretches that would leave ``base`` become zeros."""
    if not new:
        return ()
    runs = [(0, 0)] if len(base) == len(new) else _shifts(base, new)
    ends = [start for start, _ in runs[1:]] + [len(new)]
    found: list[Stretch] = []
    for (start, shift), end in zip(runs, ends, strict=True):
        found += _inside(start, end, shift, len(base))
    return tuple(found)


def _inside(start: int, end: int, shift: int, base_length: int) -> list[Stretch]:
    """[start, end) of the new entry from ``start + shift`` of the base, with zeros where that is outside."""
    first, last = max(start, -shift), min(end, base_length - shift)
    if first >= last:
        return [(end - start, -1)]
    parts = [(first - start, -1), (last - first, first + shift), (end - last, -1)]
    return [(length, offset) for length, offset in parts if length]


def _shifts(base: bytes, new: bytes) -> list[tuple[int, int]]:
    """(start in the new entry, shift), the first from 0 on."""
    old_keys, new_keys = _pieces(base), _pieces(new)
    unique, first, counts = np.unique(old_keys, return_index=True, return_counts=True)
    at = np.searchsorted(unique, new_keys)
    at[at == len(unique)] = 0
    hit = (unique[at] == new_keys) & (counts[at] == 1) if len(unique) else np.zeros(len(new_keys), bool)
    places = np.flatnonzero(hit)
    shifts = (first[at[places]] - places) * _STEP
    runs: list[tuple[int, int]] = []
    for place, shift in zip(places.tolist(), shifts.tolist(), strict=True):
        if not runs or runs[-1][1] != shift:
            runs.append((place * _STEP, shift))
    believed = _believed(runs, places * _STEP, shifts)
    return [(0, believed[0][1]), *believed[1:]] if believed else [(0, 0)]


def _believed(
    runs: list[tuple[int, int]], places: npt.NDArray[np.int64], shifts: npt.NDArray[np.int64]
) -> list[tuple[int, int]]:
    """The runs with enough pieces, neighbours of one shift joined."""
    kept: list[tuple[int, int]] = []
    starts = np.array([start for start, _ in runs], np.int64)
    counts = np.diff(np.append(np.searchsorted(places, starts), len(shifts)))
    for (start, shift), count in zip(runs, counts.tolist(), strict=True):
        if count >= _AGREE and (not kept or kept[-1][1] != shift):
            kept.append((start, shift))
    return kept


def _pieces(data: bytes) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of the piece that starts at each multiple of ``_STEP``."""
    words = np.frombuffer(data, "<u4", len(data) // 4).astype(np.uint64)
    count = len(words) - _PIECE // 4 + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    keys = np.zeros(count, np.uint64)
    for place in range(_PIECE // 4):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + words[place:place + count]
        keys ^= keys >> np.uint64(29)
    return keys
