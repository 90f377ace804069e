"""A grid as a plan: the trials of each phase, and a slot for each that others will lead to."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
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
from nas_sweeps.tuning import Measure, Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a trial ended. One that is done has a genotype: what it found, or what it trained."""

    state: State  # a settled one
    genotype: Genotype | None = None
    accuracy_validation: float | None = None  # a fraction; the best of several goes on
    accuracy_macro_validation: float | None = None
    curve: tuple[tuple[int, float], ...] = ()  # of one that is pruned: its measure by epoch

    def rank(self, measure: Measure = "accuracy_validation") -> float:
        """The accuracy; where it is unknown or NaN, or there is no result, below all others."""
        accuracy: float | None = getattr(self, measure) if self.state == State.DONE else None
        return -math.inf if accuracy is None or math.isnan(accuracy) else accuracy


class Seen(NamedTuple):
    """What an entry has become, for slots that it decides; without an outcome while it runs."""

    trial: Trial
    outcome: Outcome | None = None
    along: Callable[[], Mapping[int, Genotype]] = dict  # genotypes after its epochs, as it searched
    origin: Origin | None = None  # who asked for it there

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
    becomes (``fill``), wait for entries of its own phase (``within``), look at some that need not
    have ended (``beside``), be filled as an earlier run filled it (``recalled``), and be nothing
    that the next phase goes on from (``leads_on``).
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
    def within(self) -> bool:
        """Whether it may wait for earlier entries of its own phase."""
        return False

    @property
    def founders(self) -> int:
        """How many of its parents, the first, are over before it is asked what is ``recalled``."""
        return 0

    @property
    def recallable(self) -> bool:
        """Whether a store may know what an earlier run put here."""
        return False

    def recalled(
        self, kept: Mapping[Recalled, Trial], founders: Sequence[Seen | None]
    ) -> tuple[Trial, Origin] | None:
        """The trial that an earlier run put here, and who asked for it; None where none did.

        Args:
            kept: what the store knows.
            founders: as they ended.
        """
        return None

    def bare(self) -> Slot:
        """It, or where a phase took a tuned slot for one of its own, a slot that nothing tunes."""
        return self

    @property
    def fillable(self) -> bool:
        """Whether everything is installed that it takes; where not, it stays to be filled."""
        return True

    @property
    def lasting(self) -> str:
        """A name that outlives versions, for what is stored of entries that go on from it."""
        return self.key

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
        found = self.found(parents)
        if found is None:
            return None
        genotype, parent, origin = found
        return self.resolve(genotype, parent), origin

    def found(self, parents: Sequence[Seen | None]) -> tuple[Genotype, Trial | None, Origin] | None:
        """The genotype that is gone on with, the parent that has it, and so who asked for it."""
        if not parents:
            assert self.genotype is not None, "without parents and without a genotype"
            return self.genotype, None, self.origin
        done = [
            (seen.outcome.rank(), seen)
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
        if (asked := winner.origin) is not None:  # it may say more than the plan could
            origin = replace(origin, variant=asked.variant, recipe=asked.recipe or origin.recipe)
        return genotype, winner.trial, origin


Entry = Trial | Slot


def leads_on(entry: Entry) -> bool:
    """Whether the next phase goes on from it: from every trial, and from most slots."""
    return not isinstance(entry, Slot) or entry.leads_on


_EACH = {"seed", "parents", "known"}  # fields that tell apart entries which are otherwise one work


def alike(entry: Entry) -> Hashable:
    """Equal for entries that differ in their seeds and parents alone, and so take equal time.

    It goes by the objects that entries of a plan share, recipe and data say, not by their values:
    quick, and good for as long as those entries are there.
    """
    kind: Any = type(entry)
    return kind, *(id(getattr(entry, name)) for name in _shared(kind))


@cache
def _shared(kind: type[Any]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind) if f.name not in _EACH)


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
        within = {
            name
            for name, entries in self.by_phase.items()
            if any(isinstance(entry, Slot) and entry.within for entry in entries)
        }
        before = {phase_named(name).after for name in self.by_phase}
        return within | {name for name in before if name is not None}

    @property
    def recalls(self) -> set[str]:
        """What the ids of those begin with that an earlier run may have filled slots with."""
        return {
            phase_named(name).prefix
            for name, entries in self.by_phase.items()
            if any(isinstance(entry, Slot) and entry.recallable for entry in entries)
        }

    def __len__(self) -> int:
        return sum(map(len, self.by_phase.values()))

    def __iter__(self) -> Iterator[Entry]:
        for entries in self.by_phase.values():
            yield from entries


def plan(grid: Grid | str | Path) -> Plan:
    """Expand a grid: about 0.01 ms and 0.4 KiB a trial, no I/O beside reading a file that is named.

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
        slots = phase.slots(getattr(grid, name), grid, before)
        planned[name] = tuple(dict.fromkeys(e.bare() if isinstance(e, Slot) else e for e in slots))
    stops = {name: stop for name in grid.phases if (stop := grid.stop(name))}
    made = Plan(planned, stops)
    if len(made) > MAX_TRIALS:
        raise GridError(f"{grid.name}: {len(made):,} trials; {TOO_MANY}")
    return made


def method_of(entry: Entry, origins: Iterable[Origin] = ()) -> str:
    """The method with what sets it apart from its namesakes."""
    return method_name(*phase_named(entry.phase).labels(entry, origins))
