"""Cases of windows over three axes, dilated pooling, p-norms, the places of maxima, and sampling on a grid."""

from __future__ import annotations

import numpy as np

from tests.ops.harness import Case, Fed

_RNG = np.random.default_rng(6)
_VOLUME = (1, 4, 5, 6, 7)
_IMAGE = (2, 3, 7, 8)


def weights(*shape: int) -> np.ndarray:
    """Fixed random weights."""
    return _RNG.standard_normal(shape).astype(np.float32)


def grid(*shape: int) -> Fed:
    """Points in and around an image."""
    return Fed(_RNG.uniform(-1.4, 1.4, shape).astype(np.float32))


VOLUMES = [
    Case("Conv", [_VOLUME, weights(6, 4, 3, 3, 3), weights(6)], {"pads": [1] * 6}, tolerance=1e-5),
    Case("Conv", [_VOLUME, weights(6, 2, 2, 2, 2)], {"strides": [2, 1, 2], "group": 2}, tolerance=1e-5),
    Case("Conv", [_VOLUME, weights(6, 4, 2, 2, 2)], {"dilations": [2, 2, 1]}, tolerance=1e-5),
    Case("ConvTranspose", [_VOLUME, weights(4, 3, 3, 3, 3), weights(3)], {"strides": [2, 2, 2], "pads": [1] * 6},
         tolerance=1e-5),
    Case("ConvTranspose", [_VOLUME, weights(4, 3, 2, 2, 2)],
         {"group": 2, "output_padding": [1, 1, 1], "strides": [2] * 3}, tolerance=1e-5),
    Case("MaxPool", [_VOLUME], {"kernel_shape": [2, 3, 2], "strides": [2, 2, 1], "pads": [0, 1, 1, 0, 1, 0]}),
    Case("MaxPool", [_VOLUME], {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2], "ceil_mode": 1}),
    Case("AveragePool", [_VOLUME], {"kernel_shape": [2, 3, 2], "pads": [1, 1, 0, 0, 1, 1]}),
    Case("AveragePool", [_VOLUME], {"kernel_shape": [2, 2, 2], "strides": [2] * 3, "pads": [1] * 6,
                                    "count_include_pad": 1}),
]  # fmt: skip
POOLS = [
    Case("MaxPool", [_IMAGE], {"kernel_shape": [2, 3], "dilations": [2, 2]}),
    Case("MaxPool", [_IMAGE], {"kernel_shape": [2, 2], "dilations": [3, 1], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    Case("MaxPool", [(1, 3, 9)], {"kernel_shape": [3], "dilations": [2], "pads": [1, 1]}),
    Case("MaxPool", [_IMAGE], {"kernel_shape": [2, 2]}, dtype="uint8", high=99),
    Case("MaxPool", [_IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2]}, outputs=2),
    Case("MaxPool", [_IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, outputs=2),
    *(Case("MaxPool", [(1, 3, *size)], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": pads, "ceil_mode": 1},
           dynamic=(0, 2, 3)) for size in ((6, 7), (7, 8), (9, 5)) for pads in ([0, 0, 0, 0], [1, 1, 1, 0])),
    Case("AveragePool", [_IMAGE], {"kernel_shape": [2, 2], "dilations": [2, 2], "pads": [1, 1, 1, 1]}, opset=19),
    Case("LpPool", [_IMAGE], {"kernel_shape": [2, 2]}, opset=18),
    Case("LpPool", [_IMAGE], {"kernel_shape": [3, 3], "p": 1, "strides": [2, 2], "pads": [1, 1, 1, 1]}, opset=18),
    Case("LpPool", [(1, 3, 9)], {"kernel_shape": [3], "p": 3}, opset=18, tolerance=5e-6),
    Case("GlobalLpPool", [_IMAGE], {"p": 2}),
    Case("GlobalLpPool", [_IMAGE], {"p": 1}),
    Case("MaxUnpool", [(1, 2, 2, 2), Fed(np.array([0, 3, 13, 15, 17, 18, 24, 30]).reshape(1, 2, 2, 2))],
         {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("MaxUnpool", [(1, 1, 2, 2), Fed(np.array([5, 7, 13, 15]).reshape(1, 1, 2, 2)), np.array([1, 1, 5, 5])],
         {"kernel_shape": [2, 2], "strides": [2, 2]}, by_onnx=True),
]
GRIDS = [
    *(Case("GridSample", [_IMAGE, grid(2, 4, 5, 2)], {"mode": mode, "padding_mode": pad, "align_corners": corners},
           tolerance=1e-5)
      for mode in ("linear", "nearest", "cubic") for pad in ("zeros", "border", "reflection") for corners in (0, 1)),
    Case("GridSample", [_IMAGE, grid(2, 4, 5, 2)], {"mode": "bilinear"}, opset=16, tolerance=1e-5),
    Case("GridSample", [_IMAGE, grid(2, 4, 5, 2)], dynamic=(0, 2, 3), tolerance=1e-5),
    Case("GridSample", [(1, 2, 3, 4, 5), grid(1, 2, 3, 4, 3)], {"mode": "linear"}, tolerance=1e-5),
]  # fmt: skip
_COLUMNS = [np.array([5, 6], np.int64), np.array([2, 3], np.int64)]
SPECTRA = [
    Case("DFT", [(2, 6, 1)], {"axis": 1}, opset=19, tolerance=5e-6),
    Case("DFT", [(2, 6, 2), np.array(8, np.int64), np.array(1, np.int64)], tolerance=5e-6),
    Case("DFT", [(2, 6, 3, 2), None, np.array(-3, np.int64)], tolerance=5e-6),
    Case("DFT", [(2, 6, 1), np.array(4, np.int64), np.array(1, np.int64)], {"onesided": 1}, tolerance=5e-6),
    Case("DFT", [(2, 6, 1), None, np.array(1, np.int64)], dynamic=(0,), tolerance=5e-6),
    Case("STFT", [(2, 32, 1), np.array(4, np.int64), np.hanning(8).astype(np.float32)], opset=17, tolerance=5e-6),
    Case("STFT", [(1, 32, 1), np.array(5, np.int64), None, np.array(7, np.int64)], {"onesided": 0}, opset=17,
         tolerance=5e-6),
    Case("STFT", [(2, 32, 1), np.array(4, np.int64), np.hanning(8).astype(np.float32)], opset=17, dynamic=(1,),
         tolerance=5e-6),
    Case("Col2Im", [(1, 12, 16), *_COLUMNS], opset=18, by_onnx=True),
    Case("Col2Im", [(2, 12, 48), *_COLUMNS], {"pads": [1, 0, 1, 4]}, opset=18, by_onnx=True),
    Case("Col2Im", [(1, 12, 4), *_COLUMNS], {"strides": [1, 2], "dilations": [3, 1]}, opset=18, by_onnx=True),
    Case("AffineGrid", [(2, 2, 3), np.array([2, 1, 4, 5], np.int64)], tolerance=5e-6),
    Case("AffineGrid", [(1, 3, 4), np.array([1, 1, 2, 4, 5], np.int64)], {"align_corners": 1}, tolerance=5e-6,
         by_onnx=True),
]

WINDOWS = [*VOLUMES, *POOLS, *GRIDS, *SPECTRA]
