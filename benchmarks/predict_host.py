"""How far predictions for this machine are off: networks that were never in the fit, three engines and precisions.

Used by ``python -m benchmarks.predict --host``. The networks are those of ``benchmarks.nets`` (LSTM and the dynamic one
apart), some at a second resolution. Each is loaded anew several times, before and after the fit, and the quietest visit
counts, as for the small networks of the fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from edgekit import isolate
from edgekit.artifacts import Engine
from edgekit.atomic import write_atomically
from edgekit.converters.onnx_model import load_onnx
from edgekit.device_profiles import DeviceProfile
from edgekit.profile.files import predict_file
from edgekit.profile.host.profile import fit_host
from edgekit.profile.host.timing import HostRecipe, cpu_ms, engine_file

__all__ = ["CONFIGURATIONS", "NETWORKS", "host_table"]

NETWORKS = (
    "convnext_tiny", "efficientnet_lite0", "efficientnet_lite0@160", "ghostnet", "mlp", "mobilenet_v1",
    "mobilenet_v1@128", "mobilenet_v2", "mobilenet_v2@160", "mobilenet_v3_large", "mobilenet_v3_large@160",
    "mobilenet_v3_small", "resnet18", "resnet18@128", "resnet50", "shufflenet_v2", "shufflenet_v2@160", "unet",
    "vit_tiny",
)
CONFIGURATIONS = ("litert-float32", "litert-int8", "ort-float32")
_VISITS = 2
_RUNS = 25
_VISIT_S = 0.35


def host_table(configuration: str, cache: Path, seconds: float, profile: DeviceProfile | None = None) -> dict[str, Any]:
    """Fit a profile for ``configuration`` (unless one is given) and score it; ``cache`` keeps exported networks."""
    engine, precision = configuration.split("-")
    recipe = HostRecipe(engine=cast(Engine, engine), precision=cast("Literal['float32', 'int8']", precision),
                        seconds=seconds)
    files = dict(_files(recipe, cache))
    before = _timed(engine, files)
    profile = profile or fit_host(recipe)
    measured = {name: min(ms, before[name]) for name, ms in _timed(engine, files).items()}
    rows = {}
    for name, path in files.items():
        found = predict_file(path, profile)
        low, high = found.band_ms
        rows[name] = {"measured_ms": measured[name], "predicted_ms": found.latency_ms, "low_ms": low, "high_ms": high,
                      "covered": found.covered, "inside_domain": found.inside_domain}
    ape = np.array([abs(row["predicted_ms"] / row["measured_ms"] - 1) for row in rows.values()])
    held = [row["low_ms"] <= row["measured_ms"] <= row["high_ms"] for row in rows.values()]
    assert profile.kernels is not None
    return {"networks": rows, "median_ape": float(np.median(ape)), "within_15": float(np.mean(ape <= 0.15)),
            "band_holds": float(np.mean(held)), "own_check_median_ape": profile.kernels.accuracy.median_ape}


def _timed(engine: str, files: dict[str, Path]) -> dict[str, float]:
    found = isolate.call("benchmarks.predict_host:_measured", engine, {k: str(v) for k, v in files.items()})
    assert isinstance(found, dict)
    return found


def _files(recipe: HostRecipe, cache: Path) -> Iterator[tuple[str, Path]]:
    """Each network as a file for the engine."""
    cache.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        source = cache / f"{name}.onnx"
        if not source.exists():
            write_atomically(source, _exported(name))
        data, suffix = engine_file(load_onnx(source), recipe)
        path = cache / f"{name}-{recipe.engine}-{recipe.precision}{suffix}"
        write_atomically(path, data)
        yield name, path


def _exported(name: str) -> bytes:
    import torch

    from benchmarks import nets
    from edgekit.converters.torch_to_onnx import export

    base, _, side = name.partition("@")
    example = nets.example(base)
    if side:
        example = nets.smooth_images(1, (3, int(side), int(side)), torch.Generator().manual_seed(1))
    return export(nets.make(base), example).data


def _measured(engine: Engine, files: dict[str, str]) -> dict[str, float]:
    """In a child: CPU milliseconds of a run of each."""
    from edgekit.runtime.engines import open_session
    from edgekit.sample_inputs import random_inputs

    taken: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(_VISITS):
        for name, path in files.items():
            with open_session(engine, Path(path).read_bytes()) as session:
                feeds = random_inputs(session.inputs, {spec.name: spec.shape for spec in session.inputs})
                taken[name].append(cpu_ms(partial(session.run, feeds), None, _RUNS, _VISIT_S))
    return {name: min(times) for name, times in taken.items()}
