"""Every architecture of the zoo: both engines against torch, sizes, times here, the precision found, predictions.

Usage: python -m benchmarks.zoo [NET ...] [--all] [--json ROWS] [--cache FOLDER] [--convert-only] [--search] [--table]

One variant of each architecture, or those named; --all: every variant. Weights are random, so this tests graphs,
arithmetic and time, not accuracy: BatchNorm and layer scales are drawn and partly fitted (as in benchmarks.quantize) on
smooth random images. The precision is the fastest of the quantizer's static starting points that keeps 30 dB, or with
--search what its search finds. Rows are kept in ROWS and made only where they are not there; times and precision are
left out with --convert-only and filled in by a later run. Needs torch.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchmarks.report import table
from edgekit.artifacts import Array, Engine, LiteRTModel
from edgekit.atomic import write_atomically
from edgekit.converters.onnx_model import load_onnx
from edgekit.converters.quantize import Goal, Samples, Speed, open_samples, read_model, search
from edgekit.converters.quantize.plan import without_left_out
from edgekit.converters.quantize.speed import compare_speed
from edgekit.converters.quantize.workbench import Workbench
from edgekit.device_profiles import resolve
from edgekit.errors import BadModel
from edgekit.graph.facts_tflite import describe_tflite
from edgekit.parity import run_isolated
from edgekit.pipeline import convert
from edgekit.profile.files import predict_file
from edgekit.recipe import ConvertRecipe, ExportRecipe, QuantRecipe
from edgekit.report.placement import place
from edgekit.zoo import ZOO, ZooEntry, build, find

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DEVICES", "NETS", "Chosen", "Converted", "Predicted", "Row", "chosen", "converted", "main", "rows_table",
           "settled"]

NETS = ("ghostnet_100", "c_ghost_resnet56", "g_ghost_regnet_032", "levit_128s", "mobilenet_v2_100",
        "mobilenet_v3_small_100", "mobilenet_v3_large_100", "efficientnet_lite0", "convnext_atto", "deit_tiny",
        "resnet18", "resnet50", "resnet20_cifar", "shufflenet_v2_100", "unet_16", "mca_tiny")
DEVICES = ("raspberry-pi-4", "raspberry-pi-5", "snapdragon-855-plus")
_CALIBRATION, _HELD_OUT = 8, 8
_FITTING = 0.35  # of the way to a batch's statistics, twice: 58 % in all
_FLOOR_DB = 30.0
_SEARCH_S, _TIMING_S = 60.0, 1.0


class Predicted(msgspec.Struct, frozen=True):
    """Milliseconds on a device with the 90 % band; ``inside``: whether the network is in the calibrated domain."""

    latency_ms: float
    low_ms: float
    high_ms: float
    inside: bool


class Converted(msgspec.Struct, frozen=True):
    """``macs``: counted by torch. ``differences``: largest of a logit from torch's, by engine.

    ``output_range``: of torch's logits. ``partitions``: pieces that XNNPACK takes; ``sizes``: bytes of the float32
    files by engine.
    """

    macs: int
    differences: dict[str, float]
    output_range: float
    transposes: int
    ops: int
    partitions: int
    sizes: dict[str, int]
    predicted: dict[str, Predicted]


class Chosen(msgspec.Struct, frozen=True):
    """Float32 CPU ms by engine; the precision that the quantizer chose for LiteRT, on data it did not see."""

    float_ms: dict[str, float]
    precision: str
    speed: Speed
    sqnr_db: float
    size_bytes: int
    seconds: float


class Row(msgspec.Struct, frozen=True):
    """One network."""

    name: str
    converted: Converted
    chosen: Chosen | None = None


def settled(entry: ZooEntry) -> nn.Module:
    """The network of ``entry``, seeded, in eval mode, with BatchNorms and layer scales away from where they start."""
    import torch
    from torch import nn

    from benchmarks.nets import smooth_images

    network, generator = build(entry.name, seed=0), torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if name.endswith(".scale"):
            nn.init.uniform_(parameter, 0.3, 0.7, generator=generator)
        elif name.endswith("biases"):
            nn.init.normal_(parameter, 0.0, 0.3, generator=generator)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.7, 1.3, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.1, generator=generator)
            module.momentum = _FITTING
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
    network.train()
    with torch.no_grad():
        for _ in range(2):
            network(smooth_images(8, (3, entry.resolution, entry.resolution), generator))
    return network.eval()


def _images(entry: ZooEntry, cache: Path) -> tuple[Array, Array, Array]:
    """float32 (N, 3, H, W), made once: one image to compare on, those for calibration, those to judge on."""
    path = cache / f"images-{entry.resolution}.npy"
    if not path.exists():
        import torch

        from benchmarks.nets import smooth_images

        size = (3, entry.resolution, entry.resolution)
        np.save(path, np.concatenate([
            smooth_images(count, size, torch.Generator().manual_seed(seed)).numpy()
            for seed, count in enumerate((1, _CALIBRATION, _HELD_OUT), 1)]))
    found = np.load(path)
    return found[:1], found[1:1 + _CALIBRATION], found[1 + _CALIBRATION:]


def _files(entry: ZooEntry, cache: Path) -> tuple[dict[Engine, Path], Path]:
    """The converted files by engine, and torch's answer to the first of ``_images``; made once."""
    onnx_path, answer = cache / f"{entry.name}.onnx", cache / f"{entry.name}.npy"
    if not answer.exists():
        import torch

        from edgekit.zoo.to_onnx import to_onnx

        network = settled(entry)
        recipe = ExportRecipe(input_names=("image",), output_names=("logits",), verify=False)
        write_atomically(onnx_path, to_onnx(network, entry, entry.resolution, recipe).data)
        with torch.no_grad():
            np.save(answer, network(torch.from_numpy(_images(entry, cache)[0])).numpy())
    paths: dict[Engine, Path] = {"litert": cache / f"{entry.name}.tflite", "ort": cache / f"{entry.name}.ort.onnx"}
    for engine, path in paths.items():
        if not path.exists():
            convert(load_onnx(onnx_path), engine, path, ConvertRecipe(verify=False))
    return paths, answer


