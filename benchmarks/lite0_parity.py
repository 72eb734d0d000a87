"""EfficientNet-Lite0 on both engines against torch: logits at four resolutions, and top-1 on ImageNet samples.

    python -m benchmarks.lite0_parity [--json FILE] [--samples N]

One file per engine, converted once from an export with dynamic height and width, is run at 128, 160, 192 and 224
pixels; files of fixed size are run at 224 besides. Bars: the largest difference of any logit to torch is at most 1e-4,
and top-1 equals torch's on at least 499 of 500 images at each resolution. The inputs are identical for all: photographs
after the runtime's own preprocessing (the samples where they are there, else the demo's photograph) and standard normal
noise.

The images are those of EDGEKIT_SHARED (default ../shared), data/imagenet1k_samples_256.npz; without them the top-1 part
is left out, and the output says so.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgekit.artifacts import Array, Conversion, Engine, TensorSpec
from edgekit.atomic import write_atomically
from edgekit.converters.torch_to_onnx import export
from edgekit.demo_network import PREPROCESS, load_lite0, photograph
from edgekit.pipeline import convert
from edgekit.recipe import ExportRecipe
from edgekit.runtime import decode_image
from edgekit.runtime.engines import Session, open_session
from edgekit.runtime.inputs import to_onnx, to_stored
from edgekit.runtime.preprocess import ImageInput
from edgekit.sample_inputs import random_inputs

if TYPE_CHECKING:
    import torch

__all__ = ["LogitRow", "Result", "TopRow", "misses", "table"]

RESOLUTIONS = (128, 160, 192, 224)
FIXED = 224
MAX_ABS_DIFF = 1e-4
MAX_OTHER_TOP1 = 1  # of 500
_ENGINES: tuple[Engine, ...] = ("litert", "ort")
_LOGIT_IMAGES = 16
_LOGIT_NOISE = 8


class LogitRow(msgspec.Struct, frozen=True):
    """Largest difference of any logit to torch over ``inputs`` inputs; ``shapes`` says which kind of file ran."""

    engine: Engine
    shapes: str
    resolution: int
    inputs: int
    max_abs_diff: float
    logit_range: float


class TopRow(msgspec.Struct, frozen=True):
    """Images on which top-1 is torch's; ``max_abs_diff`` over all of them; ``torch_right``: torch's own top-1 hits."""

    engine: Engine
    shapes: str
    resolution: int
    images: int
    equal: int
    max_abs_diff: float
    torch_right: int


class Result(msgspec.Struct, frozen=True):
    """Everything; ``convert_seconds`` of the files with dynamic sizes, by engine, without their verification."""

    logits: tuple[LogitRow, ...]
    top1: tuple[TopRow, ...]
    convert_seconds: Mapping[str, float]


class _Model:
    """A converted network that takes and gives arrays in ONNX order."""

    def __init__(self, engine: Engine, shapes: str, conversion: Conversion) -> None:
        self.engine, self.shapes = engine, shapes
        self._model = conversion.model
        self.session: Session = open_session(engine, conversion.model.data)

    def logits(self, x: Array) -> Array:
        """Logits (1, 1000) for ``x`` (1, 3, H, W) float32."""
        outputs = self.session.run(to_stored(self._model.inputs, {"image": x}))
        return to_onnx(self._model.outputs, outputs)["logits"]


def _torch_logits(network: torch.nn.Module, x: Array) -> Array:
    import torch

    with torch.no_grad():
        logits: Array = network(torch.from_numpy(x)).numpy()
    return logits


def _conversions(network: torch.nn.Module) -> Iterator[tuple[Engine, str, Conversion]]:
    import torch

    example = torch.zeros(1, 3, FIXED, FIXED)
    for shapes, dynamic in (("dynamic", True), ("fixed", False)):
        recipe = ExportRecipe(dynamic_hw=dynamic, input_names=("image",), output_names=("logits",))
        model = export(network, example, recipe)
        for engine in _ENGINES:
            yield engine, shapes, convert(model, engine)


def _prepared(image: Array, side: int) -> Array:
    spec = TensorSpec("image", "float32", (1, 3, side, side))
    # the preprocessing may hand out views; engines and torch want C order
    return np.ascontiguousarray(ImageInput(spec, PREPROCESS, (side, side))(image))


def _noise(side: int) -> Iterator[Array]:
    spec = TensorSpec("image", "float32", (1, 3, side, side))
    for seed in range(_LOGIT_NOISE):
        yield random_inputs([spec], {"image": spec.shape}, seed)["image"]


def _samples(path: Path, count: int) -> list[tuple[Array, int]]:
    """Images (H, W, 3) uint8 with their class; none where the file is not there."""
    if not path.is_file():
        return []
    from PIL import Image

    with np.load(path) as pack:
        data, offsets, labels = pack["jpeg"], pack["offsets"], pack["labels"]
    images = []
    for at in range(min(count, len(labels))):
        jpeg = data[offsets[at] : offsets[at + 1]].tobytes()
        images.append((np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")), int(labels[at])))
    return images


def _compare_logits(models: list[_Model], network: torch.nn.Module, images: list[Array]) -> list[LogitRow]:
    rows = []
    for side in RESOLUTIONS:
        inputs = [*(_prepared(image, side) for image in images), *_noise(side)]
        want = [_torch_logits(network, x) for x in inputs]
        for model in models:
            if model.shapes == "dynamic" or side == FIXED:
                worst = max(float(np.abs(model.logits(x) - y).max()) for x, y in zip(inputs, want, strict=True))
                spread = float(np.max(want) - np.min(want))
                rows.append(LogitRow(model.engine, model.shapes, side, len(inputs), worst, spread))
    return rows


def _compare_top1(
    models: list[_Model], network: torch.nn.Module, samples: list[tuple[Array, int]], side: int
) -> list[TopRow]:
    models = [model for model in models if model.shapes == "dynamic" or side == FIXED]
    equal = dict.fromkeys(models, 0)
    worst = dict.fromkeys(models, 0.0)
    right = 0
    for image, label in samples:
        x = _prepared(image, side)
        want = _torch_logits(network, x)
        right += int(want.argmax() == label)
        for model in models:
            got = model.logits(x)
            equal[model] += int(got.argmax() == want.argmax())
            worst[model] = max(worst[model], float(np.abs(got - want).max()))
    count = len(samples)
    return [TopRow(model.engine, model.shapes, side, count, equal[model], worst[model], right) for model in models]


def run(samples: list[tuple[Array, int]]) -> Result:
    """Export, convert and compare; a second or so for each engine and ten images."""
    import torch

    torch.set_num_threads(1)
    network = load_lite0()
    with ExitStack() as stack:
        models: list[_Model] = []
        seconds: dict[str, float] = {}
        for engine, shapes, conversion in _conversions(network):
            models.append(_Model(engine, shapes, conversion))
            stack.enter_context(models[-1].session)
            if shapes == "dynamic":
                seconds[engine] = conversion.seconds
        images = [image for image, _ in samples[:_LOGIT_IMAGES]] or [decode_image(photograph())]
        logits = _compare_logits(models, network, images)
        sides = RESOLUTIONS if samples else ()
        top1 = [row for side in sides for row in _compare_top1(models, network, samples, side)]
    return Result(tuple(logits), tuple(top1), seconds)


def misses(result: Result) -> list[str]:
    """One line for each bar that was missed."""
    rows: tuple[LogitRow | TopRow, ...] = (*result.logits, *result.top1)
    found = [
        f"{row.engine}, {row.shapes}, {row.resolution}: a logit is off by {row.max_abs_diff:.2e}"
        for row in rows if not row.max_abs_diff <= MAX_ABS_DIFF
    ]
    return found + [
        f"{row.engine}, {row.shapes}, {row.resolution}: top-1 differs on {row.images - row.equal} of {row.images}"
        for row in result.top1 if row.images - row.equal > MAX_OTHER_TOP1
    ]


def table(result: Result) -> str:
    """The figures as Markdown."""
    lines = ["| engine | file | pixels | inputs | max abs diff of logits | range |", "|---|---|---|---|---|---|"]
    lines += [f"| {row.engine} | {row.shapes} | {row.resolution} | {row.inputs} | {row.max_abs_diff:.1e} | "
              f"{row.logit_range:.1f} |" for row in result.logits]
    if result.top1:
        lines += ["", "| engine | file | pixels | top-1 as torch | max abs diff of logits | torch's top-1 right |",
                  "|---|---|---|---|---|---|"]
        lines += [f"| {row.engine} | {row.shapes} | {row.resolution} | {row.equal} of {row.images} | "
                  f"{row.max_abs_diff:.1e} | {row.torch_right} |" for row in result.top1]
    else:
        lines += ["", "Top-1 was left out: the ImageNet samples are not there (EDGEKIT_SHARED)."]
    seconds = ", ".join(f"{engine} {value:.2f} s" for engine, value in result.convert_seconds.items())
    return "\n".join([*lines, "", f"Conversion of the dynamic file: {seconds}."])


def main() -> int:
    """Print the table; the exit code is 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=500, help="ImageNet images to use, 500 at most")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    shared = Path(os.environ.get("EDGEKIT_SHARED", "../shared"))
    result = run(_samples(shared / "data" / "imagenet1k_samples_256.npz", arguments.samples))
    print(table(result))
    for line in misses(result):
        print(f"MISSED: {line}")
    if arguments.json:
        write_atomically(arguments.json, msgspec.json.encode(result))
    return 1 if misses(result) else 0


if __name__ == "__main__":
    raise SystemExit(main())
