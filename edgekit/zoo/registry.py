"""Every variant of the zoo: its builder, its size, its exits, and the counts that were published for it.

A new network is one file in ``edgekit/zoo`` and a line in the list here. Weights are not part of the zoo, and the code
is EdgeKit's own, so no entry has a licence of its own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import msgspec

from edgekit.errors import MissingExtra, UnknownName

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ZOO", "ZooEntry", "build", "find"]


class ZooEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One variant. ``builder``: "file:function" in edgekit.zoo, of a ``Scale`` with the fields below.

    ``resolution``: pixels of its square input. ``exits``: submodules at which edgekit.train.multi_exit.MultiExit can
    attach, shallow to deep. ``macs``, ``parameters``: as published by ``source``, None where nothing is; our own counts
    lie within ``tolerance`` of them. ``dynamic``: it computes at other sizes than the one it was built for.
    """

    name: str
    title: str
    builder: str
    width: float = 1.0
    depth: float = 1.0
    resolution: int = 224
    classes: int = 1000
    exits: tuple[str, ...] = ("stages.0", "stages.1", "stages.2")
    macs: float | None = None
    parameters: float | None = None
    source: str = ""
    tolerance: float = 0.02
    dynamic: bool = True

    @property
    def family(self) -> str:
        """The file that holds the builder."""
        return self.builder.partition(":")[0]


_M, _G = 1e6, 1e9
_TWO_EXITS = ("stages.0", "stages.1")
_GHOST_EXITS = ("stages.2", "stages.4", "stages.6")
_MOBILE_EXITS = ("stages.2", "stages.3", "stages.4")
_GHOST, _GHOST_TWO = "arXiv 1911.11907", "README of G-Ghost's authors, github.com/huawei-noah/Efficient-AI-Backbones"
_LEVIT, _DEIT = "README of github.com/facebookresearch/LeViT", "arXiv 2012.12877"
_LITE = "README of Google's EfficientNet-Lite"
_V2, _V3, _SHUFFLE, _RESNET = "arXiv 1801.04381", "arXiv 1905.02244", "arXiv 1807.11164", "arXiv 1512.03385"
_NEXT_SMALL = "arXiv 2301.00808, whose networks have these widths and depths"


def _ghost(name: str, title: str, width: float, macs: float, parameters: float) -> ZooEntry:
    return ZooEntry(name=name, title=title, builder="ghostnet:ghostnet", width=width, exits=_GHOST_EXITS,
                    macs=macs * _M, parameters=parameters * _M, source=_GHOST, tolerance=0.03)


def _g_ghost(size: str, macs: float, parameters: float) -> ZooEntry:
    return ZooEntry(name=f"g_ghost_regnet_{size}", title=f"G-Ghost-RegNet {int(size) / 10:g} GF (ghost stages)",
                 builder=f"g_ghost:g_ghost_regnet_{size}", macs=macs * _G, parameters=parameters * _M,
                 source=_GHOST_TWO, tolerance=0.04)


def _levit(size: str, macs: float, parameters: float) -> ZooEntry:
    return ZooEntry(name=f"levit_{size}", title=f"LeViT-{size.upper()}", builder=f"levit:levit_{size}",
                 exits=_TWO_EXITS, macs=macs * _M, parameters=parameters * _M, source=_LEVIT,
                 tolerance=0.03, dynamic=False)


def _mobile_v2(width: str, macs: float, parameters: float) -> ZooEntry:
    return ZooEntry(name=f"mobilenet_v2_{width}", title=f"MobileNetV2 {int(width) / 100:g}x",
                 builder="mobilenet_v2:mobilenet_v2", width=int(width) / 100, exits=_MOBILE_EXITS, macs=macs * _M,
                 parameters=parameters * _M, source=f"{_V2}; parameters as timm counts them")


def _mobile_v3(size: str, width: str, macs: float, parameters: float) -> ZooEntry:
    return ZooEntry(name=f"mobilenet_v3_{size}_{width}", title=f"MobileNetV3-{size} {int(width) / 100:g}x",
                 builder=f"mobilenet_v3:mobilenet_v3_{size}", width=int(width) / 100,
                 exits=("stages.1", "stages.2", "stages.3"), macs=macs * _M, parameters=parameters * _M, source=_V3,
                 tolerance=0.03)


def _lite(number: int, scale: tuple[float, float, int], macs: float, parameters: float) -> ZooEntry:
    width, depth, resolution = scale
    # Google's MACs are 4 to 5 % above those of the convolutions; what else they count is not said
    return ZooEntry(name=f"efficientnet_lite{number}", title=f"EfficientNet-Lite{number}",
                 builder="efficientnet_lite:efficientnet_lite", width=width, depth=depth, resolution=resolution,
                 exits=_MOBILE_EXITS, macs=macs * _M, parameters=parameters * _M, source=_LITE, tolerance=0.06)


def _convnext(size: str, macs: float, parameters: float, source: str = _NEXT_SMALL) -> ZooEntry:
    return ZooEntry(name=f"convnext_{size}", title=f"ConvNeXt-{size}", builder=f"convnext:convnext_{size}",
                 macs=macs * _G, parameters=parameters * _M, source=source)


def _shuffle(width: str, macs: float, parameters: float) -> ZooEntry:
    return ZooEntry(name=f"shufflenet_v2_{width}", title=f"ShuffleNetV2 {int(width) / 100:g}x",
                 builder="shufflenet_v2:shufflenet_v2", width=int(width) / 100, exits=_TWO_EXITS,
                 macs=macs * _M, parameters=parameters * _M, source=_SHUFFLE, tolerance=0.03)


