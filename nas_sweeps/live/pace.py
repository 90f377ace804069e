"""How long is left, from the epochs that were measured. Pure arithmetic."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from nas_sweeps.grid import Entry
from nas_sweeps.phases import phase_named
from nas_sweeps.trial import Origin


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


def parts_of(entry: Entry, origins: Iterable[Origin] = ()) -> Parts:
    """A trial's epochs by kind. ``origins`` are those of a trial that others led to."""
    phase, where = phase_named(entry.phase), str(entry.distribution)
    method, variant, _ = phase.labels(entry, itertools.islice(origins, 1))
    stages = phase.stages(entry)
    return tuple((Kind(entry.phase, stage, f"{method} {variant}", where), n) for stage, n in stages)


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
