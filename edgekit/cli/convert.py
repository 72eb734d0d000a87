"""``edgekit convert``: ONNX to LiteRT or ONNX Runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click
import msgspec

from edgekit.artifacts import Engine, LiteRTModel, NodeLowering, TensorSpec, VerifyReport
from edgekit.cli.files import megabytes, refuse_same_file
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, io_layout_option, output_option, shape_option, tolerance_option
from edgekit.errors import BadRecipe
from edgekit.recipe import ConvertRecipe, IoLayout
from edgekit.report import ConversionReport

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Convert", "convert", "convert_file"]


class Convert(msgspec.Struct, frozen=True):
    """What was written. ``seconds`` excludes verification, which is null with --no-verify; ``report`` is there with
    --report.
    """

    source: str
    output: str
    engine: Engine
    format: Literal["tflite", "onnx", "ort"]
    size_bytes: int
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    op_counts: Mapping[str, int]
    nodes: tuple[NodeLowering, ...]
    seconds: float
    verification: VerifyReport | None
    report: ConversionReport | None = None


def _draw(result: Convert) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from edgekit.cli.tables import comparisons, conversion_report, counts, tensors

    head = Text(f"{result.output}   {result.format}, {megabytes(result.size_bytes)}, {result.seconds:.2f} s\n"
                f"{sum(result.op_counts.values())} ops: {counts(result.op_counts)}\n")
    tables: list[RenderableType] = [head, tensors(result.inputs, result.outputs), Text()]
    if result.verification is None:
        tables.append(Text("not verified (--no-verify)"))
    else:
        tables += [comparisons([result.verification]), Text(f"verified in {result.verification.seconds:.2f} s")]
    if result.report is not None:
        tables += [Text(), *conversion_report(result.report)]
    return Group(*tables)


@verb("convert", draw=_draw)
@click.argument("source", metavar="IN.onnx", type=PATH)
@click.option("--to", "engine", type=click.Choice(["litert", "ort"]), required=True, help="The engine to convert for.")
@output_option
@shape_option
@io_layout_option
@click.option("--ort-format", type=click.Choice(["auto", "onnx", "ort"]), default="auto", show_default=True,
              help="For ort: what to write; auto goes by the name of the output.")
@tolerance_option
@click.option("--no-verify", is_flag=True, help="Do not run the result against the original.")
@click.option("--report", is_flag=True, help="For litert: each node, what it became, where it runs, how far it is off.")
def convert(
    frame: Frame, source: Path, engine: str, output: Path, shape: tuple[tuple[str, tuple[int, ...]], ...],
    io_layout: str, ort_format: str, tolerance: float, no_verify: bool, report: bool,
) -> Convert:
    """Convert an ONNX model for an engine and check the result.

    Exactly the output file is written, or nothing. Names and order of inputs and outputs stay those of the ONNX graph.
    """
    recipe = ConvertRecipe(
        io_layout=cast("IoLayout", io_layout), shapes=dict(shape), verify=not no_verify, tolerance=tolerance,
        ort_format=cast("Literal['auto', 'onnx', 'ort']", ort_format),
    )
    refuse_same_file(source, output)
    if report and engine != "litert":
        raise BadRecipe("--report describes conversions to LiteRT.", "Leave it out with --to ort.")
    with frame.working(f"Converting {source}"):
        result = frame.guarded(f"{__name__}:convert_file", source, engine, output, recipe, report,
                               subject=f"Converting '{source}'")
    assert isinstance(result, Convert)
    return result


def convert_file(source: Path, engine: Engine, output: Path, recipe: ConvertRecipe, report: bool = False) -> Convert:
    """The work, in a process of its own: ``output`` is written here, and what is returned is small."""
    from edgekit.converters.onnx_model import load_onnx
    from edgekit.pipeline import convert as convert_model
    from edgekit.report.conversion import report_conversion

    conversion = convert_model(source, engine, output, recipe)
    model = conversion.model
    return Convert(
        source=str(source), output=str(output), engine=engine,
        format="tflite" if isinstance(model, LiteRTModel) else model.format,
        size_bytes=len(model.data), sha256=hashlib.sha256(model.data).hexdigest(), inputs=model.inputs,
        outputs=model.outputs, op_counts=conversion.op_counts, nodes=conversion.nodes, seconds=conversion.seconds,
        verification=conversion.verification,
        report=report_conversion(load_onnx(source), recipe) if report else None,
    )
