"""Timing small networks in an engine: CPU time of one thread, in a child process, several visits to each.

Between two runs other memory is read, so that a network finds its weights where those of a whole network would be, in
the cache that the cores share and not in the one next to the core. Some are timed without that as well, and some with
so much of it that weights come from beyond the caches: what a weight costs follows from the difference. A machine is
disturbed now and then, never sped up, so the quietest visit counts.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from edgekit import isolate
from edgekit.artifacts import Array, Engine
from edgekit.errors import BadRecipe, EngineError
from edgekit.graph.costs import GraphCosts
from edgekit.profile.host.nets import Micro, build
from edgekit.profile.host.plan import plan

__all__ = ["HostRecipe", "Timed", "costs_of", "cpu_ms", "engine_file", "measure"]

_OTHER_BYTES = (6 * 2**20, 0, 36 * 2**20)  # read between two runs: always, for some networks, for others
_RUNS = 11
_MAX_VISIT_S = 0.12
_MOST_NETS = 900
_EVERY = 3


class HostRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is measured: the engine, "float32", or for LiteRT "int8" (static) or "dynamic8" (int8
    weights, activations quantized at run time), and for how many ``seconds``.

    ``nets`` limits the number of small networks. Raises BadRecipe for integers with ONNX Runtime, too little time, too
    few nets.
    """

    engine: Engine = "litert"
    precision: Literal["float32", "int8", "dynamic8"] = "float32"
    seconds: float = 150.0
    nets: int = _MOST_NETS

    def __post_init__(self) -> None:
        if self.engine == "ort" and self.precision != "float32":
            raise BadRecipe("Only float32 is measured with ONNX Runtime.", "Leave out the precision, or take litert.")
        if not self.seconds > 0 or self.nets < 20:
            raise BadRecipe(f"{self.nets} networks in {self.seconds} s cannot be measured.",
                            "Give a positive time and at least 20 networks.")


class Timed(msgspec.Struct, frozen=True):
    """One network: what it costs, bytes of other memory that were read between two runs, milliseconds."""

    name: str
    costs: GraphCosts
    other_bytes: int
    ms: float

    @property
    def whole(self) -> bool:
        """Whether it is built of blocks, as real networks are, and not of one kind of kernel."""
        return "-blocks-" in self.name


def measure(recipe: HostRecipe) -> tuple[Timed, ...]:
    """The small networks on this machine, as many as the time allows.

    Raises EngineError where too few of them could be run, MissingExtra without the engine or the converter.
    """
    found = isolate.call("edgekit.profile.host.timing:_measure", recipe, timeout_s=120 + 3 * recipe.seconds,
                         subject="Measuring this machine")
    assert isinstance(found, list)
    if len(found) < 20:
        raise EngineError(f"Only {len(found)} networks were timed within {recipe.seconds:g} s.", "Allow more time.")
    return tuple(found)


def engine_file(model: object, recipe: HostRecipe) -> tuple[bytes, str]:
    """An OnnxModel as the engine's file, quantized when asked for, and the file's suffix."""
    from edgekit.artifacts import LiteRTModel, OnnxModel
    from edgekit.converters.onnx_to_litert import to_litert

    assert isinstance(model, OnnxModel)
    if recipe.engine == "ort":
        return model.data, ".onnx"
    found = to_litert(model).model
    assert isinstance(found, LiteRTModel)
    if recipe.precision != "float32":
        from edgekit.converters.quantize import quantize
        from edgekit.converters.quantize.flatbuffer import name_of, read_tables
        from edgekit.recipe import QuantRecipe, QuantRule

        names = [name_of(tensor) for tensor in read_tables(found.data).subgraphs[0].tensors]
        ranges = dict.fromkeys(names, (-4.0, 4.0))
        rule = QuantRule("static8" if recipe.precision == "int8" else "dynamic8")
        found = quantize(found, QuantRecipe((rule,), ranges=ranges))
    return found.data, ".tflite"


def costs_of(path: Path) -> GraphCosts:
    """The costs of a file that is known to be sound."""
    if path.suffix == ".onnx":
        from edgekit.graph.costs_onnx import onnx_costs

        return onnx_costs(str(path), {})
    from edgekit.graph.costs_tflite import tflite_costs

    return tflite_costs(str(path), {})


def cpu_ms(run: Callable[[], object], between: Callable[[], object] | None, runs: int, max_seconds: float) -> float:
    """The lower quartile of the CPU milliseconds of ``run``, with ``between`` ahead of each, after two to warm up."""
    run()
    run()
    taken: list[float] = []
    end = time.perf_counter() + max_seconds
    while len(taken) < runs and (len(taken) < 3 or time.perf_counter() < end):
        if between is not None:
            between()
        start = time.thread_time()
        run()
        taken.append(time.thread_time() - start)
    return float(np.quantile(taken, 0.25)) * 1e3


class _Subject(msgspec.Struct):
    micro: Micro
    path: Path
    costs: GraphCosts
    states: tuple[int, ...]
    taken: dict[int, list[float]]


def _measure(recipe: HostRecipe) -> list[Timed]:
    """In the child."""
    start = time.perf_counter()
    other = np.ones(max(_OTHER_BYTES) // 8)
    gc.disable()  # a collection in the middle of a run would be counted as the network's
    with tempfile.TemporaryDirectory(prefix="edgekit-host-") as folder:
        subjects: list[_Subject] = []
        for number, micro in enumerate(plan(recipe.nets)):
            if time.perf_counter() - start > 0.6 * recipe.seconds:
                break
            whole = "-blocks-" in micro.name
            chosen = (True, whole or number % _EVERY == 0, whole or number % _EVERY == 1)
            states = tuple(size for size, wanted in zip(_OTHER_BYTES, chosen, strict=True) if wanted)
            subjects.append(_made(micro, states, recipe, Path(folder) / f"{number}"))
            _visit(subjects[-1], recipe, other)
            if number % 50 == 49:
                gc.collect()
        for subject in _again(subjects):
            if time.perf_counter() - start > recipe.seconds:
                break
            _visit(subject, recipe, other)
    return [timed for subject in subjects for timed in _timed(subject)]


def _again(subjects: Sequence[_Subject]) -> Iterator[_Subject]:
    """Every network twice more, in another order."""
    for seed in (1, 2):
        for index in np.random.default_rng(seed).permutation(len(subjects)):
            yield subjects[int(index)]


def _made(micro: Micro, states: tuple[int, ...], recipe: HostRecipe, stem: Path) -> _Subject:
    data, suffix = engine_file(build(micro), recipe)
    path = stem.with_suffix(suffix)
    path.write_bytes(data)
    return _Subject(micro, path, costs_of(path), states, {size: [] for size in states})


def _visit(subject: _Subject, recipe: HostRecipe, other: Array) -> None:
    from edgekit.runtime.engines import open_session
    from edgekit.sample_inputs import random_inputs

    with open_session(recipe.engine, subject.path.read_bytes()) as session:
        feeds = random_inputs(session.inputs, {spec.name: spec.shape for spec in session.inputs})

        for size in subject.states:
            between = other[:size // 8].sum if size else None
            subject.taken[size].append(cpu_ms(partial(session.run, feeds), between, _RUNS, _MAX_VISIT_S))


def _timed(subject: _Subject) -> Iterator[Timed]:
    for size, times in subject.taken.items():
        yield Timed(subject.micro.name, subject.costs, size, min(times))
