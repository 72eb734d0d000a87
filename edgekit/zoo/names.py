"""How the tensors of other projects' networks are called here: rules that turn one name into another."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["NameMap", "Rule", "block_at", "digits", "timm_inverted", "torchvision_block"]

#: a pattern, and what stands for it: text as of re.sub, or a function of the network and the match
Rule = tuple[str, str | Callable[[Any, "re.Match[str]"], str]]


@dataclass(frozen=True)
class NameMap:
    """From another project's names to ours. ``epsilon``: that of its BatchNorm, where it is not torch's 1e-5.

    Every rule whose pattern is found at the start of the name is applied, one after the other.
    """

    rules: tuple[Rule, ...]
    epsilon: float | None = None

    def rename(self, network: Any, name: str) -> str:
        """What the tensor ``name`` of the other project is called in ``network``."""
        for pattern, replacement in self.rules:
            match = re.match(pattern, name)
            if match is not None:
                new = match.expand(replacement) if isinstance(replacement, str) else replacement(network, match)
                name = new + name[match.end():]
        return name


def digits(text: str, *, less: tuple[int, ...] = (1,)) -> Callable[[Any, re.Match[str]], str]:
    """``text`` with {0}, {1} and so on for the groups of the match; numbers are lowered by ``less``, in order."""

    def replace(_: Any, match: re.Match[str]) -> str:
        lowered = [*less, *[0] * len(match.groups())]
        return text.format(*(int(group) - by if group.isdigit() else group
                             for group, by in zip(match.groups(), lowered, strict=False)))

    return replace


def block_at(network: Any, flat: int) -> tuple[str, Any]:
    """The name of block ``flat`` (from 0, all stages in a row), and the block; name and None beyond the last."""
    for number, stage in enumerate(network.stages):
        if flat < len(stage):
            return f"stages.{number}.{flat}", stage[flat]
        flat -= len(stage)
    return f"stages.{len(network.stages)}.{flat}", None


def _roles(block: Any) -> list[str]:
    return [] if block is None else [name for name, _ in block.named_children()]


def torchvision_block(network: Any, match: re.Match[str]) -> str:
    """Of ``features.B.block.K.PART.`` or ``features.B.conv.K.PART.``: a part of an inverted residual, by its place."""
    name, block = block_at(network, int(match[1]) - 1)
    roles, place, part = _roles(block), int(match[2]), match[3]
    if place >= len(roles) or part is None:  # MobileNetV2's last convolution and its BatchNorm stand by themselves
        return f"{name}.project.{max(place - len(roles) + 1, 0)}."
    return f"{name}.{roles[place]}.{ {'fc1': 'reduce', 'fc2': 'expand'}.get(part, part)}."


def timm_inverted(network: Any, match: re.Match[str]) -> str:
    """Of ``blocks.S.B.PART.``: a part of an inverted residual, whose BatchNorms timm numbers in order."""
    name, part = f"stages.{match[1]}.{match[2]}", match[3]
    try:
        block = network.stages[int(match[1])][int(match[2])]
    except IndexError:
        return f"{name}.{part}."
    roles = [role for role in _roles(block) if role != "excite"]
    if part.startswith("bn"):
        return f"{name}.{roles[min(int(part[2:]), len(roles)) - 1]}.1."
    if part.startswith("se."):
        return f"{name}.excite.{part.removeprefix('se.conv_')}."
    wide = "expand" if "expand" in roles else "project"
    return f"{name}.{ {'conv_pw': wide, 'conv_dw': 'depthwise', 'conv_pwl': 'project'}[part]}.0."
