"""``edgekit convert``: ONNX to LiteRT or ONNX Runtime."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click
import msgspec

from edgekit.artifacts import Engine, LiteRTModel, NodeLowering, TensorSpec, VerifyReport
from edgekit.cli.draw import Drawing, Group, Text
from edgekit.cli.files import megabytes, refuse_same_file
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import NAMED_SHAPE, PATH, io_layout_option, output_option, shape_option, tolerance_option
from edgekit.errors import BadRecipe
from edgekit.recipe import ConvertRecipe, IoLayout
from edgekit.report import ConversionReport

if TYPE_CHECKING:
    from edgekit.signatures import PackedSignatures

__all__ = ["Convert", "ConvertedSignature", "Wanted", "convert", "convert_file", "convert_signatures_file"]

_SHAPES = r"[^,]+=[1-9]\d*(x[1-9]\d*)*(,[^,]+=[1-9]\d*(x[1-9]\d*)*)*"

NamedShapes = tuple[tuple[str, tuple[int, ...]], ...]


class Wanted(msgspec.Struct, frozen=True):
    """The values of --signature (name and shapes of inputs) and of --cut."""

    signatures: tuple[tuple[str, NamedShapes], ...] = ()
    cuts: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.signatures or self.cuts)


class ConvertedSignature(msgspec.Struct, frozen=True):
    """One entry point of a file that has several."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    verification: VerifyReport | None
    report: ConversionReport | None


class Convert(msgspec.Struct, frozen=True):
    """What was written. ``seconds`` excludes verification, which is null with --no-verify; ``report`` is there with
    --report, for a file with several ``signatures`` in each of these.
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
    signatures: tuple[ConvertedSignature, ...] = ()


class _NamedSignature(click.ParamType[tuple[str, NamedShapes]]):
    """``name:input=1x3x224x224,input2=1x10``; an input's name may hold a colon and an equals sign."""

    name = "NAME:INPUT=NxCxHxW[,INPUT=...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        name, _, inputs = str(value).partition(":")
        if not name.strip() or not re.fullmatch(_SHAPES, inputs):
            self.fail(f"'{value}' is not a name, a colon and the shapes of inputs, such as "
                      "small:image=1x3x160x160 or long:ids=1x512,mask=1x512.", param, ctx)
        shapes = tuple(NAMED_SHAPE.convert(f"{key}={dims.replace('x', ',')}", param, ctx)
                       for key, _, dims in (part.rpartition("=") for part in inputs.split(",")))
        return name, shapes


def _draw(result: Convert) -> Drawing:
    from edgekit.cli.tables import comparisons, conversion_report, counts, tensors

    head = Text(f"{result.output}   {result.format}, {megabytes(result.size_bytes)}, {result.seconds:.2f} s\n"
                f"{sum(result.op_counts.values())} ops: {counts(result.op_counts)}\n")
    tables: list[Drawing] = [head]
    if not result.signatures:
        tables += [tensors(result.inputs, result.outputs), Text()]
    for signature in result.signatures:
        tables += [Text(f"signature {signature.name}"), tensors(signature.inputs, signature.outputs), Text()]
    if result.verification is None:
        tables.append(Text("not verified (--no-verify)"))
    else:
        each = [signature.verification for signature in result.signatures if signature.verification is not None]
        tables += [comparisons(each or [result.verification]), Text(f"verified in {result.verification.seconds:.2f} s")]
    if result.report is not None:
        tables += [Text(), *conversion_report(result.report)]
    for signature in result.signatures:
        if signature.report is not None:
            tables += [Text(f"\nsignature {signature.name}"), *conversion_report(signature.report)]
    return Group(*tables)


@verb("convert", draw=_draw)
@click.argument("source", metavar="IN.onnx", type=PATH)
@click.option("--to", "engine", type=click.Choice(["litert", "ort"]), required=True, help="The engine to convert for.")
@output_option
@shape_option
@click.option("--signature", type=_NamedSignature(), multiple=True,
              help="For litert: an entry point with these shapes. Several share their weights in one file.")
@click.option("--cut", metavar="TENSOR", multiple=True,
              help="For litert: cut here into the signatures stage1, stage2, ..., beside the whole as 'full'.")
@io_layout_option
@click.option("--ort-format", type=click.Choice(["auto", "onnx", "ort"]), default="auto", show_default=True,
              help="For ort: what to write; auto goes by the name of the output.")
@tolerance_option
@click.option("--no-verify", is_flag=True, help="Do not run the result against the original.")
@click.option("--report", is_flag=True, help="For litert: each node, what it became, where it runs, how far it is off.")
def convert(
    frame: Frame, source: Path, engine: str, output: Path, shape: NamedShapes,
    signature: tuple[tuple[str, NamedShapes], ...], cut: tuple[str, ...], io_layout: str, ort_format: str,
    tolerance: float, no_verify: bool, report: bool,
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
    wanted = Wanted(signature, cut)
    if wanted and engine != "litert":
        raise BadRecipe(f"{'--signature' if signature else '--cut'} is for LiteRT: a file of ONNX Runtime has a single "
                        "entry point.", "Convert to litert, or make a file for each with --shape.")
    target, what = ("convert_signatures_file", wanted) if wanted else ("convert_file", engine)
    with frame.working(f"Converting {source}"):
        result = frame.guarded(f"{__name__}:{target}", source, what, output, recipe, report,
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


def convert_signatures_file(
    source: Path, wanted: Wanted, output: Path, recipe: ConvertRecipe, report: bool = False
) -> Convert:
    """The same for several signatures of one LiteRT file."""
    from edgekit.converters.onnx_model import load_onnx
    from edgekit.signatures import convert_signatures, parts_of

    signatures = [(name, _unique(name, shapes)) for name, shapes in wanted.signatures]
    packed = convert_signatures(parts_of(load_onnx(source), signatures, wanted.cuts, recipe), output)
    conversion, model = packed.conversion, packed.conversion.model
    return Convert(
        source=str(source), output=str(output), engine="litert", format="tflite", size_bytes=len(model.data),
        sha256=hashlib.sha256(model.data).hexdigest(), inputs=model.inputs, outputs=model.outputs,
        op_counts=conversion.op_counts, nodes=conversion.nodes, seconds=conversion.seconds,
        verification=conversion.verification, signatures=_signatures(packed, report),
    )


def _unique(name: str, shapes: NamedShapes) -> dict[str, tuple[int, ...]]:
    by_input = dict(shapes)
    if len(by_input) < len(shapes):
        raise BadRecipe(f"The signature '{name}' gives an input two shapes.", "Name each input once.")
    return by_input


def _signatures(packed: PackedSignatures, report: bool) -> tuple[ConvertedSignature, ...]:
    from edgekit.report.conversion import report_conversion

    model = packed.conversion.model
    assert isinstance(model, LiteRTModel)
    return tuple(
        ConvertedSignature(each.name, each.inputs, each.outputs, packed.verifications.get(each.name),
                           report_conversion(*packed.parts[each.name]) if report else None)
        for each in model.signatures)
