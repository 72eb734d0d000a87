"""The time of files that mix precisions, from profiles of one machine: one for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgekit.device_profiles import DeviceProfile, KernelCosts, load_file, load_profiles, user_folder
from edgekit.errors import BadInput, BadRecipe
from edgekit.graph.costs import GraphCosts, OpCost
from edgekit.profile.domain import half_widths
from edgekit.profile.host.estimate import estimate

__all__ = ["MixedProfile", "Price", "mixed_profile"]

_NEEDED = ("float32", "int8")
_KNOWN = (*_NEEDED, "dynamic8")
_HOW = ("On the device, run: edgekit devices fit --host --precision float32 -o float.json, and the same with int8 and "
        "dynamic8. Give them all: --device float.json --device int8.json --device dynamic8.json")


class Price(NamedTuple):
    """``half_width``: of the 90 % band, in logarithms. ``covered``: the share of the time on ops like measured ones."""

    latency_ms: float
    half_width: float
    covered: float


class MixedProfile(NamedTuple):
    """Costs of float kernels; of integer kernels and conversions; of kernels that quantize activations at run time."""

    floats: DeviceProfile
    integers: DeviceProfile
    hybrids: DeviceProfile | None = None

    def price(self, costs: GraphCosts) -> Price:
        """Each op costs what the profile of its precision says; a run costs what that of most ops says."""
        profiles = [profile for profile in self if profile is not None]
        found = [estimate(costs, _kernels(profile)) for profile in profiles]
        side = np.array([min(_side(op), len(profiles) - 1) for op in costs.ops], np.intp)
        per_op = np.stack([each.per_op_ms for each in found])[side, np.arange(len(side))]
        run_ms = found[int(np.bincount(side).argmax())].run_ms if len(side) else 0.0
        total = float(per_op.sum()) + run_ms
        if not total > 0:
            raise BadRecipe("The network's ops only rename axes: there is nothing to time.")
        parts = [float(per_op[side == index].sum()) / total for index in range(len(profiles))]
        covered = 1 - sum(part * (1 - each.covered) for part, each in zip(parts, found, strict=True))
        widths = [float(half_widths(_kernels(profile).spread, np.array([1 - covered]))[0]) for profile in profiles]
        width = math.hypot(*(part * each for part, each in zip(parts, widths, strict=True)))
        return Price(total, max(width, min(widths)), covered)


def _kernels(profile: DeviceProfile) -> KernelCosts:
    assert profile.kernels is not None  # mixed_profile has checked it
    return profile.kernels


def _side(op: OpCost) -> int:
    """0 for float, 1 for integers and conversions, 2 for integer weights with float activations."""
    if op.bits <= 8 or op.kind in ("QUANTIZE", "DEQUANTIZE"):
        return 1
    return 2 if op.weight_elements and op.weight_bits <= 8 else 0


def mixed_profile(given: Sequence[DeviceProfile]) -> MixedProfile:
    """The profiles that belong together; what is not ``given`` is looked for among the known ones.

    Raises BadRecipe where one is no profile of kernels, float32 or int8 is missing, or they are of several machines.
    """
    for profile in given:
        if profile.kernels is None or profile.precision not in _KNOWN:
            raise BadRecipe(
                f"The profile '{profile.id}' ({profile.runtime}, {profile.precision}) cannot rank files that mix float "
                "and int8 ops: it holds no costs of int8 kernels, nor of the conversions between the two.", _HOW)
    first = given[0]
    found = {profile.precision: profile for profile in given}
    strangers = [profile for profile in given if not _same_machine(first, profile)]
    if strangers or len(found) < len(given):
        raise BadRecipe("The profiles do not belong together: " + "; ".join(map(_described, given)) + ".",
                        "Give one for each precision, of the same machine, engine and threads.")
    for profile in _kept() if len(found) < len(_KNOWN) else ():
        if profile.kernels is not None and _same_machine(first, profile):
            found.setdefault(profile.precision, profile)
    missing = [precision for precision in _NEEDED if precision not in found]
    if missing:
        raise BadRecipe(f"There is no profile of {' and '.join(missing)} kernels of the machine of '{first.id}'.", _HOW)
    return MixedProfile(found["float32"], found["int8"], found.get("dynamic8"))


def _kept() -> list[DeviceProfile]:
    """The user's own profiles and those that came along; a file that is none is passed over here."""
    found = list(load_profiles())
    for path in sorted(user_folder().glob("*.json")) if user_folder().is_dir() else ():
        try:
            found.append(load_file(path))
        except BadInput:
            continue  # named when somebody asks for it
    return found


def _same_machine(first: DeviceProfile, other: DeviceProfile) -> bool:
    same = ("soc", "runtime", "runtime_version", "backend", "threads")
    return all(getattr(first, name) == getattr(other, name) for name in same)


def _described(profile: DeviceProfile) -> str:
    return (f"'{profile.id}' ({profile.soc}, {profile.runtime} {profile.runtime_version}, {profile.threads} threads, "
            f"{profile.precision})")
