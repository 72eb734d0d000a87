"""Small replicas of the networks that EdgeKit is for: right answers, no TRANSPOSE, each op fused that can be."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.artifacts import Array
from tests.onnx_graphs import info, ints, node, same_answer, scalar
from tests.ops.harness import build, convert


class Net:
    """A network being written down, layer by layer; ``build`` makes the model."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.random = np.random.default_rng(23)

    def add(self, op: str, inputs: str, **attributes: object) -> str:
        """The output of a new node."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(node(op, inputs, name, **attributes))
        return name

    def weight(self, *shape: int, positive: bool = False) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 4
        data = self.random.normal(0, fan_in**-0.5, shape).astype(np.float32)
        return self.const(np.abs(data) + 0.2 if positive else data)

    def const(self, data: Array) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(data)
        return name

    def conv(self, x: str, cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> str:
        """Convolution and batch normalisation, as torch writes them in eval mode without folding."""
        w = self.weight(cout, cin // groups, kernel, kernel)
        y = self.add("Conv", f"{x} {w}", strides=[stride] * 2, pads=[kernel // 2] * 4, group=groups)
        norm = [self.weight(cout), self.weight(cout), self.weight(cout), self.weight(cout, positive=True)]
        return self.add("BatchNormalization", " ".join([y, *norm]))

    def relu6(self, x: str) -> str:
        return self.add("Clip", f"{x} {self.const(scalar(0))} {self.const(scalar(6))}")

    def hard_sigmoid(self, x: str) -> str:
        """As exporters before opset 14 write it."""
        lifted = self.add("Add", f"{x} {self.const(scalar(3))}")
        return self.add("Div", f"{self.relu6(lifted)} {self.const(scalar(6))}")

    def hard_swish(self, x: str) -> str:
        return self.add("Mul", f"{x} {self.hard_sigmoid(x)}")

    def squeeze_excite(self, x: str, channels: int) -> str:
        pooled = self.add("ReduceMean", f"{x} {self.const(ints(2, 3))}", keepdims=1)
        small = self.add("Relu", self.add("Conv", f"{pooled} {self.weight(2, channels, 1, 1)} {self.weight(2)}"))
        gate = self.add("Conv", f"{small} {self.weight(channels, 2, 1, 1)} {self.weight(channels)}")
        return self.add("Mul", f"{x} {self.hard_sigmoid(gate)}")

    def head(self, x: str, channels: int) -> str:
        flat = self.add("Flatten", self.add("GlobalAveragePool", x))
        return self.add("Gemm", f"{flat} {self.weight(10, channels)} {self.weight(10)}", transB=1)

    def build(self, output: str, sides: tuple[int | str, int | str] = (16, 12)) -> onnx.ModelProto:
        tensors = [numpy_helper.from_array(data, name) for name, data in self.weights.items()]
        return build(self.nodes, [info("image", ("n", 3, *sides))], [output], tensors)


def mobilenet_v2() -> onnx.ModelProto:
    net = Net()
    x = net.relu6(net.conv("image", 3, 8, 3, 2))
    for stride in (2, 1):
        y = net.relu6(net.conv(x, 8, 24))
        y = net.relu6(net.conv(y, 24, 24, 3, stride, 24))
        y = net.conv(y, 24, 8)
        x = y if stride == 2 else net.add("Add", f"{x} {y}")
    return net.build(net.head(x, 8))


def mobilenet_v3() -> onnx.ModelProto:
    net = Net()
    x = net.hard_swish(net.conv("image", 3, 8, 3, 2))
    y = net.hard_swish(net.conv(x, 8, 16))
    y = net.squeeze_excite(net.hard_swish(net.conv(y, 16, 16, 5, 1, 16)), 16)
    x = net.add("Add", f"{x} {net.conv(y, 16, 8)}")
    return net.build(net.head(net.hard_swish(x), 8))


def ghostnet() -> onnx.ModelProto:
    """Half of the features are cheap: a depthwise convolution of the other half, concatenated and cut to size."""
    net = Net()
    x = net.add("Relu", net.conv("image", 3, 8, 3, 2))
    for channels in (15, 8):
        half = -(-channels // 2)
        first = net.add("Relu", net.conv(x, 8 if channels == 15 else 15, half))
        cheap = net.add("Relu", net.conv(first, half, half, 3, 1, half))
        both = net.add("Concat", f"{first} {cheap}", axis=1)
        bounds = " ".join(net.const(ints(value)) for value in (0, channels, 1))
        y = net.add("Slice", f"{both} {bounds}")
        x = net.squeeze_excite(y, 15) if channels == 15 else y
    return net.build(net.head(x, 8))


def resnet() -> onnx.ModelProto:
    net = Net()
    x = net.add("Relu", net.conv("image", 3, 8, 7, 2))
    x = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for cin, cout, stride in ((8, 8, 1), (8, 16, 2)):
        y = net.add("Relu", net.conv(x, cin, cout, 3, stride))
        y = net.conv(y, cout, cout, 3)
        skip = x if stride == 1 else net.conv(x, cin, cout, 1, stride)
        x = net.add("Relu", net.add("Add", f"{y} {skip}"))
    return net.build(net.head(x, 16))


def unet(upsample: str = "ConvTranspose", sides: tuple[int | str, int | str] = (16, 12)) -> onnx.ModelProto:
    net = Net()
    skips, x, channels = [], "image", 3
    for wide in (8, 16):
        x = net.add("Relu", net.conv(x, channels, wide, 3))
        skips.append(x)
        x, channels = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), wide
    x = net.add("Relu", net.conv(x, 16, 16, 3))
    for wide in (16, 8):
        if upsample == "ConvTranspose":
            x = net.add("ConvTranspose", f"{x} {net.weight(16, 16, 2, 2)} {net.weight(16)}", strides=[2, 2])
        else:
            x = net.add("Resize", f"{x} - {net.const(np.array([1, 1, 2, 2], np.float32))}", mode="linear")
        x = net.add("Concat", f"{x} {skips.pop()}", axis=1)
        x = net.add("Relu", net.conv(x, 16 + wide, 16, 3))
    return net.build(net.add("Sigmoid", net.conv(x, 16, 2)), sides)


NETS = {
    "MobileNetV2": (mobilenet_v2, {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 1}),
    "MobileNetV3": (mobilenet_v3, {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 1, "HARD_SWISH": 4}),
    "GhostNet": (ghostnet, {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 2, "CONCATENATION": 2}),
    "ResNet": (resnet, {"CONV_2D": 6, "MAX_POOL_2D": 1}),
    "U-Net": (unet, {"MAX_POOL_2D": 2, "LOGISTIC": 1}),
}
#: what must not be left: layout changes, and ops that belong into a convolution
GONE = ("TRANSPOSE", "RELU", "RELU6", "LOGICAL_NOT", "RSQRT")


@pytest.mark.parametrize("name", NETS)
def test_replica(name: str) -> None:
    make, expected = NETS[name]
    model = make()
    conversion = convert(model)
    found = dict(conversion.op_counts)
    assert {kind: found.get(kind, 0) for kind in GONE} == dict.fromkeys(GONE, 0)
    assert {kind: found.get(kind, 0) for kind in expected} == expected
    assert conversion.model.inputs[0].layout == "nhwc"
    for batch in (1, 3):
        image = np.random.default_rng(batch).standard_normal((batch, 3, 16, 12)).astype(np.float32)
        same_answer(model, conversion, {"image": image}, 1e-5)


@pytest.mark.parametrize("upsample", ["ConvTranspose", "Resize"])
def test_segmentation_of_any_size(upsample: str) -> None:
    model = unet(upsample, ("h", "w"))
    conversion = convert(model)
    assert "TRANSPOSE" not in conversion.op_counts
    assert conversion.model.outputs[0].layout == "nhwc"
    for height, width in ((16, 12), (32, 8), (4, 64)):
        image = np.random.default_rng(width).standard_normal((2, 3, height, width)).astype(np.float32)
        same_answer(model, conversion, {"image": image}, 1e-5)
