"""A grid as a plan: the trials of each phase, and a slot for each that others will lead to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_sweeps.grid.axes import MAX_TRIALS, TOO_MANY
from nas_sweeps.grid.messages import GridError
from nas_sweeps.grid.model import Grid, as_grid
from nas_sweeps.names import method_name
from nas_sweeps.phases import phase_named
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.trial import Data, Distribution, Identified, Origin, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot(Identified):
    """A trial but for what one of its ``parents`` will find.

    ``parents`` are keys of trials or slots of the phase before: one, or every seed of a cell of
    which the best goes on; none where the genotype is published, and then ``genotype`` is set.
    Which parent it was, ``origin`` does not say before it is known.
    """

    phase: str
    parents: tuple[str, ...]
    genotype: Genotype | None = None
    origin: Origin
    data: Data
    distribution: Distribution
    recipe: Any
    seed: int

    @property
    def key(self) -> str:
        """The name of this slot for slots that wait for it: its trial's id is not known yet."""
        return f"slot-{self.digest}"

    def resolve(self, genotype: Genotype, parent: Trial | None = None) -> Trial:
        """The trial in this slot once ``parent`` has found ``genotype``."""
        return phase_named(self.phase).trial(self, genotype, parent)


Entry = Trial | Slot


@dataclass(frozen=True, slots=True)
class Plan:
    """Every planned trial and slot of a grid by phase, each once, in the file's order.

    A phase stands behind the one that it goes on from.
    """

    by_phase: Mapping[str, tuple[Entry, ...]]

    @property
    def searches(self) -> tuple[Any, ...]:
        """Search trials."""
        return self.by_phase["search"]

    @property
    def retrains(self) -> tuple[Any, ...]:
        """Slots of retrain trials."""
        return self.by_phase["retrain"]

    def __len__(self) -> int:
        return sum(map(len, self.by_phase.values()))

    def __iter__(self) -> Iterator[Entry]:
        for entries in self.by_phase.values():
            yield from entries


def plan(grid: Grid | str | Path) -> Plan:
    """Expand a grid: about 0.1 ms a trial, no I/O beside reading a file that is named.

    Args:
        grid: from ``load_grid``, or the path of its file.

    Raises:
        GridError: it has more trials than a grid may have, or its file holds mistakes.
    """
    grid = as_grid(grid)
    planned: dict[str, tuple[Entry, ...]] = {}
    for name in grid.phases:
        phase = phase_named(name)
        before = planned[phase.after] if phase.after else ()
        planned[name] = tuple(dict.fromkeys(phase.slots(getattr(grid, name), grid, before)))
    made = Plan(planned)
    if len(made) > MAX_TRIALS:
        raise GridError(f"{grid.name}: {len(made):,} trials; {TOO_MANY}")
    return made


def method_of(entry: Entry, origins: Iterable[Origin] = ()) -> str:
    """The method with what sets it apart from its namesakes."""
    return method_name(*phase_named(entry.phase).labels(entry, origins))
