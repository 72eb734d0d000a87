"""Finds the recipe: few candidates, proposed from what XNNPACK takes of the files so far, each measured.

1. Starting points: every form of the weights, everything static, only weights static.
2. From "everything static", kinds of ops that cut XNNPACK's partitions go back to float, until none does.
3. From the best, one kind of op at a time changes its form; changes that pay are taken together.
4. Where the fastest is not good enough, ops go back to float: those that add most error, or else the first ones.
5. The few that are left are judged on all samples and timed once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from edgekit.artifacts import LiteRTModel
from edgekit.converters.quantize.apply import needs_ranges
from edgekit.converters.quantize.goal import Goal
from edgekit.converters.quantize.notes import about_judgement, about_risk
from edgekit.converters.quantize.plan import Plan, combined, small, without_left_out
from edgekit.converters.quantize.samples import Samples
from edgekit.converters.quantize.sensitivity import Layer, to_keep
from edgekit.converters.quantize.workbench import Model, Trial, Workbench
from edgekit.recipe import QuantRecipe

__all__ = ["Goal", "Search", "Step", "search", "search_on"]

#: a change must make a file this much faster to count, since timing is not more exact
_PAYS = 0.98
#: files that differ less than this in time count as equally fast, and the smaller is taken
_EQUAL = 1.03
#: adaptive rounding and corrected biases must bring so much to be worth their place in the recipe
_HELPS_DB = 0.2
_ROUNDS = 2
_FINALISTS = 5


class Step(msgspec.Struct, frozen=True):
    """One step of the accuracy loop: which tensors' ops were kept float, and what came of it."""

    kept: tuple[str, ...]
    sqnr_db: float
    ratio: float | None
    met: bool


_DEFAULT_GOAL = Goal()
_NO_RULES = QuantRecipe(())


class Search(msgspec.Struct, frozen=True):
    """The chosen file with how it was found.

    ``chosen`` is None when the float file itself is the answer. ``pareto``: names of trials that no other beats in
    time, size and quality at once. ``float_cpu_ms``: CPU time of the float file in the last measurement.
    """

    model: Model
    recipe: QuantRecipe
    chosen: Trial | None
    trials: tuple[Trial, ...]
    pareto: tuple[str, ...]
    steps: tuple[Step, ...]
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]
    float_size_bytes: int
    float_partitions: int
    seconds: float


def search(
    model: LiteRTModel, samples: Samples, goal: Goal = _DEFAULT_GOAL, base: QuantRecipe = _NO_RULES,
    on_step: Callable[[str], None] | None = None,
) -> Search:
    """The best precision for ``model`` by ``goal``, on this machine with one thread.

    After ``goal.max_seconds`` no new round of candidates is begun. ``base`` gives the method of calibration, ``io``,
    and ranges where it has them; its rules are not used. ``on_step`` is told what is being done.

    Raises BadInput for samples that do not fit, EngineError or BadModel when the float file does not run, MissingExtra.
    """
    say = on_step or (lambda _: None)
    say("calibrating")
    return search_on(lambda: Workbench(model, samples, base), goal, base, say)


def search_on(
    opened: Callable[[], Workbench], goal: Goal, base: QuantRecipe, say: Callable[[str], None]
) -> Search:
    """The search on a workbench of any engine; making it, which calibrates, counts as part of the search."""
    started = time.perf_counter()
    run = _Run(opened(), goal, say)
    model = run.bench.source
    run.explore()
    run.refine()
    run.extend(0.25 * goal.max_seconds)
    run.raise_quality()
    chosen = run.choose()
    recipe = run.bench.base if chosen is None else run.bench.recipe_of(chosen.plan)
    recipe = msgspec.structs.replace(recipe, rules=() if chosen is None else recipe.rules, io=base.io)
    if not needs_ranges(recipe):
        recipe = msgspec.structs.replace(recipe, ranges={})
    made = model if chosen is None and base.io == "float32" else run.bench.quantized(recipe)
    say("finding where the error enters")
    layers = run.bench.layers(run.bench.files[chosen.name]) if chosen is not None else ()
    trials = tuple(sorted(run.trials.values(), key=lambda trial: trial.speed.ratio if trial.speed else 99.0))
    return Search(
        model=made, recipe=recipe, chosen=chosen, trials=trials, pareto=pareto(trials), steps=tuple(run.steps),
        layers=layers, notes=tuple(run.notes(chosen)), float_size_bytes=len(model.data),
        float_partitions=run.bench.placement.partitions, seconds=time.perf_counter() - started,
    )


