"""``edgekit plan``: where an adaptive bundle should stop on a device, from validation data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click
import msgspec

from edgekit.cli.draw import Drawing, Group, Table, Text
from edgekit.cli.files import digest, refuse_same_file
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, key_option, load_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from edgekit.bundle import Manifest
    from edgekit.bundle.adaptive import Confidence, Ladder, Route
    from edgekit.plan import FixedPoint, Planned, Point

__all__ = ["PlanReport", "PlannedPoint", "PlannedRoute", "plan"]


class PlannedRoute(msgspec.Struct, frozen=True):
    """One route of the plan with what it promises; ``steps`` and ``stops`` from first to last."""

    steps: tuple[str, ...]
    confidence: str | None
    accuracy: float
    low: float
    high: float
    mean_ms: float
    p95_ms: float
    stops: tuple[float, ...]


class PlannedPoint(msgspec.Struct, frozen=True):
    """A fixed point that the routes were compared with."""

    steps: tuple[str, ...]
    accuracy: float
    low: float
    high: float
    mean_ms: float
    on_hull: bool


class PlanReport(msgspec.Struct, frozen=True):
    """What was planned and written; docs/cli.md explains the fields."""

    source: str
    output: str | None
    sidecar: str | None
    plot: str | None
    sha256: str | None
    device: str
    engine: str
    times: Literal["measured", "predicted"]
    objective: str
    samples: int
    labelled: bool
    slack_points: float
    default: int
    routes: tuple[PlannedRoute, ...]
    fixed: tuple[PlannedPoint, ...]
    notes: tuple[str, ...]
    seconds: float


def _draw(report: PlanReport) -> Drawing:

    accuracy = ">accuracy %" if report.labelled else ">agreement %"
    routes = Table("", "route", "by", accuracy, ">95 % interval", ">mean ms", ">p95 ms", "stops %")
    for number, route in enumerate(report.routes):
        routes.add_row(
            "*" if number == report.default else "", " > ".join(route.steps), route.confidence or "fixed",
            f"{100 * route.accuracy:.2f}", f"{100 * route.low:.1f} to {100 * route.high:.1f}", f"{route.mean_ms:.4g}",
            f"{route.p95_ms:.4g}", " ".join(f"{100 * share:.0f}" for share in route.stops))
    fixed = Table("fixed points on the hull", accuracy, ">95 % interval", ">ms")
    for point in report.fixed:
        if point.on_hull:
            fixed.add_row(" + ".join(point.steps), f"{100 * point.accuracy:.2f}",
                          f"{100 * point.low:.1f} to {100 * point.high:.1f}", f"{point.mean_ms:.4g}")
    written = [f"{path}   {what}" for path, what in (
        (report.output, f"sha256 {report.sha256}"), (report.sidecar, "the plan alone"), (report.plot, "the curve"),
    ) if path]
    head = (f"{report.device}, {report.times} times, {report.samples} samples, objective: {report.objective}; "
            f"* is the default")
    return Group(Text("\n".join([*written, head]) + "\n"), routes, Text(), fixed, Text(),
                 *(Text(note) for note in report.notes))


@verb("plan", draw=_draw)
@click.argument("source", metavar="IN.edge", type=PATH)
@click.option("--data", type=PATH, required=True, metavar="VAL.npz|FOLDER",
              help="Validation images: arrays images (uint8 N,H,W,3) and labels, or a folder for each class.")
@click.option("-o", "--output", type=PATH, metavar="OUT.edge", help="Write the bundle with the plan in it.")
@click.option("--sidecar", type=PATH, metavar="FILE.edgeplan", help="Write the plan alone, for the same bundle.")
@click.option("--plot", type=PATH, metavar="FILE.svg", help="Write the curve of accuracy against time.")
@click.option("--device", default="host", show_default=True,
              help="host: time the stages here; else the id of a device profile that predicts them.")
@click.option("--engine", type=click.Choice(["auto", "litert", "ort"]), default="auto", show_default=True,
              help="Whose ladders to plan.")
@click.option("--budget-ms", type=float, help="The most accurate route of at most this mean time.")
@click.option("--budget-on", type=click.Choice(["mean", "p95"]), default="mean", show_default=True,
              help="Whether the budget is for the mean or the 95th percentile.")
@click.option("--max-drop", type=float, metavar="POINTS",
              help="The cheapest route that loses at most so much against the most accurate fixed point.")
@click.option("--sweep", is_flag=True, help="The whole front; the default loses nothing. This is the default.")
@click.option("--slack", type=float, metavar="POINTS", help="Taken off promises, instead of what blind halves say.")
@click.option("--measure", "measures", type=click.Choice(["margin", "max_probability", "gate"]), multiple=True,
              help="Allow only these measures of confidence. May be repeated.")
@click.option("--max-steps", type=click.IntRange(1, 4), default=3, show_default=True, help="The longest route.")
@click.option("--limit", type=click.IntRange(min=1), help="Use so many of the images.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the folds.")
@key_option
def plan(
    frame: Frame, source: Path, data: Path, output: Path | None, sidecar: Path | None, plot: Path | None, device: str,
    engine: str, budget_ms: float | None, budget_on: str, max_drop: float | None, sweep: bool, slack: float | None,
    measures: tuple[str, ...], max_steps: int, limit: int | None, seed: int, key: Path | None,
) -> PlanReport:
    """Plan where an adaptive bundle stops: which resolution and exit for which input, on a device.

    All stages run on the validation images; routes are chosen and judged by cross-validation. Where a fixed point is
    better, the plan is that point and says so. Models in the bundle are copied unchanged; --key signs what is written.
    """
    if not (output or sidecar):
        raise click.UsageError("Missing option '-o' or '--sidecar': nothing would be written.")
    if sweep and (budget_ms is not None or max_drop is not None):
        raise click.UsageError("--sweep asks for no budget and no drop; leave them out.")
    if output is not None:
        refuse_same_file(source, output)
    begin = time.perf_counter()
    from edgekit.plan import PlanRecipe, plan_with_points
    from edgekit.planning import ObserveOptions, observe

    recipe = PlanRecipe(
        budget_ms=budget_ms, budget_on=cast('Literal["mean", "p95"]', budget_on), max_drop=max_drop, slack=slack,
        max_steps=max_steps, seed=seed,
        measures=cast("tuple[Confidence, ...]", measures) or ("margin", "max_probability", "gate"))
    private = load_key(key)
    options = ObserveOptions(engine=cast('Literal["auto", "litert", "ort"]', engine), device=device, limit=limit)
    with frame.working("Running every stage on the images") as show:
        observations = observe(source, data, options)
        show("Choosing routes")
        planned = plan_with_points(observations, recipe)
    manifest = _write(source, planned, (output, sidecar, plot), private)
    return _report(planned, manifest, observations.labels is not None, (source, output, sidecar, plot),
                   time.perf_counter() - begin)


def _write(
    source: Path, planned: Planned, paths: tuple[Path | None, Path | None, Path | None], key: Ed25519PrivateKey | None
) -> Manifest:
    """The bundle, the sidecar and the plot, those that are wanted. Returns the manifest of the source."""
    from edgekit.atomic import write_atomically
    from edgekit.bundle import Bundle, write_plan
    from edgekit.plan.plot import draw_curve
    from edgekit.planning import store_plan

    output, sidecar, plot = paths
    with Bundle.open(source) as bundle:
        manifest = bundle.manifest
    if output is not None:
        store_plan(source, output, planned.plan, key)
    if sidecar is not None:
        write_plan(sidecar, planned.plan, manifest, key)
    if plot is not None:
        write_atomically(plot, draw_curve(planned, manifest.name).encode())
    return manifest


def _report(
    planned: Planned, manifest: Manifest, labelled: bool, paths: tuple[Path, Path | None, Path | None, Path | None],
    seconds: float,
) -> PlanReport:
    from edgekit.bundle import ladders_of

    made = planned.plan
    ladders = ladders_of(manifest, made.engine)
    source, output, sidecar, plot = paths
    return PlanReport(
        source=str(source), output=_text(output), sidecar=_text(sidecar), plot=_text(plot),
        sha256=None if output is None else digest(output), device=made.device, engine=made.engine, times=made.source,
        objective=made.objective, samples=made.routes[0].promise.samples, labelled=labelled,
        slack_points=planned.slack, default=made.default, routes=tuple(_route(route, ladders) for route in made.routes),
        fixed=tuple(_point(point, ladders) for point in planned.fixed), notes=made.notes, seconds=seconds,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _route(route: Route, ladders: tuple[Ladder, ...]) -> PlannedRoute:
    promise = route.promise
    return PlannedRoute(
        steps=tuple(_named(ladders[step.ladder], step.stage) for step in route.steps),
        confidence=route.steps[0].confidence if len(route.steps) > 1 else None, accuracy=promise.accuracy,
        low=promise.interval[0], high=promise.interval[1], mean_ms=promise.mean_ms, p95_ms=promise.p95_ms,
        stops=promise.stops,
    )


def _point(point: FixedPoint, ladders: tuple[Ladder, ...]) -> PlannedPoint:
    return PlannedPoint(_names(point.chain, ladders), point.accuracy, *point.interval, point.mean_ms, point.on_hull)


def _names(chain: tuple[Point, ...], ladders: tuple[Ladder, ...]) -> tuple[str, ...]:
    return tuple(_named(ladders[point.ladder], point.stage) for point in chain)


def _named(ladder: Ladder, stage: int) -> str:
    """A person's name for a point: the resolution and, where there are several, the exit."""
    height, width = ladder.resolution
    size = f"{height}" if height == width else f"{height}x{width}"
    return size if len(ladder.stages) == 1 else f"{size}@{stage}"
