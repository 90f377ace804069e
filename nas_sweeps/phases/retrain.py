"""The retraining: train a genotype that a search found, or that was published, from scratch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from nas_sweeps import methods
from nas_sweeps.grid.expand import Entry, Slot
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
    for cell in cells.values():
        first = cell[0]
        method, variant, *_ = phase_named(first.phase).labels(first)
        study = first.origin.study if first.origin else ""
        of_genotype = [
            Origin(method=method, variant=variant, search_epoch=epoch, study=study)
            for epoch in section.epochs_of(first.method)
        ]
        for origin, (name, recipe) in product(of_genotype, _recipes(section, first.method)):
            for seed in dict.fromkeys(section.seeds):
                yield Slot(
                    phase="retrain",
                    parents=tuple(search.key for search in cell),
                    origin=replace(origin, recipe=name),
                    data=first.data,
                    distribution=first.distribution,
                    recipe=recipe,
                    seed=seed,
                )


def _published(section: RetrainSection, grid: Grid) -> Iterator[Slot]:
    for given, distribution, seed in grid.published():
        for recipe_name, recipe in _recipes(section, None):
            yield Slot(
                phase="retrain",
                parents=(),
                genotype=given.genotype,
                origin=Origin(method=given.name, recipe=recipe_name, file=given.file),
                data=grid.data.spec(seed),
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