def pareto(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Names of the timed trials that no other one equals or beats in time, size and quality together."""
    timed = [trial for trial in trials if trial.speed is not None]

    def beats(a: Trial, b: Trial) -> bool:
        assert a.speed is not None
        assert b.speed is not None
        ours = a.speed.ratio, a.size_bytes, -a.quality.sqnr_db
        theirs = b.speed.ratio, b.size_bytes, -b.quality.sqnr_db
        return ours != theirs and all(x <= y for x, y in zip(ours, theirs, strict=True))

    return tuple(trial.name for trial in timed if not any(beats(other, trial) for other in timed))


class _Run:
    """The state of one search."""

    def __init__(self, bench: Workbench, goal: Goal, say: Callable[[str], None]) -> None:
        self.bench, self.goal, self.say = bench, goal, say
        self.trials: dict[str, Trial] = {}
        self.steps: list[Step] = []
        self._deadline = time.perf_counter() + 0.75 * goal.max_seconds  # the rest is for raising the quality
        self.mended_db: float | None = None  # what adaptive rounding and corrected biases brought
        self.equalized_db: float | None = None  # what scaled channels brought on top
        self.cut: set[str] = set()  # kinds of which XNNPACK left out some when they were static
        self._made: set[object] = set()
        self._sure: set[str] = set()  # names of the trials that were judged on all samples

    def _make(self, plans: Sequence[Plan]) -> list[Trial]:
        """New candidates; a plan that amounts to one made before is passed over."""
        new = []
        for plan in plans:
            rules = plan.rules()
            if rules and (rules, plan.mended, plan.equalized) not in self._made:
                self._made.add((rules, plan.mended, plan.equalized))
                new.append(plan)
        fresh = self.bench.make(new, self.say)
        self.trials.update({trial.name: trial for trial in fresh})
        return fresh

    def _time(self, trials: Sequence[Trial]) -> list[Trial]:
        per_file = min(0.6, max(0.3, 1.2 * len(trials) ** -0.5))
        timed = self.bench.timed(trials, self._affordable(per_file * (len(trials) + 1)), on_step=self.say)
        self.trials.update({trial.name: trial for trial in timed})
        return timed

    def _affordable(self, seconds: float) -> float:
        """``seconds`` for measuring, or less where the whole search is to be short."""
        return min(seconds, max(1.0, 0.25 * self.goal.max_seconds))

    def _late(self) -> bool:
        """Whether the time for new candidates is over."""
        return time.perf_counter() > self._deadline

    def extend(self, seconds: float) -> None:
        """At least so much time from now for new candidates."""
        self._deadline = max(self._deadline, time.perf_counter() + seconds)

    def explore(self) -> None:
        """Starting points, and static with the ops that cut partitions in float."""
        plans = self.bench.bases()
        stock, made = plans[0], self._make(plans)
        queue = [trial for trial in made if trial.plan == stock and not trial.failure]
        while queue:
            trial = queue.pop()
            self.cut |= {kind for kind, _ in trial.left_out if trial.plan.kinds.get(kind) == "static8"}
            repaired = without_left_out(trial.plan, trial.left_out, self.bench.left_out, self.bench.graph)
            better = [each for each in self._make(repaired) if not each.failure]
            queue += better
            made += better
        if self.goal.objective == "size" and self.bench.mends:
            made += self._make(small(self.bench.graph))
        self._time(made)

    def refine(self) -> None:
        """One kind at a time from the best, then all changes that paid together."""
        for _ in range(_ROUNDS):
            best = self._best(self._good())
            if best is None or best.speed is None or self._late():
                return
            made = self._make(self.bench.flips(best.plan, self.cut))
            timed = self._time([trial for trial in made if self._met(trial)] + [best])
            if self._late():
                return
            now = next((trial for trial in timed if trial.name == best.name), best)
            paying = sorted((trial for trial in timed if _ratio(trial) < _PAYS * _ratio(now)), key=_ratio)
            if not paying:
                return
            if len(paying) > 1:
                plan = combined(best.plan, [trial.plan for trial in paying])
                self._time([*self._make([plan]), paying[0]])

    def raise_quality(self) -> None:
        """Keep the worst layers float in the fastest file that is not good enough, while that can still win."""
        best = self._best(self._good())
        while best is not None and not self._passes(best):
            best = self._best(self._good())
        limit = _ratio(best) if best is not None else 1.0
        hopeful = [trial for trial in self.trials.values()
                   if trial.speed is not None and not self._met(trial) and _ratio(trial) < _PAYS * limit]
        if self.goal.objective == "size" or not hopeful:
            return
        start = self._mended(self._with_dynamic_linear(min(hopeful, key=_ratio)))
        if self._passes(start):
            self._time([self.trials[start.name]])
            return
        self.say(f"finding the sensitive layers of '{start.name}'")
        layers = self.bench.layers(self.bench.files[start.name])
        if not self._keep_worst(start, layers):
            self._keep_first(start)
        self._smaller()

    def _with_dynamic_linear(self, start: Trial) -> Trial:
        """``start``, or better with linear layers dynamic, which costs next to nothing and spares its range."""
        static = [kind for kind in self.bench.linear if start.plan.kinds.get(kind) == "static8"]
        if not static:
            return start
        plan = start.plan.changed(dict.fromkeys(static, "dynamic8"))
        self._make([plan])
        made = self.trials.get(plan.name, start)
        return made if not made.failure and made.quality.sqnr_db > start.quality.sqnr_db else start

    def _mended(self, start: Trial) -> Trial:
        """``start``, or better with adaptive rounding and corrected biases, which cost no time in use."""
        if not self.bench.mends or start.plan.mended:
            return start
        plans = [msgspec.structs.replace(start.plan, mended=True, equalized=equalized) for equalized in (False, True)]
        plain, scaled = (self._best_made(start, plan) for plan in plans)
        self.equalized_db = scaled.quality.sqnr_db - plain.quality.sqnr_db
        best = scaled if self.equalized_db >= _HELPS_DB else plain
        if best is start:
            return start
        self.mended_db = best.quality.sqnr_db - start.quality.sqnr_db
        return best

    def _best_made(self, start: Trial, plan: Plan) -> Trial:
        """What ``plan`` makes, where it is better than ``start`` by enough."""
        made = [trial for trial in self._make([plan]) if not trial.failure]
        good = made and made[0].quality.sqnr_db >= start.quality.sqnr_db + _HELPS_DB
        return made[0] if good else start

    def _smaller(self) -> None:
        """Store the weights of the ops that stay float as integers or float16, where that is still good enough."""
        best = self._best(self._good())
        if best is None or not best.plan.keep or not self.bench.mends:
            return
        for form in ("weight8", "float16"):
            for made in self._make([msgspec.structs.replace(best.plan, keep_as=form)]):
                if not made.failure and self._passes(made):
                    self._time([self.trials[made.name], best])
                    return

    def _keep_worst(self, start: Trial, layers: Sequence[Layer]) -> bool:
        """Keep 1, 2, 4, ... of the layers that add most error float, up to a quarter; whether that was enough."""
        count = 1
        while count <= max(1, len(layers) // 4):
            if self._step(start, to_keep(layers, count)):
                return True
            if self._late():
                return False
            count *= 2
        return False

    def _keep_first(self, start: Trial) -> None:
        """Keep the first ops float, as few as suffice: what enters early can grow on its way through the network."""
        tensors = [tensor for _, tensor in self.bench.graph.ops]
        enough, too_few = len(tensors), 0
        while enough - too_few > max(1, len(tensors) // 16) and not self._late():
            middle = (enough + too_few) // 2
            if self._step(start, tuple(tensors[:middle])):
                enough = middle
            else:
                too_few = middle

    def _step(self, start: Trial, kept: tuple[str, ...]) -> bool:
        """One step of the accuracy loop; whether the quality suffices."""
        made = self._make([start.plan.changed({}, keep=kept)])
        if not made or made[0].failure:
            return False
        met = self._passes(made[0])
        made = [self.trials[made[0].name]]
        timed = self._time(made) if met else made
        self.steps.append(Step(kept, made[0].quality.sqnr_db, timed[0].speed.ratio if timed[0].speed else None, met))
        return met

    def _judged(self, trial: Trial) -> Trial:
        """``trial`` with its quality on all samples."""
        judged = msgspec.structs.replace(trial, quality=self.bench.judge(self.bench.files[trial.name]))
        self.trials[trial.name] = judged
        self._sure.add(trial.name)
        return judged

    def _met(self, trial: Trial) -> bool:
        """Whether ``trial`` is good enough, as far as that is known."""
        return self.goal.met(trial.quality) if trial.name in self._sure else self.goal.possible(trial.quality)

    def _passes(self, trial: Trial) -> bool:
        """Whether ``trial`` is good enough on all samples, on which it is judged if it may be."""
        if self._met(trial) and trial.name not in self._sure:
            trial = self._judged(trial)
        return self._met(trial)

    def _good(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.speed is not None and self._met(trial)]

    def _best(self, trials: Sequence[Trial]) -> Trial | None:
        if not trials:
            return None
        if self.goal.objective == "size":
            return min(trials, key=lambda trial: (trial.size_bytes, _ratio(trial)))
        limit = _EQUAL * min(_ratio(trial) for trial in trials)
        return min((trial for trial in trials if _ratio(trial) <= limit), key=lambda trial: trial.size_bytes)

    def choose(self) -> Trial | None:
        """The best of the finalists, judged on all samples and timed side by side; None: the float file."""
        order = sorted(self._good(), key=_ratio if self.goal.objective == "latency" else lambda t: t.size_bytes)
        while order:
            finalists, order = order[:_FINALISTS], order[_FINALISTS:]
            self.say("judging the finalists on all samples")
            judged = [self._judged(trial) for trial in finalists]
            timed = self.bench.timed([trial for trial in judged if self.goal.met(trial.quality)],
                                     self._affordable(1.5 * (len(judged) + 1)), on_step=self.say)
            self.trials.update({trial.name: trial for trial in timed})
            useful = [trial for trial in timed if self.goal.objective == "size" or _ratio(trial) < 1.0]
            best = self._best(useful)
            if best is not None:
                return best
        return None

    def notes(self, chosen: Trial | None) -> list[str]:
        """What a person should know besides the figures."""
        found = []
        integer = [trial for trial in self.trials.values() if trial.speed is not None and _is_integer(trial)]
        fastest = min(integer, key=_ratio, default=None)
        if fastest is not None and _ratio(fastest) >= _PAYS:
            found.append(f"No int8 file is faster than the float file here; the fastest, '{fastest.name}', takes "
                         f"{_ratio(fastest):.2f} times as long. {self.bench.otherwise}.")
        if chosen is None:
            found.append("No candidate is both good enough and faster than the float file: the float file is kept.")
        elif _is_integer(chosen) and _ratio(chosen) > 1:
            found.append(f"The chosen int8 file is slower than the float file ({_ratio(chosen):.2f} times as long).")
        stock = next((trial for trial in self.trials.values() if trial.plan == self.bench.bases()[0]), None)
        if stock is not None and stock.speed is not None and _ratio(stock) > 1:
            found.append(f"Quantizing everything statically would be {_ratio(stock):.2f} times as slow as float: "
                         f"{self.bench.why_slow(stock)}.")
        if self.mended_db is not None:
            used = "is used" if chosen is not None and chosen.plan.mended else "is not used"
            found.append("Adaptive rounding with corrected biases raised the fastest file's SQNR by "
                         f"{self.mended_db:.1f} dB; it {used} in the chosen file.")
        if self.equalized_db is not None:
            used = "used" if chosen is not None and chosen.plan.equalized else "not used"
            found.append(f"Equalised channels changed that by another {self.equalized_db:+.1f} dB; they are {used} in "
                         "the chosen file.")
        found += about_risk(sorted(self.trials.values(), key=_ratio), chosen, self.goal)
        judged = max((trial.quality for trial in self.trials.values()), key=lambda each: each.samples, default=None)
        if judged is not None:
            found += about_judgement(judged if chosen is None else chosen.quality, self.bench.samples,
                                     self.goal.max_drop_points, self.goal.min_sqnr_db)
        if self.bench.samples.random:
            found.append("The calibration data is random: ranges and quality say little about real inputs.")
        return found


def _ratio(trial: Trial) -> float:
    return trial.speed.ratio if trial.speed is not None else float("inf")


def _is_integer(trial: Trial) -> bool:
    return any(precision in ("static8", "dynamic8", "dynamic4") for precision in trial.plan.kinds.values())
