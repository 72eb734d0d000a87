"""What ``search_ort`` finds, against float32 and onnxruntime's stock static recipe.

    python -m benchmarks.quantize --engine ort [--json FILE] [--cache FOLDER] [NET ...]

The networks, the data and the judgement are those of ``benchmarks.quantize``; the MLPerf Tiny ResNet, of which there is
no ONNX file, is left out. The stock recipe is ``quantize_static`` as its defaults leave it but for the integers (QDQ,
one scale for each tensor, min-max ranges; uint8 activations and int8 weights), after its own preprocessing.
Bar: the chosen file is as good as asked and not slower than float32, or the notes say that none is faster.
"""

from __future__ import annotations

import importlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import numpy_helper

from benchmarks.packs import SHARED, photographs
from benchmarks.quantize_cases import (
    CALIBRATION,
    FITTED,
    FLOOR_DB,
    HELD_OUT,
    TRAINED,
    data_is_there,
    images,
    onnx_source,
)
from benchmarks.quantize_report import Point, Row, StockRow
from edgekit import isolate
from edgekit.artifacts import OnnxModel, OrtModel
from edgekit.converters.onnx_model import describe, parse_onnx
from edgekit.converters.quantize import (
    Goal,
    Samples,
    Search,
    open_samples,
    ort_float_model,
    quantize_ort,
    search_ort,
)
from edgekit.converters.quantize.ort_search import OrtWorkbench
from edgekit.converters.quantize.speed import compare_speed
from edgekit.errors import EdgeKitError
from edgekit.recipe import QuantRecipe

__all__ = ["OrtCase", "make", "misses", "rebuilds", "rows", "run", "stock"]

_SECONDS = 12.0


class OrtCase(msgspec.Struct, frozen=True):
    """A network, its float file, data for the search, data for the judgement, and what is asked of it."""

    name: str
    source: OnnxModel
    model: OrtModel
    seen: Samples
    unseen: Samples
    goal: Goal
    trained: bool = False


def make(name: str, cache: Path) -> OrtCase:
    """The case; its ONNX file is kept in the folder ``cache``."""
    source, plain = onnx_source(name, cache), FITTED.get(name, name)
    model = ort_float_model(source)
    if name in TRAINED:
        return _lite0(name, source, model)
    goal = Goal(min_sqnr_db=FLOOR_DB.get(plain, 30.0))
    return OrtCase(name, source, model, open_samples(images(plain, CALIBRATION, 1), model.inputs),
                   open_samples(images(plain, HELD_OUT, 2), model.inputs), goal)


def _lite0(name: str, source: OnnxModel, model: OrtModel) -> OrtCase:
    from edgekit.demo_network import PREPROCESS
    from edgekit.runtime.preprocess import ImageInput

    pictures, labels = photographs("imagenet1k_samples_256.npz", "", 500)
    (spec,) = model.inputs
    prepare = ImageInput(spec, PREPROCESS, (224, 224))
    arrays = np.concatenate([prepare(each) for each in pictures])
    seen, unseen = (open_samples({spec.name: arrays[part], "labels": labels[part]}, model.inputs)
                    for part in (slice(0, 250), slice(250, None)))
    return OrtCase(name, source, model, seen, unseen, Goal(max_drop_points=0.5), trained=True)


