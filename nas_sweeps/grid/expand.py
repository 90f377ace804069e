"""A grid as a plan: the trials of each phase, and a slot for each that others will lead to."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from nas_sweeps.grid.axes import MAX_TRIALS, TOO_MANY
from nas_sweeps.grid.messages import GridError
from nas_sweeps.grid.model import Grid, as_grid
from nas_sweeps.names import method_name
from nas_sweeps.phases import phase_named
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.store.records import State
from nas_sweeps.trial import Data, Distribution, Identified, Origin, Trial
from nas_sweeps.tuning import Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a trial ended. One that is done has a genotype: what it found, or what it trained."""

    state: State  # a settled one
    genotype: Genotype | None = None
    accuracy_validation: float | None = None  # a fraction; the best of several goes on
    curve: tuple[tuple[int, float], ...] = ()  # of one that is pruned: its measure by epoch

    @property
    def rank(self) -> float:
        """The accuracy; where it is unknown or NaN, or there is no result, below all others."""
        accuracy = self.accuracy_validation if self.state == State.DONE else None
        return -math.inf if accuracy is None or math.isnan(accuracy) else accuracy


class Seen(NamedTuple):
    """What an entry has become, for slots that it decides; without an outcome while it runs."""

    trial: Trial
    outcome: Outcome | None = None
    along: Callable[[], Mapping[int, Genotype]] = dict  # genotypes after its epochs, as it searched

    def genotype(self, epoch: int | None) -> Genotype | None:
        """What a trial that is done found, or had after an epoch of its search.

        None, with a warning, where nobody knows.
        """
        assert self.outcome is not None
        final = self.outcome.genotype
        assert final is not None, f"{self.trial.trial_id} is done without a genotype"
        trains_one = getattr(self.trial, "genotype", None) is not None
        if epoch is None or trains_one or epoch >= self.trial.recipe.epochs:
            return final
        found = self.along().get(epoch)
        if found is None:
            warnings.warn(
                f"search {self.trial.trial_id}: its rows hold no genotype of epoch {epoch}, so "
                "nothing can be retrained from there",
                stacklevel=2,
            )
        return found


Recalled = tuple[str, int, int]  # of what a store remembers: study, proposal and seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot(Identified):
    """A trial but for what one of its ``parents`` will find.

    ``parents`` are keys of trials or slots of the phase before, or of earlier ones of its own: one,
    or every seed of a cell of which the best goes on; none where the genotype is published, and
    then ``genotype`` is set. Which parent it was, ``origin`` does not say before it is known.

    A slot is filled when all its parents have ended. A subclass may decide otherwise what it
    becomes (``fill``), look at entries that need not have ended (``beside``), be filled as an
    earlier run filled it (``recall``), and be nothing that the next phase goes on from
    (``leads_on``).
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

    @property
    def beside(self) -> tuple[str, ...]:
        """Keys of entries before it that it has to know, whether or not they have ended."""
        return ()

    @property
    def recall(self) -> Recalled | None:
        """By what a store knows the trial that an earlier run put here; None: it is not asked."""
        return None

    @property
    def stand_in(self) -> Trial | None:
        """A trial that takes as long; None where a published genotype makes one."""
        return None

    @property
    def leads_on(self) -> bool:
        """Whether the next phase goes on from it."""
        return True

    def resolve(self, genotype: Genotype, parent: Trial | None = None) -> Trial:
        """The trial in this slot once ``parent`` has found ``genotype``."""
        return phase_named(self.phase).trial(self, genotype, parent)

    def fill(
        self, parents: Sequence[Seen | None], beside: Sequence[Seen]
    ) -> tuple[Trial, Origin] | None:
        """The trial in this slot, and who asked for it; None where there will never be one.

        Here it goes on from the parent that is done with the best validation accuracy; of equals,
        from the first.

        Args:
            parents: as they ended; None for one that never became a trial.
            beside: those of ``beside``.
        """
        if not parents:
            assert self.genotype is not None, "without parents and without a genotype"
            return self.resolve(self.genotype), self.origin
        done = [
            (seen.outcome.rank, seen)
            for seen in parents
            if seen is not None and seen.outcome is not None and seen.outcome.state == State.DONE
        ]
        if not done:
            return None
        _, winner = max(done, key=lambda one: one[0])
        genotype = winner.genotype(self.origin.search_epoch)
        if genotype is None:
            return None
        origin = replace(self.origin, search_id=winner.trial.trial_id, seed=winner.trial.seed)
        return self.resolve(genotype, winner.trial), origin


Entry = Trial | Slot


def leads_on(entry: Entry) -> bool:
    """Whether the next phase goes on from it: from every trial, and from most slots."""
    return not isinstance(entry, Slot) or entry.leads_on


@dataclass(frozen=True, slots=True)
class Plan:
    """Every planned trial and slot of a grid by phase, each once, in the file's order.

    A phase stands behind the one that it goes on from.
    """

    by_phase: Mapping[str, tuple[Entry, ...]]
    stops: Mapping[str, Stop] = field(default_factory=dict)  # by phase, where something stops

    @property
    def reasons(self) -> set[str]:
        """By which settings a trial may be pruned: one that is by others is to go on."""
        return {by for phase, stop in self.stops.items() for by in stop.reasons(phase)}

    @property
    def searches(self) -> tuple[Any, ...]:
        """Search trials."""
        return self.by_phase["search"]

    @property
    def retrains(self) -> tuple[Any, ...]:
        """Slots of retrain trials."""
        return self.by_phase["retrain"]

    @property
    def followed(self) -> set[str]:
        """The phases of which others, or later entries of their own, may wait for an entry."""
        return {
            of
            for name in map(phase_named, self.by_phase)
            for of in (name.after, name.name if name.within else None)
            if of is not None
        }

    @property
    def recalls(self) -> set[str]:
        """What the ids of those begin with that an earlier run may have filled slots with."""
        return {
            phase_named(name).prefix
            for name, entries in self.by_phase.items()
            if any(isinstance(entry, Slot) and entry.recall for entry in entries)
        }

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
        before = [e for e in planned[phase.after] if leads_on(e)] if phase.after else []
        planned[name] = tuple(dict.fromkeys(phase.slots(getattr(grid, name), grid, before)))
    stops = {name: stop for name in grid.phases if (stop := grid.stop(name))}
    made = Plan(planned, stops)
    if len(made) > MAX_TRIALS:
        raise GridError(f"{grid.name}: {len(made):,} trials; {TOO_MANY}")
    return made


def method_of(entry: Entry, origins: Iterable[Origin] = ()) -> str:
    """The method with what sets it apart from its namesakes."""
    return method_name(*phase_named(entry.phase).labels(entry, origins))
