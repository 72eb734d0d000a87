"""``edgekit demo``: a real network from torch weights to a signed bundle, on both engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.files import megabytes
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgekit.demo import DemoResult

__all__ = ["demo"]


def _draw(result: DemoResult) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from edgekit.cli.tables import grid

    steps = grid(">seconds", "step")
    for name, seconds in result.steps.items():
        steps.add_row(f"{seconds:.2f}", Text(name))
    table = grid("", ">size", ">CPU ms", ">load ms", ">max |difference|", "answer")
    table.add_row("torch", megabytes(result.torch_size_bytes), f"{result.torch_run_cpu_ms:.2f}", "", "",
                  Text(result.label))
    for each in result.engines:
        table.add_row(Text(each.engine_version), megabytes(each.size_bytes), f"{each.run_cpu_ms:.2f}",
                      f"{each.load_ms:.1f}", f"{each.max_abs_diff:.2g}", Text(f"{each.label} ({each.score:.2f})"))
    bundle = Path(result.bundle)
    head = Text(f"{result.network}, trained weights, {Path(result.photo).name}\n")
    tail = Text(
        f"\nThe answer is '{result.label}' on torch and on {len(result.engines)} engines, "
        f"{result.seconds:.1f} s in all.\n"
        f"{bundle}   {megabytes(result.bundle_size_bytes)}, signed. Try:\n"
        f"  edgekit inspect {bundle}\n"
        f"  edgekit verify {bundle} --require-signature --public-key {result.public_key}\n"
        f"  edgekit run {bundle} {result.photo}")
    return Group(head, steps, Text(), table, tail)


@verb("demo", draw=_draw)
@click.option("-o", "--output", type=PATH, default=Path("demo-out"), show_default=True,
              help="Folder for the files that are made.")
def demo(frame: Frame, output: Path) -> DemoResult:
    """Take EfficientNet-Lite0 from torch to a signed bundle.

    With its trained weights, on LiteRT and ONNX Runtime; both name what is on a photograph, and their answers, sizes
    and times are compared with torch's.
    """
    from edgekit.demo import run_demo

    with frame.working("Starting") as step:
        return run_demo(output, step)
