"""The retraining: train a genotype that a search found, or that was published, from scratch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from nas_sweeps import methods
from nas_sweeps.grid.expand import Entry, Slot, alike
from nas_sweeps.grid.genotypes import GivenGenotype
from nas_sweeps.grid.sections import RetrainSection
from nas_sweeps.grid.tune import TuneSection
from nas_sweeps.grid.tuned import TUNING, TunedSlot, proposals, winners
from nas_sweeps.phases.contract import Phase, phase_named, register
from nas_sweeps.trial import Data, Distribution, MethodSpec, Origin, RetrainRecipe, RetrainTrial
from nas_sweeps.tuning import RetrainStudy, plain_recipe, ranges_of

if TYPE_CHECKING:
    import torch

    from nas_sweeps.data.splits import DataSplits
    from nas_sweeps.grid import Grid
    from nas_sweeps.train.common import Run


@register("retrain")
class Retrain(Phase):
    """Genotype x recipe x pre-training x seed; where a recipe has a range, a study of it before."""

    spec, section, after = RetrainTrial, RetrainSection, "search"

    def slots(self, section: RetrainSection, grid: Grid, before: Sequence[Entry]) -> Iterable[Slot]:
        yield from _winners(section, before)
        yield from _published(section, grid)

    def stages(self, entry: Any) -> Sequence[tuple[str, int]]:
        recipe, pretrain = entry.recipe, entry.recipe.pretrain
        stages = [("train", recipe.epochs)]
        if pretrain is not None:
            stages = [("pretrain", pretrain.epochs), ("finetune", recipe.epochs)]
        if recipe.classifier_stage is not None:
            stages.append(("classifier", recipe.classifier_stage.epochs))
        return stages

    def make_run(
        self,
        trial: Any,
        images: Callable[[], DataSplits],
        device: torch.device,
        state_of: Callable[[str], dict[str, Any]],
    ) -> Run:
        from nas_sweeps.train.retrain import RetrainRun

        return RetrainRun(trial, images(), device)


def _winners(section: RetrainSection, searches: Iterable[Any]) -> Iterator[Slot]:
    if section.winners == "none":
        return
    together = section.winners == "best_of_seeds"
    cells: dict[tuple[Any, ...], list[Any]] = {}
    whole: dict[tuple[Any, ...], list[Any]] = {}
    for search in searches:
        key = search.method, search.distribution, getattr(search, "point", 0)
        cells.setdefault((*key, None if together else search.seed), []).append(search)
        whole.setdefault(key, []).append(search)
    tuning, asked = Tuning(section), _Asked(section)
    for key, cell in cells.items():
        first, parents = cell[0], tuple(search.key for search in cell)
        among = whole[key[:-1]] if tuning.of_cells else cell
        for origin, recipe in asked.by(first):
            slot = Slot(
                phase="retrain",
                parents=parents,
                origin=origin,
                data=first.data,
                distribution=first.distribution,
                recipe=recipe,
                seed=section.seeds[0],
            )
            yield from tuning.seeds(slot, section.seeds, partial(_same, first.data), among)


class _Asked:
    """Under which origins and recipes a search is retrained: one object each for all its seeds."""

    def __init__(self, section: RetrainSection) -> None:
        self.section = section
        self._made: dict[Hashable, list[tuple[Origin, RetrainRecipe]]] = {}

    def by(self, search: Any) -> list[tuple[Origin, RetrainRecipe]]:
        """Of every genotype of a search that is retrained, each way to retrain it."""
        key = alike(search)
        if key not in self._made:
            self._made[key] = list(self._of(search))
        return self._made[key]

    def _of(self, search: Any) -> Iterator[tuple[Origin, RetrainRecipe]]:
        method, variant, *_ = phase_named(search.phase).labels(search)
        study = search.origin.study if search.origin else ""
        for epoch in self.section.epochs_of(search.method):
            origin = Origin(method=method, variant=variant, search_epoch=epoch, study=study)
            for name, recipe in _recipes(self.section, search.method):
                yield replace(origin, recipe=name), recipe


def _published(section: RetrainSection, grid: Grid) -> Iterator[Slot]:
    seeds: dict[tuple[GivenGenotype, Distribution], list[int]] = {}
    for given, distribution, seed in grid.published():
        seeds.setdefault((given, distribution), []).append(seed)
    tuning, data_of = Tuning(section), grid.data.specs()
    for (given, distribution), of in seeds.items():
        for name, recipe in _recipes(section, None):
            slot = Slot(
                phase="retrain",
                parents=(),
                genotype=given.genotype,
                origin=Origin(method=given.name, recipe=name, file=given.file),
                data=data_of(of[0]),
                distribution=distribution,
                recipe=recipe,
                seed=of[0],
            )
            yield from tuning.seeds(slot, of, data_of, ())


def _same(data: Data, seed: int) -> Data:
    """A winner is retrained on the images of its search, whatever the seed."""
    return data


class Tuning:
    """The retrains of genotypes, after the studies that their recipes need, each study once."""

    def __init__(self, section: RetrainSection) -> None:
        self.tune = section.tune
        self.of_cells = self.tune is not None and self.tune.per == "cell"
        self._budgets: dict[RetrainStudy, list[TunedSlot]] = {}

    def seeds(
        self,
        slot: Slot,
        seeds: Sequence[int],
        data_of: Callable[[int], Data],
        among: Sequence[Entry],
    ) -> Iterator[Slot]:
        """A genotype with every retrain seed.

        Args:
            slot: with the first seed.
            among: the searches of which the best found the genotype that proposals train.
        """
        seeds = list(dict.fromkeys(seeds))
        if self.tune is None or not ranges_of(slot.recipe):
            for seed in seeds:
                yield replace(slot, data=data_of(seed), seed=seed)
            return
        study = self._study(self.tune, slot, seeds, data_of, among)
        name = slot.origin.recipe
        tuned = TunedSlot(
            **{field.name: getattr(slot, field.name) for field in fields(Slot)}
            | {"recipe": plain_recipe(slot.recipe)},
            study=study,
            number=None,
        )
        if study not in self._budgets:
            origin = replace(slot.origin, recipe=f"{name} {TUNING}".strip(), study=study.name)
            tries = replace(
                tuned,
                parents=tuple(search.key for search in among),
                origin=origin,
                recipe=study.tried,
            )
            self._budgets[study] = list(proposals(tries, self.tune, data_of))
            yield from self._budgets[study]
        called = f"{name} tuned={self.tune.trials}".strip()
        won = replace(slot.origin, recipe=called, study=study.name)
        yield from winners(tuned, self.tune, self._budgets[study], won, seeds, data_of)

    def _study(
        self,
        tune: TuneSection,
        slot: Slot,
        seeds: Sequence[int],
        data_of: Callable[[int], Data],
        among: Sequence[Entry],
    ) -> RetrainStudy:
        tuned_with = tuple(seeds[: tune.seeds_per_trial])
        return RetrainStudy(
            method=MethodSpec(name=slot.origin.method),
            recipe=slot.recipe,
            data=data_of(tuned_with[0]),
            distribution=slot.distribution,
            seeds=tuned_with,
            objective=tune.measure,
            cost=tune.cost,
            sampler=tune.sampler,
            startup=tune.startup,
            seed=tune.seed,
            of=tuple(e.lasting if isinstance(e, Slot) else e.trial_id for e in among),
            search_epoch=slot.origin.search_epoch,
            genotype=slot.genotype,
        )


def _recipes(section: RetrainSection, method: MethodSpec | None) -> list[tuple[str, RetrainRecipe]]:
    """Each recipe, with its name, under each choice of pre-training; by default the method's."""
    own = method is not None and methods.get(method.name).pretrain
    barlow = [own if choice == "by_method" else choice == "barlow" for choice in section.pretrain]
    return [
        (name, replace(recipe, pretrain=section.barlow if choice else None))
        for name, recipe in section.named_recipes.items()
        for choice in dict.fromkeys(barlow)
    ]
