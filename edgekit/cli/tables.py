"""Tables that several verbs draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edgekit.artifacts import TensorSpec, VerifyReport
from edgekit.cli.files import megabytes

if TYPE_CHECKING:
    from rich.table import Table

    from edgekit.bundle.manifest import Manifest

__all__ = ["comparisons", "counts", "grid", "tensors", "variants"]


def grid(*columns: str) -> Table:
    """An empty table without lines; a column whose name starts with ">" holds numbers and is aligned to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left")
    return table


def tensors(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Table:
    """One row for each input and output, in order."""
    from rich.text import Text

    table = grid("", "name", "dtype", "shape", "layout")
    for kind, specs in (("input", inputs), ("output", outputs)):
        for spec in specs:
            shape = " x ".join("?" if dim < 0 else str(dim) for dim in spec.shape) or "scalar"
            table.add_row(kind, Text(spec.name), spec.dtype, shape, spec.layout)
    return table


def comparisons(reports: Iterable[VerifyReport]) -> Table:
    """One row for each output of each comparison."""
    from rich.text import Text

    table = grid("subject", "reference", "output", ">max |difference|", ">allowed", "")
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


def variants(manifest: Manifest) -> Table:
    """One row for each variant of a bundle."""
    from rich.text import Text

    sizes = {entry.name: entry.size_bytes for entry in manifest.entries}
    table = grid("variant", "engine", "format", "precision", ">size")
    for variant in manifest.variants:
        size = megabytes(sizes.get(variant.entry, 0))
        table.add_row(Text(variant.id), variant.engine, variant.format, Text(variant.precision), size)
    return table
