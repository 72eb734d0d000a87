"""One conversion in a process of its own, run inside the environment of the converter it measures.

``python -m benchmarks.worker CONVERTER JOB.json`` reads a Job, writes the model to ``job["out"]`` and the seconds of
its parts to ``job["report"]``. It must start in environments that hold a peer and little else, so it imports only the
standard library at the top, and each converter imports its own packages between the marks "start" and "imported".
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import itertools
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

__all__ = ["CONVERTERS", "Job", "Marks", "main"]


class Job(TypedDict):
    """One conversion: ``net`` is a network of benchmarks.nets, ``weights`` its fitted weights, ``onnx`` its ONNX file.

    ``out`` and ``report`` are the files to write: the model, and the seconds of the parts as JSON. For onnx2tf,
    ``shapes`` fixes the inputs of the ONNX file, and ``simplify`` lets it run onnxsim first, at a price in time.
    """

    net: str
    weights: str
    onnx: str
    out: str
    report: str
    shapes: NotRequired[dict[str, list[int]]]
    simplify: NotRequired[bool]


class Marks:
    """CPU and wall seconds at named moments; a part is the time between two of them. CPU includes ended children.

    Converters import much of what they need only when they convert. That time is taken out of the part it falls into
    and added to the first, "imported", so that "converted" is without imports for all of them alike.
    """

    def __init__(self) -> None:
        self._moments: dict[str, tuple[float, float]] = {}
        self._late = dict.fromkeys(("cpu", "wall"), 0.0)
        self._late_by: dict[str, tuple[float, float]] = {}
        self._depth = 0
        self._import = builtins.__import__
        builtins.__import__ = self._timed_import
        self.mark("start")

    def mark(self, name: str) -> None:
        """Note the time under ``name``."""
        self._moments[name] = _now()
        self._late_by[name] = (self._late["cpu"], self._late["wall"])

    def parts(self) -> dict[str, dict[str, float]]:
        """Seconds from each mark's predecessor to it: {mark: {"cpu_s": ..., "wall_s": ...}}."""
        found: dict[str, dict[str, float]] = {}
        moved = [0.0, 0.0]
        for before, name in itertools.pairwise(self._moments):
            spans = [self._moments[name][i] - self._moments[before][i] for i in (0, 1)]
            if found:
                late = [self._late_by[name][i] - self._late_by[before][i] for i in (0, 1)]
                spans = [spans[i] - late[i] for i in (0, 1)]
                moved = [moved[i] + late[i] for i in (0, 1)]
            found[name] = {"cpu_s": spans[0], "wall_s": spans[1]}
        found["imported"]["cpu_s"] += moved[0]
        found["imported"]["wall_s"] += moved[1]
        return found

    def _timed_import(self, *args: Any, **kwargs: Any) -> Any:
        if self._depth:
            return self._import(*args, **kwargs)
        self._depth += 1
        cpu, wall = _now()
        try:
            return self._import(*args, **kwargs)
        finally:
            self._depth -= 1
            self._late["cpu"] += _now()[0] - cpu
            self._late["wall"] += _now()[1] - wall


def _now() -> tuple[float, float]:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime, time.perf_counter()


def _prepare(job: Job, marks: Marks) -> None:
    """The network itself: its weights, and beside them its example input as .npy. No part of any conversion."""
    torch = importlib.import_module("torch")
    nets = importlib.import_module("benchmarks.nets")
    marks.mark("imported")
    torch.save(nets.make(job["net"]).state_dict(), job["out"])
    importlib.import_module("numpy").save(Path(job["out"]).with_suffix(".npy"), nets.example(job["net"]).numpy())
    marks.mark("converted")


def _export(job: Job, marks: Marks) -> None:
    """Network -> ONNX through the dynamo exporter, as every ONNX converter here receives it."""
    export = importlib.import_module("edgekit.converters.torch_to_onnx").export
    nets = importlib.import_module("benchmarks.nets")
    recipe = importlib.import_module("edgekit.recipe").ExportRecipe
    marks.mark("imported")
    net, example = nets.load(job["net"], job["weights"]), nets.example(job["net"])
    dynamic = job["net"] in nets.DYNAMIC_NETS
    marks.mark("prepared")
    Path(job["out"]).write_bytes(export(net, example, recipe(dynamic_batch=dynamic, dynamic_hw=dynamic)).data)
    marks.mark("converted")


