"""A study: one cell's ranges, and the values that it proposes by what earlier ones came to.

A proposal is a function of the study, its number, the results that it was told and the values that
still run. Nothing is kept between proposals: the study is made again for each, from what the store
holds, and so it does not matter who asks, when, and what has died in between.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from nas_sweeps import methods
from nas_sweeps.trial import (
    Data,
    Distribution,
    Identified,
    Knob,
    MethodSpec,
    SearchRecipe,
    SearchTrial,
    absent_values,
)
from nas_sweeps.tuning.ranges import Range, plain_recipe, ranges_of

if TYPE_CHECKING:
    import optuna

Sampler = Literal["tpe", "random", "cmaes", "nsga2"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
_REMEMBERS = ("cmaes", "nsga2")  # samplers that keep their state in the trials that they asked for
_TRIES = 8  # of a sampler to propose what was not proposed before
_DIGITS = 6  # of a real number that is proposed: the last bits differ between machines
_RECIPE = "recipe."  # before the names of a recipe's settings

Values = tuple[tuple[str, Knob], ...]  # by name, in the order of the ranges


class Told(NamedTuple):
    """Values that were proposed and tried, and the mean objective; None: a trial has none.

    ``pruned`` is what a trial that was given up came to, by epoch; None: it failed.
    """

    values: Values
    objective: float | None
    pruned: tuple[tuple[int, float], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study(Identified):
    """What of one cell of a grid is tuned, and how. Not how long, nor how much at once.

    So a study goes on when its budget grows. ``seeds`` are those over which the objective of each
    proposal is averaged; the sampler draws from ``seed``.
    """

    method: MethodSpec
    recipe: SearchRecipe
    data: Data
    distribution: Distribution
    seeds: tuple[int, ...]
    objective: str
    sampler: Sampler
    startup: int
    seed: int

    @property
    def name(self) -> str:
        """Short, for tables and commands."""
        return self.digest[:8]

    @property
    def ranges(self) -> dict[str, Range]:
        """By knob, and by ``recipe.setting``."""
        settings = {_RECIPE + name: span for name, span in ranges_of(self.recipe)}
        return dict(ranges_of(self.method)) | settings

    def defaults(self) -> Values:
        """The values before tuning: proposal 0."""
        return self._values(self.method, self.recipe)

    def values_of(self, trial: SearchTrial) -> Values:
        """What of a trial was proposed."""
        return self._values(trial.method, trial.recipe)

    def _values(self, method: MethodSpec, recipe: SearchRecipe) -> Values:
        knobs = absent_values(methods.get(method.name)) | dict(method.knobs)
        return tuple(
            (name, _of_recipe(recipe, name) if name.startswith(_RECIPE) else knobs[name])
            for name in self.ranges
        )

    def trial(self, values: Values, data: Data, seed: int) -> SearchTrial:
        """The search with these values, as a grid that says them has it."""
        chosen = dict(values)
        settings: dict[str, Any] = {
            name.removeprefix(_RECIPE): value
            for name, value in chosen.items()
            if name.startswith(_RECIPE)
        }
        knobs = absent_values(methods.get(self.method.name)) | dict(self.method.knobs)
        knobs |= {name: value for name, value in chosen.items() if name in knobs}
        return SearchTrial(
            data=data,
            distribution=self.distribution,
            method=methods.resolve(self.method.name, knobs),
            recipe=replace(plain_recipe(self.recipe), **settings),
            seed=seed,
        )

    def propose(self, told: Sequence[Told], running: Sequence[Values]) -> Values:
        """The next values: its number is that of all that were told and run.

        Args:
            told: of the first proposals, in their order.
            running: of those after them, whose results are not known, or not known yet to whoever
                asks: the sampler takes each for as bad as the worst.
        """
        if not told and not running:
            return self.defaults()
        return _ask(self, tuple(told), tuple(running))


def require(sampler: str) -> None:
    """Raises ValueError where the package that a sampler needs is missing."""
    if sampler == "cmaes" and find_spec("cmaes") is None:
        raise ValueError(
            "needs the package cmaes, which is not installed here: pip install cmaes, or choose "
            f"from {', '.join(name for name in SAMPLERS if name != sampler)}"
        )


@lru_cache(maxsize=4096)
def _ask(study: Study, told: tuple[Told, ...], running: tuple[Values, ...]) -> Values:
    earlier = {one.values for one in told} | set(running)
    number, size = len(told) + len(running), 1.0
    for span in study.ranges.values():
        size *= span.size
    found: Values = ()
    with quiet():
        for attempt in range(1000):
            drawn = "random" if attempt >= _TRIES else study.sampler
            known = _known(study, drawn, told, running)
            known.sampler = _sampler(study, drawn, number, attempt)
            found = _rounded(known.ask(_distributions(study)).params, study.ranges)
            if found not in earlier or len(earlier) >= size:
                break
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, Optuna says nothing of studies that are made, nor of what is experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(logging.WARNING)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


def _known(
    study: Study, sampler: str, told: Sequence[Told], running: Sequence[Values]
) -> optuna.Study:
    """An Optuna study that knows these results, and which proposals run."""
    import optuna

    made = optuna.create_study(direction="maximize", sampler=_sampler(study, sampler, 0, 0))
    spans, distributions = study.ranges, _distributions(study)
    states = optuna.trial.TrialState
    everything = [(one, _state(one)) for one in told]
    everything += [(Told(values, None), states.RUNNING) for values in running]
    for number, ((values, objective, curve), state) in enumerate(everything):
        if not all(spans[name].holds(value) for name, value in values):
            continue  # a default outside its range: the sampler has no place for it
        remembered: dict[str, Any] = {}
        if sampler in _REMEMBERS:  # asked again for what it then noted beside the trial
            made.sampler = _sampler(study, sampler, number, 0)
            made.tell(made.ask(distributions), state=states.FAIL)
            remembered = made.trials[-1].system_attrs
        made.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=objective,
                intermediate_values=dict(curve or ()),
                params=dict(values),
                distributions=distributions,
                system_attrs=remembered,
            )
        )
    return made


def _state(told: Told) -> optuna.trial.TrialState:
    from optuna.trial import TrialState

    if told.objective is not None:
        return TrialState.COMPLETE
    return TrialState.FAIL if told.pruned is None else TrialState.PRUNED


def _sampler(study: Study, name: str, number: int, attempt: int) -> Any:
    """A sampler that draws what is drawn for this number, whatever was drawn before."""
    from optuna import samplers

    seed = _seed(study.seed, number, attempt)
    if name == "tpe":
        return samplers.TPESampler(n_startup_trials=study.startup, constant_liar=True, seed=seed)
    if name == "cmaes":
        return samplers.CmaEsSampler(
            n_startup_trials=study.startup, warn_independent_sampling=False, seed=seed
        )
    if name == "nsga2":
        return samplers.NSGAIISampler(population_size=max(2, study.startup), seed=seed)
    return samplers.RandomSampler(seed=seed)


def _seed(*parts: int) -> int:
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _distributions(study: Study) -> dict[str, Any]:
    return {name: _distribution(span) for name, span in study.ranges.items()}


def _distribution(span: Range) -> Any:
    from optuna import distributions as kinds

    if span.choices:
        return kinds.CategoricalDistribution([*span.choices])  # type: ignore[list-item]  # single values
    if span.whole:
        return kinds.IntDistribution(int(span.low), int(span.high), log=span.log)
    return kinds.FloatDistribution(span.low, span.high, log=span.log)


def _rounded(drawn: Mapping[str, Any], spans: Mapping[str, Range]) -> Values:
    return tuple((name, _round(drawn[name], span)) for name, span in spans.items())


def _round(value: Any, span: Range) -> Any:
    """Real numbers to a few digits, inside the range."""
    if span.choices or span.whole:
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), span.low), span.high)


def _of_recipe(recipe: SearchRecipe, name: str) -> Any:
    return getattr(recipe, name.removeprefix(_RECIPE))
