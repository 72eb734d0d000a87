"""``edgekit run``: one answer of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click
import msgspec

from edgekit.artifacts import Array, Engine, StepTaken
from edgekit.cli.draw import Drawing, Group, Table, Text
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, engine_option, public_key_options
from edgekit.errors import BadInput

if TYPE_CHECKING:
    from edgekit.artifacts import Prediction
    from edgekit.runtime import Runtime

__all__ = ["Answer", "Output", "Run", "run"]

_MOST_VALUES = 4096


class Answer(msgspec.Struct, frozen=True):
    """One of a classifier's answers; scores of all labels add up to 1."""

    label: str
    score: float


class Output(msgspec.Struct, frozen=True):
    """One output in the ONNX order of axes; ``values`` is nested lists, null beyond 4096 elements (use --save)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: Any


class Run(msgspec.Struct, frozen=True):
    """The prediction. ``label``, ``score`` and ``top`` are null, null and empty where the bundle has no labels.

    ``route`` and ``steps`` are null and empty unless the plan of an adaptive bundle decided.
    """

    bundle: str
    input: str
    variant: str
    engine: Engine
    engine_version: str
    signed: bool
    signature_checked: bool
    label: str | None
    score: float | None
    top: tuple[Answer, ...]
    exit: int
    resolution: tuple[int, int] | None
    latency_ms: float
    reason: str
    outputs: tuple[Output, ...]
    route: int | None = None
    steps: tuple[StepTaken, ...] = ()


def _draw(result: Run) -> Drawing:

    parts: list[Drawing] = []
    if result.top:
        table = Table(">score", "label")
        for answer in result.top:
            table.add_row(f"{answer.score:.3f}", Text(answer.label))
        parts.append(table)
    else:
        table = Table("output", "dtype", "shape", "values")
        for output in result.outputs:
            shown = "" if output.values is None else _shortened(str(output.values))
            table.add_row(Text(output.name), output.dtype, " x ".join(map(str, output.shape)) or "scalar", Text(shown))
        parts.append(table)
    if result.steps:
        parts.append(Text(f"\nroute {result.route}: " + ", then ".join(
            f"{step.ladder} to stage {step.stage} (confidence {step.confidence:.2f})" for step in result.steps)))
    at = f" at {result.resolution[0]} x {result.resolution[1]}" if result.resolution else ""
    parts.append(Text(f"\n{result.latency_ms:.2f} ms for this first run on {result.engine_version}{at}"
                      f"; {result.reason}"))
    return Group(*parts)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _resolution(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = value.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() for side in sides):
        raise click.BadParameter(f"'{value}' is not HEIGHTxWIDTH, such as 224x224.")
    return int(sides[0]), int(sides[1])


@verb("run", draw=_draw)
@click.argument("bundle", metavar="M.edge", type=PATH)
@click.argument("source", metavar="IMAGE|ARRAY.npy|ARRAYS.npz", type=PATH)
@engine_option
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of the engine.")
@click.option("--resolution", callback=_resolution, metavar="HxW",
              help="Size of the network's input, where it is free.")
@click.option("--top", type=int, default=5, show_default=True, help="Answers of a classifier to give.")
@click.option("--deadline-ms", type=float, help="Stop an adaptive network in time; say when the answer came later.")
@click.option("--save", type=PATH, metavar="OUT.npz", help="Write the outputs as named arrays.")
@click.option("--plan", type=PATH, metavar="FILE.edgeplan", help="Go by this plan, not by the bundle's own.")
@public_key_options
def run(
    frame: Frame, bundle: Path, source: Path, engine: str, threads: int, resolution: tuple[int, int] | None, top: int,
    deadline_ms: float | None, save: Path | None, plan: Path | None, public_key: Path | None, require_signature: bool,
) -> Run:
    """Load a bundle and run it on one input.

    An image goes through the preprocessing that the bundle describes. An array has the shape and dtype of the ONNX
    network's input; several inputs come as one .npz file with their names, those of an adaptive bundle's ladders by
    their ids.
    """
    from edgekit.runtime import RuntimeOptions, load

    options = RuntimeOptions(threads=threads, public_key=public_key, require_signature=require_signature,
                             resolution=resolution, top=top, plan=plan)
    with frame.working(f"Running {bundle}"):
        x = _read(source)
        with load(bundle, cast("Literal['auto', 'litert', 'ort']", engine), options) as runtime:
            result = _result(bundle, source, runtime, prediction := runtime.run(x, deadline_ms))
    if save is not None:
        _save(save, prediction.outputs)
    return result


def _read(source: Path) -> Array | Mapping[str, Array]:
    import numpy as np

    from edgekit.runtime import decode_image

    if source.suffix.lower() not in (".npy", ".npz"):
        return decode_image(source)
    try:
        loaded = np.load(source, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return dict(loaded)
    except FileNotFoundError as error:
        raise BadInput(f"There is no file '{source}'.", "Check the path.") from error
    except Exception as error:  # a damaged file makes numpy raise a dozen unrelated types
        raise BadInput(f"'{source}' holds no arrays that can be read: {error}.",
                       "Write it with numpy.save or numpy.savez, without Python objects.") from error


def _result(bundle: Path, source: Path, runtime: Runtime, prediction: Prediction) -> Run:
    return Run(
        bundle=str(bundle), input=str(source),
        variant=prediction.steps[-1].ladder if prediction.steps else runtime.variant.id, engine=runtime.engine,
        engine_version=runtime.engine_version, signed=runtime.signed, signature_checked=runtime.signature_checked,
        label=prediction.label, score=prediction.score,
        top=tuple(Answer(label, score) for label, score in prediction.top), exit=prediction.exit,
        resolution=prediction.resolution, latency_ms=prediction.latency_ms, reason=prediction.reason,
        outputs=tuple(_output(name, array) for name, array in prediction.outputs.items()),
        route=prediction.route, steps=prediction.steps,
    )


def _output(name: str, array: Array) -> Output:
    return Output(name, array.dtype.name, array.shape, array.tolist() if array.size <= _MOST_VALUES else None)


def _save(path: Path, outputs: Mapping[str, Array]) -> None:
    import io
    import zipfile

    import numpy as np

    from edgekit.atomic import write_atomically

    buffer = io.BytesIO()
    # What numpy.savez does; but that cannot hold an array whose name is one of its own parameters.
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())
