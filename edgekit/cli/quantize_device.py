"""What ``edgekit quantize --device`` can honestly do with the profiles that there are."""

from __future__ import annotations

from edgekit.errors import BadRecipe

__all__ = ["refuse_device"]


def refuse_device(name: str) -> None:
    """Raises BadRecipe, which says why the profile ``name`` cannot rank int8 files; UnknownName for none of them.

    A candidate mixes ops in float and in integers. A profile is of one precision, and a prediction adds up the ops of
    one profile; the price of the conversions between the two, and of what cuts a partition, is in none.
    """
    from edgekit.device_profiles import load_profiles, resolve

    profile = resolve(name)
    known = [each.id for each in load_profiles()
             if each.precision == "int8" and each.fit is not None and each.soc == profile.soc]
    integers = f"int8 is fitted by {', '.join(known)}" if known else "no profile of this device is fitted on int8"
    raise BadRecipe(
        f"The profile '{profile.id}' ({profile.runtime}, {profile.precision}) cannot rank files that mix float and "
        f"int8 ops: {integers}, and no profile holds what the conversions between them cost.",
        "Leave --device out: times are measured on this machine. Predict a finished file with edgekit profile.",
    )
