"""What there is to see at one moment, wherever it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas_sweeps.names import HEADLINE
from nas_sweeps.store.records import State

Row = Mapping[str, Any]  # of the epochs table, and ``epochs_total``
Counts = Mapping[str, Mapping[State, int]]  # trials by phase and state


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A trial that runs."""

    name: str
    row: Row | None  # its latest epoch; None: it has not finished one yet
    since_s: float  # since that epoch, or since it was started
    left_s: float | None  # None: unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a store's trials have cost, running ones included."""

    hours: float = 0.0  # of trials, added up
    gpu_hours: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(hours=self.hours + other.hours, gpu_hours=self.gpu_hours + other.gpu_hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The whole picture."""

    counts: Counts
    running: tuple[Running, ...] = ()
    left_s: float | None = None  # until all is done; None: unknown
    spent: Spent = Spent()
    notes: tuple[str, ...] = ()  # more lines to say
    headline: str = HEADLINE  # the accuracy that is shown
