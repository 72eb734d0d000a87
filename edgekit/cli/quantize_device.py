"""Whose times ``edgekit quantize --device`` goes by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.errors import BadRecipe

if TYPE_CHECKING:
    from edgekit.profile.mixed import MixedProfile

__all__ = ["device_profiles"]


def device_profiles(names: Sequence[str], to: str) -> MixedProfile | None:
    """The profiles that ``--device`` names, up to three times; None where it was not given.

    Raises BadRecipe where they cannot price a file that mixes precisions, UnknownName, BadInput.
    """
    if not names:
        return None
    from edgekit.device_profiles import resolve
    from edgekit.profile.mixed import mixed_profile

    if to != "litert":
        raise BadRecipe("--device is for LiteRT files: there are no int8 profiles of ONNX Runtime.",
                        "Leave --device out, or --to litert.")
    return mixed_profile([resolve(name) for name in names])
