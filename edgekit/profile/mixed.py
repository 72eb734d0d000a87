"""The time of files that mix float and int8 ops, from two profiles of one machine: one of each."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from edgekit.device_profiles import DeviceProfile, load_file, load_profiles, user_folder
from edgekit.errors import BadInput, BadRecipe
from edgekit.graph.costs import GraphCosts
from edgekit.profile.domain import half_widths
from edgekit.profile.host.estimate import estimate

__all__ = ["MixedProfile", "Price", "pair_of"]

_HOW = ("On the device, run: edgekit devices fit --host --precision float32 -o float.json; "
        "edgekit devices fit --host --precision int8 -o int8.json. Give both: --device float.json --device int8.json")


class Price(NamedTuple):
    """``half_width``: of the 90 % band, in logarithms. ``covered``: the share of the time on ops like measured ones."""

    latency_ms: float
    half_width: float
    covered: float


class MixedProfile(NamedTuple):
    """Costs of float kernels from the one, and of integer kernels and conversions from the other."""

    floats: DeviceProfile
    integers: DeviceProfile

    def price(self, costs: GraphCosts) -> Price:
        """Each op costs what the profile of its result's precision says; a run costs what that of most ops says."""
        assert self.floats.kernels is not None
        assert self.integers.kernels is not None
        both = [estimate(costs, profile.kernels) for profile in self if profile.kernels is not None]
        integer = np.array([_is_integer(op.kind, op.bits) for op in costs.ops])
        per_op = np.where(integer, both[1].per_op_ms, both[0].per_op_ms)
        run_ms = both[int(integer.mean() > 0.5)].run_ms if len(integer) else both[0].run_ms
        total = float(per_op.sum()) + run_ms
        if not total > 0:
            raise BadRecipe("The network's ops only rename axes: there is nothing to time.")
        parts = [float(per_op[integer == side].sum()) / total for side in (False, True)]
        covered = 1 - sum(part * (1 - found.covered) for part, found in zip(parts, both, strict=True))
        widths = [float(half_widths(profile.kernels.spread, np.array([1 - covered]))[0]) for profile in self
                  if profile.kernels is not None]
        width = math.hypot(*(part * each for part, each in zip(parts, widths, strict=True)))
        return Price(total, max(width, min(widths)), covered)


def _is_integer(kind: str, bits: int) -> bool:
    return bits <= 8 or kind in ("QUANTIZE", "DEQUANTIZE")


def pair_of(first: DeviceProfile, second: DeviceProfile | None = None) -> MixedProfile:
    """The two halves; without ``second``, a profile of the same machine and the other precision is looked for.

    Raises BadRecipe where one is no profile of kernels, there is no other half, or they do not belong together.
    """
    for profile in (first, *([second] if second else [])):
        if profile.kernels is None:
            raise BadRecipe(
                f"The profile '{profile.id}' ({profile.runtime}, {profile.precision}) cannot rank files that mix float "
                "and int8 ops: it holds no costs of int8 kernels, nor of the conversions between the two.", _HOW)
    other = second or next((each for each in _kept() if each.kernels is not None and _fits(first, each)), None)
    if other is None:
        raise BadRecipe(f"The profile '{first.id}' is of {first.precision} kernels, and there is none of the same "
                        "machine for the other precision.", _HOW)
    if not _fits(first, other):
        raise BadRecipe(f"The profiles '{first.id}' ({first.soc}, {first.runtime} {first.runtime_version}, "
                        f"{first.threads} threads, {first.precision}) and '{other.id}' ({other.soc}, {other.runtime} "
                        f"{other.runtime_version}, {other.threads} threads, {other.precision}) do not belong together.",
                        "Give one of float32 and one of int8, of the same machine, engine and threads.")
    return MixedProfile(first, other) if first.precision == "float32" else MixedProfile(other, first)


def _kept() -> list[DeviceProfile]:
    """The user's own profiles and those that came along; a file that is none is passed over here."""
    found = list(load_profiles())
    for path in sorted(user_folder().glob("*.json")) if user_folder().is_dir() else ():
        try:
            found.append(load_file(path))
        except BadInput:
            continue  # named when somebody asks for it
    return found


def _fits(first: DeviceProfile, other: DeviceProfile) -> bool:
    same = ("soc", "runtime", "runtime_version", "backend", "threads")
    return (all(getattr(first, name) == getattr(other, name) for name in same)
            and {first.precision, other.precision} == {"float32", "int8"})
