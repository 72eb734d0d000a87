"""Test T16: int8 on every architecture of the zoo with trained weights, on MNIST digits of 64 pixels.

    python -m benchmarks.zoo_trained [NET ...] --out RUNS      about half a minute of CPU a network
    python -m benchmarks.zoo_trained --out RUNS --table

Networks are narrower where they would take too long, and all train for 240 steps of 32 digits with AdamW, so some know
less than they could; nothing is tuned. The U-Net marks the digit's pixels. Each is converted to LiteRT. Two files are
judged on 1,000 test digits: everything int8 as the quantizer begins, and what its search finds, which is the fastest
file that loses half a point at most and gives 98 % of the float file's answers on 256 training digits that were not
trained on (for the U-Net: that has 25 dB). RUNS/rows.json is continued. Digits: mnist.npz of EDGEKIT_SHARED.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.packs import SHARED
from benchmarks.report import table
from edgekit.artifacts import Array, LiteRTModel
from edgekit.atomic import write_atomically
from edgekit.converters.quantize import Goal, Samples, open_samples, read_model, search
from edgekit.converters.quantize.workbench import Workbench
from edgekit.pipeline import convert
from edgekit.recipe import ConvertRecipe, ExportRecipe, QuantRecipe
from edgekit.runtime.engines import open_session
from edgekit.train.loop import TrainRecipe, fit
from edgekit.zoo import build, find
from edgekit.zoo.to_onnx import to_onnx

__all__ = ["NETS", "Digits", "Judged", "Row", "judged", "main", "prepared", "trained", "verdict"]

#: each network's width
NETS = {"ghostnet_100": 1.0, "c_ghost_resnet56": 1.0, "g_ghost_regnet_032": 0.5, "levit_128s": 1.0,
        "mobilenet_v2_100": 1.0, "mobilenet_v3_small_100": 1.0, "mobilenet_v3_large_100": 1.0,
        "efficientnet_lite0": 1.0, "convnext_atto": 0.5, "deit_tiny": 0.67, "resnet18": 0.5, "resnet50": 0.25,
        "resnet20_cifar": 1.0, "shufflenet_v2_100": 1.0, "unet_16": 0.25, "mca_tiny": 0.5}
_BATCH, _PASSES, _PASS_STEPS = 32, 3, 80
_TRAINED_ON, _CHOOSING, _TEST = _BATCH * _PASSES * _PASS_STEPS, 256, 1000
_MEAN, _STD, _INK, _NOISE = 33.3, 78.6, 127, 40
_GOAL = Goal(max_drop_points=0.5, min_agreement=0.98, min_sqnr_db=25.0, max_seconds=15.0)


class Digits(NamedTuple):
    """``images``: float32 (N, 3, side, side), normalised; ``labels``: int64 (N,), or (N, side, side) for masks."""

    images: Array
    labels: Array


class Judged(msgspec.Struct, frozen=True):
    """On the test digits: accuracies and agreement with the float file from 0 to 1, of pixels for masks."""

    float_accuracy: float
    accuracy: float
    agreement: float

    @property
    def lost(self) -> float:
        """Points of accuracy."""
        return 100 * (self.float_accuracy - self.accuracy)


class Row(msgspec.Struct, frozen=True):
    """One network. ``int8``: with everything static; ratios are to the float32 file. ``notes`` of the quantizer."""

    name: str
    width: float
    side: int
    float_bytes: int
    int8: Judged
    int8_size_ratio: float
    chosen: str
    judged: Judged
    size_ratio: float
    time_ratio: float
    notes: tuple[str, ...]
    cpu_s: float


def prepared(digits: Array, labels: Array, side: int, masks: bool) -> Digits:
    """``digits``: uint8 (N, 28, 28), enlarged by a whole factor and framed; for masks with noise."""
    factor = side // 28
    large = digits.repeat(factor, 1).repeat(factor, 2)
    frame = side - large.shape[1]
    large = np.pad(large, ((0, 0), *[(frame // 2, frame - frame // 2)] * 2)).astype(np.float32)
    if masks:
        labels = (large > _INK).astype(np.int64)
        large += np.random.default_rng(0).normal(0, _NOISE, large.shape).astype(np.float32)
    images = (large - np.float32(_MEAN)) / np.float32(_STD)
    return Digits(np.repeat(images[:, None], 3, axis=1), labels.astype(np.int64))


def _split(part: str, start: int, count: int, side: int, masks: bool) -> Digits:
    with np.load(SHARED / "data" / "mnist.npz") as pack:
        chosen = slice(start, start + count)
        return prepared(pack[f"x_{part}"][chosen], pack[f"y_{part}"][chosen], side, masks)


class _Pass:
    def __init__(self, digits: Digits, number: int) -> None:
        each = len(digits.labels) // _PASSES
        self._images, self._labels = (torch.from_numpy(part[number * each:(number + 1) * each]) for part in digits)

    def __len__(self) -> int:
        return max(1, len(self._labels) // _BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(torch.split(self._images, _BATCH), torch.split(self._labels, _BATCH), strict=True)


def _loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        answers = network(images)
    return functional.cross_entropy(answers.float(), labels)


def trained(name: str, width: float, digits: Digits) -> nn.Module:
    """Network ``name``, in eval mode, after each of ``digits`` was seen once."""
    masks = digits.labels.ndim > 1
    network = build(name, width=width, resolution=digits.images.shape[-1], classes=2 if masks else 10, seed=0)
    recipe = TrainRecipe(epochs=_PASSES, learning_rate=2e-3, optimizer="adamw", weight_decay=0.02, warmup_epochs=0.5,
                         clip=1.0)
    fit(network, lambda number: _Pass(digits, number), _loss, recipe)
    return network.eval()


def judged(model: LiteRTModel, data: bytes, digits: Digits) -> Judged:
    """The LiteRT file ``data`` beside the float ``model``."""
    sessions = [open_session("litert", each) for each in (model.data, data)]
    answers: list[list[Array]] = [[], []]
    for feeds in _samples(model, digits, labels=False):
        for session, own in zip(sessions, answers, strict=True):
            (scores,) = session.run(feeds).values()
            own.append(scores.argmax(-1)[0])
    first, second = (np.stack(own) for own in answers)
    return Judged(float(np.mean(first == digits.labels)), float(np.mean(second == digits.labels)),
                  float(np.mean(first == second)))


def _samples(model: LiteRTModel, digits: Digits, *, labels: bool) -> Samples:
    arrays = {"image": digits.images, **({"labels": digits.labels} if labels else {})}
    return open_samples(arrays, model.inputs)


def _row(name: str, out: Path) -> Row:
    begun, entry, width = time.process_time(), find(name), NETS[name]
    side, masks = min(64, entry.resolution), entry.family == "unet"
    network = trained(name, width, _split("train", 0, _TRAINED_ON, side, masks))
    path = out / f"{name}.tflite"
    recipe = ExportRecipe(input_names=("image",), output_names=("logits",), verify=False)
    convert(to_onnx(network, entry, side, recipe), "litert", path, ConvertRecipe(verify=False))
    model = read_model(path.read_bytes())
    seen = _samples(model, _split("train", _TRAINED_ON, _CHOOSING, side, masks), labels=not masks)
    bench = Workbench(model, seen, QuantRecipe(()))
    stock = bench.quantized(bench.recipe_of(bench.bases()[0])).data
    found = search(model, seen, _GOAL, bench.base)
    test, chosen = _split("test", 0, _TEST, side, masks), found.chosen
    return Row(name, width, side, len(model.data), judged(model, stock, test), len(stock) / len(model.data),
               "float32" if chosen is None else chosen.name, judged(model, found.model.data, test),
               len(found.model.data) / len(model.data),
               1.0 if chosen is None or chosen.speed is None else chosen.speed.ratio, found.notes,
               time.process_time() - begun)


def verdict(found: Judged, size_ratio: float) -> str:
    """T16: at most a point lost, 97 % of the answers, 30 % of the size."""
    missed = [what for what, bad in (("accuracy", found.lost > 1), ("agreement", found.agreement < 0.97),
                                     ("size", size_ratio > 0.3)) if bad]
    return f"FAIL ({', '.join(missed)})" if missed else "pass"


def _cells(row: Row) -> list[str]:
    cells = [row.name, f"{row.width:g}", str(row.side), f"{100 * row.judged.float_accuracy:.1f}",
             f"{row.float_bytes / 1e6:.2f}"]
    for found, size in ((row.int8, row.int8_size_ratio), (row.judged, row.size_ratio)):
        cells += [f"{found.lost:+.1f} / {100 * found.agreement:.1f} / {100 * size:.0f}", verdict(found, size)]
    return [*cells[:7], row.chosen, *cells[7:], f"{row.time_ratio:.2f}"]


def main() -> None:
    """Make the rows that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "rows.json"
    rows = {row.name: row for row in msgspec.json.decode(path.read_bytes(), type=list[Row])} if path.is_file() else {}
    for name in () if options.table else options.nets or NETS:
        if name not in rows:
            rows[name] = _row(name, options.out)
            print(*_cells(rows[name]), f"{rows[name].cpu_s:.0f} s", sep=" | ", flush=True)
            write_atomically(path, msgspec.json.format(msgspec.json.encode(list(rows.values()))))
    what = "points lost / same answers, % / size, %"
    print(table(["network", "width", "pixels", "fp32, %", "MB fp32", f"int8: {what}", "T16", "found by the search",
                 what, "T16", "its time, of fp32"], [_cells(rows[name]) for name in NETS if name in rows]))


if __name__ == "__main__":
    main()
