"""EfficientNet-Lite0's trunk fine-tuned on Tiny-ImageNet for all resolutions and exits together.

    python -m benchmarks.lite0_trunk --out RUNS/trunk.onnx        # about 35 minutes of CPU; goes on where it stopped

One set of weights for 64 to 224 pixels: each step takes a resolution, small ones more often, and the loss is that of
linear heads behind the blocks where exits hang and at the end. The stem and the first blocks stay as they are, and so
do the statistics of BatchNorm, which are folded into the weights. A tenth of the training images is kept out; how many
of them each exit answers at four resolutions is printed after each epoch.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.lite0_features import MODEL, PACK, SIDES, train_order
from benchmarks.lite0_heads import classifier_rows
from benchmarks.packs import read_pack
from edgekit.artifacts import Array
from edgekit.atomic import write_atomically
from edgekit.demo_network import load_lite0

__all__ = ["Heads", "finetune", "main", "write_onnx"]

_CLASSES, _TRAIN = 200, 30_000
#: outputs of these blocks have heads; blocks before _FIRST are not trained
_EXITS, _FIRST = (12, 14, 15), 5
_WIDTHS = (192, 192, 320)
_EPOCHS, _BATCH, _SMOOTHING, _DECAY = 3, 64, 0.1, 0.02
_RATE, _HEAD_RATE, _WARMUP = 2e-4, 2e-3, 100
_SHOWN = (64, 96, 160, 224)


class Heads(nn.Module):
    """The trunk with a linear head behind each exit; the last head is the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk: Any = load_lite0()
        self.heads = nn.ModuleList(nn.Linear(width, _CLASSES) for width in _WIDTHS)
        self.last = nn.Linear(1280, _CLASSES)
        rows = classifier_rows()
        with torch.no_grad():
            classifier: Any = self.trunk._fc
            self.last.weight.copy_(classifier.weight[rows])
            self.last.bias.copy_(classifier.bias[rows])
        for name, parameter in self.trunk.named_parameters():
            block = int(name.split(".")[1]) if name.startswith("_blocks.") else -1
            parameter.requires_grad_(block >= _FIRST or name.startswith(("_conv_head", "_bn1")))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits (N, 200) of each exit for images (N, 3, side, side)."""
        trunk: Any = self.trunk
        found: list[Tensor] = []
        with torch.no_grad():
            x = trunk._swish(trunk._bn0(trunk._conv_stem(images)))
            for block in trunk._blocks[:_FIRST]:
                x = block(x)
        for number, block in enumerate(trunk._blocks[_FIRST:], _FIRST):
            x = block(x)
            if number in _EXITS:
                found.append(self.heads[len(found)](functional.dropout(x.mean((2, 3)), 0.2, self.training)))
        pooled = trunk._swish(trunk._bn1(trunk._conv_head(x))).mean((2, 3))
        return [*found, self.last(functional.dropout(pooled, 0.3, self.training))]


def _resized(images: Array, side: int, crop: tuple[int, int, int] | None = None) -> Tensor:
    """uint8 (N, 64, 64, 3) -> what the network reads; ``crop``: top, left and size of a square."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    if crop is not None:
        top, left, size = crop
        x = x[:, :, top:top + size, left:left + size]
    x = (functional.interpolate(x, (side, side), mode="bilinear", align_corners=False) - 127) / 128
    return x.contiguous(memory_format=torch.channels_last)


def _accuracy(model: Heads, images: Array, labels: Array, side: int) -> list[float]:
    model.eval()
    right = np.zeros(len(_EXITS) + 1)
    with torch.no_grad():
        for first in range(0, len(images), _BATCH):
            wanted = torch.from_numpy(labels[first:first + _BATCH])
            answers = model(_resized(images[first:first + _BATCH], side))
            right += [int((each.argmax(1) == wanted).sum()) for each in answers]
    return [round(100 * float(each) / len(images), 1) for each in right]


def _step(model: Heads, batch: tuple[Array, Array], optimizer: torch.optim.Optimizer,
          random: np.random.Generator) -> float:
    images, labels = batch
    flipped = np.where((random.random(len(images)) < 0.5)[:, None, None, None], images[:, :, ::-1], images)
    size = int(random.integers(50, 65))
    top, left = (int(each) for each in random.integers(0, 65 - size, 2))
    chances = 1 / np.array(SIDES)
    side = int(random.choice(SIDES, p=chances / chances.sum()))
    answers = model(_resized(flipped, side, (top, left, size)))
    wanted = torch.from_numpy(labels)
    losses = [functional.cross_entropy(each, wanted, label_smoothing=_SMOOTHING) for each in answers]
    loss = losses[-1] + 0.5 * sum(losses[:-1], torch.zeros(()))
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return float(losses[-1].detach())


