"""How the cost of converting grows with the number of nodes, and whether converted files can be resized.

    python -m benchmarks.scaling [--json scaling.json] [--skip-resize]

Two families of graphs are grown from 100 to 10,000 nodes: convolutional blocks with squeeze-and-excite, and attention
blocks. Each conversion (reading the file, lowering, writing) is timed in a process of its own, without imports. Then
every network with dynamic H and W is converted once and resized in one Interpreter (benchmarks/resizing.py). Exit code
1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from benchmarks.report import table
from benchmarks.resizing import Resized, resize_all
from benchmarks.resizing import misses as resize_misses
from benchmarks.resizing import section as resize_section
from edgekit import isolate
from edgekit.atomic import write_atomically
from edgekit.errors import EdgeKitError, UnknownName

if TYPE_CHECKING:
    import onnx

__all__ = ["FAMILIES", "Point", "build", "exponent", "main", "misses", "section"]

SIZES = (100, 300, 1000, 3000, 10000)
# time ~ nodes ** exponent: 1 is linear; n log n over this span would be about 1.15, n squared 2
_MAX_EXPONENT = 1.1
_CHANNELS, _TOKENS = 16, 12


class Point(msgspec.Struct, frozen=True):
    """Median CPU seconds of converting a graph of ``nodes`` nodes, and the peak memory of its process."""

    family: str
    nodes: int
    seconds: float


class _Graph:
    """A graph under construction; every value that ``add`` gives is the output of one node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def weight(self, *shape: int) -> str:
        from onnx import numpy_helper

        values = self._random.normal(0, 0.1, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def integers(self, *values: int) -> str:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, list(inputs), [f"t{len(self.nodes)}"], f"n{len(self.nodes)}",
                                           **attributes))
        return str(self.nodes[-1].output[0])


def _convolutions(graph: _Graph, x: str) -> str:
    """Twelve nodes: expand, depthwise, squeeze-and-excite, project, shortcut."""
    c = _CHANNELS
    y = graph.add("Relu", graph.add("Conv", x, graph.weight(c, c, 1, 1), graph.weight(c)))
    y = graph.add("Conv", y, graph.weight(c, 1, 3, 3), graph.weight(c), group=c, pads=[1, 1, 1, 1])
    y = graph.add("HardSwish", y)
    gate = graph.add("Conv", graph.add("GlobalAveragePool", y), graph.weight(4, c, 1, 1))
    gate = graph.add("Conv", graph.add("Relu", gate), graph.weight(c, 4, 1, 1))
    y = graph.add("Mul", y, graph.add("HardSigmoid", gate, alpha=1 / 6))
    return graph.add("Add", x, graph.add("Conv", y, graph.weight(c, c, 1, 1), graph.weight(c)))


