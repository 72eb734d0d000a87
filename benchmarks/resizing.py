"""Whether a file converted from a network with dynamic N, H and W answers right at other sizes than the first.

One Interpreter goes through all sizes and back to the first, as an app would use it. onnx2tf's file of the same network
is judged beside it, one fresh Interpreter for each size.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from benchmarks.costs import ROOT, run_worker
from benchmarks.peer_file import of_allowed
from benchmarks.peers_setup import peer_python
from benchmarks.report import table
from edgekit import isolate
from edgekit.artifacts import Array, LiteRTModel, OnnxModel, OutputError
from edgekit.errors import EdgeKitError, InternalError
from edgekit.recipe import ConvertRecipe

__all__ = ["DYNAMIC_NET_NAMES", "Resized", "misses", "resize_all", "section"]

#: networks of benchmarks.nets that take any H and W; the others have them in their weights
DYNAMIC_NET_NAMES = ("efficientnet_lite0", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
                     "resnet18", "resnet50", "ghostnet", "unet", "convnext_tiny", "shufflenet_v2", "dynamic_convnet")
_SIZES = ((1, 96, 96), (2, 64, 128), (1, 161, 107), (3, 224, 160), (1, 96, 96))
_RANK, _LIMIT_S = 4, 600.0
Said = Literal["right", "wrong", "refused"]


class Resized(msgspec.Struct, frozen=True):
    """One network: what our file and the peer's said at each of ``sizes`` (N, H, W), and milliseconds per resize.

    ``error`` is our largest difference in units of what the rule allows. A size that ONNX Runtime refuses is left out.
    """

    net: str
    sizes: tuple[tuple[int, int, int], ...]
    ours: tuple[Said, ...]
    peer: tuple[Said, ...]
    error: float
    switch_ms: float
    note: str = ""


class _Ours(msgspec.Struct, frozen=True):
    said: tuple[Said, ...]
    error: float
    switch_ms: float


_Case = tuple[dict[str, Array], dict[str, Array]]  # inputs and ONNX Runtime's answers


def resize_all(nets: Sequence[str] | None = None) -> Iterator[Resized]:
    """Every network of the benchmarks with dynamic H and W, then those of the corpus where EDGEKIT_SHARED has it."""
    with tempfile.TemporaryDirectory() as folder:
        for net in DYNAMIC_NET_NAMES:
            if not nets or net in nets:
                path = Path(folder) / f"{net}.onnx"
                isolate.call("benchmarks.resizing:export_dynamic", net, str(path), subject=f"Exporting {net}")
                yield _resized(net, path)
    corpus = Path(os.environ.get("EDGEKIT_SHARED", ROOT.parent / "shared")) / "onnx_corpus"
    for path in sorted(corpus.glob("*.onnx")):
        if not nets or path.stem in nets:
            try:
                dynamic = isolate.call("benchmarks.resizing:has_dynamic_sides", str(path))
            except EdgeKitError as error:
                print(f"{path.name} is left out: {error.message}", file=sys.stderr)
                continue
            if dynamic:
                yield _resized(path.stem, path)


def export_dynamic(net: str, path: str) -> None:
    """Write network ``net`` as ONNX with dynamic N, H and W."""
    from benchmarks import nets
    from edgekit.converters.torch_to_onnx import export
    from edgekit.recipe import ExportRecipe

    recipe = ExportRecipe(dynamic_batch=True, dynamic_hw=True, verify=False)
    Path(path).write_bytes(export(nets.make(net), nets.example(net), recipe).data)


def has_dynamic_sides(path: str) -> bool:
    """Whether the only input of the ONNX file is an image (N, C, H, W) of any H and W."""
    model = _load(path)
    return len(model.inputs) == 1 and len(model.inputs[0].shape) == _RANK and model.inputs[0].shape[2:] == (-1, -1)


def _resized(net: str, path: Path) -> Resized:
    print(f"{net}: resizing", file=sys.stderr, flush=True)
    cases = isolate.call("benchmarks.resizing:references", str(path), timeout_s=_LIMIT_S, subject=net)
    assert isinstance(cases, list)
    sizes = tuple((size[0], size[1], size[2]) for size, _ in cases)
    try:
        ours = isolate.call("benchmarks.resizing:resize_ours", str(path), [case for _, case in cases],
                            timeout_s=_LIMIT_S, subject=net)
    except InternalError:
        raise
    except EdgeKitError as error:
        return Resized(net, sizes, _refused(len(sizes)), (), float("nan"), 0.0, error.message)
    assert isinstance(ours, _Ours)
    return Resized(net, sizes, ours.said, _theirs(net, path, [case for _, case in cases]), ours.error, ours.switch_ms)


def references(path: str) -> list[tuple[tuple[int, int, int], _Case]]:
    """Random inputs at every size that the network takes, and ONNX Runtime's answers."""
    import onnx

    from edgekit.converters.torch_to_onnx import SIZE_STEPS_KEY
    from edgekit.parity import reference_sample

    model = _load(path)
    entries = {entry.key: entry.value for entry in onnx.load_from_string(model.data).metadata_props}
    (image,) = model.inputs
    steps = json.loads(entries.get(SIZE_STEPS_KEY, "{}")).get(image.name) or [1] * _RANK
    found = []
    for batch, height, width in _SIZES:
        size = (batch if image.shape[0] == -1 else image.shape[0], height - height % steps[2], width - width % steps[3])
        shape = (size[0], image.shape[1], *size[1:])
        try:
            found.append((size, reference_sample(model, {image.name: shape})))
        except EdgeKitError as error:
            print(f"{path} at {shape}: {error.message}", file=sys.stderr)
    return found


