"""Heads for EfficientNet-Lite0 on Tiny-ImageNet, one for each resolution and exit, and the bundle that holds them.

    python -m benchmarks.lite0_heads train --features FEATURES --seed 0 --out RUNS
    python -m benchmarks.lite0_heads build --heads RUNS/heads0.npz --sides 64,96,128,160,192,224 -o RUNS/lite0.edge

The trunk is frozen, with its ImageNet weights or, with ``--trunk`` here and for the features, as
``benchmarks.lite0_trunk`` has fine-tuned it; a head is a hidden layer of 512 on the pooled features of a block, or a
linear layer on the network's last features that starts from the network's own rows. Every head, of ours and of the
fixed opponents, is trained in the same way, whose settings were chosen on a tenth of the training images that it did
not see.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.lite0_features import BLOCKS, FINAL, MODEL, PACK, SIDES, read_features
from benchmarks.packs import SHARED, read_pack
from edgekit.adaptive import AdaptiveRecipe, build_adaptive
from edgekit.artifacts import Array, OnnxModel
from edgekit.atomic import write_atomically
from edgekit.converters.onnx_model import describe
from edgekit.recipe import Preprocess, QuantRecipe, QuantRule

__all__ = ["EXITS", "build", "classifier_rows", "network_with_heads"]

EXITS = (*BLOCKS, "final")
_HIDDEN, _CLASSES = 512, 200
_BATCH, _DECAY, _SMOOTHING = 512, 0.05, 0.1
_DROPOUT = {"b12": 0.2, "b14": 0.2, "b15": 0.3, "final": 0.5}
_CALIBRATION = 64


def _schedule(exit_name: str, side: int) -> tuple[int, float]:
    """Epochs and learning rate, by what --check said at 96 and 192 pixels.

    ImageNet's own rows want small steps, but for small images, for which they were not made.
    """
    if exit_name != "final":
        return 12, 3e-3
    return 8, 2e-3 if side < 128 else 8e-4


def classifier_rows() -> list[int]:
    """Which of ImageNet's classes those of Tiny-ImageNet are, in its order."""
    with np.load(SHARED / "data" / "imagenet1k_samples_256.npz") as pack:
        place = {wnid: index for index, wnid in enumerate(pack["wnids"].tolist())}
    with np.load(PACK) as pack:
        return [place[wnid] for wnid in pack["wnids"].tolist()]