def converted(entry: ZooEntry, cache: Path) -> Converted:
    """Both engines' files of ``entry``, which are kept in ``cache``, against torch, and what is predicted for them."""
    paths, answer_path = _files(entry, cache)
    from edgekit.zoo.counts import counts

    answer, feeds = np.load(answer_path), {"image": _images(entry, cache)[0]}
    differences: dict[str, float] = {}
    for engine, path in paths.items():
        # the ONNX file has the names and the order of axes in which the answers are compared
        specs = load_onnx(cache / f"{entry.name}.onnx")
        model = read_model(path.read_bytes()) if engine == "litert" else specs
        got = run_isolated(engine, path.read_bytes(), (model.inputs, model.outputs), feeds, entry.name)
        differences[engine] = float(np.abs(got["logits"] - answer).max())
    data = paths["litert"].read_bytes()
    ops = describe_tflite(data, entry.name).op_counts or {}
    return Converted(
        macs=counts(entry.name).macs,
        differences=differences, output_range=float(np.ptp(answer)), transposes=ops.get("TRANSPOSE", 0),
        ops=sum(ops.values()), partitions=place(data).partitions,
        sizes={engine: path.stat().st_size for engine, path in paths.items()},
        predicted={device: _predicted(paths["litert"], device) for device in DEVICES})


def _predicted(path: Path, device: str) -> Predicted:
    found = predict_file(path, resolve(device))
    return Predicted(found.latency_ms, *found.band_ms, found.inside_domain)


def _candidates(model: LiteRTModel, seen: Samples) -> list[tuple[str, bytes]]:
    """Name and file of the static recipes that a search begins with and that are good enough on ``seen``.

    Everything static; that with the ops float that XNNPACK leaves out; only weighted ops static.
    """
    bench = Workbench(model, seen, QuantRecipe(()))
    everything, *others = bench.bases()
    trials = bench.make([everything, *(plan for plan in others if set(plan.kinds.values()) == {"static8"})], _silent)
    stock = trials[0]
    trials += bench.make(without_left_out(everything, stock.left_out, bench.left_out, bench.graph), _silent)
    return [(trial.name, bench.files[trial.name]) for trial in trials
            if not trial.failure and trial.quality.sqnr_db >= _FLOOR_DB]


def _silent(_: str) -> None:
    pass


def chosen(entry: ZooEntry, cache: Path, whole_search: bool) -> Chosen:
    """The precision for LiteRT, found with few calibration samples, and times side by side.

    Of the static recipes the fastest; with ``whole_search`` what the search finds.
    """
    started = time.perf_counter()
    paths, _ = _files(entry, cache)
    model = read_model(paths["litert"].read_bytes())
    first, *sets = _images(entry, cache)
    seen, unseen = (open_samples(images, model.inputs) for images in sets)
    if whole_search:
        found = search(model, seen, Goal(min_sqnr_db=_FLOOR_DB, max_seconds=_SEARCH_S))
        files = [] if found.chosen is None else [(found.chosen.name, found.model.data)]
    else:
        files = _candidates(model, seen)
    judge = Workbench(model, unseen, QuantRecipe((), ranges={"": (0.0, 0.0)}))
    named = [("float32", model.data), *files]
    speeds = compare_speed([data for _, data in named], judge.feeds, _TIMING_S * len(named))
    best = min(range(len(named)), key=lambda index: speeds[index].ratio)
    precision, data = named[best]
    ort = compare_speed([paths["ort"].read_bytes()], {"image": first}, _TIMING_S / 2, "ort")
    quality = judge.judge(data, unseen=True)
    return Chosen(
        float_ms={"litert": speeds[0].cpu_ms, "ort": ort[0].cpu_ms},
        precision=precision, speed=speeds[best], sqnr_db=quality.sqnr_db, size_bytes=len(data),
        seconds=time.perf_counter() - started)