class _Training:
    """The model with what trains it, as far as it has come."""

    def __init__(self, steps: int) -> None:
        """``steps``: of the whole schedule."""
        torch.manual_seed(0)
        self.model = Heads()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        trained = [each for each in self.model.trunk.parameters() if each.requires_grad]
        heads = [*self.model.heads.parameters(), *self.model.last.parameters()]
        self.optimizer = torch.optim.AdamW([{"params": trained, "lr": _RATE}, {"params": heads, "lr": _HEAD_RATE}],
                                           weight_decay=_DECAY)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: min(
            (step + 1) / _WARMUP, 1.0) * 0.5 * (1 + math.cos(math.pi * step / steps)))
        self.epochs = 0

    def load(self, path: Path) -> None:
        kept = torch.load(path, weights_only=True)
        model, optimizer, schedule = kept["states"]
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.schedule.load_state_dict(schedule)
        self.epochs = kept["epochs"]

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        states = self.model.state_dict(), self.optimizer.state_dict(), self.schedule.state_dict()
        torch.save({"states": states, "epochs": self.epochs}, buffer)
        write_atomically(path, buffer.getvalue())

    def epoch(self, images: Array, labels: Array, chosen: Array) -> None:
        random = np.random.default_rng(self.epochs)
        shuffled, start, loss = random.permutation(chosen), time.process_time(), 0.0
        self.model.train()
        self.model.trunk.eval()  # the statistics of BatchNorm stay
        steps = len(chosen) // _BATCH
        for number in range(steps):
            rows = shuffled[number * _BATCH:(number + 1) * _BATCH]
            taken = _step(self.model, (images[rows], labels[rows]), self.optimizer, random)
            loss += (taken - loss) / min(number + 1, 50)
            self.schedule.step()
            if number % 50 == 49:
                print(f"epoch {self.epochs}, step {number + 1} of {steps}: {loss:.3f}, "
                      f"{time.process_time() - start:.0f} s of CPU", flush=True)
        self.epochs += 1


def finetune(checkpoint: Path, epochs: int) -> Heads:
    """Train for ``epochs``; ``checkpoint`` is written after each, and a call goes on from it."""
    pictures, labels = read_pack(PACK, "train_", _TRAIN)
    images = np.stack(pictures)
    kept_out = train_order()[::10]
    chosen = np.setdiff1d(np.arange(_TRAIN), kept_out)
    training = _Training(epochs * (len(chosen) // _BATCH))
    if checkpoint.exists():
        training.load(checkpoint)
    while training.epochs < epochs:
        training.epoch(images, labels, chosen)
        training.save(checkpoint)
        for side in _SHOWN:
            found = _accuracy(training.model, images[kept_out], labels[kept_out], side)
            print(f"epoch {training.epochs - 1}, {side} pixels, kept out:", found, flush=True)
    return training.model


def write_onnx(model: Heads, out: Path) -> None:
    """The trunk in the graph of ``MODEL``, whose convolutions are in the order in which the trunk runs them.

    The last head replaces the rows of the classifier that are its classes.
    """
    trunk = model.trunk.to(memory_format=torch.contiguous_format)
    pairs = [(trunk._conv_stem, trunk._bn0)]
    for block in trunk._blocks:
        if hasattr(block, "_expand_conv"):
            pairs.append((block._expand_conv, block._bn0))
        pairs += [(block._depthwise_conv, block._bn1), (block._project_conv, block._bn2)]
    pairs.append((trunk._conv_head, trunk._bn1))
    model_proto = onnx.load(MODEL)
    graph = model_proto.graph
    place = {tensor.name: index for index, tensor in enumerate(graph.initializer)}

    def put(name: str, value: Tensor) -> None:
        graph.initializer[place[name]].CopyFrom(numpy_helper.from_array(value.detach().numpy(), name))

    for node, (conv, norm) in zip((node for node in graph.node if node.op_type == "Conv"), pairs, strict=True):
        folded = fuse_conv_bn_eval(conv.eval(), norm.eval())
        for name, value in zip(node.input[1:], (folded.weight, folded.bias), strict=True):
            put(name, value)
    rows = classifier_rows()
    for name, own, last in (("_fc.weight", trunk._fc.weight, model.last.weight),
                            ("_fc.bias", trunk._fc.bias, model.last.bias)):
        whole = own.detach().clone()
        whole[rows] = last.detach()
        put(name, whole)
    write_atomically(out, model_proto.SerializeToString())


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=_EPOCHS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(finetune(arguments.out.with_suffix(".pt"), arguments.epochs), arguments.out)


if __name__ == "__main__":
    main()
