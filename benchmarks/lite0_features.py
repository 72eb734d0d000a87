"""What EfficientNet-Lite0 makes of Tiny-ImageNet at every resolution, pooled over space, for training heads.

    python -m benchmarks.lite0_features --out FEATURES [--lane 0 --lanes 2] [--trunk RUNS/trunk.onnx]

64 to 224 pixels in steps of 16, with the runtime's own resizing; blocks 12 to 15 and the last features. One file of
1,000 images each, FEATURES/val_00.npz and on (5,000 images), then train_05.npz and on (30,000 in a random order);
about 50 seconds for each on one thread, 3 GB in all. ``--lanes`` divides the files among several processes. Without
``--trunk`` (``benchmarks.lite0_trunk``) it is the network with its ImageNet weights.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.packs import SHARED
from edgekit.artifacts import Array
from edgekit.atomic import write_atomically
from edgekit.runtime.resize import resize

__all__ = ["BLOCKS", "FINAL", "MODEL", "PACK", "SIDES", "read_features", "train_order"]

SIDES = tuple(range(64, 225, 16))
MODEL = SHARED / "models" / "efficientnet_lite0_dyn.onnx"
PACK = SHARED / "data" / "tinyimagenet200_150x50.npz"
#: exits may hang on these; their outputs are what the next block reads
BLOCKS = {"b12": "/_blocks.12/Add_output_0", "b14": "/_blocks.14/Add_output_0",
          "b15": "/_blocks.15/_project_conv/Conv_output_0"}
FINAL = "/Reshape_output_0"
_FILE, _BATCH = 1000, 8


def _session(trunk: Path) -> Any:
    import onnxruntime

    model = onnx.load(trunk)
    for name, tensor in BLOCKS.items():
        model.graph.node.append(onnx.helper.make_node("GlobalAveragePool", [tensor], [name]))
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    model.graph.output.append(onnx.helper.make_tensor_value_info(FINAL, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def train_order() -> Array:
    """The training images in the order in which their features are stored."""
    return np.random.default_rng(0).permutation(30_000)


def _jobs() -> Iterator[tuple[str, Array]]:
    order = train_order()
    yield from (("val", np.arange(first, first + _FILE)) for first in range(0, 5000, _FILE))
    yield from (("train", order[first:first + _FILE]) for first in range(0, len(order), _FILE))


def _features(session: Any, images: list[Array]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    names = [*BLOCKS, FINAL]
    for side in SIDES:
        parts = []
        for first in range(0, len(images), _BATCH):
            resized = np.stack([resize(image, side, side) for image in images[first:first + _BATCH]])
            values = (resized.astype(np.float32) - 127) / 128
            parts.append(session.run(names, {"image": np.ascontiguousarray(values.transpose(0, 3, 1, 2))}))
        for index, name in enumerate(names):
            rows = np.concatenate([part[index].reshape(len(part[index]), -1) for part in parts])
            found[f"{side}_{'final' if name == FINAL else name}"] = rows.astype(np.float16)
    return found


def read_features(folder: Path, split: str, key: str) -> Array:
    """float32 (images, channels) of ``key``, such as "128_b12", or "labels"; in the order of the files."""
    files = sorted(folder.glob(f"{split}_*.npz"))
    rows = []
    for path in files:
        with np.load(path) as part:
            rows.append(part[key])
    return np.concatenate(rows)


def main() -> None:
    """Write the files that are not there yet."""
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lane", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--trunk", type=Path, default=MODEL)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    session = _session(arguments.trunk)
    with np.load(PACK) as pack:
        data = {split: tuple(pack[f"{split}_{part}"] for part in ("jpeg", "offsets", "labels"))
                for split in ("train", "val")}
    for number, (split, chosen) in enumerate(_jobs()):
        path = arguments.out / f"{split}_{number:02d}.npz"
        if number % arguments.lanes != arguments.lane or path.exists():
            continue
        jpeg, offsets, labels = data[split]
        images = [np.asarray(Image.open(io.BytesIO(jpeg[offsets[i]:offsets[i + 1]].tobytes())).convert("RGB"))
                  for i in chosen]
        buffer = io.BytesIO()
        np.savez(buffer, labels=labels[chosen], **_features(session, images))  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())
        print(path, flush=True)


if __name__ == "__main__":
    main()
