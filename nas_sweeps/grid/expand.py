"""A grid as trials: the searches, and a slot for each retraining they will lead to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from nas_sweeps import methods
from nas_sweeps.grid.model import Grid
from nas_sweeps.names import method_name
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.space.published import published
from nas_sweeps.trial import (
    Data,
    Distribution,
    MethodSpec,
    Origin,
    RetrainRecipe,
    RetrainTrial,
    SearchTrial,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainSlot:
    """A retrain trial but for its genotype, which one of its ``parents`` will find.

    ``parents`` are search trial ids: one, or every seed of a cell of which the best is
    retrained; none where the genotype is published, and then ``genotype`` is set. Which
    parent it was, ``origin`` does not say before it is known.
    """

    parents: tuple[str, ...]
    genotype: Genotype | None
    origin: Origin
    data: Data
    distribution: Distribution
    recipe: RetrainRecipe
    seed: int
    phase: ClassVar[Literal["retrain"]] = "retrain"

    def resolve(self, genotype: Genotype) -> RetrainTrial:
        """The trial that trains this genotype in this slot."""
        return RetrainTrial(
            data=self.data,
            distribution=self.distribution,
            genotype=genotype,
            recipe=self.recipe,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Every search trial and every retrain slot of a grid, each once, in the file's order."""

    searches: tuple[SearchTrial, ...]
    retrains: tuple[RetrainSlot, ...]

    def __len__(self) -> int:
        return len(self.searches) + len(self.retrains)

    def __iter__(self) -> Iterator[SearchTrial | RetrainSlot]:
        yield from self.searches
        yield from self.retrains


def plan(grid: Grid) -> Plan:
    """Expand a grid: about 0.1 ms a trial, no I/O."""
    searches = dict.fromkeys(
        SearchTrial(
            data=grid.data.spec(seed),
            distribution=distribution,
            method=method,
            recipe=grid.search.recipe,
            seed=seed,
        )
        for method, distribution, seed in grid.searches()
    )
    slots = [*_winners(grid, searches), *_published(grid)]
    return Plan(tuple(searches), tuple(dict.fromkeys(slots)))


def _winners(grid: Grid, searches: Iterable[SearchTrial]) -> Iterator[RetrainSlot]:
    if grid.retrain.winners == "none":
        return
    together = grid.retrain.winners == "best_of_seeds"
    cells: dict[object, list[SearchTrial]] = {}
    for search in searches:
        key = (search.method, search.distribution, None if together else search.seed)
        cells.setdefault(key, []).append(search)
    for cell in cells.values():
        parents = tuple(search.trial_id for search in cell)
        first = cell[0]
        variant = methods.variant(first.method)
        for recipe in _recipes(grid, first.method):
            for seed in dict.fromkeys(grid.retrain.seeds):
                yield RetrainSlot(
                    parents=parents,
                    genotype=None,
                    origin=Origin(method=first.method.name, variant=variant),
                    data=first.data,
                    distribution=first.distribution,
                    recipe=recipe,
                    seed=seed,
                )


def _published(grid: Grid) -> Iterator[RetrainSlot]:
    for name, distribution, seed in grid.published():
        for recipe in _recipes(grid, None):
            yield RetrainSlot(
                parents=(),
                genotype=published(name),
                origin=Origin(method=name),
                data=grid.data.spec(seed),
                distribution=distribution,
                recipe=recipe,
                seed=seed,
            )


def _recipes(grid: Grid, method: MethodSpec | None) -> list[RetrainRecipe]:
    """One recipe for each choice of pre-training; by default the method's own choice."""
    own = method is not None and methods.get(method.name).pretrain
    barlow = [
        own if choice == "by_method" else choice == "barlow" for choice in grid.retrain.pretrain
    ]
    return [
        replace(grid.retrain.recipe, pretrain=grid.retrain.barlow if choice else None)
        for choice in dict.fromkeys(barlow)
    ]


def method_of(entry: SearchTrial | RetrainSlot) -> str:
    """The method with what sets it apart from its namesakes."""
    if isinstance(entry, SearchTrial):
        return method_name(entry.method.name, methods.variant(entry.method))
    return method_name(entry.origin.method, entry.origin.variant, entry.recipe.pretrained)
