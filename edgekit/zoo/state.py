"""Weights from elsewhere: state dicts of this zoo, of timm and of torchvision."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgekit.errors import BadModel, UnknownName

__all__ = ["Source", "load_state", "read_state"]

Source = Literal["edgekit", "timm", "torchvision"]
_SHOWN = 5


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file that torch.save wrote, also under the key "state_dict" or "model".

    Only tensors are read: a file with anything else that would have to be executed is refused (BadModel).
    """
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise BadModel(f"'{path}' holds no weights that can be read: {str(error).splitlines()[0]}",
                       "Give a state dict that torch.save wrote: torch.save(network.state_dict(), FILE).") from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise BadModel(f"'{path}' holds a {type(found).__name__} and not a state dict.",
                       "Save the network's state_dict().")
    return dict(found)


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: Source = "edgekit",
               skip_head: bool = False) -> None:
    """Put the tensors of ``state``, which ``source`` names, into ``network``, a network of this zoo.

    Shapes may differ by axes of length 1 (a 1x1 convolution is a linear layer). BatchNorm gets the epsilon of the
    source's networks. With ``skip_head`` the classifier keeps its own weights, for another number of classes.

    Raises UnknownName for a source without a name map for this architecture, BadModel (naming tensors) where names or
    shapes do not match; the network is left as it was then.
    """
    sources: Mapping[str, Any] = getattr(network, "sources", {})
    if source != "edgekit" and source not in sources:
        raise UnknownName.of("source of weights for this architecture", source, ["edgekit", *sources])
    names = sources.get(source)
    own = network.state_dict()
    renamed = {names.rename(network, key) if names else key: value for key, value in state.items()}
    if skip_head:
        renamed |= {key: value for key, value in own.items() if _is_classifier(key)}
    _check(own, renamed, source)
    network.load_state_dict({key: renamed.get(key, value).reshape(value.shape) for key, value in own.items()})
    if names is not None and names.epsilon is not None:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eps = names.epsilon


def _is_classifier(key: str) -> bool:
    return any(part.endswith("classifier") for part in key.split("."))


def _check(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> None:
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unknown = [key for key in given if key not in own]
    shapes = [f"{key} {list(given[key].shape)} instead of {list(value.shape)}" for key, value in own.items()
              if key in given and _essence(given[key]) != _essence(value)]
    for what, names in (("Missing", missing), ("Unknown", unknown), ("Of another shape", shapes)):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise BadModel(f"The weights do not fit. {what}: {', '.join(names[:_SHOWN])}{more} (source '{source}').",
                           "Name the project they come from, and the variant with the same width, depth and classes.")


def _essence(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]
