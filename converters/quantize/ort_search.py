"""The search for ONNX Runtime: the same steps as for LiteRT, with candidates from what its fusions make of the graph.

ONNX Runtime fuses an op that stands between a DequantizeLinear and a QuantizeLinear into one integer kernel where it
has one. Where it has none, the conversions stay and the op computes in float between them: such ops are what cuts here.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgekit.artifacts import Array, Engine, OrtModel
from edgekit.converters.onnx_model import parse_onnx
from edgekit.converters.quantize.ort_apply import DYNAMIC, quantize_ort, target_cpu
from edgekit.converters.quantize.ort_graph import look_at_onnx
from edgekit.converters.quantize.ort_values import calibrate_ort, sensitivity_ort
from edgekit.converters.quantize.plan import ONNX_FOLLOWING, ONNX_WEIGHTED, Graph, Plan
from edgekit.converters.quantize.samples import Samples
from edgekit.converters.quantize.search import Goal, Search, search_on
from edgekit.converters.quantize.sensitivity import Layer
from edgekit.converters.quantize.speed import try_files
from edgekit.converters.quantize.workbench import Model, Trial, Workbench
from edgekit.errors import EngineError
from edgekit.recipe import Precision, QuantRecipe

__all__ = ["Fused", "OrtWorkbench", "search_ort"]

#: kinds for which its CPU kernels have a form in integers
_INTEGER = frozenset({
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Flatten", "Gather", "Gemm", "GlobalAveragePool", "HardSigmoid",
    "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Split",
    "Squeeze", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
_DEFAULT_GOAL = Goal()
_NO_RULES = QuantRecipe(())
_CONVERSIONS = ("DequantizeLinear", "QuantizeLinear")


class Fused(msgspec.Struct, frozen=True):
    """What is left when ONNX Runtime has fused a graph: how many conversions between float and integers on values
    (``partitions``, the number that should be low), and the results of the ops that read or make one in float.
    """

    partitions: int
    converted: tuple[str, ...]


def _fused(files: list[bytes], feeds: dict[str, Array]) -> list[Fused]:
    """In a child process: each file fused, and run once on ``feeds``."""
    from edgekit.runtime.engines.ort import import_onnxruntime

    ort = import_onnxruntime()
    found = []
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        for data in files:
            path = Path(folder) / "fused.onnx"
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.optimized_model_filepath = str(path)
            options.intra_op_num_threads = 1
            options.log_severity_level = 4
            try:
                ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)
            except Exception as error:  # the binding raises many unrelated types
                raise EngineError(f"ONNX Runtime refused the model: {error}") from error
            found.append(_conversions(path.read_bytes()))
    return found


def _conversions(data: bytes) -> Fused:
    graph = parse_onnx(data).graph
    weights = {tensor.name for tensor in graph.initializer}
    converting = [node for node in graph.node if node.op_type in _CONVERSIONS and node.input[0] not in weights]
    made = {node.output[0] for node in converting if node.op_type == "DequantizeLinear"}
    read = {node.input[0] for node in converting if node.op_type == "QuantizeLinear"}
    touching = (node for node in graph.node if node.op_type not in _CONVERSIONS
                and (made.intersection(node.input) or read.intersection(node.output)))
    return Fused(len(converting), tuple(node.name for node in touching))


class OrtWorkbench(Workbench):
    """The workbench with ONNX Runtime; the model comes from ``ort_float_model``."""

    engine: Engine = "ort"
    linear = DYNAMIC
    otherwise = "float16 is half as large and not slower"

    def prepared(self, model: Model) -> Model:
        """The model, which is ready."""
        return model

    def look(self) -> Graph:
        """Kinds of ops and their results."""
        return look_at_onnx(self.model.data)

    def probe(self, files: Sequence[bytes]) -> list[Any]:
        """A ``Fused`` of each, or the error."""
        return try_files(f"{__name__}:_fused", files, self.feeds)

    def outside(self, data: bytes, placement: Any) -> tuple[tuple[str, str], ...]:
        """Kind and result of the ops with a form in integers that compute in float next to a conversion."""
        del data  # the placement holds it all
        assert isinstance(placement, Fused)
        touching = set(placement.converted)
        return tuple((kind, result) for kind, result in self.graph.ops if result in touching)

    def calibrated(self, base: QuantRecipe) -> QuantRecipe:
        """``base`` with ranges."""
        assert isinstance(self.model, OrtModel)
        return calibrate_ort(self.model, base, self.samples.fit)

    def quantized(self, recipe: QuantRecipe) -> Model:
        """The float model as ``recipe`` says."""
        assert isinstance(self.model, OrtModel)
        return quantize_ort(self.model, recipe)

    def layers(self, data: bytes) -> tuple[Layer, ...]:
        """Where error enters in ``data``."""
        return sensitivity_ort(self.model.data, data, self.samples)

    def bases(self) -> list[Plan]:
        """Everything static; only weights, in each form; convolutions static and linear layers dynamic."""
        kinds = self.graph.kinds
        everything = Plan(dict.fromkeys([kind for kind in kinds if kind in _INTEGER], "static8"))
        weighted = [kind for kind in kinds if kind in ONNX_WEIGHTED]
        if not weighted:
            return [everything]
        attached = [kind for kind in kinds if kind in ONNX_FOLLOWING]
        products = self._products()
        static = [kind for kind in weighted if kind in _INTEGER]
        plans = [everything, Plan(dict.fromkeys(weighted, "float16"))]
        if static:
            plans.append(Plan(dict.fromkeys([*static, *attached], "static8"), cut=products))
        linear: dict[str, Precision] = dict.fromkeys([kind for kind in weighted if kind in DYNAMIC], "dynamic8")
        if linear:
            plans.append(Plan(linear))
            if len(static) > len(linear):
                plans.append(plans[2].changed(linear))
                plans.append(everything.changed(linear, cut=products))
        return plans

    def _products(self) -> tuple[str, ...]:
        """Results of matrix products of two values, such as attention's, which have no weights."""
        graph = parse_onnx(self.model.data).graph
        weights = {tensor.name for tensor in graph.initializer}
        return tuple(n.output[0] for n in graph.node if n.op_type == "MatMul" and not weights.intersection(n.input))

    def flips(self, plan: Plan, cut: Iterable[str]) -> list[Plan]:
        """``plan`` with one kind changed: into float, into static, or (linear layers) into dynamic."""
        found = []
        for kind in self.graph.kinds:
            if kind not in _INTEGER or kind in ONNX_FOLLOWING:
                continue
            have = plan.kinds.get(kind, "float32")
            options: list[Precision] = ["float32"]
            if kind not in cut:
                options.append("static8")
            if kind in DYNAMIC:
                options.append("dynamic8")
            found += [plan.changed({kind: option}) for option in options if option != have]
        return found

    def why_slow(self, stock: Trial) -> str:
        """Why the file with everything static is slower than the float one."""
        counts = Counter(kind for kind, _ in stock.left_out)
        cut = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        return f"{stock.partitions} conversions between float and integers remain, around {cut or 'nothing'}"


def search_ort(
    model: OrtModel, samples: Samples, goal: Goal = _DEFAULT_GOAL, base: QuantRecipe = _NO_RULES,
    on_step: Callable[[str], None] | None = None,
) -> Search:
    """The best precision for ``model`` (from ``ort_float_model``) in ONNX Runtime, on this machine with one thread.

    ``base.cpu`` says whose integers are used (by default this machine's); the rest is as in ``search``.
    """
    cpu = base.cpu or target_cpu()
    base = msgspec.structs.replace(base, cpu=cpu)
    found = search_on(lambda: OrtWorkbench(model, samples, base), goal, base, on_step or (lambda _: None))
    if cpu.startswith("x86") == target_cpu().startswith("x86"):
        return found
    note = f"The integers are those for {cpu}, but the times are of this machine, where they may be slower."
    return msgspec.structs.replace(found, notes=(*found.notes, note))
