"""Whether there are images for one whole batch where a loss takes no smaller one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nas_sweeps import methods
from nas_sweeps.data.profiles import half_size
from nas_sweeps.grid.expand import Entry, alike
from nas_sweeps.names import method_name
from nas_sweeps.phases import phase_named
from nas_sweeps.trial import Data, Distribution, MethodSpec

_TOLD = 5  # so many complaints in one message


def too_large_batches(
    entries: Iterable[Entry], counts_of: Callable[[Data, Distribution], Sequence[int] | None]
) -> list[str]:
    """A line for each kind of trial whose batch is larger than its training set.

    Only losses such as Barlow Twins ask for whole batches, for their statistics. Such a trial
    would fail in its first epoch.

    Args:
        entries: planned trials.
        counts_of: training images of each class; None where they are not known.
    """
    # Many trials differ in nothing that matters here: of a seed there may be thousands.
    unlike = {alike(entry): entry for entry in entries}.values()
    kinds = dict.fromkeys((_Kind.of(entry), entry.data, entry.distribution) for entry in unlike)
    said = (
        kind.complaint(distribution, counts)
        for kind, data, distribution in kinds
        if (counts := counts_of(data, distribution)) is not None
    )
    return list(dict.fromkeys(line for line in said if line))


def require_whole_batches(
    entries: Iterable[Entry], counts_of: Callable[[Data, Distribution], Sequence[int] | None]
) -> None:
    """Raises ValueError with what ``too_large_batches`` has to say."""
    said = too_large_batches(entries, counts_of)
    if said:
        more = [f"and {len(said) - _TOLD} more"] if len(said) > _TOLD else []
        raise ValueError("\n".join([*said[:_TOLD], *more]))


@dataclass(frozen=True, slots=True)
class _Kind:
    """What decides how many images a trial needs, and how to call it."""

    phase: str
    who: str
    batch_size: int
    on_half: bool
    method: MethodSpec | None = None  # of a search
    pretrained: bool = False

    @classmethod
    def of(cls, entry: Entry) -> _Kind:
        called, recipe = phase_named(entry.phase).labels(entry), entry.recipe
        method = getattr(entry, "method", None)
        return cls(
            entry.phase,
            method_name(called.method, "", *called[2:]),
            recipe.batch_size,
            method is not None or getattr(recipe, "images", "full") == "search_half",
            method,
            getattr(recipe, "pretrain", None) is not None,
        )

    def complaint(self, distribution: Distribution, counts: Sequence[int]) -> str | None:
        images = half_size(counts) if self.on_half else sum(counts)
        if self.batch_size <= images or not self._wants_whole():
            return None
        return (
            f"{self.phase} {self.who} {distribution}: {self.phase}.recipe.batch_size is "
            f"{self.batch_size}, and its loss takes whole batches only, of {images} training "
            f"images; set it to at most {images}, or take more images"
        )

    def _wants_whole(self) -> bool:
        if self.method is None:
            return self.pretrained
        method = methods.build(self.method)
        return method.trains and method.weight_loss.whole_batches