def _edgekit(job: Job, marks: Marks) -> None:
    """ONNX -> LiteRT by this project, without verification."""
    load_onnx = importlib.import_module("edgekit.converters.onnx_model").load_onnx
    to_litert = importlib.import_module("edgekit.converters.onnx_to_litert").to_litert
    marks.mark("imported")
    conversion = to_litert(load_onnx(Path(job["onnx"])))
    Path(job["out"]).write_bytes(conversion.model.data)
    marks.mark("converted")


def _edgekit_command(job: Job, marks: Marks) -> None:
    """The command as a user types it, with ``--no-verify``."""
    command_line = importlib.import_module("edgekit.cli").main
    marks.mark("imported")
    try:
        command_line(["convert", job["onnx"], "--to", "litert", "-o", job["out"], "--no-verify"])
    except SystemExit as done:
        if done.code:
            raise
    marks.mark("converted")


def _edgekit_verified(job: Job, marks: Marks) -> None:
    """As ``edgekit``, then the comparison of the two engines; the part "verified" is what it costs."""
    load_onnx = importlib.import_module("edgekit.converters.onnx_model").load_onnx
    to_litert = importlib.import_module("edgekit.converters.onnx_to_litert").to_litert
    compare = importlib.import_module("edgekit.parity").compare
    recipe = importlib.import_module("edgekit.recipe").ConvertRecipe()
    marks.mark("imported")
    source = load_onnx(Path(job["onnx"]))
    conversion = to_litert(source, recipe)
    Path(job["out"]).write_bytes(conversion.model.data)
    marks.mark("converted")
    compare(conversion.model, source, recipe)
    marks.mark("verified")


def _litert_torch(job: Job, marks: Marks) -> None:
    """Network -> LiteRT by litert-torch, with image inputs and outputs channels-last, which is its fastest form."""
    litert_torch = importlib.import_module("litert_torch")
    nets = importlib.import_module("benchmarks.nets")
    marks.mark("imported")
    net, example = nets.load(job["net"], job["weights"]), nets.example(job["net"])
    image_out = net(example).dim() == 4
    if example.dim() == 4:
        net = litert_torch.to_channel_last_io(net, args=[0], outputs=[0] if image_out else None)
        example = example.permute(0, 2, 3, 1).contiguous()
    marks.mark("prepared")
    litert_torch.convert(net, (example,)).export(job["out"])
    marks.mark("converted")


def _onnx2tf(job: Job, marks: Marks) -> None:
    """ONNX -> LiteRT by onnx2tf's direct backend. It rewrites its input file, hence the copy."""
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # it looks for onnxsim
    onnx2tf = importlib.import_module("onnx2tf.onnx2tf")
    marks.mark("imported")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"
        shutil.copyfile(job["onnx"], copy)
        shapes = [f"{name}:{','.join(map(str, shape))}" for name, shape in job.get("shapes", {}).items() if shape]
        onnx2tf.convert(input_onnx_file_path=str(copy), output_folder_path=folder, non_verbose=True,
                        tflite_backend="flatbuffer_direct", overwrite_input_shape=shapes or None,
                        not_use_onnxsim=not job.get("simplify"))
        shutil.copyfile(Path(folder) / "model_float32.tflite", job["out"])
        marks.mark("converted")


CONVERTERS: dict[str, Callable[[Job, Marks], None]] = {
    "prepare": _prepare,
    "export": _export,
    "edgekit": _edgekit,
    "edgekit_command": _edgekit_command,
    "edgekit_verified": _edgekit_verified,
    "litert_torch": _litert_torch,
    "onnx2tf": _onnx2tf,
}


def main(arguments: list[str]) -> int:
    """Run one job; what the converter prints goes to stderr, and its exception ends the process."""
    name, job_path = arguments
    job: Job = json.loads(Path(job_path).read_text())
    marks = Marks()
    with contextlib.redirect_stdout(sys.stderr):
        CONVERTERS[name](job, marks)
    Path(job["report"]).write_text(json.dumps(marks.parts()))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    sys.exit(main(sys.argv[1:]))
