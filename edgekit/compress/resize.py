"""Networks made physically smaller in place: positions taken out of parameters, a layer written as two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edgekit.compress.labels import Positions
from edgekit.errors import BadModel, UnknownName

__all__ = ["Removal", "halve", "merged", "put", "shrink", "split", "splittable", "tensor_of"]

Layer = nn.Linear | nn.Conv2d
Removal = Mapping[tuple[str, int], Positions]
"""By parameter (or buffer) and axis the positions that go, int64."""


def merged(removals: Iterable[Removal]) -> Removal:
    """All of ``removals`` at once."""
    found: dict[tuple[str, int], Positions] = {}
    for removal in removals:
        for key, gone in removal.items():
            found[key] = np.union1d(found[key], gone) if key in found else np.unique(gone)
    return found


def shrink(network: nn.Module, removal: Removal) -> None:
    """Take the positions of ``removal`` out of the parameters and buffers of ``network``. Raises UnknownName."""
    smaller: dict[str, Tensor] = {}
    for (name, axis), gone in removal.items():
        tensor = smaller[name] if name in smaller else tensor_of(network, name)
        kept = np.setdiff1d(np.arange(tensor.shape[axis]), gone)
        smaller[name] = tensor.detach().index_select(axis, torch.from_numpy(kept))
    put(network, smaller)


def put(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replace parameters and buffers by ones of other sizes; the modules' own numbers follow. Raises UnknownName."""
    touched = {}
    for name, tensor in tensors.items():
        old = tensor_of(network, name)
        folder, _, own = name.rpartition(".")
        module = touched[folder] = network.get_submodule(folder)
        if isinstance(old, nn.Parameter):
            setattr(module, own, nn.Parameter(tensor.clone(), requires_grad=old.requires_grad))
        else:
            setattr(module, own, tensor.clone())
    for module in touched.values():
        _renumber(module)


def splittable(module: nn.Module) -> bool:
    """Whether ``split`` can write it as two: a linear layer or a convolution in one group."""
    return isinstance(module, nn.Linear) or (type(module) is nn.Conv2d and module.groups == 1)


def split(network: nn.Module, layer: str, basis: Tensor) -> None:
    """Write ``layer`` as two, W = U (U' W): to r channels with its kernel, then 1x1 (or linear) to its outputs.

    ``basis``: float (cout, r), orthonormal columns U. The scale of each of the r channels is shared by both halves.
    Raises BadModel for a layer that is neither linear nor an ungrouped convolution.
    """
    old = _layer(network, layer)
    weight, bias = old.weight.detach(), old.bias
    basis = basis.to(weight.dtype)
    inner = basis.T @ weight.flatten(1)
    scale = inner.norm(dim=1).clamp_min(1e-12).sqrt()
    first, second = halve(network, layer, basis.shape[1])
    with torch.no_grad():
        first.weight.copy_((inner / scale[:, None]).reshape(first.weight.shape))
        second.weight.copy_((basis * scale).reshape(second.weight.shape))
        if bias is not None and second.bias is not None:
            second.bias.copy_(bias)


def halve(network: nn.Module, layer: str, rank: int) -> tuple[Layer, Layer]:
    """Put two new layers, with ``rank`` channels between them, in the place of ``layer``. Raises BadModel."""
    old = _layer(network, layer)
    first: Layer
    second: Layer
    if isinstance(old, nn.Linear):
        first, second = nn.Linear(old.in_features, rank, bias=False), nn.Linear(rank, old.out_features)
    else:
        first = nn.Conv2d(old.in_channels, rank, old.kernel_size, old.stride, old.padding,  # type: ignore[arg-type]
                          old.dilation, bias=False, padding_mode=old.padding_mode)  # type: ignore[arg-type]
        second = nn.Conv2d(rank, old.out_channels, 1)
    if old.bias is None:
        second.register_parameter("bias", None)
    pair = nn.Sequential(first, second).to(old.weight.dtype)
    pair.train(old.training)
    folder, _, own = layer.rpartition(".")
    setattr(network.get_submodule(folder), own, pair)
    return first, second


def _layer(network: nn.Module, name: str) -> Layer:
    try:
        found = network.get_submodule(name)
    except AttributeError as error:
        raise UnknownName.of("layer", name, [key for key, _ in network.named_modules() if key][:60]) from error
    if not splittable(found):
        raise BadModel(f"The layer '{name}' is a {type(found).__name__}, which is not split.", "Leave it whole.")
    assert isinstance(found, nn.Linear | nn.Conv2d)
    return found


def tensor_of(network: nn.Module, name: str) -> Tensor:
    """The parameter or buffer ``name``: some networks compute with a constant as if it were a weight."""
    folder, _, own = name.rpartition(".")
    try:
        tensor = getattr(network.get_submodule(folder), own)
    except AttributeError as error:
        raise UnknownName.of("parameter", name, [key for key, _ in network.named_parameters()][:60]) from error
    assert isinstance(tensor, Tensor)
    return tensor


def _renumber(module: nn.Module) -> None:
    """Make the numbers that a module keeps besides its parameters agree with these."""
    if isinstance(module, _ConvNd):
        first, second = module.weight.shape[:2]
        if module.groups > 1 and second == 1:
            module.groups = module.in_channels = module.out_channels = first
        elif isinstance(module, _ConvTransposeNd):
            module.in_channels, module.out_channels = first, second * module.groups
        else:
            module.in_channels, module.out_channels = second * module.groups, first
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _BatchNorm):
        kept = module.weight if module.weight is not None else module.running_mean
        if kept is not None:
            module.num_features = len(kept)