def rows_table(rows: list[Row]) -> str:
    """The rows as Markdown; the columns of times and precision only where some row has them."""
    timed = any(row.chosen for row in rows)
    found = ["ms fp32 LiteRT / ORT", "precision found", "its ms", "faster", "its MB", "SQNR dB"]
    header = ["network", "M MACs", "max difference LiteRT / ORT", "of a range of", "TRANSPOSE", "partitions",
              "MB fp32", *(found if timed else []), *(f"{device}, ms" for device in DEVICES)]
    return table(header, [_cells(row, timed) for row in rows])


def _cells(row: Row, timed: bool) -> list[str]:
    made, found = row.converted, row.chosen
    cells = [row.name, f"{made.macs / 1e6:,.0f}",
             " / ".join(f"{made.differences[engine]:.1e}" for engine in ("litert", "ort")), f"{made.output_range:.2g}",
             str(made.transposes), str(made.partitions), f"{made.sizes['litert'] / 1e6:.2f}"]
    if found is None:
        cells += [""] * 6 if timed else []
    else:
        cells += [f"{found.float_ms['litert']:.2f} / {found.float_ms['ort']:.2f}", found.precision,
                  f"{found.speed.cpu_ms:.2f}",
                  f"{1 / found.speed.ratio:.2f} [{1 / found.speed.high:.2f}, {1 / found.speed.low:.2f}]",
                  f"{found.size_bytes / 1e6:.2f}", f"{found.sqnr_db:.1f}"]
    for device in DEVICES:
        each = made.predicted[device]
        cells.append(f"{each.latency_ms:.3g} ({each.low_ms:.3g} to {each.high_ms:.3g})"
                     f"{'' if each.inside else ', outside'}")
    return cells


def _read(path: Path | None) -> dict[str, Row]:
    if path is None or not path.exists():
        return {}
    try:
        return {row.name: row for row in msgspec.json.decode(path.read_bytes(), type=list[Row])}
    except msgspec.MsgspecError as error:
        raise BadModel(f"'{path}' holds no rows of this benchmark: {error}.", "Name another file.") from error


def main() -> None:
    """Make the rows that are missing, keep them after each network, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET")
    parser.add_argument("--all", action="store_true", help="every variant")
    parser.add_argument("--json", type=Path, help="rows are kept here")
    parser.add_argument("--cache", type=Path, default=Path("build/zoo"), help="folder of the files")
    parser.add_argument("--convert-only", action="store_true", help="no times, no quantization")
    parser.add_argument("--search", action="store_true", help="the quantizer's whole search (minutes a network)")
    parser.add_argument("--table", action="store_true", help="only print the table of the rows that are there")
    options = parser.parse_args()
    names = options.nets or ([entry.name for entry in ZOO] if options.all else list(NETS))
    rows = _read(options.json)
    if not options.table:
        options.cache.mkdir(parents=True, exist_ok=True)
        os.environ["OMP_NUM_THREADS"] = "1"  # torch, where it is imported, and its children take one thread
    for name in names if not options.table else ():
        entry, begin = find(name), time.process_time()
        row = rows.get(name) or Row(name, converted(entry, options.cache))
        if row.chosen is None and not options.convert_only:
            row = msgspec.structs.replace(row, chosen=chosen(entry, options.cache, options.search))
        rows[name] = row
        print(f"{name}: {row.converted.differences}, {row.converted.transposes} TRANSPOSE, "
              f"{'' if row.chosen is None else row.chosen.precision} ({time.process_time() - begin:.0f} s)", flush=True)
        if options.json is not None:
            order = [entry.name for entry in ZOO]
            ordered = sorted(rows.values(), key=lambda each: order.index(each.name))
            write_atomically(options.json, msgspec.json.format(msgspec.json.encode(ordered)))
    print(rows_table([rows[name] for name in names if name in rows]))


if __name__ == "__main__":
    main()