def _classifier(trunk: Path) -> tuple[Array, Array]:
    """The network's own weights (200, 1280) and biases for the classes of Tiny-ImageNet."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(trunk).graph.initializer}
    rows = classifier_rows()
    return weights["_fc.weight"][rows], weights["_fc.bias"][rows]


def _network(exit_name: str, own: tuple[Array, Array], mean: Array, scale: Array) -> nn.Sequential:
    drop = nn.Dropout(_DROPOUT[exit_name])
    if exit_name != "final":
        return nn.Sequential(drop, nn.Linear(len(mean), _HIDDEN), nn.ReLU(), nn.Dropout(2 * _DROPOUT[exit_name]),
                             nn.Linear(_HIDDEN, _CLASSES))
    linear = nn.Linear(len(mean), _CLASSES)
    weight, bias = own
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight * scale))
        linear.bias.copy_(torch.from_numpy(bias + weight @ mean))
    return nn.Sequential(drop, linear)


def _train(exit_name: str, side: int, data: tuple[Array, Array], seed: int,
           own: tuple[Array, Array]) -> list[tuple[Array, Array]]:
    """Layers (weight, bias) that take the features as they are: what normalises them is folded in."""
    torch.manual_seed(seed)
    features, labels = data
    epochs, rate = _schedule(exit_name, side)
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-3
    inputs, targets = torch.from_numpy((features - mean) / scale), torch.from_numpy(labels)
    model = _network(exit_name, own, mean, scale)
    steps = epochs * (len(inputs) // _BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        order = torch.randperm(len(inputs))
        for first in range(0, len(inputs) - _BATCH + 1, _BATCH):
            chosen = order[first:first + _BATCH]
            _step(model, inputs[chosen], targets[chosen], optimizer)
            schedule.step()
    layers = [each for each in model if isinstance(each, nn.Linear)]
    found = [(each.weight.detach().numpy(), each.bias.detach().numpy()) for each in layers]
    weight, bias = found[0]
    found[0] = (weight / scale, bias - (weight / scale) @ mean)
    return found


def _step(model: nn.Module, inputs: Tensor, targets: Tensor, optimizer: torch.optim.Optimizer) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(inputs)
    optimizer.zero_grad()
    functional.cross_entropy(logits.float(), targets, label_smoothing=_SMOOTHING).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _answers(layers: Sequence[tuple[Array, Array]], features: Array) -> Array:
    values = features
    for number, (weight, bias) in enumerate(layers):
        values = values @ weight.T + bias
        if number + 1 < len(layers):
            values = np.maximum(values, 0)
    return values


def train(features: Path, seed: int, out: Path, check: bool, trunk: Path) -> None:
    """All heads of one seed into ``out``/heads<seed>.npz. ``check``: trained on 9/10, accuracy on the rest printed."""
    labels = read_features(features, "train", "labels").astype(np.int64)
    kept_out = np.arange(len(labels)) % 10 == 0 if check else np.zeros(len(labels), bool)
    arrays: dict[str, Array] = {}
    own = _classifier(trunk)
    for side in SIDES:
        line = []
        for name in EXITS:
            rows = read_features(features, "train", f"{side}_{name}").astype(np.float32)
            layers = _train(name, side, (rows[~kept_out], labels[~kept_out]), seed, own)
            for number, (weight, bias) in enumerate(layers):
                arrays[f"{side}_{name}_w{number}"] = weight.astype(np.float32)
                arrays[f"{side}_{name}_b{number}"] = bias.astype(np.float32)
            if check:
                line.append(100 * float(np.mean(_answers(layers, rows[kept_out]).argmax(axis=1) == labels[kept_out])))
        print(side, [round(each, 1) for each in line], flush=True)
    if not check:
        out.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(out / f"heads{seed}.npz", buffer.getvalue())


def network_with_heads(heads: Path, side: int, exits: Sequence[str] = EXITS, trunk: Path = MODEL) -> OnnxModel:
    """Lite0 with the heads of one resolution: image (1, 3, side, side) -> exit0, exit1, ... (1, 200)."""
    model = onnx.load(trunk)
    graph = model.graph
    with np.load(heads) as arrays:
        for number, name in enumerate(exits):
            value = FINAL
            if name != "final":
                graph.node.append(helper.make_node("GlobalAveragePool", [BLOCKS[name]], [f"{name}/mean"]))
                graph.node.append(helper.make_node("Flatten", [f"{name}/mean"], [f"{name}/flat"]))
                value = f"{name}/flat"
            count = sum(key.startswith(f"{side}_{name}_w") for key in arrays.files)
            for layer in range(count):
                for part in ("w", "b"):
                    graph.initializer.append(numpy_helper.from_array(arrays[f"{side}_{name}_{part}{layer}"],
                                                                     f"{name}/{part}{layer}"))
                last = layer + 1 == count
                made = f"exit{number}" if last else f"{name}/hidden"
                graph.node.append(helper.make_node("Gemm", [value, f"{name}/w{layer}", f"{name}/b{layer}"], [made],
                                                   transB=1))
                if not last:
                    graph.node.append(helper.make_node("Relu", [made], [f"{name}/relu"]))
                    value = f"{name}/relu"
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(f"exit{number}", TensorProto.FLOAT, ["N", _CLASSES])
                        for number in range(len(exits)))
    return describe(onnx.shape_inference.infer_shapes(model))


def build(heads: Path, sides: Sequence[int], out: Path, precision: str, exits: Sequence[str] = EXITS,
          trunk: Path = MODEL) -> None:
    """The bundle at ``out``: a ladder of stages for each of ``sides``, "fp32" or "int8"."""
    with np.load(PACK) as pack:
        labels = tuple(dict.fromkeys(pack["words"].tolist()))
        labels = labels if len(labels) == _CLASSES else tuple(pack["wnids"].tolist())
    recipe = AdaptiveRecipe(
        resolutions=tuple((side, side) for side in sides), name="lite0-tiny-imagenet",
        precision="int8" if precision == "int8" else "fp32", labels=labels,
        quantize=QuantRecipe(rules=(QuantRule("static8"),)), preprocess=Preprocess(crop_fraction=1.0))
    calibration = None
    if precision == "int8":
        pictures, _ = read_pack(PACK, "train_", 150 * _CLASSES)
        calibration = np.stack(pictures[::len(pictures) // _CALIBRATION][:_CALIBRATION])
    models = {(side, side): network_with_heads(heads, side, exits, trunk) for side in sides}
    build_adaptive(models, out, recipe, calibration=calibration)


def main() -> None:
    """Train or build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["train", "build"])
    parser.add_argument("--features", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", "-o", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--heads", type=Path)
    parser.add_argument("--sides", default=",".join(map(str, SIDES)))
    parser.add_argument("--exits", default=",".join(EXITS))
    parser.add_argument("--precision", choices=["fp32", "int8"], default="int8")
    parser.add_argument("--trunk", type=Path, default=MODEL)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.action == "train":
        train(arguments.features, arguments.seed, arguments.out, arguments.check, arguments.trunk)
    else:
        build(arguments.heads, [int(side) for side in arguments.sides.split(",")], arguments.out, arguments.precision,
              arguments.exits.split(","), arguments.trunk)


if __name__ == "__main__":
    main()
