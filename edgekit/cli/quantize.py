"""``edgekit quantize``: a smaller and faster file for LiteRT or ONNX Runtime, by a recipe that is found or given."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click
import msgspec

from edgekit.artifacts import Engine, LiteRTModel, OrtModel, TensorSpec
from edgekit.cli.draw import Drawing, Group, Table, Text
from edgekit.cli.files import megabytes, refuse_same_file
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, output_option, shape_option
from edgekit.cli.progress import followed, reporter
from edgekit.cli.quantize_device import device_profiles
from edgekit.errors import BadRecipe
from edgekit.recipe import Preprocess, QuantRecipe, QuantRule

if TYPE_CHECKING:
    from edgekit.converters.quantize import Model, Samples, Search, Trial
    from edgekit.profile.mixed import MixedProfile

__all__ = ["Candidate", "LayerError", "Quantize", "Request", "quantize", "quantize_file"]

_SHOWN_LAYERS = 8


class Candidate(msgspec.Struct, frozen=True):
    """One file that was tried. ``ratio``: CPU time over that of the float file, with its 95 % interval.

    Values that were not measured are null; ``failure`` says why there is no file. ``agreement``: share of equal top-1
    answers of a classifier; ``drop_points``: loss of accuracy with labels, in percentage points.
    """

    name: str
    rules: tuple[QuantRule, ...]
    size_bytes: int
    size_ratio: float
    partitions: int
    sqnr_db: float | None
    samples: int
    agreement: float | None
    drop_points: float | None
    drop_interval: tuple[float, float] | None
    cpu_ms: float | None
    ratio: float | None
    ratio_interval: tuple[float, float] | None
    pareto: bool
    failure: str


class LayerError(msgspec.Struct, frozen=True):
    """Where error enters in the chosen file, worst first: the order in which to keep ops float.

    ``gain_db``: what keeping the op float could buy; ``float_costs_bytes``: by how much the file would grow.
    """

    tensor: str
    kind: str
    sqnr_db: float
    gain_db: float
    low: float
    high: float
    outlier_channels: int
    float_costs_bytes: int | None = None


class RaisedStep(msgspec.Struct, frozen=True):
    """A step of the accuracy loop: ops kept float, what came of it, and whether that was enough."""

    kept: tuple[str, ...]
    sqnr_db: float
    ratio: float | None
    met: bool


class Quantize(msgspec.Struct, frozen=True):
    """What was written. ``chosen`` is null when the float file itself is the best, or with a given recipe."""

    source: str
    output: str
    size_bytes: int
    sha256: str
    float_size_bytes: int
    float_partitions: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    steps: tuple[RaisedStep, ...]
    layers: tuple[LayerError, ...]
    notes: tuple[str, ...]
    seconds: float


class Request(msgspec.Struct, frozen=True):
    """What the command line asked for."""

    source: Path
    output: Path
    data: str | None
    recipe_file: Path | None
    save_recipe: Path | None
    shapes: dict[str, tuple[int, ...]]
    preprocess: Preprocess
    goal: dict[str, Any]
    base: QuantRecipe
    to: Engine
    cpu: Literal["host", "x86", "x86_vnni", "arm"]
    step_file: Path | None = None
    device: MixedProfile | None = None


def _draw(result: Quantize) -> Drawing:
    share = 100 * result.size_bytes / result.float_size_bytes
    head = Text(f"{result.output}   {megabytes(result.size_bytes)}, {share:.1f} % of float32, {result.seconds:.0f} s\n"
                + (f"chosen: {_in_words(result.chosen)}\n" if result.chosen else ""))
    parts: list[Drawing] = [head]
    if result.candidates:
        parts += [_candidates(result), Text()]
    if result.layers:
        parts += [_layers(result), Text()]
    parts += [Text(note) for note in result.notes]
    return Group(*parts)


def _in_words(chosen: Candidate) -> str:
    speed = f", {1 / chosen.ratio:.2f} times as fast as float32" if chosen.ratio else ""
    drop = "" if chosen.drop_points is None or chosen.drop_interval is None else (
        f", accuracy {-chosen.drop_points:+.2f} points ({-chosen.drop_interval[1]:+.2f} to "
        f"{-chosen.drop_interval[0]:+.2f})")
    agreement = "" if chosen.agreement is None else f", top-1 agreement {100 * chosen.agreement:.1f} %"
    return f"{chosen.name}{speed}, SQNR {chosen.sqnr_db:.1f} dB{agreement}{drop} on {chosen.samples} samples"


def _candidates(result: Quantize) -> Drawing:

    table = Table("candidates that no other beats", ">time / float32", ">size", ">partitions", ">SQNR dB")
    for each in result.candidates:
        if each.pareto and each.ratio is not None and each.ratio_interval is not None:
            low, high = each.ratio_interval
            table.add_row(each.name, f"{each.ratio:.3f} ({low:.3f} to {high:.3f})", f"{100 * each.size_ratio:.1f} %",
                          str(each.partitions), f"{each.sqnr_db:.1f}")
    return table


def _layers(result: Quantize) -> Drawing:

    table = Table("where error enters", "op", ">SQNR dB", ">gain dB", ">costs bytes", ">range", ">outlier channels")
    for each in result.layers[:_SHOWN_LAYERS]:
        table.add_row(each.tensor, each.kind, f"{each.sqnr_db:.1f}", f"{each.gain_db:.2f}",
                      "" if each.float_costs_bytes is None else str(each.float_costs_bytes),
                      f"{each.low:.3g} to {each.high:.3g}", str(each.outlier_channels))
    return table


@verb("quantize", draw=_draw)
@click.argument("source", metavar="IN", type=PATH)
@click.option("--data", "--calibration", "data", metavar="DATA",
              help="Calibration data: a .npz or .npy file, a folder of images, or the word random.")
@output_option
@click.option("--to", type=click.Choice(["litert", "ort"]),
              help="The engine; ort by default when OUT ends in .onnx, else litert.")
@click.option("--cpu", type=click.Choice(["host", "x86", "x86_vnni", "arm"]), default="host", show_default=True,
              help="For ort: the CPU that decides which integers are used.")
@click.option("--objective", type=click.Choice(["latency", "size"]), default="latency", show_default=True,
              help="What the file shall be best at.")
@click.option("--min-sqnr-db", type=float, default=30.0, show_default=True,
              help="Lowest signal to noise ratio of an output.")
@click.option("--max-drop", type=float, metavar="POINTS",
              help="For classifiers instead: largest loss of accuracy with labels, of agreement without.")
@click.option("--max-seconds", type=float, default=120.0, show_default=True,
              help="Begin no new round of candidates after this long.")
@click.option("--method", type=click.Choice(["extreme", "minmax", "average", "percentile", "entropy"]),
              default="extreme", show_default=True, help="How ranges are taken from the data.")
@click.option("--percentile", type=float, default=99.99, show_default=True,
              help="For that method: the central part of all values, in %.")
@click.option("--io", type=click.Choice(["float32", "int8"]), default="float32", show_default=True,
              help="The dtype of the file's inputs and outputs.")
@click.option("--recipe", "recipe_file", type=PATH, metavar="FILE.json", help="Apply this recipe; do not search.")
@click.option("--save-recipe", type=PATH, metavar="FILE.json",
              help="Write the recipe, which makes the same file again.")
@click.option("--device", metavar="ID", multiple=True,
              help="Predict times by the device's profiles (float32, int8, dynamic8) instead of measuring.")
@click.option("--preprocess", type=PATH, metavar="FILE.json", help="How images become inputs (a Preprocess as JSON).")
@shape_option
def quantize(frame: Frame, source: Path, **options: Any) -> Quantize:
    """Make a quantized file from a .onnx file, or for LiteRT from a .tflite file.

    Without --recipe, files in which different kinds of ops are int8 are made, run here and compared with the float
    file; the fastest (or smallest) that is good enough is written. The arrays of a .npz file have the names of the
    inputs; their first axis counts samples; an array named labels makes accuracy the measure of quality.
    """
    recipe_file, data, output = options["recipe_file"], options["data"], options["output"]
    if recipe_file is None and data is None:
        raise BadRecipe("There is no calibration data.", "Give --data with a file or folder, or the word random.")
    preprocess = Preprocess() if options["preprocess"] is None else _read(options["preprocess"], Preprocess)
    to: Engine = options["to"] or ("ort" if output.suffix.lower() == ".onnx" else "litert")
    request = Request(
        source=source, output=output, data=data, recipe_file=recipe_file, save_recipe=options["save_recipe"],
        shapes=dict(options["shape"]), preprocess=preprocess,
        goal={"objective": options["objective"], "min_sqnr_db": options["min_sqnr_db"],
              "max_drop_points": options["max_drop"], "max_seconds": options["max_seconds"]},
        base=QuantRecipe((), method=options["method"], percentile=options["percentile"], io=options["io"]),
        to=to, cpu=options["cpu"], device=device_profiles(options["device"], to),
    )
    refuse_same_file(source, output)
    with followed(frame, f"Quantizing {source}") as step_file:
        request = msgspec.structs.replace(request, step_file=step_file)
        result = frame.guarded(f"{__name__}:quantize_file", request, subject=f"Quantizing '{source}'")
    return cast("Quantize", result)


def _read(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise BadRecipe(f"'{path}' cannot be read: {error.strerror or error}.", "Check the path.") from error
    except msgspec.MsgspecError as error:
        raise BadRecipe(f"'{path}' is not a {kind.__name__}: {error}.", "Compare it with docs/quantize.md.") from error


def quantize_file(request: Request) -> Quantize:
    """The work, in a process of its own: the files are written here, and what is returned is small."""
    from edgekit.cli import quantize_ort
    from edgekit.converters.quantize import Goal, open_samples, search
    from edgekit.converters.quantize.priced import search_for
    from edgekit.converters.quantize.sensitivity import saved_bytes

    goal = Goal(**request.goal)
    recipe = None if request.recipe_file is None else _read(request.recipe_file, QuantRecipe)
    as_it_is = quantize_ort.kept(request)
    if as_it_is is not None:
        return as_it_is
    model = quantize_ort.float_model(request) if request.to == "ort" else _float_model(request)
    samples = None
    if request.data is not None:
        samples = open_samples(request.data if request.data == "random" else Path(request.data), model.inputs,
                               request.preprocess, _stored(request, model))
    if recipe is not None:
        return _by_recipe(request, model, recipe, samples)
    assert samples is not None
    if isinstance(model, OrtModel):
        return _written(request, quantize_ort.search(request, model, samples, goal))
    say = reporter(request.step_file)
    if request.device is None:
        found = search(model, samples, goal, request.base, say)
    else:
        found = search_for(request.device, model, samples, goal, request.base, say)
    return _written(request, found, saved_bytes(model.data, found.model.data))


def _float_model(request: Request) -> LiteRTModel:
    from edgekit.converters.quantize.float_form import float_form

    if request.source.suffix.lower() == ".onnx":
        from edgekit.pipeline import convert
        from edgekit.recipe import ConvertRecipe

        model = convert(request.source, "litert", None, ConvertRecipe(shapes=request.shapes)).model
        return float_form(cast("LiteRTModel", model), f"'{request.source}'")
    from edgekit.converters.quantize import read_model
    from edgekit.errors import BadModel

    if request.source.suffix.lower() != ".tflite":
        raise BadModel(f"'{request.source}' is neither a .tflite nor an .onnx file.", "Check the path.")
    try:
        data = request.source.read_bytes()
    except OSError as error:
        raise BadModel(f"'{request.source}' cannot be read: {error.strerror or error}.", "Check the path.") from error
    return float_form(read_model(data, f"'{request.source}'"), f"'{request.source}'")


def _stored(request: Request, model: Model) -> dict[str, tuple[int, ...]]:
    """The given shapes, which are in ONNX order, in the order that the model stores."""
    layout = {spec.name: spec.layout for spec in model.inputs}
    return {name: (shape[0], *shape[2:], shape[1]) if layout.get(name) == "nhwc" and len(shape) == 4 else shape
            for name, shape in request.shapes.items()}


def _by_recipe(request: Request, model: Model, recipe: QuantRecipe, samples: Samples | None) -> Quantize:
    import time

    from edgekit.atomic import write_atomically
    from edgekit.cli import quantize_ort
    from edgekit.converters.quantize import needs_ranges, prepare
    from edgekit.converters.quantize import quantize as apply

    started = time.perf_counter()
    wanted = samples if samples is not None and needs_ranges(recipe) and not recipe.ranges else None
    made: Model
    if isinstance(model, OrtModel):
        recipe, made = quantize_ort.by_recipe(request, model, recipe, wanted)
    else:
        recipe = prepare(model, recipe, samples)
        made = apply(model, recipe)
    write_atomically(request.output, made.data)
    if request.save_recipe is not None:
        write_atomically(request.save_recipe, msgspec.json.encode(recipe))
    return Quantize(
        source=str(request.source), output=str(request.output), size_bytes=len(made.data),
        sha256=hashlib.sha256(made.data).hexdigest(), float_size_bytes=len(model.data), float_partitions=None,
        inputs=made.inputs, outputs=made.outputs, chosen=None, candidates=(), steps=(), layers=(),
        notes=(f"By the recipe '{request.recipe_file}'; nothing was measured.",),
        seconds=time.perf_counter() - started,
    )


def _written(request: Request, found: Search, saved: Mapping[str, int] | None = None) -> Quantize:
    """``saved``: by tensor, how many bytes the constants of its op are smaller than in the float file."""
    from edgekit.atomic import write_atomically

    made = found.model
    write_atomically(request.output, made.data)
    if request.save_recipe is not None:
        write_atomically(request.save_recipe, msgspec.json.encode(found.recipe))
    candidates = tuple(_candidate(trial, found) for trial in found.trials)
    return Quantize(
        source=str(request.source), output=str(request.output), size_bytes=len(made.data),
        sha256=hashlib.sha256(made.data).hexdigest(), float_size_bytes=found.float_size_bytes,
        float_partitions=found.float_partitions, inputs=made.inputs, outputs=made.outputs,
        chosen=None if found.chosen is None else _candidate(found.chosen, found), candidates=candidates,
        steps=tuple(RaisedStep(step.kept, step.sqnr_db, step.ratio, step.met) for step in found.steps),
        layers=tuple(LayerError(each.tensor, each.kind, each.sqnr_db, each.gain_db, each.low, each.high,
                                each.outlier_channels, None if saved is None else saved.get(each.tensor, 0))
                     for each in sorted(found.layers, key=lambda layer: -layer.added)),
        notes=found.notes, seconds=found.seconds,
    )


def _candidate(trial: Trial, found: Search) -> Candidate:
    quality, speed = trial.quality, trial.speed
    drop = None if quality.drop_low is None or quality.drop_high is None else (quality.drop_low, quality.drop_high)
    return Candidate(
        name=trial.name, rules=trial.plan.rules(), size_bytes=trial.size_bytes, size_ratio=trial.size_ratio,
        partitions=trial.partitions, sqnr_db=None if trial.failure else quality.sqnr_db, samples=quality.samples,
        agreement=quality.agreement, drop_points=quality.drop_points, drop_interval=drop,
        cpu_ms=None if speed is None else speed.cpu_ms, ratio=None if speed is None else speed.ratio,
        ratio_interval=None if speed is None else (speed.low, speed.high), pareto=trial.name in found.pareto,
        failure=trial.failure,
    )