def stock(case: OrtCase) -> bytes:
    """``quantize_static`` after ``quant_pre_process``, on the samples that the search sees."""
    library = importlib.import_module("onnxruntime.quantization")
    preprocess = importlib.import_module("onnxruntime.quantization.shape_inference").quant_pre_process
    samples = iter([feeds for feeds, _ in zip(case.seen, range(CALIBRATION), strict=False)])

    class Reader(library.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> Any:
            return next(samples, None)

    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        paths = [Path(folder) / name for name in ("float.onnx", "ready.onnx", "int8.onnx")]
        paths[0].write_bytes(case.source.data)
        preprocess(paths[0], paths[1], skip_symbolic_shape=True)
        library.quantize_static(paths[1], paths[2], Reader(), activation_type=library.QuantType.QUInt8,
                                weight_type=library.QuantType.QInt8)
        return paths[2].read_bytes()


def run(case: OrtCase, seconds: float = _SECONDS) -> Row:
    """Search, then measure the chosen file and the stock one on data that the search did not see."""
    found = search_ort(case.model, case.seen, case.goal)
    judge = OrtWorkbench(case.model, case.unseen, QuantRecipe((), ranges={"": (0.0, 0.0)}))
    files, stock_quality, failure = [case.model.data, found.model.data], None, ""
    try:
        made = stock(case)
        stock_quality = judge.judge(made, unseen=True)
        files.append(made)
    except (EdgeKitError, ValueError, RuntimeError, TypeError) as error:
        failure = str(error)
    speeds = compare_speed(files, judge.feeds, seconds, "ort")
    timed = [trial for trial in found.trials if trial.name in found.pareto]
    return Row(
        name=case.name, chosen="float32" if found.chosen is None else found.chosen.name, float_ms=speeds[0].cpu_ms,
        speed=speeds[1], size_ratio=len(found.model.data) / len(case.model.data),
        size_reason=_size_reason(found.model.data, len(case.model.data)),
        quality=judge.judge(found.model.data, unseen=True),
        stock=StockRow(speeds[2] if len(speeds) > 2 else None, stock_quality, failure), search_seconds=found.seconds,
        trained=case.trained, recipe_rebuilds=rebuilds(case, found), notes=found.notes,
        pareto=tuple(Point(trial.name, trial.speed, trial.size_ratio, trial.quality)
                     for trial in timed if trial.speed is not None),
    )


def _size_reason(data: bytes, float_bytes: int) -> str:
    """What ``data`` consists of, in % of the float file: weights by dtype, and the rest."""
    sizes: Counter[str] = Counter()
    for tensor in parse_onnx(data).graph.initializer:
        values = numpy_helper.to_array(tensor)
        sizes[f"{values.dtype} constants"] += values.nbytes
    sizes["graph and names"] = len(data) - sum(sizes.values())
    return ", ".join(f"{100 * size / float_bytes:.1f} % {what}" for what, size in sizes.most_common())


def rebuilds(case: OrtCase, found: Search) -> bool:
    """Whether the recipe, as JSON, makes the chosen file of the ONNX file again, byte by byte, in two new processes."""
    recipe = msgspec.json.encode(found.recipe)
    again = [isolate.call(f"{__name__}:_rebuilt", case.source.data, recipe, subject="The recipe") for _ in range(2)]
    return all(data == found.model.data for data in again)


def _rebuilt(data: bytes, recipe: bytes) -> bytes:
    source = describe(parse_onnx(data), data)
    return quantize_ort(ort_float_model(source), msgspec.json.decode(recipe, type=QuantRecipe)).data


def rows(name: str, cache: Path) -> Iterator[Row]:
    """The row of a network; none, saying so, where it has no ONNX file or its data is not there."""
    if name == "mlperf_tiny_resnet":
        print(f"{name} is left out: there is no ONNX file of it.")
    elif data_is_there(name):
        yield run(make(name, cache))
    else:
        print(f"{name} is left out: there is no folder {SHARED / 'data'} (EDGEKIT_SHARED).")


def misses(found: Sequence[Row]) -> list[str]:
    """The bars that are not met, with the figures."""
    missed = []
    for row in found:
        floor = FLOOR_DB.get(FITTED.get(row.name, row.name), 30.0)
        if row.chosen != "float32" and row.speed.low > 1:
            missed.append(f"{row.name}: '{row.chosen}' is slower than float32 ({1 / row.speed.ratio:.2f})")
        if row.chosen == "float32" and not any("float file is kept" in note for note in row.notes):
            missed.append(f"{row.name}: float32 was kept, and the notes do not say so")
        if not row.trained and row.quality.sqnr_db < floor:
            missed.append(f"{row.name}: {row.quality.sqnr_db:.1f} dB, below {floor:.0f}")
        if row.trained and (row.quality.drop_points is None or row.quality.drop_points > 0.5):
            missed.append(f"{row.name}: loses {row.quality.drop_points} points, above 0.5")
        if not row.recipe_rebuilds:
            missed.append(f"{row.name}: the recipe's JSON does not make the same bytes again")
    return missed
