"""``edgekit inspect``: what is in a model file or a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from edgekit.cli.draw import Drawing, Group, Table, Text
from edgekit.cli.files import megabytes
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, public_key_options
from edgekit.errors import BadRecipe
from edgekit.graph.model_facts import BundleFacts, ModelFacts, PlanFacts
from edgekit.report.placed import PlacementReport

__all__ = ["Inspect", "inspect"]


class Inspect(ModelFacts, frozen=True, kw_only=True):
    """The facts of the file. ``signature_checked``: --public-key was given and the signature is right.

    ``placement``: with --placement.
    """

    source: str
    signature_checked: bool
    placement: PlacementReport | None = None


def _draw(result: Inspect) -> Drawing:
    from edgekit.cli.tables import counts, tensors

    lines = [f"{result.source}   {result.format}, {megabytes(result.size_bytes)}"]
    if result.opsets:
        lines.append("opsets: " + ", ".join(f"{name or 'onnx'} {version}" for name, version in result.opsets.items()))
    if result.parameter_count is not None:
        weights = f", {megabytes(result.weight_bytes)}" if result.weight_bytes is not None else ""
        lines.append(f"constants: {result.parameter_count:,} elements{weights}")
    if result.op_counts:
        lines.append(f"{sum(result.op_counts.values())} ops: {counts(result.op_counts)}")
    if result.signatures:
        lines.append("signatures: " + ", ".join(each.name for each in result.signatures))
    verdict = {True: "opens the file", False: "DOES NOT OPEN the file: ", None: ""}[result.loads]
    if verdict or result.load_note:
        lines.append(f"engine: {verdict}{result.load_note}")
    parts: list[Drawing] = [Text("\n".join(lines))]
    if result.inputs or result.outputs:
        parts += [Text(), tensors(result.inputs, result.outputs)]
    if result.bundle:
        parts.append(Text("\n" + _bundle_text(result.bundle, result.signature_checked)))
    if result.placement:
        parts += [Text(), *_placement(result.placement)]
    return Group(*parts)


def _placement(found: PlacementReport) -> Iterator[Drawing]:

    left = [("XNNPACK", each) for each in found.xnnpack.left] if found.xnnpack else []
    if found.xnnpack:
        yield Text(f"XNNPACK takes {found.xnnpack.taken} of {found.xnnpack.ops} ops in {found.xnnpack.partitions} "
                   "piece(s), by compilation")
    for hint in found.hints:
        yield Text(f"{hint.title}: {hint.taken} of {hint.ops} ops in {hint.partitions} piece(s), by rules "
                   f"({hint.source})" + "".join(f"\n  {note}" for note in hint.notes))
        left += [(hint.title, each) for each in hint.left]
    if left:
        table = Table("not on", "op", "kind", "why")
        for title, each in left:
            table.add_row(title, Text(each.op), each.kind, Text(each.reason))
        yield table


def _bundle_text(bundle: BundleFacts, signature_checked: bool) -> str:
    state = "signed (not checked)" if bundle.signed else "not signed"
    if signature_checked:
        state = "signed, signature right"
    lines = [f"bundle '{bundle.name}', {bundle.task}, schema {bundle.schema_version}, {state}",
             f"made from {bundle.source_name} (sha256 {bundle.source_sha256[:16]}...)"
             f" with {', '.join(f'{name} {version}' for name, version in bundle.tools.items())}",
             f"{bundle.test_vectors} test vector(s)"]
    lines += [f"variant {' '.join(each)}" for each in bundle.variants]
    lines += [f"ladder  {each.id} {each.engine} {each.format} {each.precision}: {each.resolution[0]} x "
              f"{each.resolution[1]}, {each.stages} stage(s), {each.classes} classes, "
              f"{each.test_vectors} test vector(s)" for each in bundle.ladders]
    if bundle.plan is not None:
        lines += _plan_lines(bundle.plan)
    lines += [f"entry   {size:>12,} bytes  {name}" for name, size in bundle.entries]
    return "\n".join(lines)


def _plan_lines(plan: PlanFacts) -> list[str]:
    points = ", then ".join(f"{ladder} to stage {stage}" for ladder, stage in plan.points)
    return [f"plan    for {plan.device} ({plan.engine}, times {plan.source}), {plan.objective}: {plan.routes} route(s)",
            f"        route {plan.default} by default: {points}",
            f"        promised: accuracy {plan.accuracy:.4f}, {plan.mean_ms:.3g} ms (95th percentile "
            f"{plan.p95_ms:.3g} ms)"]


@verb("inspect", draw=_draw)
@click.argument("source", metavar="FILE", type=PATH)
@click.option("--placement", is_flag=True, help="Of a .tflite or .onnx file: which ops run where, and why not.")
@public_key_options
def inspect(
    frame: Frame, source: Path, placement: bool, public_key: Path | None, require_signature: bool
) -> Inspect:
    """Tell what is in an .onnx, .tflite, .ort or .edge file.

    Nothing in the file is trusted: parsers that could crash run in a process of their own.
    """
    from edgekit.graph.facts import inspect_model

    with frame.working(f"Inspecting {source}"):
        facts = inspect_model(source)
        if facts.bundle:
            _check_signature(source, public_key, require_signature)
        elif public_key is not None or require_signature:
            raise BadRecipe(f"{source} is not a bundle, and only bundles are signed.", "Leave the public key out.")
        placed = _placed(source) if placement else None
    return Inspect(**msgspec.structs.asdict(facts), source=str(source), signature_checked=public_key is not None,
                   placement=placed)


def _placed(source: Path) -> PlacementReport:
    from edgekit.report.placed import placement_of

    return placement_of(source)


def _check_signature(source: Path, public_key: Path | None, require_signature: bool) -> None:
    from edgekit.bundle import Bundle

    with Bundle.open(source, public_key=public_key, require_signature=require_signature):
        pass
