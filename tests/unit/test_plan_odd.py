"""Odd observations that must neither crash the planner nor make it promise anything, and the picture of a plan."""

from __future__ import annotations

import warnings
from xml.etree import ElementTree

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from edgekit.plan import Observations, PlanRecipe, make_plan, plan_with_points
from edgekit.plan.plot import draw_curve
from tests.plan_simulation import HASH, difficulty

COUNT = 150
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(3, size=COUNT)
TRUTH = np.eye(3, dtype=np.float32)[LABELS]
Row = tuple[npt.NDArray[np.float32], ...]


def noise(classes: int = 3, scale: float = 1.0) -> npt.NDArray[np.float32]:
    return (RANDOM.standard_normal((COUNT, classes)) * scale).astype(np.float32)


SAME = noise()
ODD: dict[str, tuple[Row, ...]] = {
    "one class": ((noise(1), noise(1)),),
    "one point": ((noise(),),),
    "the same logits everywhere": ((SAME, SAME), (SAME, SAME)),
    "no opinion": ((np.zeros((COUNT, 3), np.float32),) * 2,),
    "huge logits": ((noise(3, 1e4), noise(3, 1e6)),),
    "always right": ((TRUTH, TRUTH * 50), (TRUTH * 9,)),
    "always wrong first": ((np.roll(TRUTH, 1, axis=1), noise()),),
    "nothing but noise": ((noise(), noise()), (noise(), noise())),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("recipe", [
    PlanRecipe(max_drop=2.0, max_steps=4), PlanRecipe(budget_ms=1.5, measures=("gate",)),
    PlanRecipe(budget_ms=9.0, budget_on="p95", folds=20, max_routes=1),
])
def test_odd_observations_make_a_valid_plan(name: str, recipe: PlanRecipe) -> None:
    logits = ODD[name]
    labels = np.zeros(COUNT, np.int64) if name == "one class" else LABELS
    times = tuple(tuple(1.0 for _ in row) for row in logits)
    data = Observations(logits, labels, times, 0.0, "odd", "ort", "measured", HASH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = make_plan(data, recipe)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=type(plan)) == plan  # no infinity, no NaN
    assert 1 <= len(plan.routes) <= recipe.max_routes
    default = plan.routes[plan.default]
    accuracies = [float((array.argmax(axis=1) == labels).mean()) for row in logits for array in row]
    assert default.promise.accuracy >= (max(accuracies) - 0.02 if recipe.max_drop else 0)
    if name in ("the same logits everywhere", "no opinion", "one class", "one point", "always right"):
        assert len(default.steps) == 1
    assert all(sum(route.promise.stops) == pytest.approx(1) for route in plan.routes)


def test_the_picture_has_a_dot_for_each_route_and_a_ring_at_the_default() -> None:
    planned = plan_with_points(difficulty(300, 1), PlanRecipe(max_drop=1.0, max_steps=2))
    text = draw_curve(planned, "a <b> & c")
    root = ElementTree.fromstring(text)  # noqa: S314 - our own text
    namespace = "{http://www.w3.org/2000/svg}"
    circles = [each.attrib for each in root.iter(f"{namespace}circle")]
    dots = [each for each in circles if each["r"] == "3.5" and each["fill"] == "#1f6fd6"]
    ring, = (each for each in circles if each["fill"] == "none")
    assert len(dots) == len(planned.plan.routes)
    assert (ring["cx"], ring["cy"]) == (dots[planned.plan.default]["cx"], dots[planned.plan.default]["cy"])
    across, down = ([float(dot[axis]) for dot in dots] for axis in ("cx", "cy"))
    assert across == sorted(across)
    assert down == sorted(down, reverse=True)
    words = [each.text for each in root.iter(f"{namespace}text")]
    assert "a <b> & c" in words
    assert "accuracy, %" in words
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(0 < float(each["cx"]) < width and 0 < float(each["cy"]) < height for each in circles)
