"""What ``edgekit.converters.quantize.search`` finds, against float32 and ai-edge-quantizer's stock static recipe.

    python -m benchmarks.quantize [--json FILE] [--cache FOLDER] [NET ...]

Seven networks with random weights (BatchNorm fitted) are judged by their signal to noise ratio on 16 smooth random
images that the search did not see; EfficientNet-Lite0 and the MLPerf Tiny ResNet, which are trained, by top-1 accuracy
and agreement with float32 on images that it did not see. Every time is CPU time of one thread, of runs that take turns
in one process. Bars: at least 1.3 times as fast as float32 at 30 dB (ConvNeXt 28), 1.8 in the geometric mean; at most
32 % of the size; at least twice as fast as the stock recipe in the geometric mean over MobileNetV3, ViT and ConvNeXt;
trained networks lose at most 0.5 points and agree on at least 97 % of the images.

The trained part needs the data of EDGEKIT_SHARED (default ../shared) and is left out, saying so, where it is not there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgekit.artifacts import Array, LiteRTModel
from edgekit.atomic import write_atomically
from edgekit.converters.quantize import Goal, Quality, Samples, Search, Speed, open_samples, read_model, search
from edgekit.converters.quantize.flatbuffer import with_unique_names
from edgekit.converters.quantize.speed import compare_speed
from edgekit.converters.quantize.workbench import Workbench
from edgekit.errors import EdgeKitError
from edgekit.recipe import QuantRecipe

if TYPE_CHECKING:
    import torch

__all__ = ["Case", "Row", "cases", "misses", "table"]

SHARED = Path(os.environ.get("EDGEKIT_SHARED", "../shared"))
RANDOM = ("mobilenet_v3_small", "vit_tiny", "convnext_tiny", "ghostnet", "shufflenet_v2", "unet", "dynamic_convnet")
FLOOR_DB = {"convnext_tiny": 28.0}
AGAINST_STOCK = ("mobilenet_v3_small", "vit_tiny", "convnext_tiny")
_CALIBRATION, _HELD_OUT = 64, 16
_SECONDS = 12.0


class Case(msgspec.Struct, frozen=True):
    """A float network, data for the search, data for the judgement, and what is asked of it."""

    name: str
    model: LiteRTModel
    seen: Samples
    unseen: Samples
    goal: Goal
    trained: bool = False


class Row(msgspec.Struct, frozen=True):
    """One network. ``speed``: of the chosen file, ``stock``: of the stock recipe's, both over float32.

    ``quality`` and ``stock_sqnr_db`` are on data that the search did not see; ``stock_failure`` says why there is none.
    """

    name: str
    chosen: str
    float_ms: float
    speed: Speed
    stock: Speed | None
    size_ratio: float
    quality: Quality
    stock_sqnr_db: float | None
    stock_failure: str
    search_seconds: float
    trained: bool
    notes: tuple[str, ...]


def _exported(name: str, cache: Path) -> bytes:
    """The float .tflite file of a network of ``benchmarks.nets``, made once."""
    path = cache / f"{name}.tflite"
    if not path.exists():
        from benchmarks import nets
        from edgekit.converters.torch_to_onnx import export
        from edgekit.pipeline import convert
        from edgekit.recipe import ExportRecipe

        dynamic = name in nets.DYNAMIC_NETS
        onnx_model = export(nets.make(name) if name in _TRAINED else _partly_fitted(name), nets.example(name),
                            ExportRecipe(dynamic_batch=dynamic, dynamic_hw=dynamic, verify=False))
        write_atomically(path, convert(onnx_model, "litert").model.data)
    return path.read_bytes()


def _partly_fitted(name: str) -> torch.nn.Module:
    """The network with BatchNorm statistics that have moved 57 % of the way to those of smooth images.

    With statistics fitted to the end (``nets.make``) a random network renormalises its noise along with its signal:
    MobileNetV3's output then loses 25 dB more than each layer adds, rounding of the weights to int8 alone leaves 26 dB,
    and the figures would be about that and not about precision.
    """
    import torch

    from benchmarks import nets

    torch.manual_seed(0)
    net = nets.NETS[name]()
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.7, 1.3, generator=generator)
            torch.nn.init.normal_(module.bias, 0.0, 0.1, generator=generator)
    net.train()
    with torch.no_grad():
        for _ in range(8):
            net(nets.smooth_images(8, nets.input_shape(name), generator))
    return net.eval()


def _images(name: str, count: int, seed: int) -> Array:
    import torch

    from benchmarks import nets

    found: Array = nets.smooth_images(count, nets.input_shape(name), torch.Generator().manual_seed(seed)).numpy()
    return found


def _random_case(name: str, cache: Path) -> Case:
    model = read_model(_exported(name, cache))
    return Case(name, model, open_samples(_images(name, _CALIBRATION, 1), model.inputs),
                open_samples(_images(name, _HELD_OUT, 2), model.inputs), Goal(min_sqnr_db=FLOOR_DB.get(name, 30.0)))


def _jpegs(file: str, prefix: str, count: int) -> tuple[list[Array], Array]:
    from PIL import Image

    with np.load(SHARED / "data" / file) as pack:
        data, offsets = pack[f"{prefix}jpeg"], pack[f"{prefix}offsets"]
        labels = pack[f"{prefix}labels"][:count].astype(np.int64)
        pictures = [np.asarray(Image.open(io.BytesIO(data[offsets[i]:offsets[i + 1]].tobytes())).convert("RGB"))
                    for i in range(len(labels))]
    return pictures, labels


def _split(name: str, model: LiteRTModel, arrays: Array, labels: Array, seen: int) -> Case:
    (spec,) = model.inputs
    parts = [open_samples({spec.name: arrays[part], "labels": labels[part]}, model.inputs)
             for part in (slice(0, seen), slice(seen, None))]
    return Case(name, model, parts[0], parts[1], Goal(max_drop_points=0.5), trained=True)


def _lite0(cache: Path) -> Case:
    from edgekit.demo_network import PREPROCESS
    from edgekit.runtime.preprocess import ImageInput

    model = read_model(_exported("efficientnet_lite0", cache))
    pictures, labels = _jpegs("imagenet1k_samples_256.npz", "", 500)
    prepare = ImageInput(model.inputs[0], PREPROCESS, (224, 224))
    return _split("efficientnet_lite0", model, np.concatenate([prepare(each) for each in pictures]), labels, 250)


def _tiny_resnet(_: Path) -> Case:
    model = read_model((SHARED / "models" / "mlperf_tiny" / "pretrainedResnet.tflite").read_bytes())
    pictures, labels = _jpegs("cifar10_jpeg.npz", "test_", 3000)
    return _split("mlperf_tiny_resnet", model, np.stack(pictures).astype(np.float32), labels, 1000)


_TRAINED: dict[str, Callable[[Path], Case]] = {"efficientnet_lite0": _lite0, "mlperf_tiny_resnet": _tiny_resnet}


def cases(names: list[str], cache: Path) -> Iterator[Case]:
    """The cases by name, all by default; trained ones are left out, saying so, without their data."""
    for name in names or (*RANDOM, *_TRAINED):
        if name in _TRAINED and not (SHARED / "data").exists():
            print(f"{name} is left out: there is no folder {SHARED / 'data'} (EDGEKIT_SHARED).")
            continue
        yield _TRAINED[name](cache) if name in _TRAINED else _random_case(name, cache)


def _stock(case: Case) -> bytes:
    """ai-edge-quantizer's static recipe with its own calibration on the same data, but float inputs and outputs."""
    quantizer = importlib.import_module("ai_edge_quantizer.quantizer")
    recipe = importlib.import_module("ai_edge_quantizer.recipe")
    with contextlib.redirect_stderr(io.StringIO()):
        io_float: list[dict[str, object]] = [
            {"regex": ".*", "operation": place, "algorithm_key": "no_quantize", "op_config": {}}
            for place in ("INPUT", "OUTPUT")
        ]
        engine = quantizer.Quantizer(bytearray(with_unique_names(case.model.data)),
                                     [*recipe.static_wi8_ai8(), *io_float])
        samples = [feeds for feeds, _ in zip(case.seen, range(_CALIBRATION), strict=False)]
        key = case.model.signatures[0].name if case.model.signatures else None
        found = engine.calibrate({key: samples})
        return bytes(engine.quantize(found, enable_progress_report=False).quantized_model)


