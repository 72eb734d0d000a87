"""What ``edgekit.converters.quantize.search`` finds, against float32 and ai-edge-quantizer's stock static recipe.

    python -m benchmarks.quantize [--engine ort] [--json FILE] [--cache FOLDER] [NET ...]

Seven networks with random weights (BatchNorm partly fitted; MobileNetV3 also fitted to the end) are judged by their
signal to noise ratio on 16 smooth random images that the search did not see; EfficientNet-Lite0 and the MLPerf Tiny
ResNet, which are trained, by top-1 accuracy and agreement with float32 on images that it did not see. Every time is CPU
time of one thread, of runs that take turns in one process. Bars: at least 1.3 times as fast as float32 at 30 dB
(ConvNeXt 28), 1.8 in the geometric mean; at most 32 % of the size; at least twice as fast as the stock recipe in the
geometric mean over MobileNetV3, ViT and ConvNeXt; trained networks lose at most 0.5 points and agree on at least 97 %
of the images; a search takes at most 180 s; the recipe, read back from JSON by two processes, makes the chosen file
again byte by byte. Where a bar is missed, the candidates that no other beats are listed.

``--engine ort`` is the same for ONNX Runtime (``benchmarks.quantize_ort``), against onnxruntime's stock static recipe.
With ``--json FILE`` a network replaces its own row in FILE and the other rows stay, so that the networks can be run one
at a time; the table and the bars are of all rows in FILE. The trained part needs the data of EDGEKIT_SHARED (default
../shared) and is left out, saying so, where it is not there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks import quantize_cases, quantize_ort
from benchmarks.quantize_cases import CALIBRATION, NAMES, Case
from benchmarks.quantize_report import Point, Row, StockRow, misses, pareto_lines, size_reason, table
from edgekit import isolate
from edgekit.artifacts import LiteRTModel
from edgekit.atomic import write_atomically
from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.converters.quantize import Quality, Search, quantize, read_model, search
from edgekit.converters.quantize.flatbuffer import name_of, read_tables, with_unique_names
from edgekit.converters.quantize.speed import compare_speed
from edgekit.converters.quantize.workbench import Workbench
from edgekit.errors import BadModel, EdgeKitError
from edgekit.recipe import QuantRecipe

__all__ = ["merged", "read_rows", "rebuilds", "run"]

_SECONDS = 12.0


def _stock(case: Case) -> bytes:
    """ai-edge-quantizer's static recipe with its own calibration on the same data, but float inputs and outputs."""
    quantizer = importlib.import_module("ai_edge_quantizer.quantizer")
    recipe = importlib.import_module("ai_edge_quantizer.recipe")
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        # its calibration reads inner values, which LiteRT warns needs memory; that is what it is for
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors", category=UserWarning)
        io_float: list[dict[str, object]] = [
            {"regex": ".*", "operation": place, "algorithm_key": "no_quantize", "op_config": {}}
            for place in ("INPUT", "OUTPUT")
        ]
        data = _signed(with_unique_names(case.model.data))
        engine = quantizer.Quantizer(bytearray(data), [*recipe.static_wi8_ai8(), *io_float])
        samples = [feeds for feeds, _ in zip(case.seen, range(CALIBRATION), strict=False)]
        key = read_model(data).signatures[0].name
        found = engine.calibrate({key: samples})
        return bytes(engine.quantize(found, enable_progress_report=False).quantized_model)


def _signed(data: bytes) -> bytes:
    """``data`` with a signature, without which ai-edge-quantizer calibrates nothing; names are those of the tensors."""
    tables = read_tables(data)
    if tables.signatureDefs:
        return data
    signature, subgraph = schema().SignatureDefT(), tables.subgraphs[0]
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    for field, indices in (("inputs", subgraph.inputs), ("outputs", subgraph.outputs)):
        entries = []
        for index in indices:
            entry = schema().TensorMapT()
            entry.name, entry.tensorIndex = name_of(subgraph.tensors[index]), int(index)
            entries.append(entry)
        setattr(signature, field, entries)
    tables.signatureDefs = [signature]
    return pack_model(tables)


