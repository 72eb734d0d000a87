"""Whether a model is what the manifest says of it (runtimes/SPEC.md, "Loading")."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.artifacts import TensorSpec
from edgekit.errors import BadBundle

__all__ = ["compare_specs"]


def compare_specs(owner: str, kind: str, wanted: Sequence[TensorSpec], got: Sequence[TensorSpec]) -> None:
    """Raise BadBundle where ``wanted`` (of the manifest) is not what the engine ``got`` from the model of ``owner``.

    The manifest may not promise what the model does not hold; of an output's shape either may know more.
    """
    found = {spec.name: spec for spec in got}
    for spec in wanted:
        other = found.pop(spec.name, None)
        if other is None or other.dtype != spec.dtype or not _same_shape(spec.shape, other.shape, kind):
            has = f"{other.dtype} of shape {list(other.shape)}" if other else "none of that name"
            raise BadBundle(f"The manifest says of {owner} that its {kind} '{spec.name}' is "
                            f"{spec.dtype} of shape {list(spec.shape)}, but the model has {has}.")
    if found:
        raise BadBundle(f"The model of {owner} has {kind}s that the manifest does not name: "
                        f"{', '.join(found)}.")


def _same_shape(wanted: tuple[int, ...], got: tuple[int, ...], kind: str) -> bool:
    if len(wanted) != len(got):
        return False
    if kind == "input":  # the model may take more than the manifest promises
        return all(two in (one, -1) for one, two in zip(wanted, got, strict=True))
    return all(one == two or -1 in (one, two) for one, two in zip(wanted, got, strict=True))
