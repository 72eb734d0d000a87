"""What is known about ncnn's public benchmark: families of its networks, and which of its boards are ARM."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from edgekit.profile.population import Priors
from edgekit.profile.tables import BoardRun

__all__ = ["FAMILY", "MULTI_THREAD_PRIORS", "arm_runs", "processor_key"]

#: with several threads, or on a GPU, what is bound by memory or done by one thread gains less than multiply-adds do,
#: and each op has to wake and to await the threads
MULTI_THREAD_PRIORS = Priors(
    cost=0.5,
    delta=0.7,
    noise=0.2,
    factors={
        "fc_weights": 1.5,
        "conv_weights": 1.5,
        "winograd_tiles": 1.5,
        "elementwise": 1.5,
        "activations": 1.5,
        "large_activations": 2.0,
        "copy": 3.0,
        "channels": 3.0,
        "detection": 3.0,
        "ops": 4.0,
        "groups": 4.0,
    },
)

_FAMILIES = {
    "squeezenet": ("squeezenet", "squeezenet_ssd"),
    "mobilenet_v1": ("mobilenet", "mobilenet_ssd", "mobilenet_yolo"),
    "mobilenet_v2": ("mobilenet_v2", "mobilenetv2_yolov3"),
    "mobile_nas": ("mnasnet", "proxylessnasnet"),
    "mobilenet_v3": ("mobilenet_v3",),
    "shufflenet_v1": ("shufflenet",),
    "shufflenet_v2": ("shufflenet_v2", "nanodet_m", "yolo-fastestv2", "FastestDet"),
    "googlenet": ("googlenet",),
    "resnet": ("resnet18", "resnet50"),
    "alexnet": ("alexnet",),
    "vgg": ("vgg16",),
    "regnet": ("regnety_400m",),
    "blazeface": ("blazeface",),
    "efficientnet": ("efficientnet_b0", "efficientnetv2_b0"),
    "yolov4": ("yolov4-tiny",),
    "yolo_fastest": ("yolo-fastest-1.1",),
    "vision_transformer": ("vision_transformer",),
}
#: network -> architecture family; a network with the backbone of another belongs to that one's family
FAMILY = {model: family for family, models in _FAMILIES.items() for model in models}

_ALIASES = {"squeezenet-ssd": "squeezenet_ssd", "mobilenet-ssd": "mobilenet_ssd", "mobilenet-yolo": "mobilenet_yolo"}
_NOT_ARM = re.compile(
    r"AMD|Intel|Loongson|CVITEK|Xeon|D64s |D64as|AWS|T-Head|VisionFive|Spacemit|Hyper-V|Ingenic|GeForce|Radeon|Tesla"
    r"|RTX|Quadro|MIPS|LoongArch|RISC|Sunway"
)
_PROCESSOR = re.compile(
    r"RK\d{4}|Rk\d{4}|BCM\d{4}|Snapdragon \S+|Orin|Xavier|TX2|FT-2000|K[uU][nN]P?[eE]NG|KunPeng 920"
    r"|Kunpeng 920|H616|T527|Cortex-A\d+",
    re.IGNORECASE,
)


def arm_runs(runs: Iterable[BoardRun], threads: int, backend: str = "cpu", least: int = 15) -> list[BoardRun]:
    """The runs on ARM boards with this many threads and at least ``least`` networks of ``FAMILY``."""
    found = []
    for run in runs:
        if run.threads != threads or run.backend != backend or _NOT_ARM.search(run.device):
            continue
        named = {_ALIASES.get(model, model): ms for model, ms in run.latency_ms.items()}
        known = {model: ms for model, ms in named.items() if model in FAMILY and ms > 0}
        if len(known) >= least:
            found.append(msgspec.structs.replace(run, latency_ms=known))
    return found


def processor_key(device: str) -> str:
    """A name for the processor of a board: boards with the same one are not independent of one another."""
    found = _PROCESSOR.search(device)
    return found.group(0).lower().rstrip("s") if found else device.lower()
