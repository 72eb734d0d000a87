"""The ops of random graphs: each function adds one op with random attributes that suit the value it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.property.graphs import Draft, Shape, Step, Value
from tests.property.motifs import MOTIFS
from tests.property.runtime_shapes import RUNTIME_STEPS

__all__ = ["INPUTS", "SCALAR_STEPS", "STEPS"]

INPUTS: Sequence[Shape] = (
    (1, 4, 6, 6), (1, 3, 8, 5), (2, 6, 5, 7), (2, 4, 4, 4), (1, 8, 1, 1), (3, 4, 8), (1, 6, 9), (2, 8), (5, 3), (1, 16),
    (2, 3, 2, 4, 3), (1, 2, 4, 3, 2), (7,),
)  # fmt: skip
_BOUNDED = {"Sigmoid": 1.0, "Tanh": 1.0, "Softsign": 1.0, "HardSigmoid": 1.0, "Sin": 1.0}
_UNARY = [
    "Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "HardSigmoid", "Abs", "Neg", "Elu", "Softplus", "Softsign",
    "Sin", "Selu", "Celu", "Mish", "Identity",
]  # fmt: skip


def unary(g: Draft, x: Value) -> Value:
    """An activation."""
    op = g.pick(*_UNARY)
    return g.add(op, [x], _BOUNDED.get(op, 1.8 * x.bound))


def clip(g: Draft, x: Value) -> Value:
    """Clip with constant bounds, one of them possibly left out."""
    low, high = [(0.0, 6.0), (-1.0, 1.0), (0.0, None), (None, 0.5), (-0.3, 0.7)][g.number(0, 4)]
    bounds = ["" if bound is None else g.const(np.array(bound, np.float32)) for bound in (low, high)]
    return g.add("Clip", [x, *bounds], x.bound)


def _operand(g: Draft, x: Value, positive: bool = False) -> str:
    """A constant that broadcasts with ``x``: along some axes, of a lower or higher rank."""
    shape = [dim if g.flag() else 1 for dim in x.shape]
    if g.flag():
        while shape and shape[0] == 1:
            shape.pop(0)
    elif x.rank < 4 and not g.number(0, 5):
        shape.insert(0, g.number(1, 2))
    data = g.random.uniform(0.5, 1.5, shape) if positive else g.random.uniform(-1, 1, shape)
    return g.const(np.asarray(data, np.float32))


def with_constant(g: Draft, x: Value) -> Value:
    """An arithmetic op with a broadcast constant on either side."""
    op = g.pick("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu")
    other = _operand(g, x, positive=op == "Div")
    if op == "PRelu":
        last = g.const(g.random.uniform(-1, 1, x.shape[-1:]).astype(np.float32))
        return g.add(op, [x, last], x.bound)
    inputs: list[str | Value] = [x, other]
    return g.add(op, inputs[:: -1 if op != "Div" and g.flag() else 1], 2 * x.bound + 1)


def with_value(g: Draft, x: Value) -> Value | None:
    """An arithmetic op of two values that broadcast."""
    fitting = [value for value in g.values if _broadcasts(value.shape, x.shape)]
    other = g.draw_value(fitting)
    op = g.pick("Add", "Sub", "Mul", "Max", "Min")
    bound = x.bound * other.bound if op == "Mul" else x.bound + other.bound
    return g.add(op, [x, other] if g.flag() else [other, x], bound)


def _broadcasts(a: Shape, b: Shape) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))


def conv(g: Draft, x: Value) -> Value | None:
    """Conv of one or two dimensions: groups, strides, dilations, padding of every kind."""
    if x.rank not in (3, 4):
        return None
    sides, channels = x.shape[2:], x.shape[1]
    kernel = [g.number(1, min(3, side)) for side in sides]
    groups = g.pick(*(n for n in (1, 1, 2, channels) if channels % n == 0))
    out = groups * g.number(1, 3)
    padding = _padding(g, kernel)
    attributes: dict[str, Any] = {"group": groups, "strides": _strides(g, kernel, padding), **padding}
    if attributes.get("auto_pad") != "SAME_LOWER":
        attributes["dilations"] = [
            g.number(1, 2) if (k - 1) * 2 < side else 1 for k, side in zip(kernel, sides, strict=True)
        ]
    w = g.weight(out, channels // groups, *kernel, scale=2 / (channels // groups * int(np.prod(kernel))))
    bias = [g.weight(out)] if g.flag() else []
    return g.add("Conv", [x, w, *bias], 2 * x.bound + 1, **attributes)


def _padding(g: Draft, kernel: Sequence[int]) -> dict[str, Any]:
    kind = g.number(0, 5)
    if kind == 0:
        return {}
    if kind == 1:
        return {"auto_pad": g.pick("SAME_UPPER", "SAME_LOWER", "VALID")}
    if kind <= 3:
        return {"pads": [k // 2 for k in kernel] * 2}
    return {"pads": [g.number(0, k - 1) for k in [*kernel, *kernel]]}


def _strides(g: Draft, kernel: Sequence[int], padding: dict[str, Any]) -> list[int]:
    """Strides of 1 and 2; ONNX Runtime's SAME takes none that are larger than the kernel."""
    largest = [min(k, 2) if "auto_pad" in padding else 2 for k in kernel]
    return [g.number(1, limit) for limit in largest]