def _attention(graph: _Graph, x: str) -> str:
    """Sixteen nodes: layer normalisation, self-attention with two heads, shortcut, GELU perceptron."""
    c, heads = _CHANNELS, 2
    normed = graph.add("LayerNormalization", x, graph.weight(c), graph.weight(c))
    split = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        projected = graph.add("MatMul", normed, graph.weight(c, c))
        shaped = graph.add("Reshape", projected, graph.integers(1, _TOKENS, heads, c // heads))
        split.append(graph.add("Transpose", shaped, perm=perm))
    mixed = graph.add("MatMul", graph.add("Softmax", graph.add("MatMul", split[0], split[1])), split[2])
    joined = graph.add("Reshape", graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), graph.integers(1, _TOKENS, c))
    return graph.add("Add", x, graph.add("Gelu", graph.add("MatMul", joined, graph.weight(c, c))))


FAMILIES: dict[str, tuple[Callable[[_Graph, str], str], tuple[int, ...]]] = {
    "convolutions": (_convolutions, (1, _CHANNELS, 16, 16)),
    "attention": (_attention, (1, _TOKENS, _CHANNELS)),
}


def build(family: str, nodes: int) -> onnx.ModelProto:
    """A graph of ``family`` with ``nodes`` nodes, less than one block fewer. Raises UnknownName."""
    from onnx import TensorProto, helper

    if family not in FAMILIES:
        raise UnknownName.of("family of graphs", family, FAMILIES)
    block, shape = FAMILIES[family]
    graph, value = _Graph(), "x"
    size = 0
    while len(graph.nodes) + size <= nodes:
        before = len(graph.nodes)
        value = block(graph, value)
        size = len(graph.nodes) - before
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", value)]
    proto = helper.make_graph(graph.nodes, family, ends[:1], ends[1:], graph.weights)
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def convert_seconds(path: str) -> float:
    """CPU seconds of converting the ONNX file at ``path``, imports done before."""
    from edgekit.converters.onnx_model import load_onnx
    from edgekit.converters.onnx_to_litert import to_litert

    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.onnx"
        small.write_bytes(build("convolutions", 20).SerializeToString())
        to_litert(load_onnx(small))  # what is imported late is imported now
    start = time.process_time()
    to_litert(load_onnx(Path(path)))
    return time.process_time() - start


def measure(sizes: Sequence[int], repeats: int) -> Iterator[Point]:
    """One point for each family and size."""
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            for size in sizes:
                proto = build(family, size)
                path = Path(folder) / f"{family}_{size}.onnx"
                path.write_bytes(proto.SerializeToString())
                seconds = [isolate.call("benchmarks.scaling:convert_seconds", str(path)) for _ in range(repeats)]
                yield Point(family, len(proto.graph.node), float(np.median(np.array(seconds, np.float64))))


def exponent(points: Sequence[Point]) -> float:
    """The slope of log time over log nodes (least squares) from 1,000 nodes on, where constant costs are small."""
    large = [point for point in points if point.nodes >= 900]
    slope, _ = np.polyfit([math.log(point.nodes) for point in large], [math.log(point.seconds) for point in large], 1)
    return float(slope)


def section(points: Sequence[Point]) -> str:
    """The table and the exponents, as Markdown."""
    rows = [[point.family, f"{point.nodes:,}", f"{point.seconds:.3f}", f"{point.seconds / point.nodes * 1e6:.0f}"]
            for point in points]
    lines = ["## Converting time and the number of nodes (CPU seconds, without imports)", "",
             table(["family", "nodes", "s", "us per node"], rows), ""]
    return "\n".join(lines + [f"- {family}: time ~ nodes ^ {exponent(some):.2f} from 1,000 nodes on"
                              for family, some in _families(points)])


def misses(points: Sequence[Point]) -> list[str]:
    """One line for each family whose time grows faster than linearly."""
    return [f"{family}: converting time grows as nodes ^ {exponent(some):.2f}" for family, some in _families(points)
            if exponent(some) > _MAX_EXPONENT]


def _families(points: Sequence[Point]) -> list[tuple[str, list[Point]]]:
    return [(family, some) for family in FAMILIES if (some := [point for point in points if point.family == family])]


def main(arguments: Sequence[str]) -> int:
    """Print the tables; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--repeats", type=int, default=3, help="conversions of each graph; medians are shown")
    parser.add_argument("--skip-resize", action="store_true", help="only the conversion time")
    parser.add_argument("--net", action="append", help="resize only this network; may be repeated")
    given = parser.parse_args(arguments)
    points: list[Point] = []
    for point in measure(SIZES, given.repeats):
        points.append(point)
        print(f"{point.family}, {point.nodes} nodes: {point.seconds:.3f} s", file=sys.stderr, flush=True)
    print(section(points), flush=True)
    resized: list[Resized] = []
    if not given.skip_resize:
        resized = list(resize_all(given.net))
        print("\n" + resize_section(resized))
    if given.json:
        write_atomically(given.json, msgspec.json.format(msgspec.json.encode({"nodes": points, "resized": resized})))
    missed = misses(points) + resize_misses(resized)
    print("\nMissed:\n" + "\n".join(f"- {line}" for line in missed) if missed else "\nEvery bar is met.")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EdgeKitError as error:
        sys.exit(str(error))
