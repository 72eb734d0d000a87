"""``edgekit bench``: how fast a file runs here, and which of two is faster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from edgekit.cli.files import megabytes
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, engine_option, public_key_options, shape_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgekit.measure import Bench, BenchReport, Comparison, Quantiles

__all__ = ["bench"]


def _draw(result: BenchReport) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from edgekit.cli.tables import grid

    times = grid("file", "clock", ">min ms", ">median", ">p90", ">p99")
    starts = grid("file", "start", ">import ms", ">load", ">first run", ">total")
    for each in result.results:
        name = Text(Path(each.subject).name)
        times.add_row(name, "wall", *_row(each.wall_ms))
        times.add_row("", "CPU", *_row(each.cpu_ms))
        cold, warm = each.cold_start, each.warm_start
        starts.add_row(name, "cold", *(f"{ms:.1f}" for ms in (
            cold.import_ms, cold.load_ms, cold.first_run_ms, cold.total_ms)))
        starts.add_row("", "warm", "", *(f"{ms:.1f}" for ms in (warm.load_ms, warm.first_run_ms, warm.total_ms)))
    parts: list[RenderableType] = [Text("\n".join(map(_head, result.results)) + "\n"), times, Text(), starts]
    if result.comparison:
        parts.append(Text("\n" + _verdict(result.comparison)))
    return Group(*parts)


def _head(each: Bench) -> str:
    shapes = ", ".join(f"{spec.name} {'x'.join(map(str, spec.shape))}" for spec in each.inputs)
    return (f"{each.subject}   {megabytes(each.size_bytes)}, {each.engine_version}, {each.threads} thread(s), "
            f"{shapes}, {each.runs} runs after {each.warmup}")


def _row(times: Quantiles) -> tuple[str, ...]:
    return tuple(f"{ms:.3f}" for ms in (times.min, times.median, times.p90, times.p99))


def _verdict(found: Comparison) -> str:
    a, b = Path(found.a).name, Path(found.b).name
    clock = "CPU" if found.basis == "cpu" else "wall"
    figures = f"{found.ratio:.3f} ({found.low:.3f} to {found.high:.3f} with 95 %)"
    return f"{clock} time of {b} / {a}: {figures}"


@verb("bench", draw=_draw)
@click.argument("files", metavar="FILE [FILE]", type=PATH, nargs=-1, required=True)
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of the engine.")
@click.option("--runs", type=int, default=100, show_default=True, help="Timed runs (at least 10).")
@click.option("--warmup", type=int, default=10, show_default=True, help="Runs before them.")
@click.option("--max-seconds", type=float, default=30.0, show_default=True, help="Stop after this long.")
@engine_option
@shape_option
@public_key_options
def bench(
    frame: Frame, files: tuple[Path, ...], threads: int, runs: int, warmup: int, max_seconds: float, engine: str,
    shape: tuple[tuple[str, tuple[int, ...]], ...], public_key: Path | None, require_signature: bool,
) -> BenchReport:
    """Time a bundle or model file here, or two in turn.

    FILE is an .edge, .tflite, .onnx or .ort file. Wall time and CPU time (of all threads) are given side by side.
    A cold start is a fresh process: import, load, first run.
    """
    from edgekit.measure import BenchOptions
    from edgekit.measure import bench as measure

    options = BenchOptions(
        engine=cast("Literal['auto', 'litert', 'ort']", engine), threads=threads, runs=runs, warmup=warmup,
        max_seconds=max_seconds, shapes=dict(shape), public_key=None if public_key is None else str(public_key),
        require_signature=require_signature,
    )
    with frame.working(f"Timing {' and '.join(path.name for path in files)}"):
        return measure(files, options)
