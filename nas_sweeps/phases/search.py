"""The search: train a supernet, and read a genotype from it; with ranges, tuned before."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from nas_sweeps import methods
from nas_sweeps.grid.expand import Entry, Recalled, Seen, Slot
from nas_sweeps.grid.sections import SearchSection, TuneSection
from nas_sweeps.phases.contract import Labels, Phase, register
from nas_sweeps.store.records import State
from nas_sweeps.trial import Distribution, MethodSpec, Origin, SearchTrial, Trial
from nas_sweeps.tuning import Study, Told, Values, plain_recipe, ranges_of

if TYPE_CHECKING:
    import torch

    from nas_sweeps.data.splits import DataSplits
    from nas_sweeps.grid import Grid
    from nas_sweeps.train.common import Run

TUNING = "tuning"  # the variant of proposals, as long as nobody knows them


@register("search")
class Search(Phase):
    """Method x distribution x seed; where something has a range, a study of each cell before."""

    spec, section, within = SearchTrial, SearchSection, True

    def slots(self, section: Any, grid: Grid, before: Any = ()) -> Iterable[Entry]:
        seeds: dict[tuple[MethodSpec, Distribution], list[int]] = {}
        for method, distribution, seed in grid.searches():
            if not (ranges_of(method) or ranges_of(section.recipe)):
                yield SearchTrial(
                    data=grid.data.spec(seed),
                    distribution=distribution,
                    method=method,
                    recipe=section.recipe,
                    seed=seed,
                )
            seeds.setdefault((method, distribution), []).append(seed)
        for (method, distribution), of in seeds.items():
            if ranges_of(method) or ranges_of(section.recipe):
                yield from _tuned(grid, method, distribution, of)

    def stages(self, entry: Any) -> Sequence[tuple[str, int]]:
        return _stages(entry.method, entry.recipe.epochs)

    def peers(self, entry: Any) -> Hashable:
        if isinstance(entry, TunedSearch):
            return entry.study, entry.seed if entry.number is not None else None
        return entry.method, entry.distribution

    def spared(self, entry: Any) -> bool:
        """The defaults of a study are what tuning is measured by, its winner is what it is for."""
        return isinstance(entry, TunedSearch) and not entry.number

    def labels(self, entry: Any, origins: Iterable[Origin] = ()) -> Labels:
        if isinstance(entry, Slot):
            return Labels(entry.origin.method, entry.origin.variant)
        return Labels(entry.method.name, methods.variant(entry.method))

    def make_run(
        self,
        trial: Any,
        images: Callable[[], DataSplits],
        device: torch.device,
        state_of: Callable[[str], dict[str, Any]],
    ) -> Run:
        from nas_sweeps.train.search import SearchRun

        return SearchRun(trial, images(), device)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedSearch(Slot):
    """A search whose values a study proposes, or chooses from those that were tried.

    ``method`` and ``recipe`` are those before tuning. Proposal n of a study is told the results
    of the first n + 1 - parallel proposals, and of the others that they run: so it waits for no
    more, and is the same whatever ends first.
    """

    method: MethodSpec
    study: Study
    number: int | None  # of the proposal; None: the winner
    known: tuple[str, ...] = ()

    @property
    def beside(self) -> tuple[str, ...]:
        return self.known

    @property
    def recall(self) -> Recalled | None:
        return None if self.number is None else (self.study.name, self.number, self.seed)

    @property
    def stand_in(self) -> Trial:
        return self.study.trial(self.study.defaults(), self.data, self.seed)

    @property
    def leads_on(self) -> bool:
        return self.number is None

    def fill(
        self, parents: Sequence[Seen | None], beside: Sequence[Seen]
    ) -> tuple[Trial, Origin] | None:
        seeds = len(self.study.seeds)
        tried = [parents[i : i + seeds] for i in range(0, len(parents), seeds)]
        if self.number is None:
            means = [_mean(one) for one in tried]
            best = max(range(len(means)), key=lambda i: means[i])
            if means[best] == -math.inf:
                return None
            values = self._values(tried[best][0])
        elif self.seed != self.study.seeds[0]:
            values = self._values(beside[-1])  # of its own first seed
        else:
            values = self.study.propose(
                [Told(self._values(one[0]), _finite(_mean(one)), _pruned(one)) for one in tried],
                [self._values(seen) for seen in beside],
            )
        return self.study.trial(values, self.data, self.seed), self.origin

    def _values(self, seen: Seen | None) -> Any:
        assert seen is not None, "a proposal is always a trial"
        return self.study.values_of(cast(SearchTrial, seen.trial))


class Tried(NamedTuple):
    """A proposal, and the mean objective over the study's seeds; None: not known, or none."""

    number: int
    values: Values
    objective: float | None
    pruned: bool = False  # by a stop rule


