"""The search: train a supernet, and read a genotype from it; with ranges, tuned before."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nas_sweeps import methods
from nas_sweeps.grid.expand import Entry, Slot
from nas_sweeps.grid.sections import SearchSection
from nas_sweeps.grid.tuned import TUNING, TunedSlot, proposals, winners
from nas_sweeps.phases.contract import Labels, Phase, register
from nas_sweeps.trial import Distribution, MethodSpec, Origin, SearchTrial
from nas_sweeps.tuning import Study, plain_recipe, ranges_of

if TYPE_CHECKING:
    import torch

    from nas_sweeps.data.splits import DataSplits
    from nas_sweeps.grid import Grid
    from nas_sweeps.train.common import Run


@register("search")
class Search(Phase):
    """Method x distribution x seed; where something has a range, a study of each cell before."""

    spec, section = SearchTrial, SearchSection

    def slots(self, section: Any, grid: Grid, before: Any = ()) -> Iterable[Entry]:
        seeds: dict[tuple[MethodSpec, Distribution], list[int]] = {}
        data_of = grid.data.specs()
        for method, distribution, seed in grid.searches():
            if not (ranges_of(method) or ranges_of(section.recipe)):
                yield SearchTrial(
                    data=data_of(seed),
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
        if isinstance(entry, TunedSlot):
            return entry.study, entry.seed if entry.number is not None else None
        return entry.method, entry.distribution

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


def _tuned(
    grid: Grid, method: MethodSpec, distribution: Distribution, seeds: Sequence[int]
) -> Iterator[TunedSlot]:
    """The proposals of a cell, and its winner with each seed."""
    tune, recipe = grid.tune, grid.search.recipe
    assert tune is not None, "ranges without a section tune"
    tuned_with = tuple(seeds[: tune.seeds_per_trial])
    study = Study(
        method=method,
        recipe=recipe,
        data=grid.data.spec(tuned_with[0]),
        distribution=distribution,
        seeds=tuned_with,
        objective=tune.measure,
        sampler=tune.sampler,
        startup=tune.startup,
        seed=tune.seed,
        cost=tune.cost,
        network=grid.retrain.network if tune.cost else None,
    )
    origin = Origin(method=method.name, variant=TUNING, study=study.name)
    slot = TunedSlot(
        phase="search",
        parents=(),
        origin=origin,
        data=study.data,
        distribution=distribution,
        recipe=plain_recipe(recipe),
        seed=seeds[0],
        study=study,
        number=None,
    )
    budget = list(proposals(slot, tune, grid.data.spec))
    yield from budget
    won = replace(origin, variant=f"tuned={tune.trials}")
    yield from winners(slot, tune, budget, won, seeds, grid.data.spec)


@lru_cache(maxsize=1024)
def _stages(method: MethodSpec, epochs: int) -> tuple[tuple[str, int], ...]:
    """Epochs of the weights alone, and of weights and architecture."""
    built = methods.build(method)
    if not built.trains:
        return ()
    warmup = min(built.warmup_epochs, epochs)
    stages = (("warmup", warmup), ("search", epochs - warmup))
    return tuple((name, length) for name, length in stages if length)
