"""``edgekit demo``: a real network from torch weights to a signed bundle, on both engines, and an adaptive one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.draw import Drawing, Group, Table, Text
from edgekit.cli.files import megabytes
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH

if TYPE_CHECKING:
    from edgekit.demo import DemoResult
    from edgekit.demo_adaptive import AdaptiveResult

__all__ = ["demo"]


def _draw(result: DemoResult) -> Drawing:

    steps = Table(">seconds", "step")
    for name, seconds in result.steps.items():
        steps.add_row(f"{seconds:.2f}", Text(name))
    table = Table("", ">size", ">CPU ms", ">load ms", ">max |difference|", "answer")
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
    return Group(head, steps, Text(), table, tail, Text(), *_adaptive(result.adaptive))


def _adaptive(found: AdaptiveResult) -> Iterator[Drawing]:
    """The adaptive bundle, the fixed points beside it, and where it stopped."""
    yield Text(f"The adaptive network that comes along ({megabytes(found.size_bytes)}), on {found.images} images that "
               f"it has not seen:\n")
    table = Table("", ">accuracy %", ">CPU ms", ">with resizing")
    for name, each in (("adaptive", found.adaptive), (f"fixed: {found.fixed.name}", found.fixed),
                       (f"whole: {found.whole.name}", found.whole)):
        table.add_row(Text(name), f"{100 * each.accuracy:.2f}", f"{each.cpu_ms:.3f}", f"{each.with_resizing_ms:.3f}")
    yield table
    stops = Table("answered by", ">% of images")
    for name, share in found.stops.items():
        stops.add_row(Text(name), f"{100 * share:.0f}")
    yield Text()
    yield stops
    yield Text(f"\nSaved: {_percent(found.saved_whole, found.saved_whole_interval)} of the whole network's time, "
               f"{_percent(found.saved_fixed, found.saved_fixed_interval)} of the cheapest\n"
               f"fixed exit's that is as accurate. The curve and the images by exit: {found.picture}\n"
               f"Try: edgekit inspect {found.bundle}")


def _percent(part: float, interval: tuple[float, float]) -> str:
    return f"{100 * part:.0f} % ({100 * interval[0]:.0f} to {100 * interval[1]:.0f})"


@verb("demo", draw=_draw)
@click.option("-o", "--output", type=PATH, default=Path("demo-out"), show_default=True,
              help="Folder for the files that are made.")
def demo(frame: Frame, output: Path) -> DemoResult:
    """Take EfficientNet-Lite0 from torch to a signed bundle, and show an adaptive one.

    With its trained weights, on LiteRT and ONNX Runtime; both name what is on a photograph, and their answers, sizes
    and times are compared with torch's. Then a small network with exits at three resolutions is planned for this
    machine and answers images it has not seen, beside fixed points of itself.
    """
    from edgekit.demo import run_demo

    with frame.working("Starting") as step:
        return run_demo(output, step)
