"""The small networks that a machine is measured with: a few ops each, in the sizes that networks for phones have.

A network is a list of steps, so that plans are plain data; ``build`` makes the ONNX file. Weights are cheap to make and
differ from op to op, since equal ones would be stored once and stay in the caches as those of real networks do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from edgekit.artifacts import OnnxModel
from edgekit.errors import MissingExtra

__all__ = ["Micro", "Step", "build"]

_OPSET = 20
_NOISE = 65521  # elements; prime, so that repetitions do not fall into step with channels


class Step(msgspec.Struct, frozen=True):
    """One piece of a network: what it is, output channels (0: as before), kernel, stride, activation behind it."""

    kind: str
    cout: int = 0
    kernel: int = 1
    stride: int = 1
    act: str = ""


class Micro(msgspec.Struct, frozen=True):
    """``shape`` of the input without the batch: (channels, height, width), (tokens, width) or (width,)."""

    name: str
    shape: tuple[int, ...]
    steps: tuple[Step, ...]


def build(micro: Micro) -> OnnxModel:
    """The network as ONNX, with a batch of 1."""
    from edgekit.converters.onnx_model import describe

    return describe(_Maker(micro).proto())


class _Maker:
    """A graph that grows at its end: ``name`` and ``shape`` are those of its last value, ``before`` the one before."""

    def __init__(self, micro: Micro) -> None:
        try:
            from onnx import helper
        except ImportError as error:
            raise MissingExtra.of("onnx", "convert") from error
        self.helper = helper
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.count = 0
        self.name, self.shape = "x", (1, *micro.shape)
        self.before: tuple[str, tuple[int, ...]] = (self.name, self.shape)
        self.noise = np.random.default_rng(0).standard_normal(_NOISE).astype(np.float32)
        for step in micro.steps:
            last = (self.name, self.shape)
            _STEPS[step.kind](self, step)
            self._activate(step.act)
            self.before = last
        self.input_shape = (1, *micro.shape)

    def proto(self) -> Any:
        helper = self.helper
        ends = [helper.make_tensor_value_info("x", 1, self.input_shape)], [
            helper.make_tensor_value_info(self.name, 1, self.shape)]
        graph = helper.make_graph(self.nodes, "micro", *ends, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """A new constant of small random numbers that keep the size of activations about."""
        from onnx import numpy_helper

        self.count += 1
        size = int(np.prod(shape))
        fan_in = size // shape[0] if len(shape) != 2 else shape[0]
        shifted = self.noise[self.count * 97 % (_NOISE // 2):]
        data = np.resize(shifted, shape) * np.float32(scale or 1.5 / np.sqrt(max(fan_in, 1)))
        return self._constant(numpy_helper.from_array(data, f"w{self.count}"))

    def ints(self, *values: int) -> str:
        """A new int64 vector."""
        from onnx import numpy_helper

        self.count += 1
        return self._constant(numpy_helper.from_array(np.array(values, np.int64), f"w{self.count}"))

    def floats(self, *values: float) -> str:
        """A new float32 vector."""
        from onnx import numpy_helper

        self.count += 1
        return self._constant(numpy_helper.from_array(np.array(values, np.float32), f"w{self.count}"))

    def _constant(self, tensor: Any) -> str:
        self.weights.append(tensor)
        return str(tensor.name)

    def op(self, kind: str, inputs: Sequence[str], shape: tuple[int, ...], **attributes: Any) -> str:
        """A node behind ``inputs``; its result becomes the end of the graph."""
        self.count += 1
        out = f"v{self.count}"
        self.nodes.append(self.helper.make_node(kind, list(inputs), [out], out, **attributes))
        self.name, self.shape = out, shape
        return out

    def _activate(self, act: str) -> None:
        if act == "relu6":
            self.op("Clip", [self.name, self.scalar(0.0), self.scalar(6.0)], self.shape)
        elif act == "silu":
            source = self.name
            gate = self.op("Sigmoid", [source], self.shape)
            self.op("Mul", [source, gate], self.shape)
        elif act:
            self.op(act, [self.name], self.shape)

    def scalar(self, value: float) -> str:
        """A new float32 scalar."""
        from onnx import numpy_helper

        self.count += 1
        return self._constant(numpy_helper.from_array(np.array(value, np.float32), f"w{self.count}"))


def _conv(net: _Maker, step: Step) -> None:
    _, cin, height, width = net.shape
    depthwise = step.kind == "depthwise"
    cout = cin if depthwise else step.cout or cin
    weights = net.weight(cout, 1 if depthwise else cin, step.kernel, step.kernel)
    sizes = tuple(-(-size // step.stride) for size in (height, width))
    net.op("Conv", [net.name, weights, net.weight(cout, scale=0.1)], (1, cout, *sizes), group=cin if depthwise else 1,
           kernel_shape=[step.kernel] * 2, strides=[step.stride] * 2, pads=[step.kernel // 2] * 4)


def _transposed(net: _Maker, step: Step) -> None:
    _, cin, height, width = net.shape
    weights = net.weight(cin, step.cout or cin, 2, 2)
    net.op("ConvTranspose", [net.name, weights, net.weight(step.cout or cin, scale=0.1)],
           (1, step.cout or cin, 2 * height, 2 * width), kernel_shape=[2, 2], strides=[2, 2])


def _pool(net: _Maker, step: Step) -> None:
    _, channels, height, width = net.shape
    sizes = tuple(-(-size // step.stride) for size in (height, width))
    kind = "MaxPool" if step.kind == "max_pool" else "AveragePool"
    net.op(kind, [net.name], (1, channels, *sizes), kernel_shape=[step.kernel] * 2, strides=[step.stride] * 2,
           pads=[step.kernel // 2] * 4)


def _global(net: _Maker, step: Step) -> None:
    del step
    shape = net.shape
    net.op("ReduceMean", [net.name, net.ints(2, 3)], (*shape[:2], 1, 1), keepdims=1)


def _older_flatten(net: _Maker, step: Step) -> None:
    """As ``_flatten``, with the ops that older exporters write."""
    del step
    channels = net.shape[1]
    net.op("GlobalAveragePool", [net.name], (1, channels, 1, 1))
    net.op("Flatten", [net.name], (1, channels))


def _pooled(net: _Maker, step: Step) -> None:
    """Mean over the pixels, stretched again so that a chain can go on: the mean is what is timed."""
    source, shape = net.name, net.shape
    _global(net, step)
    net.op("Add", [source, net.name], shape)


def _gate(net: _Maker, step: Step) -> None:
    """Squeeze and excite, with ``cout`` channels in the middle."""
    source, shape = net.name, net.shape
    _global(net, step)
    _conv(net, Step("conv", step.cout))
    net.op("Relu", [net.name], net.shape)
    _conv(net, Step("conv", shape[1]))
    net.op("HardSigmoid" if step.kernel == 1 else "Sigmoid", [net.name], net.shape,
           **({"alpha": 1 / 6, "beta": 0.5} if step.kernel == 1 else {}))
    net.op("Mul", [source, net.name], shape)


def _with_before(kind: str) -> Callable[[_Maker, Step], None]:
    def add(net: _Maker, step: Step) -> None:
        del step
        other, shape = net.before
        net.op(kind, [net.name, other if shape == net.shape else net.name], net.shape)

    return add


def _by_channel(kind: str, *, last: bool = False) -> Callable[[_Maker, Step], None]:
    def add(net: _Maker, step: Step) -> None:
        del step
        spread = (net.shape[1], 1, 1) if len(net.shape) == 4 and not last else (net.shape[-1],)
        net.op(kind, [net.name, net.weight(*spread, scale=1.0)], net.shape)

    return add


def _unary(kind: str) -> Callable[[_Maker, Step], None]:
    def add(net: _Maker, step: Step) -> None:
        del step
        net.op(kind, [net.name], net.shape)

    return add


def _concat(net: _Maker, step: Step) -> None:
    """A convolution of the last value and the value itself, one behind the other, and back to the channels before."""
    source, shape = net.name, net.shape
    _conv(net, Step("depthwise", kernel=3))
    made = net.op("Relu", [net.name], net.shape)
    net.op("Concat", [source, made], (1, 2 * shape[1], *shape[2:]), axis=1)
    if step.cout:
        _conv(net, Step("conv", step.cout))


def _shuffle(net: _Maker, step: Step) -> None:
    del step
    batch, channels, height, width = net.shape
    net.op("Reshape", [net.name, net.ints(batch, 2, channels // 2, height, width)],
           (batch, 2, channels // 2, height, width))
    net.op("Transpose", [net.name], (batch, channels // 2, 2, height, width), perm=[0, 2, 1, 3, 4])
    net.op("Reshape", [net.name, net.ints(batch, channels, height, width)], (batch, channels, height, width))


def _halves(net: _Maker, step: Step) -> None:
    """Split the channels, change one half, join them."""
    del step
    batch, channels, height, width = net.shape
    half = (batch, channels // 2, height, width)
    net.count += 1
    first, second = f"a{net.count}", f"b{net.count}"
    net.nodes.append(net.helper.make_node("Split", [net.name], [first, second], first, axis=1, num_outputs=2))
    net.name, net.shape = second, half
    _conv(net, Step("depthwise", kernel=3))
    net.op("Concat", [first, net.name], (batch, channels, height, width), axis=1)


def _resize(net: _Maker, step: Step) -> None:
    batch, channels, height, width = net.shape
    linear = step.kind == "bilinear"
    net.op("Resize", [net.name, "", net.floats(1, 1, 2, 2)], (batch, channels, 2 * height, 2 * width),
           mode="linear" if linear else "nearest",
           coordinate_transformation_mode="half_pixel" if linear else "asymmetric",
           **({} if linear else {"nearest_mode": "floor"}))


def _linear(net: _Maker, step: Step) -> None:
    summed, cout = net.shape[-1], step.cout or net.shape[-1]
    if len(net.shape) == 2:
        net.op("Gemm", [net.name, net.weight(cout, summed), net.weight(cout, scale=0.1)], (1, cout), transB=1)
        return
    net.op("MatMul", [net.name, net.weight(summed, cout)], (*net.shape[:-1], cout))
    net.op("Add", [net.name, net.weight(cout, scale=0.1)], net.shape)


def _layer_norm(net: _Maker, step: Step) -> None:
    del step
    width = net.shape[-1]
    net.op("LayerNormalization", [net.name, net.weight(width, scale=1.0), net.weight(width, scale=0.1)], net.shape,
           axis=-1, epsilon=1e-5)


def _pixel_norm(net: _Maker, step: Step) -> None:
    """Layer normalisation over the channels of an image."""
    batch, channels, height, width = net.shape
    net.op("Transpose", [net.name], (batch, height, width, channels), perm=[0, 2, 3, 1])
    _layer_norm(net, step)
    net.op("Transpose", [net.name], (batch, channels, height, width), perm=[0, 3, 1, 2])


def _attention(net: _Maker, step: Step) -> None:
    """Self-attention with ``kernel`` heads, its linear layers included."""
    batch, tokens, width = net.shape
    heads, size = max(step.kernel, 1), width // max(step.kernel, 1)
    _linear(net, Step("linear", 3 * width))
    net.op("Reshape", [net.name, net.ints(batch, tokens, 3, heads, size)], (batch, tokens, 3, heads, size))
    stacked = net.op("Transpose", [net.name], (3, batch, heads, tokens, size), perm=[2, 0, 3, 1, 4])
    parts = [_slice(net, stacked, index, (batch, heads, tokens, size)) for index in range(3)]
    keys = net.op("Transpose", [parts[1]], (batch, heads, size, tokens), perm=[0, 1, 3, 2])
    net.op("MatMul", [parts[0], keys], (batch, heads, tokens, tokens))
    net.op("Softmax", [net.name], net.shape, axis=-1)
    net.op("MatMul", [net.name, parts[2]], (batch, heads, tokens, size))
    net.op("Transpose", [net.name], (batch, tokens, heads, size), perm=[0, 2, 1, 3])
    net.op("Reshape", [net.name, net.ints(batch, tokens, width)], (batch, tokens, width))
    _linear(net, Step("linear", width))


def _slice(net: _Maker, source: str, index: int, shape: tuple[int, ...]) -> str:
    """``source[index]``."""
    bounds = [net.ints(index), net.ints(index + 1), net.ints(0)]
    net.op("Slice", [source, *bounds], (1, *shape))
    return net.op("Squeeze", [net.name, net.ints(0)], shape)


def _next(net: _Maker, step: Step) -> None:
    """A large depthwise convolution, then a normalised perceptron over the channels of each pixel, with a shortcut."""
    source, shape = net.name, net.shape
    batch, channels, height, width = shape
    _conv(net, Step("depthwise", kernel=step.kernel))
    net.op("Transpose", [net.name], (batch, height, width, channels), perm=[0, 2, 3, 1])
    _layer_norm(net, step)
    _linear(net, Step("linear", 4 * channels))
    net.op("Gelu", [net.name], net.shape)
    _linear(net, Step("linear", channels))
    _by_channel("Mul", last=True)(net, step)
    net.op("Transpose", [net.name], shape, perm=[0, 3, 1, 2])
    net.op("Add", [source, net.name], shape)


def _unit(net: _Maker, step: Step) -> None:
    """Half of the channels through a branch, joined with the rest and interleaved."""
    batch, channels, height, width = net.shape
    half = (batch, channels // 2, height, width)
    net.count += 1
    first, second = f"a{net.count}", f"b{net.count}"
    net.nodes.append(net.helper.make_node("Split", [net.name], [first, second], first, axis=1, num_outputs=2))
    net.name, net.shape = second, half
    for part in (Step("conv"), Step("depthwise", kernel=3), Step("conv")):
        _conv(net, part)
        if part.kind == "conv":
            net.op("Relu", [net.name], net.shape)
    net.op("Concat", [first, net.name], (batch, channels, height, width), axis=1)
    _shuffle(net, step)


def _residual(net: _Maker, step: Step) -> None:
    """Two convolutions and a shortcut."""
    source, shape = net.name, net.shape
    _conv(net, Step("conv", step.cout or shape[1], step.kernel))
    net.op("Relu", [net.name], net.shape)
    _conv(net, Step("conv", shape[1], step.kernel))
    net.op("Add", [source, net.name], shape)
    net.op("Relu", [net.name], shape)


def _flatten(net: _Maker, step: Step) -> None:
    """Image to a vector of the means over its pixels."""
    _global(net, step)
    net.op("Reshape", [net.name, net.ints(1, net.shape[1])], (1, net.shape[1]))


_STEPS: dict[str, Callable[[_Maker, Step], None]] = {
    "conv": _conv, "depthwise": _conv, "transposed": _transposed, "max_pool": _pool, "average_pool": _pool,
    "pooled": _pooled, "gate": _gate, "add": _with_before("Add"), "mul": _with_before("Mul"),
    "sub": _with_before("Sub"), "scale": _by_channel("Mul"), "shift": _by_channel("Add"), "concat": _concat,
    "shuffle": _shuffle, "halves": _halves, "nearest": _resize, "bilinear": _resize, "linear": _linear,
    "layer_norm": _layer_norm, "pixel_norm": _pixel_norm, "attention": _attention, "flatten": _flatten,
    "older_flatten": _older_flatten, "leaky_relu": _unary("LeakyRelu"),
    "next": _next, "unit": _unit, "residual": _residual,
    "relu": _unary("Relu"), "sigmoid": _unary("Sigmoid"), "tanh": _unary("Tanh"), "gelu": _unary("Gelu"),
    "hard_swish": _unary("HardSwish"), "softmax": _unary("Softmax"), "exp": _unary("Exp"),
}  # fmt: skip

