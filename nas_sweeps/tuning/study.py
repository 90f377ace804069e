"""A study: one cell's ranges, and the values that it proposes by what earlier ones came to.

A proposal is a function of the study, its number, the results that it was told and the values that
still run. Nothing is kept between proposals: the study is made again for each, from what the store
holds, and so it does not matter who asks, when, and what has died in between.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

from nas_sweeps import methods
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.space.size import size_of
from nas_sweeps.trial import (
    LABEL,
    Data,
    Distribution,
    Identified,
    Knob,
    MethodSpec,
    Origin,
    RetrainRecipe,
    RetrainTrial,
    SearchRecipe,
    SearchTrial,
    Trial,
    absent_values,
    added,
)
from nas_sweeps.tuning.ranges import Range, plain_recipe, ranges_of, setting_of, with_setting

if TYPE_CHECKING:
    import optuna

# Measured on V: what a study or a stop rule may go by. No test set is.
Measure = Literal["accuracy_validation", "accuracy_macro_validation"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Sampler = Literal["tpe", "random", "cmaes", "nsga2"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
COSTS = ("num_params", "macs")  # that a study may minimise beside its objective
_REMEMBERS = ("cmaes", "nsga2")  # samplers that keep their state in the trials that they asked for
_TRIES = 8  # of a sampler to propose what was not proposed before
_DIGITS = 6  # of a real number that is proposed: the last bits differ between machines
_RECIPE = "recipe."  # before the names of a recipe's settings

Values = tuple[tuple[str, Knob], ...]  # by name, in the order of the ranges


class Told(NamedTuple):
    """Values that were proposed and tried, and the mean objective; None: a trial has none.

    ``cost`` is the mean of what is minimised beside, where there are two objectives. ``pruned`` is
    what a trial that was given up came to, by epoch; None: it failed.
    """

    values: Values
    objective: float | None
    cost: float | None = None
    pruned: tuple[tuple[int, float], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study(Identified):
    """What of one cell of a search is tuned, and how. Not how long, nor how much at once.

    So a study goes on when its budget grows. ``seeds`` are those over which the objective of each
    proposal is averaged; the sampler draws from ``seed``. ``cost``, if anything, is minimised
    beside: the size of the network that ``network`` says, its channels and layers, or else that
    the trial's own recipe says (``space/size.py``).
    """

    phase: ClassVar[str] = "search"
    method: MethodSpec
    recipe: SearchRecipe | RetrainRecipe
    data: Data
    distribution: Distribution
    seeds: tuple[int, ...]
    objective: Measure
    sampler: Sampler
    startup: int
    seed: int
    cost: str = added("")  # num_params or macs
    network: tuple[int, int] | None = added(None)

    @property
    def objectives(self) -> tuple[str, ...]:
        """What is maximised, and what is minimised, if anything."""
        return (self.objective, self.cost) if self.cost else (self.objective,)

    @property
    def directions(self) -> list[Any]:
        """Of the objectives, as Optuna says it."""
        return ["maximize", "minimize"][: len(self.objectives)]

    def cost_of(self, trial: Trial, genotype: Genotype) -> float:
        """What of a trial is minimised; 0 with one objective."""
        if not self.cost:
            return 0.0
        network = self.network or (trial.recipe.channels, trial.recipe.layers)
        return float(getattr(size_of(genotype, *network), self.cost))

    @property
    def name(self) -> str:
        """Short, for tables and commands."""
        return self.digest[:8]

    @property
    def cell(self) -> str:
        """Whose values it proposes, in words."""
        return f"{self.method} {self.distribution}"

    @property
    def ranges(self) -> dict[str, Range]:
        """By knob, and by ``recipe.setting``."""
        settings = {_RECIPE + name: span for name, span in ranges_of(self.recipe)}
        return dict(ranges_of(self.method)) | settings

    @property
    def searching(self) -> MethodSpec | None:
        """The method, where its knobs are those of the trials."""
        return self.method

    @property
    def distributions(self) -> dict[str, Any]:
        """The ranges as Optuna has them."""
        return _distributions(self)

    def defaults(self) -> Values:
        """The values before tuning: proposal 0."""
        return self._values(self.method, self.recipe)

    def values_of(self, trial: Trial) -> Values:
        """What of a trial was proposed."""
        assert isinstance(trial, SearchTrial)
        return self._values(trial.method, trial.recipe)

    def _values(self, method: MethodSpec, recipe: SearchRecipe | RetrainRecipe) -> Values:
        tuned = bool(ranges_of(self.method))
        knobs = absent_values(methods.get(method.name)) | dict(method.knobs) if tuned else {}
        return tuple(
            (
                name,
                setting_of(recipe, name.removeprefix(_RECIPE))
                if name.startswith(_RECIPE)
                else knobs[name],
            )
            for name in self.ranges
        )

    def trial(
        self, values: Values, data: Data, seed: int, genotype: Genotype | None = None
    ) -> Trial:
        """The trial that tries these values: here the search, as a grid that says them has it."""
        knobs = absent_values(methods.get(self.method.name)) | dict(self.method.knobs)
        knobs |= {name: value for name, value in values if not name.startswith(_RECIPE)}
        return SearchTrial(
            data=data,
            distribution=self.distribution,
            method=methods.resolve(self.method.name, knobs),
            recipe=self._recipe(values),
            seed=seed,
        )

    def final(self, values: Values, data: Data, seed: int, genotype: Genotype | None) -> Trial:
        """The trial with the values that were found: here the same."""
        return self.trial(values, data, seed, genotype)

    def result(self, origin: Origin, number: int) -> Origin:
        """Who asks for a trial with the values of a proposal."""
        if not self.cost:
            return origin
        return replace(origin, variant=f"{origin.variant} #{number}", point=number)

    @property
    def lacks(self) -> str | None:
        """The package that its sampler needs and that is not installed here."""
        return "cmaes" if self.sampler == "cmaes" and find_spec("cmaes") is None else None

    def stand_in(self, data: Data, seed: int) -> Trial | None:
        """A trial that takes as long as those that are tried; None: that needs a genotype."""
        return self.trial(self.defaults(), data, seed)

    def _recipe(self, values: Values) -> Any:
        recipe = plain_recipe(self.recipe)
        for name, value in values:
            if name.startswith(_RECIPE):
                recipe = with_setting(recipe, name.removeprefix(_RECIPE), value)
        return recipe

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainStudy(Study):
    """What of a retraining's recipe is tuned, for one genotype, or for those of one cell.

    A proposal trains on T and is measured on V; what was found is trained as ``recipe`` says, by
    default on both. ``method`` only names, for people, who found the genotype. ``of`` says which
    searches find it, by names that last, and ``search_epoch`` after which epoch; or else it is
    ``genotype``, which is published.
    """

    phase: ClassVar[str] = "retrain"
    method: MethodSpec = field(metadata=LABEL, compare=False)
    of: tuple[str, ...]
    search_epoch: int | None
    genotype: Genotype | None

    @property
    def cell(self) -> str:
        return f"retraining {self.method} {self.distribution}"

    @property
    def searching(self) -> None:
        return None

    @property
    def tried(self) -> RetrainRecipe:
        """How the first proposal is trained."""
        return self._halved(self.defaults())

    def _halved(self, values: Values) -> RetrainRecipe:
        recipe: RetrainRecipe = self._recipe(values)
        return replace(recipe, images="search_half")

    def values_of(self, trial: Trial) -> Values:
        return self._values(self.method, trial.recipe)

    def trial(
        self, values: Values, data: Data, seed: int, genotype: Genotype | None = None
    ) -> Trial:
        return self._retrain(
            replace(self._recipe(values), images="search_half"), data, seed, genotype
        )

    def final(self, values: Values, data: Data, seed: int, genotype: Genotype | None) -> Trial:
        return self._retrain(self._recipe(values), data, seed, genotype)

    def result(self, origin: Origin, number: int) -> Origin:
        recipe = f"{origin.recipe} #{number}" if self.cost else origin.recipe
        return replace(origin, recipe=recipe, point=number)

    def _retrain(
        self, recipe: RetrainRecipe, data: Data, seed: int, genotype: Genotype | None
    ) -> Trial:
        assert genotype is not None, "a retraining without a genotype"
        return RetrainTrial(
            data=data,
            distribution=self.distribution,
            genotype=genotype,
            recipe=recipe,
            seed=seed,
        )

    def stand_in(self, data: Data, seed: int) -> Trial | None:
        return None


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
    from optuna import exceptions, logging

    before = logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
        logging.set_verbosity(logging.WARNING)
        try:
            yield
        finally:
            logging.set_verbosity(before)


def _known(
    study: Study, sampler: str, told: Sequence[Told], running: Sequence[Values]
) -> optuna.Study:
    """An Optuna study that knows these results, and which proposals run."""
    import optuna

    made = optuna.create_study(directions=study.directions, sampler=_sampler(study, sampler, 0, 0))
    spans, distributions = study.ranges, _distributions(study)
    states = optuna.trial.TrialState
    everything = [(one, _state(one, _measured(study, one))) for one in told]
    everything += [(Told(values, None), states.RUNNING) for values in running]
    for number, (one, state) in enumerate(everything):
        values = one.values
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
                values=_measured(study, one),
                intermediate_values=dict(one.pruned or ()) if state == states.PRUNED else {},
                params=dict(values),
                distributions=distributions,
                system_attrs=remembered,
            )
        )
    return made


def _measured(study: Study, told: Told) -> list[float] | None:
    """What was measured of each objective; None where something was not."""
    count = len(study.objectives)
    known = [value for value in (told.objective, told.cost)[:count] if value is not None]
    return known if len(known) == count else None


def _state(told: Told, measured: Sequence[float] | None) -> optuna.trial.TrialState:
    from optuna.trial import TrialState

    if measured is not None:
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