def resize_ours(path: str, cases: Sequence[_Case]) -> _Ours:
    """Convert once, then run all ``cases`` through one session, which resizes its Interpreter."""
    from edgekit.converters.onnx_to_litert import to_litert
    from edgekit.parity import compare_outputs
    from edgekit.runtime.engines import open_session
    from edgekit.runtime.inputs import to_onnx, to_stored

    model = to_litert(_load(path)).model
    assert isinstance(model, LiteRTModel)
    errors: list[Sequence[OutputError]] = []
    switches = []
    with open_session("litert", model.data) as session:
        for inputs, wanted in cases:
            stored = to_stored(model.inputs, inputs)
            start = time.thread_time()
            session.prepare({name: array.shape for name, array in stored.items()})
            switches.append(time.thread_time() - start)
            errors.append(compare_outputs(wanted, to_onnx(model.outputs, session.run(stored)),
                                          ConvertRecipe().tolerance))
    said = tuple(_said(some) for some in errors)
    worst = max(of_allowed(error) for some in errors for error in some)
    return _Ours(said, worst, float(np.median(switches[1:])) * 1e3)


def _theirs(net: str, path: Path, cases: Sequence[_Case]) -> tuple[Said, ...]:
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "model.tflite")
        try:
            run_worker(peer_python("onnx2tf"), "onnx2tf", {
                "net": net, "weights": "", "onnx": str(path), "out": out,
                "report": str(Path(folder) / "parts.json")}, _LIMIT_S)
        except EdgeKitError as error:
            print(f"onnx2tf, {net}: {error.message}", file=sys.stderr)
            return _refused(len(cases))
        return tuple(_peer_said(out, case) for case in cases)


def _peer_said(path: str, case: _Case) -> Said:
    try:
        errors = isolate.call("benchmarks.peer_file:verdict", path, *case, ConvertRecipe().tolerance,
                              timeout_s=_LIMIT_S, subject="The file")
    except EdgeKitError as error:
        print(error.message.strip().splitlines()[-1], file=sys.stderr)
        return "refused"
    assert isinstance(errors, tuple)
    return _said(errors)


def _refused(count: int) -> tuple[Said, ...]:
    return tuple("refused" for _ in range(count))


def _said(errors: Sequence[OutputError]) -> Said:
    return "right" if all(error.passed for error in errors) else "wrong"


def _load(path: str) -> OnnxModel:
    from edgekit.converters.onnx_model import load_onnx

    return load_onnx(Path(path))


def section(results: Sequence[Resized]) -> str:
    """The table, as Markdown."""
    rows = [[result.net, ", ".join("x".join(map(str, size)) for size in result.sizes), _count(result.ours),
             f"{result.error:.1e}", f"{result.switch_ms:.2f}", _count(result.peer), result.note]
            for result in results]
    return "## Resizing after conversion (Interpreter)\n\n" + table(
        ["network", "N x H x W", "ours right", "error / allowed", "resize, CPU ms", "onnx2tf right", ""], rows)


def _count(said: Sequence[Said]) -> str:
    return f"{sum(one == 'right' for one in said)} of {len(said)}" if said else ""


def misses(results: Sequence[Resized]) -> list[str]:
    """One line for each network that is not right at every size."""
    return [f"{result.net}: resized to {'x'.join(map(str, size))} our file is {said} {result.note}".rstrip()
            for result in results for size, said in zip(result.sizes, result.ours, strict=True) if said != "right"]
