"""Slots that a study fills, in any phase: its proposals, and what its winner becomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from nas_sweeps.grid.expand import Entry, Recalled, Seen, Slot
from nas_sweeps.grid.tune import TuneSection
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.trial import Data, MethodSpec, Origin, Trial
from nas_sweeps.tuning import Study, Told, Values

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
    def stand_in(self) -> Trial | None:
        return self.study.stand_in(self.data, self.seed)

    @property
    def leads_on(self) -> bool:
        return self.number is None

    @property
    def lasting(self) -> str:
        return f"{self.study.name} {self.origin.variant} {self.seed}"

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
            means = [_mean(one) for one in tried]
            best = max(range(len(means)), key=lambda i: means[i])
            if means[best] == -math.inf:
                return None
            values = self._values(tried[best][0])
            trial = self.study.final(values, self.data, self.seed, genotype)
            return trial, self.study.result(origin, best)
        if self.seed != self.study.seeds[0]:
            values = self._values(beside[-1])  # of its own first seed
        else:
            values = self.study.propose(
                [Told(self._values(one[0]), _finite(_mean(one))) for one in tried],
                [self._values(seen) for seen in beside],
            )
        return self.study.trial(values, self.data, self.seed, genotype), origin

    def _founded(
        self, founders: Sequence[Seen | None]
    ) -> tuple[Genotype | None, Trial | None, Origin] | None:
        """What is trained; no genotype where the trial is to find one."""
        return self.found(founders) if founders else (self.genotype, None, self.origin)

    def _values(self, seen: Seen | None) -> Values:
        assert seen is not None, "a proposal is always a trial"
        return self.study.values_of(seen.trial)


class Tried(NamedTuple):
    """A proposal, and the mean objective over the seeds of the study; None: not known yet."""

    number: int
    values: Values
    objective: float | None


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
                _finite(_mean(of)) if len(of) == len(study.seeds) else None,
            )
            for number, of in sorted(numbers.items())
        ]
        for study, numbers in seeds.items()
    }


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


def winner(
    slot: TunedSlot, budget: Sequence[TunedSlot], origin: Origin, **changes: Any
) -> TunedSlot:
    """The slot for what a study's best proposal leads to.

    Args:
        slot: parents are those that decide what is trained, and no others.
        budget: every proposal of the study.
    """
    return replace(
        slot,
        parents=slot.parents + tuple(proposal.key for proposal in budget),
        founders=len(slot.parents),
        origin=origin,
        **changes,
    )


def _mean(seeds: Sequence[Seen | None]) -> float:
    """Of a proposal's objective; minus infinity where one of its trials has none."""
    ranks = [seen.outcome.rank if seen and seen.outcome else -math.inf for seen in seeds]
    return sum(ranks) / len(ranks)


def _finite(mean: float) -> float | None:
    return None if math.isinf(mean) else mean
