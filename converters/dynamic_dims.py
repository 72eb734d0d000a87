"""Which axes of a traced network may vary, and in which steps.

torch.export accepts almost any dynamic axis and writes what it had to assume down as guards, for instance
``x.size()[2] == 4 * (1 + (x.size()[2] - 1) // 4)`` for a network that halves its input twice and adds the halves up
again. The ONNX exporter drops the guards, so a file made from a network that in truth works at one size only would look
dynamic and fail, or answer wrongly, on the device. Here the guards decide: an axis is dynamic when a step among STEPS
exists at which every tried size satisfies all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit.errors import BadRecipe
from edgekit.recipe import ExportRecipe

if TYPE_CHECKING:
    import torch

__all__ = ["STEPS", "AxisGroup", "DynamicAxis", "dynamic_axes", "find_groups", "grown", "torch_shapes", "traceable"]

STEPS = (1, 2, 4, 8, 16, 32)
#: how many steps above the example an axis is tried; a guard that holds at all of them is taken to hold everywhere
_TRIED = (1, 2, 3, 5, 8)
_AXIS_NAMES = {0: "batch", 2: "height", 3: "width"}

DynamicAxis = tuple[int, int]  # (position of the input, axis)


@dataclass(frozen=True, slots=True)
class AxisGroup:
    """Axes that always have the same size, and the step in which that may grow from the example's."""

    axes: tuple[DynamicAxis, ...]
    step: int


def dynamic_axes(shapes: Sequence[tuple[int, ...]], recipe: ExportRecipe) -> tuple[DynamicAxis, ...]:
    """The axes that ``recipe`` wants dynamic in inputs of ``shapes``.

    Raises BadRecipe when it asks for dynamic H,W and no input has four axes, or for a dynamic batch of scalars.
    """
    axes: list[DynamicAxis] = []
    for position, shape in enumerate(shapes):
        if recipe.dynamic_batch and shape:
            axes.append((position, 0))
        if recipe.dynamic_hw and len(shape) == 4:
            axes += [(position, 2), (position, 3)]
    if recipe.dynamic_hw and not any(axis > 1 for _, axis in axes):
        raise BadRecipe(
            f"Dynamic height and width were asked for, and the inputs have the shapes {[list(s) for s in shapes]}.",
            "They exist only in an input with four axes (N, C, H, W); leave dynamic_hw off.",
        )
    if recipe.dynamic_batch and not axes:
        raise BadRecipe("A dynamic batch was asked for, and every input is a scalar.", "Leave dynamic_batch off.")
    return tuple(axes)


def traceable(tensors: Sequence[torch.Tensor], axes: Sequence[DynamicAxis]) -> tuple[torch.Tensor, ...]:
    """``tensors`` with a dynamic axis of length 1 repeated to 2, because torch reads a length of 1 as a constant."""
    ready = list(tensors)
    for position, axis in axes:
        if ready[position].shape[axis] == 1:
            ready[position] = ready[position].repeat_interleave(2, dim=axis)
    return tuple(ready)


def torch_shapes(count: int, axes: Sequence[DynamicAxis]) -> tuple[dict[int, Any], ...] | None:
    """``dynamic_shapes`` of torch.export for ``count`` inputs, None where nothing is dynamic."""
    if not axes:
        return None
    import torch

    free = torch.export.Dim.DYNAMIC
    return tuple({axis: free for at, axis in axes if at == position} for position in range(count))


def find_groups(
    program: torch.export.ExportedProgram,
    names: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    axes: Sequence[DynamicAxis],
) -> tuple[AxisGroup, ...]:
    """``axes``, put together where torch found them to be equal, each group with the smallest step that it allows.

    ``names`` are the inputs' names for messages, ``shapes`` their shapes as traced. Raises BadRecipe naming the axes,
    and the condition that ties them, when no step of STEPS suits a group.
    """
    guards = _guards(program)
    groups = tuple(_with_step(guards, names, shapes, members) for members in _equal_axes(program, axes))
    broken = _broken(guards, shapes, groups)
    if broken:
        raise BadRecipe(*_tied(names, shapes, axes, broken))
    return groups


def grown(shapes: Sequence[tuple[int, ...]], groups: Sequence[AxisGroup], factor: int = 1) -> list[tuple[int, ...]]:
    """``shapes`` with every group larger by ``factor`` of its steps, each further group by one step more.

    Thus no two groups grow alike, and what holds for equal height and width only does not pass unseen.
    """
    sizes = [list(shape) for shape in shapes]
    for offset, group in enumerate(groups):
        for position, axis in group.axes:
            sizes[position][axis] += group.step * (factor + offset)
    return [tuple(size) for size in sizes]


def _with_step(
    guards: Callable[..., None] | None,
    names: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    members: tuple[DynamicAxis, ...],
) -> AxisGroup:
    broken = ""
    for step in STEPS:
        group = AxisGroup(members, step)
        broken = _broken(guards, shapes, (group,))
        if not broken:
            return group
    raise BadRecipe(*_tied(names, shapes, members, broken))


def _guards(program: torch.export.ExportedProgram) -> Callable[..., None] | None:
    """The check that an exported module makes on its inputs; None when it has none to make."""
    return getattr(program.module(), "_guards_fn", None)


def _equal_axes(
    program: torch.export.ExportedProgram, axes: Sequence[DynamicAxis]
) -> tuple[tuple[DynamicAxis, ...], ...]:
    """The dynamic axes by the symbol that torch gave them, in the order of the inputs."""
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    groups: dict[str, list[DynamicAxis]] = {}
    for position, axis in axes:
        groups.setdefault(str(values[position].shape[axis]), []).append((position, axis))
    return tuple(map(tuple, groups.values()))


def _broken(
    guards: Callable[..., None] | None, shapes: Sequence[tuple[int, ...]], groups: Sequence[AxisGroup]
) -> str:
    """The first condition that fails when ``groups`` grow by multiples of their steps; "" when none does."""
    import torch

    if guards is None:
        return ""
    for factor in _TRIED:
        try:
            guards(*(torch.empty(size, device="meta") for size in grown(shapes, groups, factor)))
        except AssertionError as error:
            return str(error).removeprefix("Guard failed: ")
    return ""


def _tied(
    names: Sequence[str], shapes: Sequence[tuple[int, ...]], members: Sequence[DynamicAxis], condition: str
) -> tuple[str, str]:
    where = ", ".join(
        f"axis {axis} ({_AXIS_NAMES[axis]}, {shapes[position][axis]} in the example) of '{names[position]}'"
        for position, axis in members
    )
    return (
        f"The network does not allow a dynamic {where}: it only works where {condition}.",
        "Export with a fixed size there, or remove the dependence on the size from the network.",
    )
