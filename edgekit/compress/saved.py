"""A compressed network in a file: its weights, and which layers are two. The network's own code makes the rest.

network = my_nets.small()
rebuild(network, "small.pt")
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.atomic import write_atomically
from edgekit.compress.resize import halve, put
from edgekit.errors import BadModel, UnknownName

__all__ = ["load_weights", "rebuild", "save"]

_FORMAT = "edgekit.compress/1"


def save(network: nn.Module, splits: Mapping[str, int], path: Path) -> None:
    """Write ``network``; ``splits``: by layer, as the original network calls it, the channels between its halves."""
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "splits": dict(splits), "state": network.state_dict()}, buffer)
    write_atomically(path, buffer.getvalue())


def rebuild(network: nn.Module, path: Path | str) -> nn.Module:
    """Make ``network``, as its code builds it, the one in the file ``path``; in place, and returned.

    Raises BadModel for a file that is none of ours or that belongs to another network.
    """
    found = _read(Path(path))
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise BadModel(f"'{path}' was not written by edgekit compress.", "Load a state dict with load_state_dict.")
    state: dict[str, Tensor] = found["state"]
    try:
        for layer, rank in found["splits"].items():
            halve(network, layer, rank)
        own = network.state_dict()
        if set(own) != set(state):
            other = sorted(set(own) ^ set(state))[0]
            raise BadModel(f"'{path}' belongs to another network: '{other}' is in one of them only.",
                           "Build the network that was compressed.")
        put(network, {name: tensor for name, tensor in state.items() if tensor.shape != own[name].shape})
        network.load_state_dict(state)
    except (AttributeError, RuntimeError, UnknownName) as error:
        raise BadModel(f"'{path}' belongs to another network: {error}.",
                       "Build the network that was compressed.") from error
    return network


def load_weights(network: nn.Module, path: Path) -> None:
    """A state dict that torch.save wrote. Raises BadModel."""
    try:
        network.load_state_dict(_read(path))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise BadModel(f"The weights in '{path}' do not fit: {' '.join(str(error).split())[:400]}",
                       "Give the state dict of this network.") from error


def _read(path: Path) -> Any:
    try:
        return torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BadModel(f"'{path}' cannot be read: {' '.join(str(error).split())[:200]}",
                       "Give a file that torch.save wrote.") from error
