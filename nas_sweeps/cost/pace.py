"""How long is left, from the epochs that were measured. Pure arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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


@dataclass
class Pace:
    """Seconds of an epoch by kind, as the mean of those measured."""

    _seconds: Counter[tuple[str, ...]] = field(default_factory=Counter)
    _epochs: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def add(self, kind: Kind, seconds: float, epochs: int = 1) -> None:
        """Count ``epochs`` that took ``seconds`` together."""
        for length in range(1, len(kind) + 1):
            self._seconds[kind[:length]] += seconds  # type: ignore[assignment]
            self._epochs[kind[:length]] += epochs

    def epoch_s(self, kind: Kind) -> float | None:
        """Of the nearest kind that was measured; None while none of its phase was."""
        for length in range(len(kind), 0, -1):
            epochs = self._epochs[kind[:length]]
            if epochs:
                return self._seconds[kind[:length]] / epochs
        return None

    def seconds(self, parts: Parts) -> float | None:
        """Of so many epochs; None while that is unknown."""
        total = 0.0
        for kind, epochs in parts:
            each = self.epoch_s(kind)
            if each is None:
                return None
            total += epochs * each
        return total


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


def kind_at(parts: Parts, epoch: int) -> Kind:
    """The kind of a trial's epoch, counting from 1."""
    for kind, epochs in parts:
        if epoch <= epochs:
            return kind
        epoch -= epochs
    return parts[-1][0]


def after(parts: Parts, epochs_done: int) -> Parts:
    """What is left of a trial."""
    left: list[Part] = []
    for kind, epochs in parts:
        skipped = min(epochs, epochs_done)
        epochs_done -= skipped
        if epochs > skipped:
            left.append((kind, epochs - skipped))
    return tuple(left)


def left_s(pace: Pace, parts: Parts, epochs_done: int, since_s: float) -> float | None:
    """Seconds left of a running trial whose next epoch began ``since_s`` ago; None if unknown.

    An epoch that takes longer than it should, or waits for its worker to start, leaves to the
    later ones what they take.
    """
    left = after(parts, epochs_done)
    total = pace.seconds(left)
    if total is None or not left:
        return total
    return total - min(since_s, pace.seconds(((left[0][0], 1),)) or 0.0)


def remaining_s(
    pace: Pace, running: Iterable[float | None], waiting: Mapping[Parts, int], slots: int
) -> float | None:
    """Seconds until all is done, if ``slots`` trials run at once; None while that is unknown.

    Args:
        running: seconds left of each running trial.
        waiting: how many trials of each make are still to start.
    """
    left = list(running)
    for parts, count in waiting.items():
        left += [pace.seconds(parts)] * count
    known = [seconds for seconds in left if seconds is not None]
    if len(known) < len(left):
        return None
    if not known:
        return 0.0
    return max(sum(known) / max(1, min(slots, len(known))), *known)
