"""Slots that a study fills, in any phase: its proposals, and what its winner becomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from nas_sweeps.grid.expand import Entry, Recalled, Seen, Slot
from nas_sweeps.grid.tune import TuneSection
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.store.records import State
from nas_sweeps.trial import Data, MethodSpec, Origin, Trial
from nas_sweeps.tuning import MEASURES, SAMPLERS, Study, Told, Values

TUNING = "tuning"  # what proposals are called, as long as nobody knows their values


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedSlot(Slot):
    """A trial whose values a study proposes, or chooses from those that were tried.

    ``recipe`` is the one before tuning. The first ``founders`` of its parents decide by their
    genotypes what is trained, the others are proposals of the study. Proposal n is told the results
    of the first n + 1 - parallel proposals, and of the others that they run: so it waits for no
    more, and is the same whatever ends first.
    """

    study: Study
    number: int | None  # of the proposal; None: the winner
    founders: int = 0
    known: tuple[str, ...] = ()
    point: int = 0  # of what it leads to: which of so many
    points: int = 1

    @property
    def method(self) -> MethodSpec | None:
        """That searches; None in other phases."""
        return self.study.searching

    @property
    def beside(self) -> tuple[str, ...]:
        return self.known

    @property
    def within(self) -> bool:
        return True

    def bare(self) -> Slot:
        if self.phase == self.study.phase:
            return self
        return Slot(**{field.name: getattr(self, field.name) for field in fields(Slot)})

    @property
    def recallable(self) -> bool:
        return self.number is not None

    @property
    def fillable(self) -> bool:
        return self.number is None or self.study.lacks is None

    @property
    def stand_in(self) -> Trial | None:
        return self.study.stand_in(self.data, self.seed)

    @property
    def leads_on(self) -> bool:
        return self.number is None

    @property
    def spared(self) -> bool:
        """The defaults of a study are what tuning is measured by, its winner is what it is for."""
        return not self.number

    @property
    def budget(self) -> int:
        """Of a winner: of how many proposals."""
        return (len(self.parents) - self.founders) // len(self.study.seeds)

    @property
    def lasting(self) -> str:
        return f"{self.study.name} {self.origin.variant} {self.seed} {self.point}"

    def recalled(
        self, kept: Mapping[Recalled, Trial], founders: Sequence[Seen | None]
    ) -> tuple[Trial, Origin] | None:
        trial = None
        if self.number is not None:
            trial = kept.get((self.study.name, self.number, self.seed))
        founded = None if trial is None else self._founded(founders)
        if trial is None or founded is None:
            return None
        genotype, _, origin = founded  # another one than then, if its parents were run again
        return (trial, origin) if genotype in (None, getattr(trial, "genotype", None)) else None

    def fill(
        self, parents: Sequence[Seen | None], beside: Sequence[Seen]
    ) -> tuple[Trial, Origin] | None:
        founded = self._founded(parents[: self.founders])
        if founded is None:
            return None
        genotype, _, origin = founded
        asked, seeds = parents[self.founders :], len(self.study.seeds)
        tried = [asked[i : i + seeds] for i in range(0, len(asked), seeds)]
        if self.number is None:
            best = self._best(tried)
            if best is None:
                return None
            values = self._values(tried[best][0])
            trial = self.study.final(values, self.data, self.seed, genotype)
            return trial, self.study.result(origin, best)
        if self.seed != self.study.seeds[0]:
            values = self._values(beside[-1])  # of its own first seed
        else:
            values = self.study.propose(
                [
                    Told(self._values(one[0]), *_means(self.study, one), _pruned(one))
                    for one in tried
                ],
                [self._values(seen) for seen in beside],
            )
        return self.study.trial(values, self.data, self.seed, genotype), origin

    def _best(self, tried: Sequence[Sequence[Seen | None]]) -> int | None:
        """The number of the proposal that has won, or is this point of the Pareto set.

        Where the set has fewer points than are asked for, the last one again: equal trials are one.
        """
        measured = [(number, *_means(self.study, one)) for number, one in enumerate(tried)]
        known = [(n, value, cost or 0.0) for n, value, cost in measured if value is not None]
        points = spread(pareto_set(known), self.points)
        return points[min(self.point, len(points) - 1)] if points else None

    def _founded(
        self, founders: Sequence[Seen | None]
    ) -> tuple[Genotype | None, Trial | None, Origin] | None:
        """What is trained; no genotype where the trial is to find one."""
        return self.found(founders) if founders else (self.genotype, None, self.origin)

    def _values(self, seen: Seen | None) -> Values:
        assert seen is not None, "a proposal is always a trial"
        return self.study.values_of(seen.trial)


def pareto_set(measured: Iterable[tuple[int, float, float]]) -> list[int]:
    """The numbers of proposals that no other one beats: from the highest objective to the lowest.

    Args:
        measured: number, objective and cost. Of equals, the first counts. With equal costs it is
            the one with the highest objective.
    """
    found, least = list[int](), math.inf
    for number, _, cost in sorted(measured, key=lambda one: (-one[1], one[2], one[0])):
        if cost < least:
            found.append(number)
            least = cost
    return found


def spread(points: Sequence[int], most: int) -> list[int]:
    """At most so many of the points, evenly by rank: the first and the last are among them."""
    if len(points) <= most:
        return list(points)
    steps = max(1, most - 1)
    return [points[round(i * (len(points) - 1) / steps)] for i in range(most)]


class Tried(NamedTuple):
    """A proposal, and the mean objective over the seeds of the study; None: not known yet.

    ``cost`` is the mean of what is minimised beside, 0 where that is nothing.
    """

    number: int
    values: Values
    objective: float | None
    cost: float | None = None
    pruned: bool = False  # by a stop rule


def tried(known: Iterable[tuple[Entry, Seen]]) -> dict[Study, list[Tried]]:
    """What each study has proposed so far, in the order of the proposals.

    Args:
        known: entries of a plan and what they have become, as ``Scheduler.known`` says.
    """
    seeds: dict[Study, dict[int, list[Seen]]] = {}
    for entry, seen in known:
        if isinstance(entry, TunedSlot) and entry.number is not None:
            seeds.setdefault(entry.study, {}).setdefault(entry.number, []).append(seen)
    return {
        study: [
            Tried(
                number,
                study.values_of(of[0].trial),
                *(_means(study, of) if len(of) == len(study.seeds) else (None, None)),
                _pruned(of) is not None,
            )
            for number, of in sorted(numbers.items())
        ]
        for study, numbers in seeds.items()
    }


def undominated(of: Iterable[Tried]) -> list[Values]:
    """The values of the Pareto set of these proposals."""
    known = {one.number: one for one in of if one.objective is not None}
    measured = [(n, one.objective or 0.0, one.cost or 0.0) for n, one in known.items()]
    return [known[number].values for number in pareto_set(measured)]


def proposals(
    slot: TunedSlot, tune: TuneSection, data_of: Callable[[int], Data]
) -> Iterator[TunedSlot]:
    """The slots of a study's budget, each with every seed of the study.

    Args:
        slot: what they share: parents are those that found it, and no others.
        data_of: the data of a trial with a seed.
    """
    keys: list[list[str]] = []
    for number in range(tune.trials):
        told = max(0, number + 1 - tune.parallel)
        keys.append([])
        for seed in slot.study.seeds:
            known = [of[0] for of in keys[told:number]] + keys[number][:1]
            proposal = replace(
                slot,
                parents=slot.parents + tuple(key for of in keys[:told] for key in of),
                origin=replace(slot.origin, proposal=number),
                data=data_of(seed),
                seed=seed,
                number=number,
                founders=len(slot.parents),
                known=tuple(known),
            )
            keys[number].append(proposal.key)
            yield proposal


def winners(
    slot: TunedSlot,
    tune: TuneSection,
    budget: Sequence[TunedSlot],
    origin: Origin,
    seeds: Iterable[int],
    data_of: Callable[[int], Data],
) -> Iterator[TunedSlot]:
    """The slots for what a study's proposals lead to: of each point, with every seed.

    Args:
        slot: parents are those that decide what is trained, and no others.
        budget: every proposal of the study.
    """
    parents = slot.parents + tuple(proposal.key for proposal in budget)
    for point in range(tune.points):
        for seed in seeds:
            yield replace(
                slot,
                parents=parents,
                founders=len(slot.parents),
                origin=origin,
                data=data_of(seed),
                seed=seed,
                point=point,
                points=tune.points,
            )


def require_samplers(entries: Iterable[Entry]) -> None:
    """Raises ValueError where a study of these proposals cannot be asked here."""
    for entry in entries:
        if isinstance(entry, TunedSlot) and not entry.fillable:
            others = ", ".join(name for name in SAMPLERS if name != entry.study.sampler)
            raise ValueError(
                f"tune.sampler: {entry.study.sampler} needs the package {entry.study.lacks}, which "
                f"is not installed here: pip install {entry.study.lacks}, or choose from {others}"
            )


def require_objectives(known: Iterable[tuple[Entry, Seen]]) -> None:
    """Raises ValueError where a study goes by what its trials did not measure when they were done.

    Versions before schema 9 of a store measured plain accuracy on V alone.

    Args:
        known: entries of a plan and what they have become, as ``Scheduler.known`` says.
    """
    plain, macro = MEASURES
    lacking = [
        seen.trial.trial_id
        for entry, seen in known
        if isinstance(entry, TunedSlot) and entry.number is not None and seen.outcome is not None
        if entry.study.objective == macro and seen.outcome.state == State.DONE
        if getattr(seen.outcome, macro) is None and getattr(seen.outcome, plain) is not None
    ]
    if lacking:
        raise ValueError(
            f"tune.objective: {len(lacking)} trials of the store, {lacking[0]} first, were done by "
            f"a version that did not measure {macro}: write objective: {plain}, or run into "
            "another store"
        )


Measured = tuple[float, float]  # the objective of a trial, and its cost


def mean_objectives(seeds: Iterable[Measured | None]) -> Measured | tuple[None, None]:
    """Of a proposal, the mean objective and the mean cost; None where a trial has none.

    Args:
        seeds: at least one; None for a trial without a result.
    """
    measured: list[Measured] = []
    for of in seeds:
        if of is None:
            return None, None
        measured.append(of)
    objective, cost = (sum(each) / len(measured) for each in zip(*measured, strict=True))
    return objective, cost


def _means(study: Study, seeds: Iterable[Seen | None]) -> tuple[float | None, float | None]:
    return mean_objectives(_measured(study, seen) for seen in seeds)


def _measured(study: Study, seen: Seen | None) -> Measured | None:
    found = seen.outcome if seen else None
    if seen is None or found is None or found.genotype is None:
        return None
    objective = found.rank(study.objective)
    return None if math.isinf(objective) else (objective, study.cost_of(seen.trial, found.genotype))


def _pruned(seeds: Sequence[Seen | None]) -> tuple[tuple[int, float], ...] | None:
    """The curve of a proposal that was given up, of the first seed that was; None: none was."""
    ended = [seen.outcome for seen in seeds if seen and seen.outcome]
    return next((of.curve for of in ended if of.state == State.PRUNED), None)
