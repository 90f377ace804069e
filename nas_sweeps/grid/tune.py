"""``tune``: how what has a range is chosen, of searches and of retrains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from annotated_types import Ge, Le
from pydantic import (
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from nas_sweeps.grid import axes
from nas_sweeps.grid.base import Section, Seed
from nas_sweeps.grid.messages import Problems, problem
from nas_sweeps.trial import Positive
from nas_sweeps.tuning import Measure, Sampler, Stop

POINTS = 5  # of a Pareto set that are gone on with, unless told otherwise


class TuneSection(Section):
    """``tune``: how the knobs and settings that have ranges are chosen, in each cell apart."""

    trials: Annotated[int, Ge(1), Le(10_000)] = 20  # the budget of a cell: proposals
    objective: Annotated[
        tuple[str, ...],
        PlainValidator(axes.objectives),
        PlainSerializer(lambda names: names[0] if len(names) == 1 else names),
    ] = (axes.OBJECTIVE,)
    sampler: Sampler = "tpe"
    startup: Positive = 8  # proposals at random before the sampler goes by results
    parallel: Positive = 4  # proposals that do not wait for each other
    seeds_per_trial: Positive = 1  # over which the objective is averaged: the first of the phase
    seed: Seed = 0  # of the sampler
    # Points of a Pareto set that are gone on with; None: POINTS.
    pareto: Annotated[int | Literal["all"] | None, PlainValidator(axes.pareto)] = None

    @property
    def measure(self) -> Measure:
        """What it maximises."""
        return cast(Measure, self.objective[0])

    @property
    def cost(self) -> str:
        """What it minimises beside, or nothing."""
        return self.objective[1] if len(self.objective) > 1 else ""

    @property
    def points(self) -> int:
        """How many proposals it leads to at most."""
        if not self.cost:
            return 1
        asked = self.trials if self.pareto == "all" else self.pareto or POINTS
        return min(asked, self.trials)

    @model_validator(mode="after")
    def _of_two(self) -> Self:
        found = Problems()
        if self.cost and self.sampler == "cmaes":
            found.add(
                "cmaes follows one objective, and there are two; choose from tpe, nsga2, random",
                "sampler",
            )
        if self.pareto is not None and not self.cost:
            found.add(
                f"is of two objectives: write objective: [{self.measure}, num_params], or leave "
                "it out",
                "pareto",
            )
        found.check()
        return self

    @model_serializer(mode="wrap")
    def _said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        return {k: v for k, v in said.items() if k != "pareto" or v is not None}


class RetrainTuneSection(TuneSection):
    """``retrain.tune``: the same for settings of ``retrain.recipe`` or ``recipes``.

    Proposals train on T and are measured on V. ``per`` says of what there is a study on each
    distribution: of every ``genotype``; or of every ``cell``, whose genotypes share what was found
    for the one with the best search.
    """

    per: Literal["cell", "genotype"] = "cell"


T = TypeVar("T", bound=TuneSection)


def checked_tune(
    tune: T | None, ranges: bool, phase: str, seeds: Sequence[int], stop: Stop
) -> T | None:
    """The section, which goes with ranges of its phase, and these with it."""
    if tune is None:
        if ranges:
            raise problem("a knob or setting has a range: say with tune: {trials: 20} how")
        return None
    found, there = Problems(), len(set(seeds))
    if not ranges:
        knobs = "a knob of search.methods or " if phase == "search" else ""
        found.add(
            f"there is nothing to tune: give {knobs}a setting of {phase}.recipe a range, such as "
            "{low: 1, high: 30, log: true}, or leave tune out"
        )
    if tune.seeds_per_trial > there:
        found.add(
            f"{tune.seeds_per_trial} seeds a trial are more than the {there} of {phase}.seeds, "
            "the first of which they are",
            "seeds_per_trial",
        )
    if tune.cost and stop.rule != "none":
        found.add(
            f"there are two objectives, and {phase}.stop.rule: {stop.rule} compares trials by one "
            f"(Optuna's pruners know no more): write objective: {tune.measure}, or leave the "
            "rule out; stop.collapse may stay",
            "objective",
        )
    elif stop.rule != "none" and stop.measure not in (None, tune.measure):
        found.add(
            f"is {tune.measure}, and {phase}.stop.measure: {stop.measure} would give up what "
            "the study looks for: write one for both, or leave measure out",
            "objective",
        )
    found.check()
    return tune
