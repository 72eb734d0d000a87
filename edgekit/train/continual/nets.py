"""Small networks for streams of tasks whose channels can be taken away and come back: a CNN and ResNets.

``axes`` says, for each parameter and buffer, along which of its dimensions the channels of which group lie; from that
and the widths alone follows how a narrower network is cut out of a wide one (``channels``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from edgekit.errors import UnknownName

__all__ = ["NETWORKS", "Axis", "Resizable", "SmallCnn", "SmallResNet", "make_network", "prunable_weights"]


class Axis(NamedTuple):
    """Dimension ``dim`` of a tensor holds the channels of ``group``, each ``block`` times in a row."""

    dim: int
    group: str
    block: int = 1


class Resizable(nn.Module):
    """A network with groups of channels.

    ``widths``: channels of each group. ``axes``: of each tensor of the state dict that has one. ``prunable``: the
    weights in which single weights may be masked.
    """

    widths: dict[str, int]
    axes: dict[str, tuple[Axis, ...]]
    prunable: tuple[str, ...]

    def rebuilt(self, widths: Mapping[str, int]) -> Resizable:
        """The same architecture, freshly initialised, with other widths of its groups."""
        raise NotImplementedError


class SmallCnn(Resizable):
    """Two 3x3 convolutions with pooling and two linear layers: float32 (N, channels, side, side) -> (N, classes).

    With 28 x 28 grey pixels and 10 classes it has 0.21 M parameters; there is no BatchNorm.
    """

    def __init__(self, channels: int = 1, side: int = 28, classes: int = 10,
                 widths: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self._size = (channels, side, classes)
        self.widths = dict(widths or {"conv1": 16, "conv2": 32, "fc1": 128})
        first, second, hidden = (self.widths[name] for name in ("conv1", "conv2", "fc1"))
        pixels = (side // 4) ** 2
        self.conv1 = nn.Conv2d(channels, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.fc1 = nn.Linear(second * pixels, hidden)
        self.fc2 = nn.Linear(hidden, classes)
        self.prunable = ("conv2.weight", "fc1.weight")
        self.axes = {
            "conv1.weight": (Axis(0, "conv1"),), "conv1.bias": (Axis(0, "conv1"),),
            "conv2.weight": (Axis(0, "conv2"), Axis(1, "conv1")), "conv2.bias": (Axis(0, "conv2"),),
            "fc1.weight": (Axis(0, "fc1"), Axis(1, "conv2", pixels)), "fc1.bias": (Axis(0, "fc1"),),
            "fc2.weight": (Axis(1, "fc1"),),
        }

    def rebuilt(self, widths: Mapping[str, int]) -> SmallCnn:
        return SmallCnn(*self._size, widths)

    def forward(self, x: Tensor) -> Tensor:
        # pooling first gives the same and leaves ReLU a quarter of the values
        x = functional.relu(functional.max_pool2d(self.conv1(x), 2))
        x = functional.relu(functional.max_pool2d(self.conv2(x), 2))
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and a 1x1 projection where the shape changes."""

    def __init__(self, cin: int, inner: int, cout: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False),
                                      nn.BatchNorm2d(cout)) if project else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


class SmallResNet(Resizable):
    """ResNet for small pictures (3x3 stem, stride 2 between stages): float32 (N, channels, H, W) -> (N, classes).

    ``stages``: channels of each; ``blocks`` in each stage; ``stride`` of the stem. (64, 128, 256, 512) with 2 blocks is
    ResNet-18 for CIFAR: 0.555 GMACs at 32 x 32. Groups: the trunk of each stage and the inner channels of each block.
    """

    def __init__(self, channels: int = 3, classes: int = 10, stages: tuple[int, ...] = (16, 32, 64), blocks: int = 1,
                 widths: Mapping[str, int] | None = None, stride: int = 1) -> None:
        super().__init__()
        self._size = (channels, classes, stages, blocks)
        self._stride = stride
        self.widths = dict(widths or _resnet_widths(stages, blocks))
        self.axes, prunable = {}, []
        self.stem = nn.Conv2d(channels, self.widths["trunk0"], 3, stride, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(self.widths["trunk0"])
        self._note("stem.weight", Axis(0, "trunk0"))
        self._note_norm("stem_bn", "trunk0")
        self.blocks = nn.ModuleList()
        last = "trunk0"
        for stage in range(len(stages)):
            for index in range(blocks):
                number, trunk, inner = len(self.blocks), f"trunk{stage}", f"inner{len(self.blocks)}"
                project = trunk != last
                self.blocks.append(_Block(self.widths[last], self.widths[inner], self.widths[trunk],
                                          2 if stage and not index else 1, project))
                self._note_block(f"blocks.{number}", last, inner, trunk)
                prunable += [f"blocks.{number}.conv1.weight", f"blocks.{number}.conv2.weight"]
                last = trunk
        self.classifier = nn.Linear(self.widths[last], classes)
        self._note("classifier.weight", Axis(1, last))
        self.prunable = tuple(prunable)

    def _note(self, name: str, *axes: Axis) -> None:
        self.axes[name] = axes

    def _note_norm(self, name: str, group: str) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            self._note(f"{name}.{part}", Axis(0, group))

    def _note_block(self, name: str, cin: str, inner: str, cout: str) -> None:
        self._note(f"{name}.conv1.weight", Axis(0, inner), Axis(1, cin))
        self._note(f"{name}.conv2.weight", Axis(0, cout), Axis(1, inner))
        self._note_norm(f"{name}.bn1", inner)
        self._note_norm(f"{name}.bn2", cout)
        if cin != cout:
            self._note(f"{name}.shortcut.0.weight", Axis(0, cout), Axis(1, cin))
            self._note_norm(f"{name}.shortcut.1", cout)

    def rebuilt(self, widths: Mapping[str, int]) -> SmallResNet:
        return SmallResNet(*self._size, widths, self._stride)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem_bn(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean((2, 3)))  # type: ignore[no-any-return]


def _resnet_widths(stages: tuple[int, ...], blocks: int) -> dict[str, int]:
    trunks = {f"trunk{index}": width for index, width in enumerate(stages)}
    return trunks | {f"inner{index}": stages[index // blocks] for index in range(len(stages) * blocks)}


#: for configurations: the name of a network to its class
NETWORKS: dict[str, type[Resizable]] = {"cnn": SmallCnn, "resnet": SmallResNet}


def make_network(name: str, image: tuple[int, ...], classes: int, **options: object) -> Resizable:
    """Network ``name`` for pictures (C, H, W). Raises UnknownName."""
    if name not in NETWORKS:
        raise UnknownName.of("network", name, NETWORKS)
    if name == "cnn":
        return SmallCnn(image[0], image[1], classes)
    return SmallResNet(image[0], classes, **options)  # type: ignore[arg-type]


def prunable_weights(network: nn.Module) -> tuple[str, ...]:
    """Names of the weights to mask: what the network says, else of all convolutions and linear layers but the outer."""
    if isinstance(network, Resizable):
        return network.prunable
    names = [f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return tuple(names[1:-1])
