"""``tune``: how what has a range is chosen, of searches and of retrains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from annotated_types import Ge, Le
from pydantic import AfterValidator

from nas_sweeps.grid import axes
from nas_sweeps.grid.base import Section, Seed
from nas_sweeps.grid.messages import Problems, problem
from nas_sweeps.trial import Positive
from nas_sweeps.tuning import Sampler


class TuneSection(Section):
    """``tune``: how the knobs and settings that have ranges are chosen, in each cell apart."""

    trials: Annotated[int, Ge(1), Le(10_000)] = 20  # the budget of a cell: proposals
    objective: Annotated[str, AfterValidator(axes.objective)] = axes.OBJECTIVE
    sampler: Annotated[Sampler, AfterValidator(axes.sampler)] = "tpe"
    startup: Positive = 8  # proposals at random before the sampler goes by results
    parallel: Positive = 4  # proposals that do not wait for each other
    seeds_per_trial: Positive = 1  # over which the objective is averaged: the first of the phase
    seed: Seed = 0  # of the sampler


class RetrainTuneSection(TuneSection):
    """``retrain.tune``: the same for settings of ``retrain.recipe`` or ``recipes``.

    Proposals train on T and are measured on V. ``per`` says of what there is a study on each
    distribution: of every ``genotype``; or of every ``cell``, whose genotypes share what was found
    for the one with the best search.
    """

    per: Literal["cell", "genotype"] = "cell"


T = TypeVar("T", bound=TuneSection)


def checked_tune(tune: T | None, ranges: bool, phase: str, seeds: Sequence[int]) -> T | None:
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
    found.check()
    return tune
