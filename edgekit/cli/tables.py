"""Tables that several verbs draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edgekit.artifacts import TensorSpec, VerifyReport
from edgekit.cli.draw import Drawing, Table, Text
from edgekit.cli.files import megabytes

if TYPE_CHECKING:
    from edgekit.bundle.manifest import Manifest
    from edgekit.report import ConversionReport

__all__ = ["comparisons", "conversion_report", "counts", "tensors", "variants"]


def tensors(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Table:
    """One row for each input and output, in order."""
    table = Table("", "name", "dtype", "shape", "layout")
    for kind, specs in (("input", inputs), ("output", outputs)):
        for spec in specs:
            shape = " x ".join("?" if dim < 0 else str(dim) for dim in spec.shape) or "scalar"
            table.add_row(kind, Text(spec.name), spec.dtype, shape, spec.layout)
    return table


def comparisons(reports: Iterable[VerifyReport]) -> Table:
    """One row for each output of each comparison."""
    table = Table("subject", "reference", "output", ">max |difference|", ">allowed", "")
    for report in reports:
        for output in report.outputs:
            allowed = output.allowed_abs_diff
            verdict = Text("ok", "green") if output.passed else Text(f"FAILED {output.problem}".strip(), "bold red")
            table.add_row(Text(report.subject), Text(report.reference), Text(output.name),
                          f"{output.max_abs_diff:.3g}", f"{allowed:.3g}", verdict)
    return table


def counts(ops: Mapping[str, int]) -> str:
    """Ops by number, the most frequent first."""
    ordered = sorted(ops.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)


def conversion_report(report: ConversionReport) -> list[Drawing]:
    """One row for each node, then what runs outside XNNPACK, and the layer that is furthest off."""
    table = Table("node", "op", "became", "outside XNNPACK", "GPU hint", "source")
    for node in report.nodes:
        became = " ".join(node.ops) or node.how
        cells = (node.node, node.op_type, became, " ".join(node.not_xnnpack), "; ".join(node.gpu_hints), node.source)
        table.add_row(*(Text(cell) for cell in cells))
    outside = counts(report.not_xnnpack) or "none"
    lines = [f"{report.ops} ops in {report.partitions} XNNPACK partitions; outside: {outside}"]
    if report.worst is not None:
        lines.append(f"{len(report.layers)} inner values compared; furthest off: '{report.worst.name}' "
                     f"by {report.worst.max_abs_diff:.3g} of {report.worst.allowed_abs_diff:.3g} allowed")
    if report.first_off is not None:
        lines.append(f"The first that is off: '{report.first_off.name}' by {report.first_off.max_abs_diff:.3g}")
    return [table, Text("\n".join(lines))]


def variants(manifest: Manifest) -> Table:
    """One row for each variant of a bundle."""
    sizes = {entry.name: entry.size_bytes for entry in manifest.entries}
    table = Table("variant", "engine", "format", "precision", ">size")
    for variant in manifest.variants:
        size = megabytes(sizes.get(variant.entry, 0))
        table.add_row(Text(variant.id), variant.engine, variant.format, Text(variant.precision), size)
    return table
