"""``edgekit bench``: how fast a file runs here, and which of two is faster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from edgekit.cli.draw import Drawing, Group, Table, Text
from edgekit.cli.files import megabytes
from edgekit.cli.frame import Frame, Partial, verb
from edgekit.cli.options import PATH, engine_option, public_key_options, shape_option
from edgekit.errors import BadRecipe, UnstableFigure

if TYPE_CHECKING:
    from edgekit.measure import Bench, BenchReport, Comparison, Quantiles
    from edgekit.measure_ops import PerOpReport
    from edgekit.remote.transport import Transport
    from edgekit.stability import Sustained

__all__ = ["bench"]


def _draw(result: BenchReport | PerOpReport) -> Drawing:
    from edgekit.measure_ops import PerOpReport

    if isinstance(result, PerOpReport):
        from edgekit.cli.bench_ops import draw_ops

        return draw_ops(result)


    times = Table("file", "clock", ">min ms", ">median", ">p90", ">p99")
    starts = Table("file", "start", ">import ms", ">load", ">first run", ">total")
    for each in result.results:
        name = Text(Path(each.subject).name)
        times.add_row(name, "wall", *_row(each.wall_ms))
        times.add_row("", "CPU", *_row(each.cpu_ms))
        cold, warm = each.cold_start, each.warm_start
        starts.add_row(name, "cold", *(f"{ms:.1f}" for ms in (
            cold.import_ms, cold.load_ms, cold.first_run_ms, cold.total_ms)))
        starts.add_row("", "warm", "", *(f"{ms:.1f}" for ms in (warm.load_ms, warm.first_run_ms, warm.total_ms)))
    parts: list[Drawing] = [Text("\n".join(map(_head, result.results)) + "\n"), times, Text(), starts]
    for each in result.results:
        if each.sustained:
            parts += [Text(f"\n{Path(each.subject).name}: {_course(each.sustained)}"), _windows(each.sustained)]
        if not each.trusted:
            parts.append(Text(f"\nNOT A FIGURE: {Path(each.subject).name}: {each.refused}", "bold red"))
    if result.comparison:
        parts.append(Text("\n" + _verdict(result.comparison)))
    return Group(*parts)


def _head(each: Bench) -> str:
    shapes = ", ".join(f"{spec.name} {'x'.join(map(str, spec.shape))}" for spec in each.inputs)
    board = each.board
    where = f"\n  on {board.address}: {board.name or board.machine}, {board.cores} cores, {board.system}, " \
            f"Python {board.python}{f', governor {board.governor}' if board.governor else ''}" if board else ""
    return (f"{each.subject}   {megabytes(each.size_bytes)}, {each.engine_version}, {each.threads} thread(s), "
            f"{shapes}, {each.runs} runs after {each.warmup}{where}")


def _course(found: Sustained) -> str:
    """The drift in words."""
    clock = "the clock is not told here" if found.first_mhz is None or found.last_mhz is None else \
        f"clock {found.first_mhz:.0f} to {found.last_mhz:.0f} MHz"
    heat = "" if found.hottest_c is None else f", hottest {found.hottest_c:.0f} deg C"
    return (f"{found.seconds:.0f} s without a pause; last part over first: {found.drift:.3f} ({found.drift_low:.3f} to "
            f"{found.drift_high:.3f} with 95 %); {'THROTTLED, ' if found.throttled else ''}{clock}{heat}")


def _windows(found: Sustained) -> Drawing:

    table = Table(">at s", ">runs", ">p10 ms", ">median", ">p90")
    for each in found.windows:
        table.add_row(f"{each.at_s:.0f}" if found.seconds > 20 else f"{each.at_s:.1f}", str(each.runs),
                      *(f"{ms:.3f}" for ms in (each.p10_ms, each.median_ms, each.p90_ms)))
    return table


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
@click.option("--sustain", type=float, metavar="SECONDS", help="Run for so long without a pause and show the drift.")
@click.option("--strict", is_flag=True, help="Fail when a figure spreads or drifts too much to be trusted.")
@click.option("--remote", metavar="ssh://USER@HOST", help="Measure on this board, over SSH.")
@click.option("--adb", metavar="[SERIAL]", is_flag=False, flag_value="",
              help="Measure on an Android device (written after FILE).")
@click.option("--remote-python", default="python3", show_default=True, help="The Python to use there.")
@click.option("--per-op", is_flag=True, help="Time each op of one model file, and compare their sum with the whole.")
@engine_option
@shape_option
@public_key_options
def bench(
    frame: Frame, files: tuple[Path, ...], threads: int, runs: int, warmup: int, max_seconds: float,
    sustain: float | None, strict: bool, remote: str | None, adb: str | None, remote_python: str, per_op: bool,
    engine: str, shape: tuple[tuple[str, tuple[int, ...]], ...], public_key: Path | None, require_signature: bool,
) -> BenchReport | PerOpReport:
    """Time a bundle or model file here or on a board, or two in turn.

    FILE is an .edge, .tflite, .onnx or .ort file. Wall time and CPU time (of all threads) are given side by side.
    A cold start is a fresh process: import, load, first run.
    """
    from edgekit.measure import BenchOptions
    from edgekit.measure import bench as measure

    options = BenchOptions(
        engine=cast("Literal['auto', 'litert', 'ort']", engine), threads=threads, runs=runs, warmup=warmup,
        max_seconds=max_seconds, sustain_s=sustain, shapes=dict(shape),
        public_key=None if public_key is None else str(public_key), require_signature=require_signature,
    )
    transport = _transport(remote, adb)
    if per_op:
        if len(files) != 1 or transport is not None or sustain is not None:
            raise BadRecipe("--per-op times one model file, here.", "Leave out the other files and options.")
        from edgekit.measure_ops import measure_ops

        with frame.working(f"Timing the ops of {files[0].name}"):
            return measure_ops(files[0], options)
    where = f" on {transport.address}" if transport else ""
    with frame.working(f"Timing {' and '.join(path.name for path in files)}{where}"):
        if transport is None:
            report = measure(files, options)
        else:
            from edgekit.remote.bench import RemoteOptions, bench_on

            report = bench_on(transport, files, options, RemoteOptions(python=remote_python))
    refused = [f"{each.subject}: {each.refused}" for each in report.results if not each.trusted]
    if strict and refused:
        raise Partial(UnstableFigure(f"No figure can be given. {'. '.join(refused)}."), report)
    return report


def _transport(remote: str | None, adb: str | None) -> Transport | None:
    if remote is not None and adb is not None:
        raise BadRecipe("Both --remote and --adb were given.", "Leave one out.")
    if remote is not None:
        from edgekit.remote.ssh import SshTransport

        return SshTransport(remote)
    if adb is not None:
        from edgekit.remote.adb import AdbTransport

        return AdbTransport(adb or None)
    return None