def run(case: Case, seconds: float = _SECONDS) -> Row:
    """Search, then measure the chosen file and the stock one on data that the search did not see.

    ``seconds``: for the measurement of the times.
    """
    found: Search = search(case.model, case.seen, case.goal)
    judge = Workbench(case.model, case.unseen, QuantRecipe((), ranges={"": (0.0, 0.0)}))
    files, stock_quality, failure = [case.model.data, found.model.data], None, ""
    try:
        stock = _stock(case)
        stock_quality = judge.judge(stock, unseen=True)
        files.append(stock)
    except (EdgeKitError, ValueError, RuntimeError) as error:
        failure = str(error)
    speeds = compare_speed(files, judge.feeds, seconds)
    on_front = [trial for trial in found.trials if trial.name in found.pareto and trial.speed is not None]
    return Row(
        further=None if case.further is None else _further(case, found.model.data),
        name=case.name, chosen="float32" if found.chosen is None else found.chosen.name, float_ms=speeds[0].cpu_ms,
        speed=speeds[1], size_ratio=len(found.model.data) / len(case.model.data),
        size_reason=size_reason(found.model.data, len(case.model.data)),
        quality=judge.judge(found.model.data, unseen=True),
        stock=StockRow(speeds[2] if len(speeds) > 2 else None, stock_quality, failure), search_seconds=found.seconds,
        trained=case.trained, recipe_rebuilds=rebuilds(case.model, found), notes=found.notes,
        pareto=tuple(Point(trial.name, trial.speed, trial.size_ratio, trial.quality)
                     for trial in on_front if trial.speed is not None),
    )


def _further(case: Case, data: bytes) -> Quality:
    """``data`` on images of another kind than the search saw."""
    assert case.further is not None
    nothing = QuantRecipe((), ranges={"": (0.0, 0.0)})
    return Workbench(case.model, case.further, nothing).judge(data, count=10_000, unseen=True)


def rebuilds(model: LiteRTModel, found: Search) -> bool:
    """Whether the recipe, as JSON, makes the chosen file again, byte by byte, in each of two new processes."""
    recipe = msgspec.json.encode(found.recipe)
    again = [isolate.call("benchmarks.quantize:_rebuilt", model.data, recipe, subject="The recipe") for _ in range(2)]
    return all(data == found.model.data for data in again)


def _rebuilt(data: bytes, recipe: bytes) -> bytes:
    return quantize(read_model(data), msgspec.json.decode(recipe, type=QuantRecipe)).data


def read_rows(path: Path | None) -> list[Row]:
    """The rows in ``path``; none when there is no such file. Raises BadModel for a file of another kind."""
    if path is None or not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Row])
    except msgspec.MsgspecError as error:
        raise BadModel(f"'{path}' holds no rows of this benchmark: {error}.", "Name another file.") from error


def merged(rows: Iterable[Row], new: Row) -> list[Row]:
    """``rows`` with ``new`` in the place of its network's row, in the order of the networks."""
    known: Sequence[str] = NAMES
    kept = [*(row for row in rows if row.name != new.name), new]
    return sorted(kept, key=lambda row: known.index(row.name) if row.name in known else len(known))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", choices=[[], *NAMES], metavar="NET", help=", ".join(NAMES))
    parser.add_argument("--engine", choices=["litert", "ort"], default="litert")
    parser.add_argument("--json", type=Path, help="rows are kept and replaced here")
    parser.add_argument("--cache", type=Path, default=Path("build/benchmark-nets"), help="folder of the float files")
    return parser.parse_args()


def _measured(name: str, engine: str, cache: Path) -> Iterator[Row]:
    """The row of a network; none, saying so, without its data."""
    if engine == "ort":
        yield from quantize_ort.rows(name, cache)
    else:
        yield from map(run, quantize_cases.cases([name], cache))


def main() -> None:
    """Print the table and the bars that are missed; exit with 1 when there are any."""
    given = _arguments()
    given.cache.mkdir(parents=True, exist_ok=True)
    rows, failed = read_rows(given.json), []
    for name in given.nets or NAMES:
        try:
            for row in _measured(name, given.engine, given.cache):
                rows = merged(rows, row)
                print(table([row for row in rows if row.name == name]).splitlines()[2], flush=True)
                if given.json:
                    write_atomically(given.json, msgspec.json.format(msgspec.json.encode(rows)))
        except EdgeKitError as error:  # the other networks are not to be lost for it
            failed.append(f"{name}: {type(error).__name__}: {error}")
            print(f"FAILED {failed[-1]}", flush=True)
    print("\n" + table(rows))
    failed += misses(rows) if given.engine == "litert" else quantize_ort.misses(rows)
    print("\n".join(["", *(f"MISSED {miss}" for miss in failed)]) if failed else "\nAll bars are met.")
    if given.engine == "litert":  # the lines are about its bars
        print("\n".join(pareto_lines(rows)))
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
