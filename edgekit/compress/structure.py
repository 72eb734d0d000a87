"""What of a network can be removed: its sites, found by walking the graph that torch.export makes.

A site is a set of channels, and for each of them the positions in parameters that go when it goes: the filter that
makes it, its BatchNorm, the input channel of every layer that reads it. Nothing has to be gathered at run time.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.compress.couplings import Call, Product, Walk, step
from edgekit.compress.labels import Labels, Positions
from edgekit.compress.resize import Removal, merged, shrink
from edgekit.errors import BadInput, BadModel

__all__ = ["Key", "Site", "Structure", "count_macs", "structure"]

Key = tuple[str, int]
"""A parameter or buffer and one of its axes."""


@dataclass(frozen=True)
class Site:
    """Channels that are removed one by one, each with all that belongs to it.

    ``positions``: by parameter (or buffer) and axis, int64 (channels, n): what goes with each channel. ``readers``: the
    keys that are weights of layers that read the channels, ``makers``: of layers that make them.
    """

    channels: int
    positions: Mapping[Key, Positions]
    readers: tuple[Key, ...]
    makers: tuple[Key, ...]

    def removal(self, channels: Sequence[int]) -> Removal:
        """What has to be removed from which parameter for these channels to be gone."""
        return {key: np.unique(places[list(channels)]) for key, places in self.positions.items()}


@dataclass(frozen=True)
class Structure:
    """``products``: every convolution and linear layer; ``sites``: what can be removed; ``macs``: of one sample."""

    products: tuple[Product, ...]
    sites: tuple[Site, ...]
    shapes: Mapping[str, tuple[int, ...]]
    macs: int

    def macs_of(self, kept: Mapping[Key, int], ranks: Mapping[str, int]) -> int:
        """Multiply-adds of one sample with ``kept`` positions of some axes, and layers split to ``ranks`` channels.

        A layer of rank r takes pixels * r * (cin * kernel + cout) instead of pixels * cin * kernel * cout (CC, section
        3.1); those of other ops are as they were.
        """
        total = self.macs
        for product in self.products:
            cin, cout = self.sizes(product, {})
            now_in, now_out = self.sizes(product, kept)
            total -= product.pixels * product.kernel * cin * cout
            rank = ranks.get(product.weight)
            if rank is None:
                total += product.pixels * product.kernel * now_in * now_out
            else:
                total += product.pixels * rank * (now_in * product.kernel + now_out)
        return total

    def sizes(self, product: Product, kept: Mapping[Key, int]) -> tuple[int, int]:
        """Input channels (of one group) and output channels of a layer."""
        shape = self.shapes[product.weight]
        return (kept.get((product.weight, product.in_axis), shape[product.in_axis]),
                kept.get((product.weight, product.out_axis), shape[product.out_axis]))


def structure(network: nn.Module, example: Tensor) -> Structure:
    """What can be removed from ``network``, which takes one tensor like ``example`` (N, ...), N at least 1.

    Every site is tried: a channel of it is removed from a copy, and the copy must compute what the network computes
    when nothing reads that channel. Sites that fail are left out (a size that the network's code states as a number).
    Raises BadModel for a network that torch.export cannot trace.
    """
    twice = example if len(example) > 1 else torch.cat([example, example])
    labels, products, names = _walked(network, twice)
    shapes = {name: tuple(tensor.shape) for name, tensor in _tensors(network)}
    sites = _sites(labels, products, names)
    return Structure(tuple(products), tuple(_that_work(network, twice, sites)), shapes, count_macs(network, example))


def count_macs(network: nn.Module, example: Tensor) -> int:
    """Multiply-adds of one sample, counted by torch (``torch.utils.flop_counter``) while ``network`` runs."""
    from torch.utils.flop_counter import FlopCounterMode

    before = network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(example[:1])
    finally:
        network.train(before)
    return int(counter.get_total_flops()) // 2


def _tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]


def _walked(network: nn.Module, example: Tensor) -> tuple[Labels, list[Product], dict[Key, Positions]]:
    """The labels after the walk, the products, and the labels of the positions of each parameter's axes."""
    if not isinstance(example, Tensor):
        raise BadInput(f"The example is a {type(example).__name__}.", "Give a tensor.")
    copied = copy.deepcopy(network).eval()
    try:
        program = torch.export.export(copied, (example,), strict=False)
    except Exception as error:  # torch raises whatever the user's code and its own tracer raise
        raise BadModel(f"torch.export cannot trace the network: {type(error).__name__}: {error}",
                       "The network must take one tensor, and its Python code must not depend on values.") from error
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    labels, found = Labels(), dict[Key, Positions]()
    walk = Walk(labels, names, len(example))
    shared = _shared(network)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            _placeholder(walk, node, str(node) in signature.user_inputs, found, shared)
        elif node.op == "call_function":
            walk.known[node] = step(Call(node, walk))
        else:
            walk.freeze(node.all_input_nodes)
    return labels, walk.products, found


def _placeholder(walk: Walk, node: torch.fx.Node, is_input: bool, found: dict[Key, Positions],
                 shared: set[str]) -> None:
    value = node.meta.get("val")
    shape = tuple(value.shape) if isinstance(value, Tensor) else ()
    if is_input:
        walk.known[node] = (None,) * len(shape)
        return
    axes = tuple(walk.labels.fresh(size) for size in shape)
    walk.known[node] = axes
    name = walk.names.get(str(node))
    for axis, positions in enumerate(axes):
        if name is None or name in shared:
            walk.labels.freeze(positions)
        else:
            found[name, axis] = positions


def _shared(network: nn.Module) -> set[str]:
    """Names of parameters that several modules use under different names."""
    counts: Counter[int] = Counter(id(each) for _, each in network.named_parameters(remove_duplicate=False))
    return {name for name, each in network.named_parameters(remove_duplicate=False) if counts[id(each)] > 1}


def _sites(labels: Labels, products: Sequence[Product], names: Mapping[Key, Positions]) -> list[Site]:
    inside = {(each.weight, each.in_axis) for each in products if each.kind not in ("depthwise", "grouped")}
    outside = {(each.weight, each.out_axis) for each in products if each.kind not in ("depthwise", "grouped")}
    channels: dict[int, dict[Key, list[int]]] = {}
    for key, positions in names.items():
        for place, label in enumerate(positions.tolist()):
            if not labels.is_frozen(label):
                channels.setdefault(labels.root(label), {}).setdefault(key, []).append(place)
    alike: dict[tuple[tuple[Key, int], ...], list[dict[Key, list[int]]]] = {}
    for members in channels.values():
        alike.setdefault(tuple(sorted((key, len(places)) for key, places in members.items())), []).append(members)
    sites = []
    for signature, found in alike.items():
        keys = [key for key, _ in signature]
        readers, makers = tuple(key for key in keys if key in inside), tuple(key for key in keys if key in outside)
        if readers and makers and len(found) > 1:
            sites.append(Site(len(found), {key: np.array([each[key] for each in found]) for key in keys}, readers,
                              makers))
    return sorted(sites, key=lambda site: _first_use(site, products))


def _first_use(site: Site, products: Sequence[Product]) -> int:
    return next(index for index, product in enumerate(products) if (product.weight, product.out_axis) in site.makers)


def _that_work(network: nn.Module, example: Tensor, sites: Sequence[Site]) -> list[Site]:
    """The sites that can be removed from; all at once first, since one failure is rare."""
    if _works(network, example, sites):
        return list(sites)
    return [site for site in sites if _works(network, example, [site])]


def _works(network: nn.Module, example: Tensor, sites: Sequence[Site]) -> bool:
    """Whether removing the second channel of each site is the same as nothing reading it."""
    smaller, silent = copy.deepcopy(network).eval(), copy.deepcopy(network).eval()
    try:
        for site in sites:
            places = site.removal([1])
            tensors = dict(_tensors(silent))
            with torch.no_grad():
                for name, axis in site.readers:
                    tensors[name].index_fill_(axis, torch.from_numpy(places[name, axis]), 0)
        shrink(smaller, merged([site.removal([1]) for site in sites]))
        with torch.no_grad():
            one, other = smaller(example), silent(example)
    except (RuntimeError, ValueError, IndexError):  # what torch raises where sizes do not fit
        return False
    scale = max(float(other.abs().max()), 1e-6)
    return one.shape == other.shape and float((one - other).abs().max()) <= 1e-3 * scale
