"""Reading tables of measured latencies and of the graphs behind them (CSV, plain or gzip).

Graphs: one row for each op with the columns model, op, type, cls, cin, cout, oh, ow, k, s, groups, macs, in_el, out_el,
w_el, as ncnn's ``.param`` files give them. Measurements: device, run, model, threads, powersave, backend, precision,
avg_ms, date, commit; rows of one device, run, thread count and power mode are one board.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from edgekit.errors import BadInput
from edgekit.graph.costs import OpClass, OpCost
from edgekit.profile.cores import half_precision, in_order, thirty_two_bit

__all__ = ["BoardRun", "read_graphs", "read_runs"]

_CLASS_OF_KIND: dict[str, OpClass] = {
    "Convolution": "conv", "InnerProduct": "fc", "Gemm": "matmul", "MultiHeadAttention": "matmul", "Pooling": "pool",
    "Reduction": "pool", "BinaryOp": "elementwise", "Eltwise": "elementwise", "BatchNorm": "elementwise",
    "ReLU": "elementwise", "HardSwish": "elementwise", "HardSigmoid": "elementwise", "Swish": "transcendental",
    "Sigmoid": "transcendental", "GELU": "transcendental", "Softmax": "softmax", "LayerNorm": "norm", "LRN": "lrn",
    "Slice": "channels", "ShuffleChannel": "channels", "Crop": "channels", "Concat": "copy", "Permute": "copy",
    "Padding": "copy", "Interp": "copy", "DeconvolutionDepthWise": "copy", "Reshape": "free", "Flatten": "free",
    "PriorBox": "detection", "DetectionOutput": "detection", "YoloDetectionOutput": "elementwise",
    "Yolov3DetectionOutput": "elementwise",
}  # fmt: skip


_MIDDLE = dt.date(2022, 7, 1)
_FACT_DAYS = 2 * 365.25


class BoardRun(msgspec.Struct, frozen=True):
    """What one board measured in one configuration: model -> mean milliseconds. ``url`` leads to the first row."""

    device: str
    run: str
    threads: int
    powersave: str
    backend: str
    date: str
    commit: str
    url: str
    latency_ms: dict[str, float]

    @property
    def facts(self) -> tuple[float, ...]:
        """About the processor and the engine's age, each from about -1/2 to 1/2; 0 where it is not known."""
        try:
            days = (dt.date.fromisoformat(self.date) - _MIDDLE).days
        except ValueError:
            days = 0
        slow, old = in_order(self.device, self.powersave), thirty_two_bit(self.device)
        return (self.half - 0.5, slow - 0.5, old - 0.5, days / _FACT_DAYS)

    @property
    def half(self) -> float:
        """Whether it computes in half precision (``half_precision``); a GPU does in any case."""
        return half_precision(self.device) if self.backend == "cpu" else 1.0


def read_graphs(path: Path) -> dict[str, tuple[OpCost, ...]]:
    """Model -> ops. Raises BadInput where the file cannot be read or a row is wrong."""
    found: dict[str, list[OpCost]] = {}
    for number, row in _rows(path):
        try:
            found.setdefault(row["model"], []).append(_op(row))
        except (KeyError, ValueError) as error:
            raise BadInput(f"{path} row {number} is no op of a graph: {error}.") from error
    return {model: tuple(ops) for model, ops in found.items()}


def _op(row: Mapping[str, str]) -> OpCost:
    kind, kernel = row["type"], int(row["k"])
    op_class = _CLASS_OF_KIND.get(kind, "unknown")
    if kind == "ConvolutionDepthWise":
        op_class = "depthwise" if row["cls"] == "dwconv" else "grouped"
    # A prior box depends on the sizes of its inputs, not on what is in them.
    read = 0 if kind == "PriorBox" else int(row["in_el"])
    return OpCost(
        name=row["op"], kind=kind, op_class=op_class, macs=int(row["macs"]) if op_class not in ("copy",) else 0,
        in_elements=read, out_elements=int(row["out_el"]), weight_elements=int(row["w_el"]), cin=int(row["cin"]),
        cout=int(row["cout"]), out_h=int(row["oh"]), out_w=int(row["ow"]), kernel_h=kernel, kernel_w=kernel,
        stride=int(row["s"]), groups=int(row["groups"]),
    )


def read_runs(path: Path) -> list[BoardRun]:
    """The boards of a table, int8 networks left out, in its order. Raises BadInput as ``read_graphs``."""
    found: dict[tuple[str, ...], BoardRun] = {}
    for number, row in _rows(path):
        try:
            if row["precision"] == "int8":
                continue
            key = tuple(row[name] for name in ("device", "run", "threads", "powersave", "backend"))
            run = found.setdefault(key, BoardRun(row["device"], row["run"], int(row["threads"]), row["powersave"],
                                                 row["backend"], row["date"], row["commit"], row["source"], {}))
            run.latency_ms[row["model"]] = float(row["avg_ms"])
        except (KeyError, ValueError) as error:
            raise BadInput(f"{path} row {number} is no measurement: {error}.") from error
    return list(found.values())


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield from enumerate(csv.DictReader(file), 2)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}.") from error