def tried(known: Iterable[tuple[Entry, Seen]]) -> dict[Study, list[Tried]]:
    """What each study has proposed so far, in the order of the proposals.

    Args:
        known: entries of a plan and what they have become, as ``Scheduler.known`` says.
    """
    seeds: dict[Study, dict[int, list[Seen]]] = {}
    for entry, seen in known:
        if isinstance(entry, TunedSearch) and entry.number is not None:
            seeds.setdefault(entry.study, {}).setdefault(entry.number, []).append(seen)
    return {
        study: [
            Tried(
                number,
                study.values_of(cast(SearchTrial, of[0].trial)),
                _finite(_mean(of)) if len(of) == len(study.seeds) else None,
                _pruned(of) is not None,
            )
            for number, of in sorted(numbers.items())
        ]
        for study, numbers in seeds.items()
    }


def _mean(seeds: Sequence[Seen | None]) -> float:
    """Of a proposal's objective; minus infinity where one of its trials has none."""
    ranks = [seen.outcome.rank if seen and seen.outcome else -math.inf for seen in seeds]
    return sum(ranks) / len(ranks)


def _pruned(seeds: Sequence[Seen | None]) -> tuple[tuple[int, float], ...] | None:
    """The curve of a proposal that was given up, of the first seed that was; None: none was."""
    ended = [seen.outcome for seen in seeds if seen and seen.outcome]
    return next((of.curve for of in ended if of.state == State.PRUNED), None)


def _finite(mean: float) -> float | None:
    return None if math.isinf(mean) else mean


def _tuned(
    grid: Grid, method: MethodSpec, distribution: Distribution, seeds: Sequence[int]
) -> Iterator[TunedSearch]:
    """The proposals of a cell, and its winner with each seed."""
    tune = grid.tune
    assert tune is not None, "ranges without a section tune"
    study = _study(grid, tune, method, distribution, tuple(seeds[: tune.seeds_per_trial]))
    origin = Origin(method=method.name, variant=TUNING, study=study.name)
    slot = TunedSearch(
        phase="search",
        parents=(),
        origin=origin,
        data=study.data,
        distribution=distribution,
        recipe=plain_recipe(grid.search.recipe),
        seed=seeds[0],
        method=method,
        study=study,
        number=None,
    )
    keys: list[list[str]] = []
    for number in range(tune.trials):
        told = max(0, number + 1 - tune.parallel)
        keys.append([])
        for seed in study.seeds:
            known = [of[0] for of in keys[told:number]] + keys[number][:1]
            proposal = replace(
                slot,
                parents=tuple(key for of in keys[:told] for key in of),
                origin=replace(origin, proposal=number),
                data=grid.data.spec(seed),
                seed=seed,
                number=number,
                known=tuple(known),
            )
            keys[number].append(proposal.key)
            yield proposal
    tried = tuple(key for of in keys for key in of)
    winner = replace(origin, variant=f"tuned={tune.trials}")
    for seed in seeds:
        yield replace(slot, parents=tried, origin=winner, data=grid.data.spec(seed), seed=seed)


def _study(
    grid: Grid,
    tune: TuneSection,
    method: MethodSpec,
    distribution: Distribution,
    seeds: tuple[int, ...],
) -> Study:
    return Study(
        method=method,
        recipe=grid.search.recipe,
        data=grid.data.spec(seeds[0]),
        distribution=distribution,
        seeds=seeds,
        objective=tune.objective,
        sampler=tune.sampler,
        startup=tune.startup,
        seed=tune.seed,
    )


@lru_cache(maxsize=1024)
def _stages(method: MethodSpec, epochs: int) -> tuple[tuple[str, int], ...]:
    """Epochs of the weights alone, and of weights and architecture."""
    built = methods.build(method)
    if not built.trains:
        return ()
    warmup = min(built.warmup_epochs, epochs)
    stages = (("warmup", warmup), ("search", epochs - warmup))
    return tuple((name, length) for name, length in stages if length)
