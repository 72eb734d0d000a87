"""The file that a killed run goes on from: whole or not there, and of the same recipe."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import msgspec
import torch

from edgekit.atomic import write_atomically
from edgekit.errors import BadInput, BadRecipe
from edgekit.train.continual.recipe import ContinualRecipe

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: Path, recipe: ContinualRecipe, state: dict[str, Any]) -> None:
    """``state``: tensors, numbers, text, and lists, tuples and dictionaries of them. Raises WriteFailed."""
    buffer = io.BytesIO()
    torch.save({"recipe": msgspec.json.encode(recipe).decode(), "state": state}, buffer)
    data = buffer.getvalue()
    write_atomically(path, [hashlib.sha256(data).digest(), data])


def read_checkpoint(path: Path, recipe: ContinualRecipe) -> dict[str, Any]:
    """The state. Raises BadInput for a damaged file, BadRecipe for one of another recipe."""
    data = path.read_bytes()
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise BadInput(f"The checkpoint '{path}' is damaged.", "Remove it; the run then starts anew.")
    try:
        found: dict[str, Any] = torch.load(io.BytesIO(data[32:]), weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise BadInput(f"The checkpoint '{path}' cannot be read: {error}.",
                       "Remove it; the run then starts anew.") from error
    if msgspec.json.decode(found["recipe"], type=ContinualRecipe) != recipe:
        raise BadRecipe(f"The checkpoint '{path}' is of another recipe.", "Remove it, or give the same recipe.")
    state: dict[str, Any] = found["state"]
    return state
