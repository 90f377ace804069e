"""The epochs that a trial is made of, by what their time depends on."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from nas_sweeps import methods
from nas_sweeps.grid import RetrainSlot
from nas_sweeps.trial import MethodSpec, Origin, SearchTrial, Trial


class Kind(NamedTuple):
    """What makes two epochs take about the same time, from the coarsest to the finest."""

    phase: str
    stage: str
    method: str  # with its variant: steps of second order take several times as long
    distribution: str  # of which the number of images depends


Part = tuple[Kind, int]  # so many epochs of a kind
Parts = tuple[Part, ...]  # a whole trial, or what is left of one


def parts_of(entry: Trial | RetrainSlot, origins: Iterable[Origin] = ()) -> Parts:
    """A trial's epochs by kind. ``origins`` are those of a retrain trial."""
    where = str(entry.distribution)
    if isinstance(entry, SearchTrial):
        method = f"{entry.method.name} {methods.variant(entry.method)}"
        stages = _search_stages(entry.method, entry.recipe.epochs)
        return tuple((Kind("search", stage, method, where), n) for stage, n in stages if n)
    asked = [entry.origin] if isinstance(entry, RetrainSlot) else list(origins)
    method = f"{asked[0].method} {asked[0].variant}" if asked else ""
    recipe, pretrain = entry.recipe, entry.recipe.pretrain
    if pretrain is None:
        return ((Kind("retrain", "train", method, where), recipe.epochs),)
    return (
        (Kind("retrain", "pretrain", method, where), pretrain.epochs),
        (Kind("retrain", pretrain.then, method, where), recipe.epochs),
    )


@lru_cache(maxsize=1024)
def _search_stages(method: MethodSpec, epochs: int) -> tuple[tuple[str, int], ...]:
    """Epochs of the weights alone, and of weights and architecture."""
    built = methods.build(method)
    if not built.trains:
        return ()
    warmup = min(built.warmup_epochs, epochs)
    return ("warmup", warmup), ("search", epochs - warmup)


def after(parts: Parts, epochs_done: int) -> Parts:
    """What is left of a trial."""
    left: list[Part] = []
    for kind, epochs in parts:
        skipped = min(epochs, epochs_done)
        epochs_done -= skipped
        if epochs > skipped:
            left.append((kind, epochs - skipped))
    return tuple(left)
