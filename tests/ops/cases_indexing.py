"""Cases of ops that read, write and pick at computed places."""

from __future__ import annotations

import numpy as np

from tests.ops.harness import Case, Fed

_ROWS = np.array([[0, 2, -1], [1, 0, 1]], np.int64)
_TUPLES = np.array([[0, 1], [1, -1]], np.int64)
_MASK = np.array([True, False, True])


def ints(*values: int) -> np.ndarray:
    """An int64 vector."""
    return np.array(values, np.int64)


def scalar(value: int) -> np.ndarray:
    """An int64 of rank 0."""
    return np.array(value, np.int64)


GATHER = [
    Case("GatherElements", [(3, 4), _ROWS], {"axis": 0}),
    Case("GatherElements", [(3, 4), Fed(_ROWS)], {"axis": 1}),
    Case("GatherElements", [(2, 3, 4), Fed(_ROWS[:, None])], {"axis": 2}),
    Case("GatherElements", [(3, 4), Fed(_ROWS)], {"axis": 1}, dynamic=(0, 1)),
    Case("GatherElements", [(3, 4), Fed(_ROWS)], {"axis": 1}, dtype="uint8", low=0, high=9),
    Case("GatherElements", [(3, 4), Fed(_ROWS)], {"axis": 1}, dtype="float16"),
    Case("GatherND", [(2, 3, 4), _TUPLES]),
    Case("GatherND", [(2, 3, 4), Fed(_TUPLES)]),
    Case("GatherND", [(2, 3, 4), Fed(np.array([[1], [-1]], np.int64))], {"batch_dims": 1}),
    Case("GatherND", [(2, 3, 4), Fed(_TUPLES)], dynamic=(0, 2)),
]
SCATTER = [
    Case("ScatterElements", [(3, 4), Fed(np.array([[0, 2], [1, -1]], np.int64)), (2, 2)], {"axis": 1}),
    Case("ScatterElements", [(3, 4), Fed(np.array([[0, 1], [1, -1]], np.int64)), (2, 2)], dtype="int64"),
    *(
        Case("ScatterElements", [(3, 4), Fed(np.array([[0, 0], [1, -1]], np.int64)), (2, 2)],
             {"axis": 1, "reduction": how}, opset=18)
        for how in ("add", "mul", "max", "min")
    ),
    Case("ScatterElements", [(3, 4), Fed(np.array([[0, 2], [1, -1]], np.int64)), (2, 2)], {"axis": 1}, dynamic=(0, 1)),
    Case("Scatter", [(3, 4), Fed(np.array([[0, 2]], np.int64)), (1, 2)], {"axis": 1}, opset=10),
    Case("ScatterND", [(4, 3), Fed(np.array([[1], [-1]], np.int64)), (2, 3)]),
    Case("ScatterND", [(4, 3), _TUPLES, (2,)]),
    Case("ScatterND", [(4, 3), Fed(np.array([[1], [-1]], np.int64)), (2, 3)], dynamic=(0,)),
    Case("ScatterND", [(4, 3), Fed(np.array([[1], [-1]], np.int64)), (2, 3)], dtype="uint8", low=0, high=9),
    *(
        Case("ScatterND", [(4, 3), Fed(np.array([[1], [1], [0]], np.int64)), (3, 3)], {"reduction": how}, opset=18)
        for how in ("add", "mul", "max", "min")
    ),
    Case("TensorScatter", [(2, 4, 3), (2, 2, 3), Fed(ints(1, 0))], opset=24, by_onnx=True),
    Case("TensorScatter", [(2, 4, 3), (2, 2, 3), Fed(ints(3, 0))], {"mode": "circular"}, opset=24, by_onnx=True),
    Case("TensorScatter", [(2, 4, 3), (2, 2, 3)], opset=24, by_onnx=True),
]
PICK = [
    Case("Compress", [(3, 4), Fed(_MASK)], {"axis": 0}),
    Case("Compress", [(2, 3, 4), Fed(_MASK)], {"axis": -2}),
    Case("Compress", [(3, 4), Fed(_MASK)]),
    Case("NonZero", [(3, 4)], dtype="int64", low=0, high=1),
    Case("NonZero", [(3, 4)], dtype="bool", dynamic=(0,)),
    Case("OneHot", [(2, 3), scalar(5), np.array([0, 1], np.float32)], dtype="int64", low=-5, high=4),
    Case("OneHot", [(2, 3), Fed(ints(5)), Fed(np.array([2, 3], np.int64))], {"axis": 1}, dtype="int64", low=-7, high=7),
    Case("TopK", [(3, 5), ints(2)], outputs=2),
    Case("TopK", [(3, 5), Fed(ints(3))], outputs=2),
    Case("TopK", [(3, 5, 2), ints(2)], {"axis": 1, "largest": 0}, outputs=2),
    Case("TopK", [(3, 5), ints(2)], {"largest": 0}, dtype="int64", outputs=2, high=99),
    Case("TopK", [(3, 5)], {"k": 2}, opset=9, outputs=2),
    Case("Hardmax", [(2, 3, 4)]),
    Case("Hardmax", [(2, 3, 4)], {"axis": 1}),
    Case("Hardmax", [(2, 3, 4)], {"axis": 1}, opset=11),
    Case("Hardmax", [(2, 3, 4)], dynamic=(0, 2)),
    Case("ReverseSequence", [(4, 3, 2), Fed(ints(1, 2, 4))], {"time_axis": 0, "batch_axis": 1}),
    Case("ReverseSequence", [(3, 4), Fed(ints(1, 2, 4))], {"time_axis": 1, "batch_axis": 0}),
    *(Case(op, [(2, 4, 3)], {"axis": 1, "select_last_index": 1}, dtype="int32") for op in ("ArgMax", "ArgMin")),
    Case("ArgMax", [(2, 4, 3)], {"axis": 1, "select_last_index": 1}, dynamic=(1,)),
    Case("Unique", [(9,)], outputs=4, low=0, high=3, dtype="int64"),
    Case("Unique", [(3, 3)], {"sorted": 0}, outputs=4, low=0, high=3, dtype="int64"),
    Case("Unique", [(9,)], outputs=4),
]
_BOXES = np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [0, 100, 1, 101]]], np.float32)
_SCORES = np.array([[[0.9, 0.75, 0.6, 0.95, 0.3], [0.2, 0.8, 0.5, 0.6, 0.7]]], np.float32)
_LIMITS = [ints(3), np.array([0.5], np.float32), np.array([0.25], np.float32)]
DETECTION = [
    Case("NonMaxSuppression", [Fed(_BOXES), Fed(_SCORES), *_LIMITS]),
    Case("NonMaxSuppression", [Fed(_BOXES), Fed(_SCORES), *map(Fed, _LIMITS)]),
    Case("NonMaxSuppression", [Fed(_BOXES), Fed(_SCORES), ints(2)], {"center_point_box": 1}),
]
RANGES = [
    Case("Trilu", [(3, 4)]),
    Case("Trilu", [(2, 3, 4), scalar(1)], {"upper": 0}),
    Case("Trilu", [(3, 4), Fed(scalar(-1))]),
    Case("Trilu", [(3, 4)], dynamic=(0, 1)),
    Case("Trilu", [(3, 4)], dtype="int64"),
    Case("EyeLike", [(3, 4)], {"k": 1}),
    Case("EyeLike", [(3, 4)], {"dtype": 7}, dynamic=(0,)),
    Case("Range", [Fed(scalar(2)), Fed(scalar(9)), scalar(3)]),
    Case("Range", [Fed(np.float32(9)), np.float32(2), np.float32(-2.5)]),
    Case("CumSum", [(2, 3, 4), scalar(1)]),
    Case("CumSum", [(2, 3, 4), Fed(scalar(-1))], {"exclusive": 1}),
    Case("CumSum", [(2, 3), scalar(0)], {"reverse": 1}, dtype="int32"),
    Case("CumProd", [(2, 5), scalar(1)], opset=26, by_onnx=True),
    Case("CumProd", [(7,), Fed(scalar(0))], {"exclusive": 1, "reverse": 1}, opset=26, by_onnx=True),
]

INDEXING = [*GATHER, *SCATTER, *PICK, *DETECTION, *RANGES]
