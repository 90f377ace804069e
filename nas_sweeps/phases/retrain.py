"""The retraining: train a genotype that a search found, or that was published, from scratch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nas_sweeps import methods
from nas_sweeps.grid.expand import Entry, Slot, alike
from nas_sweeps.grid.sections import RetrainSection
from nas_sweeps.phases.contract import Phase, phase_named, register
from nas_sweeps.trial import MethodSpec, Origin, RetrainRecipe, RetrainTrial

if TYPE_CHECKING:
    import torch

    from nas_sweeps.data.splits import DataSplits
    from nas_sweeps.grid import Grid
    from nas_sweeps.train.common import Run


@register("retrain")
class Retrain(Phase):
    """Genotype x recipe x pre-training x retrain seed."""

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
    cells: dict[object, list[Any]] = {}
    for search in searches:
        key = (search.method, search.distribution, None if together else search.seed)
        cells.setdefault(key, []).append(search)
    seeds, asked = tuple(dict.fromkeys(section.seeds)), _Asked(section)
    for cell in cells.values():
        first, parents = cell[0], tuple(search.key for search in cell)
        for origin, recipe in asked.by(first):
            for seed in seeds:
                yield Slot(
                    phase="retrain",
                    parents=parents,
                    origin=origin,
                    data=first.data,
                    distribution=first.distribution,
                    recipe=recipe,
                    seed=seed,
                )


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
    data_of = grid.data.specs()
    for given, distribution, seed in grid.published():
        for recipe_name, recipe in _recipes(section, None):
            yield Slot(
                phase="retrain",
                parents=(),
                genotype=given.genotype,
                origin=Origin(method=given.name, recipe=recipe_name, file=given.file),
                data=data_of(seed),
                distribution=distribution,
                recipe=recipe,
                seed=seed,
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
