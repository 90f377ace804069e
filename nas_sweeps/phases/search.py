"""The search: train a supernet, and read a genotype from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nas_sweeps import methods
from nas_sweeps.grid.sections import SearchSection
from nas_sweeps.phases.contract import Labels, Phase, register
from nas_sweeps.trial import MethodSpec, Origin, SearchTrial

if TYPE_CHECKING:
    import torch

    from nas_sweeps.data.splits import DataSplits
    from nas_sweeps.grid import Grid
    from nas_sweeps.train.common import Run


@register("search")
class Search(Phase):
    """Method x distribution x seed."""

    spec, section = SearchTrial, SearchSection

    def slots(self, section: Any, grid: Grid, before: Any = ()) -> Iterable[SearchTrial]:
        for method, distribution, seed in grid.searches():
            yield SearchTrial(
                data=grid.data.spec(seed),
                distribution=distribution,
                method=method,
                recipe=section.recipe,
                seed=seed,
            )

    def stages(self, entry: Any) -> Sequence[tuple[str, int]]:
        return _stages(entry.method, entry.recipe.epochs)

    def labels(self, entry: Any, origins: Iterable[Origin] = ()) -> Labels:
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


@lru_cache(maxsize=1024)
def _stages(method: MethodSpec, epochs: int) -> tuple[tuple[str, int], ...]:
    """Epochs of the weights alone, and of weights and architecture."""
    built = methods.build(method)
    if not built.trains:
        return ()
    warmup = min(built.warmup_epochs, epochs)
    stages = (("warmup", warmup), ("search", epochs - warmup))
    return tuple((name, length) for name, length in stages if length)