def _resnet(layers: int, macs: float, parameters: float) -> ZooEntry:
    return ZooEntry(name=f"resnet{layers}", title=f"ResNet-{layers}", builder=f"resnet:resnet{layers}",
                 macs=macs * _G, parameters=parameters * _M, source="torchvision 0.28")


def _cifar(layers: int, parameters: float) -> ZooEntry:
    return ZooEntry(name=f"resnet{layers}_cifar", title=f"ResNet-{layers} for CIFAR",
                 builder=f"resnet:resnet{layers}_cifar", parameters=parameters * _M, source=_RESNET,
                 resolution=32, classes=10, exits=_TWO_EXITS)


ZOO: tuple[ZooEntry, ...] = (
    _ghost("ghostnet_050", "GhostNet 0.5x (C-GhostNet)", 0.5, 42, 2.6),
    _ghost("ghostnet_100", "GhostNet 1x (C-GhostNet)", 1.0, 142, 5.2),
    _ghost("ghostnet_130", "GhostNet 1.3x (C-GhostNet)", 1.3, 226, 7.3),
    ZooEntry(name="c_ghost_resnet56", title="ResNet-56 for CIFAR of C-Ghost modules", builder="resnet:c_ghost_resnet56",
          macs=63 * _M, parameters=0.43 * _M, source=_GHOST, tolerance=0.05, resolution=32, classes=10,
          exits=_TWO_EXITS),
    _g_ghost("032", 1.8, 10.5), _g_ghost("040", 2.2, 15.7), _g_ghost("080", 4.2, 24.6), _g_ghost("160", 9.0, 32.4),
    _levit("128s", 305, 7.8), _levit("128", 406, 9.2), _levit("192", 658, 11), _levit("256", 1120, 19),
    _levit("384", 2353, 39),
    _mobile_v2("075", 209, 2.64), _mobile_v2("100", 300, 3.5), _mobile_v2("140", 585, 6.11),
    _mobile_v3("small", "075", 44, 2.04), _mobile_v3("small", "100", 56, 2.5),
    _mobile_v3("large", "075", 155, 4.0), _mobile_v3("large", "100", 219, 5.4),
    _lite(0, (1.0, 1.0, 224), 407, 4.7), _lite(1, (1.0, 1.1, 240), 631, 5.4), _lite(2, (1.1, 1.2, 260), 899, 6.1),
    _convnext("atto", 0.55, 3.7), _convnext("femto", 0.78, 5.2), _convnext("pico", 1.37, 9.1),
    _convnext("nano", 2.45, 15.6), _convnext("tiny", 4.5, 29, "arXiv 2201.03545"),
    ZooEntry(name="deit_tiny", title="DeiT-tiny", builder="deit:deit_tiny", exits=_TWO_EXITS,
          parameters=5.7 * _M, source=_DEIT, dynamic=False),
    ZooEntry(name="deit_small", title="DeiT-small", builder="deit:deit_small", exits=_TWO_EXITS,
          macs=4.6 * _G, parameters=22 * _M, source=_DEIT, dynamic=False),
    _resnet(18, 1.814, 11.69), _resnet(34, 3.664, 21.80), _resnet(50, 4.089, 25.56),
    _cifar(20, 0.27), _cifar(32, 0.46), _cifar(56, 0.85),
    _shuffle("050", 41, 1.4), _shuffle("100", 146, 2.3), _shuffle("150", 299, 3.5), _shuffle("200", 591, 7.4),
    ZooEntry(name="unet_32", title="U-Net, 32 channels at full size", builder="unet:unet", resolution=160, classes=2,
          exits=(), parameters=7.76 * _M, source="arXiv 1807.10165, without BatchNorm"),
    ZooEntry(name="unet_16", title="U-Net, 16 channels at full size, 3 halvings", builder="unet:unet", width=0.5,
          depth=0.75, resolution=160, classes=2, exits=()),
    ZooEntry(name="mca_tiny", title="gated convolutions of several kernel sizes, after ConvFormer's MCA",
          builder="mca:mca_tiny"),
)


def find(name: str) -> ZooEntry:
    """The entry ``name``. Raises UnknownName."""
    for entry in ZOO:
        if entry.name == name:
            return entry
    raise UnknownName.of("network of the zoo", name, [entry.name for entry in ZOO])


def build(name: str, *, width: float | None = None, depth: float | None = None, resolution: int | None = None,
          classes: int | None = None, seed: int | None = None) -> nn.Module:
    """Network ``name`` with random weights, in training mode; what is given replaces the entry's own.

    ``width`` and ``depth`` are factors of the architecture's channels and of its blocks per stage, ``resolution`` is in
    pixels. With ``seed`` the weights are always the same, and torch's own random numbers go on as if none had been
    drawn. Raises UnknownName, BadRecipe for impossible sizes, MissingExtra without torch.
    """
    entry = find(name)
    try:
        import torch

        from edgekit.zoo.blocks import Scale

        module = importlib.import_module(f"edgekit.zoo.{entry.family}")
    except ImportError as error:
        raise MissingExtra.of(error.name or "torch", "train") from error
    scale = Scale(width=entry.width if width is None else width, depth=entry.depth if depth is None else depth,
                  resolution=entry.resolution if resolution is None else resolution,
                  classes=entry.classes if classes is None else classes)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        network: nn.Module = getattr(module, entry.builder.partition(":")[2])(scale)
    return network
