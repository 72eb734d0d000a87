"""Plans as bytes: canonical JSON, and every check that a plan must pass before anything is decided with it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence

import msgspec

from edgekit.artifacts import Engine
from edgekit.bundle.adaptive import Ladder, Plan, Promise, Route, Step
from edgekit.bundle.check_parts import check_text
from edgekit.bundle.decode import unique_keys
from edgekit.bundle.manifest import Manifest
from edgekit.errors import BadBundle

__all__ = ["MAX_PLAN_BYTES", "check_plan", "decode_plan", "encode_plan", "ladders_of", "ladders_sha256"]

MAX_PLAN_BYTES = 1024 * 1024

_MAX_ROUTES = 64
_MAX_STEPS = 16
_MAX_NOTES = 256
_MAX_NUMBER = 1e9
_BROKEN = (msgspec.MsgspecError, ValueError, RecursionError)


def ladders_of(manifest: Manifest, engine: Engine) -> tuple[Ladder, ...]:
    """The ladders of ``engine``, in the order of the manifest: what the indices of a plan count."""
    return tuple(ladder for ladder in manifest.ladders if ladder.engine == engine)


def ladders_sha256(manifest: Manifest, engine: Engine) -> str:
    """Lower-case hex of what a plan for ``engine`` is made for: each stage, with the hashes of its files.

    ``manifest`` must list its entries, as that of an opened or written bundle does (runtimes/SPEC.md, 3.5).
    """
    hashes = {entry.name: entry.sha256 for entry in manifest.entries}
    lines = [
        "\t".join((ladder.id, ladder.engine, ladder.format, ladder.precision, str(ladder.resolution[0]),
                   str(ladder.resolution[1]), str(number), hashes[stage.entry],
                   hashes[ladder.weights] if ladder.weights is not None else "", stage.signature, stage.logits))
        for ladder in ladders_of(manifest, engine) for number, stage in enumerate(ladder.stages)]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode("utf-8")).hexdigest()


def encode_plan(plan: Plan) -> bytes:
    """The canonical bytes: fields in the order of the types, no white space. Raises BadBundle for a plan that is none.

    Whether it fits a bundle is checked when it is read (``decode_plan``, ``check_plan``).
    """
    _check_numbers(plan)
    data = msgspec.json.encode(plan)
    if len(data) > MAX_PLAN_BYTES:
        raise BadBundle(f"The plan takes {len(data)} bytes; at most {MAX_PLAN_BYTES} are allowed.")
    return data


def decode_plan(data: bytes, manifest: Manifest) -> Plan:
    """The checked plan for the ladders of ``manifest``. Raises BadBundle, naming the field."""
    if len(data) > MAX_PLAN_BYTES:
        raise BadBundle(f"The plan takes {len(data)} bytes; at most {MAX_PLAN_BYTES} are allowed.")
    try:
        plan = msgspec.json.decode(data, type=Plan)
        if msgspec.json.encode(plan) != data:
            json.loads(data, object_pairs_hook=unique_keys)
    except _BROKEN as error:
        raise BadBundle(f"The plan is wrong: {str(error).rstrip('.')}.") from error
    check_plan(plan, manifest)
    return plan


def check_plan(plan: Plan, manifest: Manifest) -> None:
    """Raise BadBundle unless ``plan`` is consistent and made for the ladders of ``manifest``."""
    _check_numbers(plan)
    ladders = ladders_of(manifest, plan.engine)
    if not ladders:
        raise BadBundle(f"The plan is for ladders of '{plan.engine}', of which bundle '{manifest.name}' has none.")
    if plan.ladders_sha256 != ladders_sha256(manifest, plan.engine):
        raise BadBundle(f"The plan was not made for the ladders of bundle '{manifest.name}'.",
                        "Make one for them with: edgekit plan")
    if [len(row) for row in plan.stage_ms] != [len(ladder.stages) for ladder in ladders]:
        raise BadBundle(f"The plan times {[len(row) for row in plan.stage_ms][:20]} stages, but the ladders have "
                        f"{[len(ladder.stages) for ladder in ladders][:20]}.")
    if not 1 <= len(plan.routes) <= _MAX_ROUTES:
        raise BadBundle(f"The plan has {len(plan.routes)} routes.", f"From 1 to {_MAX_ROUTES} are allowed.")
    if not 0 <= plan.default < len(plan.routes):
        raise BadBundle(f"The plan's default is route {plan.default}, but it has {len(plan.routes)}, from 0 on.")
    for text in ("device", "objective"):
        check_text(f"plan: {text}", getattr(plan, text))
    if len(plan.notes) > _MAX_NOTES:
        raise BadBundle(f"The plan has {len(plan.notes)} notes.", f"At most {_MAX_NOTES} are allowed.")
    for number, note in enumerate(plan.notes):
        check_text(f"plan: notes[{number}]", note)
    for number, route in enumerate(plan.routes):
        _check_route(f"plan: route {number}", route, ladders)


def _check_route(what: str, route: Route, ladders: Sequence[Ladder]) -> None:
    if not 1 <= len(route.steps) <= _MAX_STEPS:
        raise BadBundle(f"The {what} has {len(route.steps)} steps.", f"From 1 to {_MAX_STEPS} are allowed.")
    reached: dict[int, int] = {}
    for number, step in enumerate(route.steps):
        where = f"{what}, step {number}"
        if not 0 <= step.ladder < len(ladders) or not 0 <= step.stage < len(ladders[step.ladder].stages):
            raise BadBundle(f"The {where} is stage {step.stage} of ladder {step.ladder}, which does not exist.",
                            f"The ladders have {[len(each.stages) for each in ladders][:20]} stages, from 0 on.")
        if step.stage <= reached.get(step.ladder, -1):
            raise BadBundle(f"The {where} is stage {step.stage} of ladder {step.ladder}, which has run by then.")
        reached[step.ladder] = step.stage
        _check_step(where, step, number)
    if route.steps[-1].threshold is not None:
        raise BadBundle(f"The last step of {what} has a threshold; it has nothing to decide.")
    _check_promise(what, route.promise, len(route.steps))


def _check_step(where: str, step: Step, number: int) -> None:
    if len(step.weights) != number + 1:
        raise BadBundle(f"The {where} has {len(step.weights)} weights, not one for each of the {number + 1} steps.")
    if (step.gate is not None) != (step.confidence == "gate"):
        has = "has no gate" if step.gate is None else "has a gate"
        raise BadBundle(f"The {where} goes by '{step.confidence}' and {has}.")


def _check_promise(what: str, promise: Promise, steps: int) -> None:
    low, high = promise.interval
    if not 0 <= low <= high <= 1 or not 0 <= promise.accuracy <= 1:
        raise BadBundle(f"The {what} promises the accuracy {promise.accuracy}, in [{low}, {high}].",
                        "They are shares, from 0 to 1.")
    if len(promise.stops) != steps or any(not 0 <= share <= 1 for share in promise.stops) or abs(
            sum(promise.stops) - 1) > 1e-6:
        raise BadBundle(f"The {what} has the stops {list(promise.stops)[:20]}: one share for each of its {steps} steps "
                        "is wanted, which add up to 1.")
    if promise.mean_ms < 0 or promise.p95_ms < 0 or promise.samples < 1:
        raise BadBundle(f"The {what} promises {promise.mean_ms} ms (p95 {promise.p95_ms}) from {promise.samples} "
                        "samples.")


def _check_numbers(plan: Plan) -> None:
    """JSON has no infinity, and msgspec writes null for it; and times that are divided by must be positive."""
    times = [time for row in plan.stage_ms for time in row]
    if not all(0 < time <= _MAX_NUMBER for time in times) or not 0 <= plan.overhead_ms <= _MAX_NUMBER:
        raise BadBundle("The plan has a time of a stage that is not above 0, or an impossible one.")
    for number, route in enumerate(plan.routes):
        if not all(math.isfinite(value) and abs(value) <= _MAX_NUMBER for value in _numbers(route)):
            raise BadBundle(f"The plan: route {number} holds a number that is not finite, or beyond 1e9.")


def _numbers(route: Route) -> Iterable[float]:
    promise = route.promise
    yield from (promise.accuracy, *promise.interval, promise.mean_ms, promise.p95_ms, *promise.stops)
    for step in route.steps:
        yield from step.weights
        if step.threshold is not None:
            yield step.threshold
        if step.gate is not None:
            yield from (*step.gate.weights, step.gate.bias)
