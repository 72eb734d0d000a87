"""NonMaxSuppression -> NON_MAX_SUPPRESSION_V4 for each class of each image."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["non_max_suppression"]

_END = 2**31 - 1
#: what passes for "no threshold": scores below it are never seen
_NO_THRESHOLD = float(np.finfo(np.float32).min)


def non_max_suppression(b: Builder, node: Node) -> View:
    """Rows of (image, class, box) of the boxes kept, in ONNX's order."""
    boxes, scores = node.floats(0), node.floats(1)
    if boxes.rank != 3 or scores.rank != 3:
        raise Refused(f"its boxes and scores have {boxes.rank} and {scores.rank} axes, not 3")
    images, classes, count = scores.shape
    if images < 0 or classes < 0:
        raise Refused("the number of images or classes is dynamic", "Fix the input's shape with --shape.")
    most = _limit(b, node, 2, 0, np.int32)
    if count >= 0:
        most = b.binary("MINIMUM", most, b.scalar(count, most))
    overlap = _next_above(b, _limit(b, node, 3, 0.0, np.float32))
    thresholds = [overlap, _limit(b, node, 4, _NO_THRESHOLD, np.float32)]
    corners = store(b, boxes)
    if node.integer("center_point_box", 0):
        corners = _corners(b, corners)
    all_scores = store(b, scores)
    rows = []
    for image in range(images):
        own = _part(b, corners, [image])
        rows += [
            _kept(b, own, _part(b, all_scores, [image, kind]), [most, *thresholds], (image, kind))
            for kind in range(classes)
        ]
    return View.of(b.cast(b.concat(rows, 0), np.int64))


def _limit(b: Builder, node: Node, index: int, default: float, dtype: type[np.generic]) -> Tensor:
    if not node.has_input(index):
        return b.const(np.array(default, dtype))
    view = node.view(index)
    if view.const is not None:
        return b.const(np.minimum(view.const.reshape(()), np.array(_END)).astype(dtype))
    return b.reshape(b.cast(view.tensor, dtype), ())


def _next_above(b: Builder, overlap: Tensor) -> Tensor:
    """The op drops a box from the threshold on, ONNX only above it."""
    if overlap.data is not None:
        return b.const(np.nextafter(overlap.data, np.float32(np.inf)))
    above = b.binary("MUL", overlap, b.scalar(1 + 1.2e-7, overlap))
    return b.binary("MAXIMUM", above, b.scalar(1e-37, above))


def _part(b: Builder, x: Tensor, at: list[int]) -> Tensor:
    """``x[at]``: the first axes are gone."""
    begin = [*at, *[0] * (x.rank - len(at))]
    end = [*(index + 1 for index in at), *[_END] * (x.rank - len(at))]
    piece = b.strided_slice(x, begin, end, [1] * x.rank)
    return b.emit("SQUEEZE", [piece], x.shape[len(at) :], x.dtype, squeezeDims=list(range(len(at))))


def _corners(b: Builder, boxes: Tensor) -> Tensor:
    """(x, y, width, height) around a centre as (y1, x1, y2, x2)."""
    middle = b.strided_slice(boxes, [0, 0, 0], [_END, _END, 2], [1, 1, 1])
    size = b.strided_slice(boxes, [0, 0, 2], [_END, _END, 4], [1, 1, 1])
    half = b.binary("MUL", size, b.scalar(0.5, size))
    both = b.concat([b.binary("SUB", middle, half), b.binary("ADD", middle, half)], 2)
    order = b.const(np.array([1, 0, 3, 2], np.int32))
    return b.emit("GATHER", [both, order], boxes.shape, boxes.dtype, axis=2)


def _kept(b: Builder, boxes: Tensor, scores: Tensor, limits: list[Tensor], labels: tuple[int, int]) -> Tensor:
    """The rows of one class of one image; the op fills up behind its last box, which is cut off."""
    most = limits[0]
    size = int(most.data) if most.data is not None else b.new_dim()
    chosen, count = b.emit_many(
        "NON_MAX_SUPPRESSION_V4", [boxes, scores, *limits], [((size,), np.int32), ((), np.int32)]
    )
    found = b.new_dim()
    vector = [b.const(np.array([0], np.int32)), b.reshape(count, (1,)), b.const(np.array([1], np.int32))]
    chosen = b.emit("STRIDED_SLICE", [chosen, *vector], (found,), np.int32)
    column = b.emit("EXPAND_DIMS", [chosen, b.const(np.array(1, np.int32))], (found, 1), np.int32)
    zeros = b.binary("MUL", column, b.scalar(0, column))
    ahead = [b.binary("ADD", zeros, b.scalar(label, zeros)) for label in labels]
    return b.concat([*ahead, column], 1)