def run(case: Case) -> Row:
    """Search, then measure the chosen file and the stock one on data that the search did not see."""
    found: Search = search(case.model, case.seen, case.goal)
    judge = Workbench(case.model, case.unseen, QuantRecipe((), ranges={"": (0.0, 0.0)}))
    files, stock_db, failure = [case.model.data, found.model.data], None, ""
    try:
        stock = _stock(case)
        stock_db = judge.judge(stock).sqnr_db
        files.append(stock)
    except (EdgeKitError, ValueError, RuntimeError) as error:
        failure = str(error)
    speeds = compare_speed(files, judge.feeds, _SECONDS)
    return Row(
        name=case.name, chosen="float32" if found.chosen is None else found.chosen.name, float_ms=speeds[0].cpu_ms,
        speed=speeds[1], stock=speeds[2] if len(speeds) > 2 else None,
        size_ratio=len(found.model.data) / len(case.model.data), quality=judge.judge(found.model.data),
        stock_sqnr_db=stock_db, stock_failure=failure, search_seconds=found.seconds, trained=case.trained,
        notes=found.notes,
    )


def _mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else float("nan")


def misses(rows: list[Row]) -> list[str]:
    """The bars that are not met, with the figures."""
    found = []
    for row in rows:
        name, quality, speed_up = row.name, row.quality, 1 / row.speed.ratio
        if speed_up < 1.3:
            found.append(f"{name}: {speed_up:.2f} times as fast as float32, below 1.3")
        if row.size_ratio > 0.32:
            found.append(f"{name}: {100 * row.size_ratio:.1f} % of float32's size, above 32 %")
        if row.search_seconds > 180:
            found.append(f"{name}: the search took {row.search_seconds:.0f} s, above 180")
        if not row.trained and quality.sqnr_db < FLOOR_DB.get(name, 30.0):
            found.append(f"{name}: {quality.sqnr_db:.1f} dB, below {FLOOR_DB.get(name, 30.0):.0f}")
        if row.trained and (quality.drop_points or 0.0) > 0.5:
            found.append(f"{name}: loses {quality.drop_points:.2f} points, above 0.5")
        if row.trained and (quality.agreement or 0.0) < 0.97:
            found.append(f"{name}: agrees on {100 * (quality.agreement or 0.0):.1f} %, below 97 %")
    mean = _mean([1 / row.speed.ratio for row in rows])
    if rows and mean < 1.8:
        found.append(f"geometric mean of the speed-up {mean:.2f}, below 1.8")
    against = [row.stock.ratio / row.speed.ratio for row in rows if row.name in AGAINST_STOCK and row.stock is not None]
    if against and _mean(against) < 2:
        found.append(f"geometric mean against the stock recipe {_mean(against):.2f}, below 2")
    return found


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| network | float32 ms | chosen | speed-up (95 %) | SQNR dB | size | accuracy, agreement | stock static: "
             "speed-up, dB | search s |", "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        speed, quality = row.speed, row.quality
        judged = "-" if quality.drop_points is None or quality.drop_low is None or quality.drop_high is None else (
            f"{-quality.drop_points:+.2f} points ({-quality.drop_high:+.2f} to {-quality.drop_low:+.2f}), "
            f"{100 * (quality.agreement or 0.0):.1f} % of {quality.samples}")
        stock = f"{1 / row.stock.ratio:.2f}, {row.stock_sqnr_db:.1f}" if row.stock else row.stock_failure[:40]
        lines.append(
            f"| {row.name} | {row.float_ms:.2f} | {row.chosen} | {1 / speed.ratio:.2f} ({1 / speed.high:.2f} to "
            f"{1 / speed.low:.2f}) | {quality.sqnr_db:.1f} | {100 * row.size_ratio:.1f} % | {judged} | {stock} | "
            f"{row.search_seconds:.0f} |")
    against = [row.stock.ratio / row.speed.ratio for row in rows if row.name in AGAINST_STOCK and row.stock is not None]
    lines += ["", f"Geometric mean of the speed-up over float32: {_mean([1 / row.speed.ratio for row in rows]):.2f}; "
              f"over the stock recipe ({', '.join(AGAINST_STOCK)}): {_mean(against):.2f}."]
    return "\n".join(lines)


def main() -> None:
    """Print the table and the bars that are missed; exit with 1 when there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", choices=[[], *RANDOM, *_TRAINED], metavar="NET")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/benchmark-nets"))
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in cases(given.nets, given.cache):
        rows.append(run(case))
        print(table(rows[-1:]).splitlines()[2], flush=True)
        if given.json:
            write_atomically(given.json, msgspec.json.format(msgspec.json.encode(rows)))
    print("\n" + table(rows))
    failed = misses(rows)
    print("\n".join(["", *(f"MISSED {miss}" for miss in failed)]) if failed else "\nAll bars are met.")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
