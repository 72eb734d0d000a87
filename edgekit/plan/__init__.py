"""Planning: where an adaptive network should stop on a device, from validation data. Pure: no file, no clock."""

from edgekit.plan.make import FixedPoint, Planned, make_plan, plan_with_points, plans_with_points
from edgekit.plan.observations import Observations, PlanRecipe, Point

__all__ = ["FixedPoint", "Observations", "PlanRecipe", "Planned", "Point", "make_plan", "plan_with_points",
           "plans_with_points"]
