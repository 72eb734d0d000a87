"""How ``edgekit bench --per-op`` shows its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.cli.draw import Drawing, Group, Table, Text

if TYPE_CHECKING:
    from edgekit.measure_ops import PerOpReport

__all__ = ["draw_ops"]

_MOST_ROWS = 40


def draw_ops(report: PerOpReport) -> Drawing:
    """A table of the slowest groups, and how their sum compares with the whole."""
    table = Table("op", ">count", ">ms each", ">ms", ">share", "shapes")
    for op in report.ops[:_MOST_ROWS]:
        table.add_row(op.kind, str(op.count), f"{op.ms:.4f}", f"{op.total_ms:.4f}", f"{op.share:.1%}", Text(op.shapes))
    lines = [
        f"\nsum of the ops {report.sum_ms:.3f} ms, whole network {report.whole_ms:.3f} ms ({report.clock} time of the "
        f"ops), calling the engine {report.call_ms:.4f} ms; whole / sum {report.factor:.3f}",
        *(f"note: {finding}" for finding in report.findings),
        *(f"not timed: {each}" for each in report.unmeasured),
    ]
    left = len(report.ops) - _MOST_ROWS
    if left > 0:
        lines.insert(0, f"\n... and {left} groups more, see --json")
    head = f"{report.subject}   {report.engine_version}, 1 thread\n"
    return Group(Text(head), table, Text("\n".join(lines)))