def conv_transpose(g: Draft, x: Value) -> Value | None:
    """ConvTranspose of one or two dimensions."""
    if x.rank not in (3, 4) or max(x.shape[2:]) > 12:
        return None
    sides, channels = x.shape[2:], x.shape[1]
    kernel, strides = [g.number(1, 3) for _ in sides], [g.number(1, 2) for _ in sides]
    groups = 2 if channels % 2 == 0 and not g.number(0, 3) else 1
    attributes: dict[str, Any] = {"group": groups, "strides": strides}
    if g.flag():
        most = [min(k - 1, (side - 1) * s // 2) for k, side, s in zip(kernel, sides, strides, strict=True)]
        attributes["pads"] = [g.number(0, limit) for limit in most * 2]
    if g.flag():
        attributes["output_padding"] = [g.number(0, s - 1) for s in strides]
    out = g.number(1, 3)
    w = g.weight(channels, out, *kernel, scale=2 / (channels * int(np.prod(kernel))))
    bias = [g.weight(out * groups)] if g.flag() else []
    return g.add("ConvTranspose", [x, w, *bias], 2 * x.bound + 1, **attributes)


def pool(g: Draft, x: Value) -> Value | None:
    """MaxPool or AveragePool."""
    if x.rank not in (3, 4):
        return None
    kernel = [g.number(1, min(3, side)) for side in x.shape[2:]]
    padding = _padding(g, kernel)
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": _strides(g, kernel, padding), **padding}
    if "auto_pad" not in attributes and g.flag():
        attributes["ceil_mode"] = 1
    op = g.pick("MaxPool", "AveragePool")
    if op == "AveragePool" and g.flag():
        attributes["count_include_pad"] = 1
    return g.add(op, [x], x.bound, **attributes)


def global_pool(g: Draft, x: Value) -> Value | None:
    """GlobalAveragePool or GlobalMaxPool."""
    return g.add(g.pick("GlobalAveragePool", "GlobalMaxPool"), [x], x.bound) if x.rank >= 3 else None


def normalise(g: Draft, x: Value) -> Value | None:
    """Batch, instance or layer normalisation."""
    op = g.pick("BatchNormalization", "InstanceNormalization", "LayerNormalization")
    if op == "LayerNormalization":
        axis = g.number(0, x.rank - 1)
        inner = x.shape[axis:]
        bias = [g.weight(*inner)] if g.flag() else []
        return g.add(op, [x, g.weight(*inner), *bias], 6.0, axis=axis, epsilon=0.1)
    if x.rank < 2 + (op == "InstanceNormalization"):
        return None
    channels = x.shape[1]
    if op == "InstanceNormalization":
        return g.add(op, [x, g.weight(channels), g.weight(channels)], 6.0, epsilon=0.1)
    variance = g.const(g.random.uniform(0.5, 1.5, channels).astype(np.float32))
    return g.add(op, [x, g.weight(channels), g.weight(channels), g.weight(channels), variance], 2 * x.bound + 3)


def reduce(g: Draft, x: Value) -> Value:
    """A reduction over some axes."""
    axes = sorted({g.number(-x.rank, x.rank - 1) % x.rank for _ in range(g.number(1, 2))})
    op = g.pick("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceLogSumExp")
    count = int(np.prod([x.shape[axis] for axis in axes]))
    given = [axis - x.rank if g.flag() else axis for axis in axes]
    bound = x.bound * (count if op in ("ReduceSum", "ReduceL1") else 1) + 8
    return g.add(op, [x, g.const(given)], bound, keepdims=g.number(0, 1))


def transpose(g: Draft, x: Value) -> Value:
    """Any permutation."""
    perm = [int(axis) for axis in g.random.permutation(x.rank)]
    return g.add("Transpose", [x], x.bound, perm=perm)


def layout(g: Draft, x: Value) -> Value | None:
    """The permutation between channels first and channels last."""
    if x.rank < 3:
        return None
    last = x.rank - 1
    perm = [0, *range(2, x.rank), 1] if g.flag() else [0, last, *range(1, last)]
    return g.add("Transpose", [x], x.bound, perm=perm)


def reshape(g: Draft, x: Value) -> Value:
    """Splits and merges of neighbouring axes, written with 0 and -1 at times."""
    target = list(x.shape)
    for _ in range(g.number(1, 3)):
        at = g.number(0, max(len(target) - 1, 0)) if target else 0
        factors = [f for f in range(2, target[at]) if target[at] % f == 0] if target else []
        if len(target) > 1 and (not factors or len(target) >= 5 or g.flag()):
            at = min(at, len(target) - 2)
            target[at : at + 2] = [target[at] * target[at + 1]]
        elif factors:
            factor = factors[g.number(0, len(factors) - 1)]
            target[at : at + 1] = [factor, target[at] // factor]
        elif len(target) < 5:
            target.insert(at, 1)
    written = [0 if axis < x.rank and x.shape[axis] == dim and g.flag() else dim for axis, dim in enumerate(target)]
    if written and g.flag():
        written[g.number(0, len(written) - 1)] = -1
    return g.add("Reshape", [x, g.const(written)], x.bound)


def flatten(g: Draft, x: Value) -> Value:
    """Two axes are left."""
    return g.add("Flatten", [x], x.bound, axis=g.number(0, x.rank))


def squeeze(g: Draft, x: Value) -> Value | None:
    """Some or all axes of size 1 go."""
    ones = [axis for axis, dim in enumerate(x.shape) if dim == 1 and g.flag()]
    return g.add("Squeeze", [x, g.const(ones)], x.bound) if ones and len(ones) < x.rank else None


def unsqueeze(g: Draft, x: Value) -> Value | None:
    """An axis of size 1 comes."""
    return g.add("Unsqueeze", [x, g.const([g.number(-x.rank - 1, x.rank)])], x.bound) if x.rank < 5 else None


def concat(g: Draft, x: Value) -> Value:
    """With itself, with other values, with a constant."""
    axis = g.number(0, x.rank - 1)
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    same = [v for v in g.values if v.rank == x.rank and (*v.shape[:axis], *v.shape[axis + 1 :]) == rest]
    parts: list[str | Value] = [x, g.draw_value(same)]
    if g.flag():
        parts.append(g.weight(*x.shape))
    bound = max([1.0, *(part.bound for part in parts if isinstance(part, Value))])
    return g.add("Concat", parts[:: -1 if g.flag() else 1], bound, axis=axis - x.rank if g.flag() else axis)


def slice_op(g: Draft, x: Value) -> Value:
    """Ranges with steps, forwards and backwards, with ends beyond the axis and negative ones."""
    axis = g.number(0, x.rank - 1)
    size, step = x.shape[axis], g.pick(1, 1, 2, -1, -2)
    low, high = sorted((g.number(0, size - 1), g.number(0, size - 1)))
    start, stop = (low, high + 1) if step > 0 else (high, low - 1)
    if step > 0 and g.flag():
        stop = 2**62 if stop == size or g.flag() else stop
        start = start - size if stop == 2**62 and g.flag() else start
    if step < 0 and (stop < 0 or g.flag()):
        stop = -(2**62)
    names = [g.const([value]) for value in (start, stop, axis - x.rank if g.flag() else axis, step)]
    return g.add("Slice", [x, *names], x.bound)


def split(g: Draft, x: Value) -> Value | None:
    """In two, equal or not; both halves may be read."""
    axis = g.number(0, x.rank - 1)
    if x.shape[axis] < 2:
        return None
    first = g.number(1, x.shape[axis] - 1)
    return g.add("Split", [x, g.const([first, x.shape[axis] - first])], x.bound, outputs=2, axis=axis)


def pad(g: Draft, x: Value) -> Value:
    """Constant (negative amounts too) or reflected."""
    if g.number(0, 2):
        low = [-1 if dim > 3 else 0 for dim in x.shape]
        amounts = [g.number(smallest, 2) for smallest in low * 2]
        return g.add("Pad", [x, g.const(amounts), g.const(np.array(g.number(-1, 1), np.float32))], x.bound + 1)
    amounts = [g.number(0, min(1, dim - 1)) for dim in x.shape * 2]
    return g.add("Pad", [x, g.const(amounts)], x.bound, mode="reflect")


def gather(g: Draft, x: Value) -> Value | None:
    """Constant indices, a scalar or a vector, counted from either end."""
    axis = g.number(0, x.rank - 1)
    size = x.shape[axis]
    if g.flag() and x.rank > 1:
        return g.add("Gather", [x, g.const(np.array(g.number(-size, size - 1), np.int64))], x.bound, axis=axis)
    return g.add("Gather", [x, g.const([g.number(-size, size - 1) for _ in range(g.number(1, 3))])], x.bound, axis=axis)


def tile(g: Draft, x: Value) -> Value:
    """Once or twice along each axis."""
    return g.add("Tile", [x, g.const([g.number(1, 2) for _ in x.shape])], x.bound)


def expand(g: Draft, x: Value) -> Value:
    """Axes of size 1 grow, one may come."""
    target = [dim if dim > 1 else g.number(1, 3) for dim in x.shape]
    if x.rank < 4 and g.flag():
        target.insert(0, g.number(1, 2))
    return g.add("Expand", [x, g.const(target)], x.bound)


def softmax(g: Draft, x: Value) -> Value:
    """Along any axis."""
    op = g.pick("Softmax", "Softmax", "LogSoftmax")
    return g.add(op, [x], 1.0 if op == "Softmax" else 2 * x.bound + 8, axis=g.number(-x.rank, x.rank - 1))


def matmul(g: Draft, x: Value) -> Value | None:
    """With a constant matrix, a stack of them, or another value."""
    if x.rank < 2:
        return None
    inner, rows = x.shape[-1], x.shape[-2]
    stacks = [value for value in g.values if value.rank == x.rank and value.shape[-2] == inner]
    fitting = [value for value in stacks if _broadcasts(value.shape[:-2], x.shape[:-2])]
    if fitting and g.flag():
        other = g.draw_value(fitting)
        return g.add("MatMul", [x, other], x.bound * other.bound * inner)
    batch = [dim if g.flag() else 1 for dim in x.shape[:-2]] if g.flag() else []
    if g.number(0, 3):
        return g.add("MatMul", [x, g.weight(*batch, inner, g.number(1, 5), scale=2 / inner)], 2 * x.bound)
    return g.add("MatMul", [g.weight(*batch, g.number(1, 5), rows, scale=2 / rows), x], 2 * x.bound)


def gemm(g: Draft, x: Value) -> Value | None:
    """A linear layer with any transposition, scale and shape of bias."""
    if x.rank != 2:
        return None
    trans_a, trans_b, units = g.number(0, 1), g.number(0, 1), g.number(1, 5)
    rows, inner = x.shape[::-1] if trans_a else x.shape
    w = g.weight(*((units, inner) if trans_b else (inner, units)), scale=2 / inner)
    bias = [[], [g.weight(units)], [g.weight(1, units)], [g.weight(rows, 1)], [g.weight(1)]][g.number(0, 4)]
    alpha, beta = [(1.0, 1.0), (0.5, 1.0), (1.0, 2.0)][g.number(0, 2)]
    return g.add("Gemm", [x, w, *bias], 2 * x.bound + 2, transA=trans_a, transB=trans_b, alpha=alpha, beta=beta)


def resize(g: Draft, x: Value) -> Value | None:
    """Of images, by factors or to sizes; no nearest neighbour where rounding decides."""
    if x.rank != 4 or max(x.shape[2:]) > 12:
        return None
    where = g.pick("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    mode = g.pick("linear", "linear", "cubic", "nearest")
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": where}
    if mode == "nearest":
        attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if mode == "nearest" or g.flag():
        scales = np.array([1, 1, g.number(1, 2), g.number(1, 3)], np.float32)
        return g.add("Resize", [x, "", g.const(scales)], 2 * x.bound, **attributes)
    sizes = [*x.shape[:2], g.number(1, 9), g.number(1, 9)]
    return g.add("Resize", [x, "", "", g.const(sizes)], 2 * x.bound, **attributes)


def depth_and_space(g: Draft, x: Value) -> Value | None:
    """DepthToSpace or SpaceToDepth."""
    if x.rank != 4:
        return None
    if x.shape[1] % 4 == 0 and g.flag():
        return g.add("DepthToSpace", [x], x.bound, blocksize=2, mode=g.pick("DCR", "CRD"))
    if x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0:
        return g.add("SpaceToDepth", [x], x.bound, blocksize=2)
    return None


def power(g: Draft, x: Value) -> Value:
    """A square, or the root of a positive number."""
    if g.flag():
        return g.add("Pow", [x, g.const(np.array(2, np.float32))], x.bound**2)
    positive = g.add("Add", [g.add("Abs", [x], x.bound), g.const(np.array(0.5, np.float32))], x.bound + 1)
    return g.add(g.pick("Sqrt", "Log", "Reciprocal"), [positive], max(2.0, x.bound))


def where(g: Draft, x: Value) -> Value:
    """A constant mask between a value and a constant."""
    mask = g.const(g.random.uniform(size=[dim if g.flag() else 1 for dim in x.shape]) < 0.5)
    return g.add("Where", [mask, x, _operand(g, x)], x.bound + 1)


STEPS: Sequence[Step] = (
    unary, unary, clip, with_constant, with_constant, with_value, with_value, conv, conv, conv, conv_transpose, pool,
    pool, global_pool, normalise, reduce, transpose, layout, layout, reshape, reshape, flatten, squeeze, unsqueeze,
    concat, concat, slice_op, split, pad, gather, tile, expand, softmax, matmul, matmul, gemm, resize, depth_and_space,
    power, where, *RUNTIME_STEPS, *MOTIFS,
)  # fmt: skip
SCALAR_STEPS: Sequence[Step] = (unary, clip, with_constant, with_value, unsqueeze, expand, power)
