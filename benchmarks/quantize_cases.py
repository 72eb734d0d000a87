"""The networks and the data of ``benchmarks.quantize``.

Random networks see smooth random images and come with BatchNorm that is partly fitted; MobileNetV3 also with BatchNorm
fitted to the end. The trained ones see photographs of EDGEKIT_SHARED (default ../shared).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchmarks.packs import SHARED, photographs
from edgekit.artifacts import Array, LiteRTModel, OnnxModel
from edgekit.atomic import write_atomically
from edgekit.converters.onnx_model import load_onnx
from edgekit.converters.quantize import Goal, Samples, open_samples, read_model
from edgekit.errors import UnknownName

if TYPE_CHECKING:
    import torch

__all__ = [
    "CALIBRATION", "FITTED", "FLOOR_DB", "HELD_OUT", "NAMES", "RANDOM", "TRAINED", "Case", "cases",
    "data_is_there", "images", "make", "onnx_source",
]

RANDOM = ("mobilenet_v3_small", "vit_tiny", "convnext_tiny", "ghostnet", "shufflenet_v2", "unet", "dynamic_convnet")
#: the second variant of a network, its BatchNorm fitted to the end -> the network
FITTED = {"mobilenet_v3_small_fitted": "mobilenet_v3_small"}
FLOOR_DB = {"convnext_tiny": 28.0}
CALIBRATION, HELD_OUT = 64, 16
FURTHER = 2000  # of the 5000 that there are, in the order of the pack
#: asked of the search on trained networks, above the 97 % of the bar, since it sees other images
_AGREEMENT = 0.975


class Case(msgspec.Struct, frozen=True):
    """A float network, data for the search, data for the judgement, and what is asked of it.

    ``further``: a larger set of images of another kind, on which the chosen file is judged besides.
    """

    name: str
    model: LiteRTModel
    seen: Samples
    unseen: Samples
    goal: Goal
    trained: bool = False
    further: Samples | None = None


def _exported(name: str, cache: Path) -> bytes:
    """The float .tflite file of a network of ``benchmarks.nets``, made once."""
    path = cache / f"{name}.tflite"
    if not path.exists():
        from edgekit.pipeline import convert

        write_atomically(path, convert(onnx_source(name, cache), "litert").model.data)
    return path.read_bytes()


def onnx_source(name: str, cache: Path) -> OnnxModel:
    """The ONNX graph of a network of ``benchmarks.nets``, made once."""
    path = cache / f"{name}.onnx"
    if not path.exists():
        from benchmarks import nets
        from edgekit.converters.torch_to_onnx import export
        from edgekit.recipe import ExportRecipe

        plain = FITTED.get(name, name)
        dynamic = plain in nets.DYNAMIC_NETS
        whole = name in TRAINED or name in FITTED
        onnx_model = export(nets.make(plain) if whole else _partly_fitted(plain), nets.example(plain),
                            ExportRecipe(dynamic_batch=dynamic, dynamic_hw=dynamic, verify=False))
        write_atomically(path, onnx_model.data)
    return load_onnx(path)


def _partly_fitted(name: str) -> torch.nn.Module:
    """The network with BatchNorm statistics that have moved 57 % of the way to those of smooth images.

    With statistics fitted to the end (``nets.make``) a random network renormalises its noise along with its signal:
    MobileNetV3's output then loses 25 dB more than each layer adds, rounding of the weights to int8 alone leaves 26 dB,
    and the figures would be about that and not about precision. That variant is a case of its own.
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


def images(name: str, count: int, seed: int) -> Array:
    """float32 (count, 3, height, width): smooth random images."""
    import torch

    from benchmarks import nets

    found: Array = nets.smooth_images(count, nets.input_shape(name), torch.Generator().manual_seed(seed)).numpy()
    return found


def _random_case(name: str, cache: Path) -> Case:
    model, plain = read_model(_exported(name, cache)), FITTED.get(name, name)
    return Case(name, model, open_samples(images(plain, CALIBRATION, 1), model.inputs),
                open_samples(images(plain, HELD_OUT, 2), model.inputs), Goal(min_sqnr_db=FLOOR_DB.get(plain, 30.0)))


def _split(name: str, model: LiteRTModel, arrays: Array, labels: Array, seen: int) -> Case:
    (spec,) = model.inputs
    parts = [open_samples({spec.name: arrays[part], "labels": labels[part]}, model.inputs)
             for part in (slice(0, seen), slice(seen, None))]
    return Case(name, model, parts[0], parts[1], Goal(max_drop_points=0.5, min_agreement=_AGREEMENT),
                trained=True)


def _lite0(cache: Path) -> Case:
    from edgekit.demo_network import PREPROCESS
    from edgekit.runtime.preprocess import ImageInput

    model = read_model(_exported("efficientnet_lite0", cache))
    pictures, labels = photographs("imagenet1k_samples_256.npz", "", 500)
    prepare = ImageInput(model.inputs[0], PREPROCESS, (224, 224))
    case = _split("efficientnet_lite0", model, np.concatenate([prepare(each) for each in pictures]), labels, 250)
    return msgspec.structs.replace(case, further=_tiny_images(model.inputs[0].name, prepare))


def _tiny_images(name: str, prepare: Callable[[Array], Array]) -> Samples:
    """Validation images of Tiny-ImageNet, 64 pixels wide, enlarged; the labels are ImageNet's 1000."""
    with np.load(SHARED / "data" / "imagenet1k_samples_256.npz") as pack:
        order = {wnid: index for index, wnid in enumerate(pack["wnids"].tolist())}
    with np.load(SHARED / "data" / "tinyimagenet200_150x50.npz") as pack:
        places = np.array([order[wnid] for wnid in pack["wnids"].tolist()])
    pictures, labels = photographs("tinyimagenet200_150x50.npz", "val_", FURTHER)
    return Samples(lambda: ({name: prepare(each)} for each in pictures), places[labels])


def _tiny_resnet(_: Path) -> Case:
    model = read_model((SHARED / "models" / "mlperf_tiny" / "pretrainedResnet.tflite").read_bytes())
    pictures, labels = photographs("cifar10_jpeg.npz", "test_", 3000)
    return _split("mlperf_tiny_resnet", model, np.stack(pictures).astype(np.float32), labels, 1000)


TRAINED: dict[str, Callable[[Path], Case]] = {"efficientnet_lite0": _lite0, "mlperf_tiny_resnet": _tiny_resnet}
NAMES = (*RANDOM, *FITTED, *TRAINED)


def data_is_there(name: str) -> bool:
    """Whether the photographs that ``name`` needs, if any, are there."""
    return name not in TRAINED or (SHARED / "data").exists()


def make(name: str, cache: Path) -> Case:
    """The case ``name``; its float file is kept in the folder ``cache``. Raises UnknownName."""
    if name not in NAMES:
        raise UnknownName.of("network", name, NAMES)
    return TRAINED[name](cache) if name in TRAINED else _random_case(name, cache)


def cases(names: Sequence[str], cache: Path) -> Iterator[Case]:
    """The cases by name, all by default; trained ones are left out, saying so, without their data."""
    for name in names or NAMES:
        if data_is_there(name):
            yield make(name, cache)
        else:
            print(f"{name} is left out: there is no folder {SHARED / 'data'} (EDGEKIT_SHARED).")
