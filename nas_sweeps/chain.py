"""Which trials are ready: searches, then whatever their genotypes release. Pure scheduling.

The chain hands out each trial once and is told how it ended; where and when it runs is an
executor's business. Ready retrains go before new searches, so results come early and a cell
is finished before the next is begun.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from nas_sweeps.grid import Plan, RetrainSlot
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.store.records import State
from nas_sweeps.trial import Origin, SearchTrial, Trial

Phase = Literal["search", "retrain"]
Entry = SearchTrial | RetrainSlot
PHASES: tuple[Phase, ...] = ("search", "retrain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a trial ended. A search that is done has a genotype."""

    state: State  # a settled one
    genotype: Genotype | None = None
    accuracy_validation: float | None = None  # a fraction; the best of several seeds is retrained


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A trial to run now, and who asked for it (no one but the plan, for a search)."""

    trial: Trial
    phase: Phase  # whose resources it takes
    origins: tuple[Origin, ...] = ()


class Chain:
    """The state of a plan while it is worked through.

    Args:
        plan: what is wanted.
        settled: outcomes by trial id that earlier runs left; ids of other plans are ignored.
        chosen: the part of the plan that is worked through and counted; None: all of it.
        elsewhere: ids of trials that are running without having been taken from here.
    """

    def __init__(
        self,
        plan: Plan,
        settled: Mapping[str, Outcome] | None = None,
        chosen: Callable[[Entry], bool] | None = None,
        elsewhere: Collection[str] = (),
    ) -> None:
        self._plan, self._elsewhere = plan, elsewhere
        self._chosen = chosen or (lambda entry: True)
        self._settled = dict(settled or {})
        self._live: dict[str, Trial] = {}
        self._searches = {trial.trial_id: trial for trial in plan.searches}
        self._unstarted = deque(
            trial
            for trial_id, trial in self._searches.items()
            if trial_id not in self._settled and self._chosen(trial)
        )
        self._ready: deque[Trial] = deque()  # retrains
        self._queued: set[str] = set()  # retrains that are ready or were
        self._origins: dict[str, list[Origin]] = {}  # by retrain id, of released slots
        self._released: dict[int, str | None] = {}  # slot to retrain id; None: blocked
        self._children: dict[str, list[int]] = {}
        for number, slot in enumerate(plan.retrains):
            for parent in slot.parents:
                self._children.setdefault(parent, []).append(number)
            self._release(number)

    def take(self) -> Work | None:
        """The next trial to run, which is live from now on; None if none is ready now."""
        if self._ready:
            trial = self._ready.popleft()
        elif self._unstarted:
            trial = self._unstarted.popleft()
        else:
            return None
        trial_id = trial.trial_id
        self._live[trial_id] = trial
        origins = tuple(self._origins.get(trial_id, ()))
        return Work(trial=trial, phase=trial.phase, origins=origins)

    def settle(self, trial_id: str, outcome: Outcome) -> None:
        """A live trial has ended: release or block what waited for it."""
        assert trial_id in self._live, f"{trial_id} is not running"
        del self._live[trial_id]
        self._settled[trial_id] = outcome
        for number in self._children.get(trial_id, ()):
            self._release(number)

    @property
    def next_phase(self) -> Phase | None:
        """Of the trial that ``take`` would hand out."""
        return "retrain" if self._ready else "search" if self._unstarted else None

    @property
    def live(self) -> tuple[Trial, ...]:
        """Taken and not settled."""
        return tuple(self._live.values())

    @property
    def finished(self) -> bool:
        """Nothing is live and nothing is ready; nothing can become ready any more."""
        return not self._live and self.next_phase is None

    @property
    def blocked(self) -> tuple[RetrainSlot, ...]:
        """Slots that no genotype will reach: every search they could come from failed."""
        slots = self._plan.retrains
        return tuple(slots[number] for number, to in sorted(self._released.items()) if to is None)

    def trial_ids(self) -> set[str]:
        """Of the chosen trials, as far as they are known: retrains once their genotype is."""
        found = {t for t, search in self._searches.items() if self._chosen(search)}
        for number, to in self._released.items():
            if to is not None and self._chosen(self._plan.retrains[number]):
                found.add(to)
        return found

    def links(self) -> list[tuple[str, Origin]]:
        """Who asked for which retrain, as far as it is known, retrains of earlier runs included."""
        return [(to, origin) for to, origins in self._origins.items() for origin in origins]

    def counts(self) -> dict[Phase, dict[State, int]]:
        """Chosen trials by phase and state: a phase's numbers sum to what is planned.

        Retrains are counted by slot, so one trial counts for every slot that shares it.
        """
        counts = {phase: dict.fromkeys(State, 0) for phase in PHASES}
        for entry, state in self.states():
            counts[entry.phase][state] += 1
        return counts

    def states(self) -> Iterator[tuple[Entry, State]]:
        """Every chosen search and retrain slot with its state, in the plan's order."""
        for trial_id, search in self._searches.items():
            if self._chosen(search):
                yield search, self._state(trial_id)
        for number, slot in enumerate(self._plan.retrains):
            if not self._chosen(slot):
                continue
            to = self._released.get(number, "")
            yield slot, State.BLOCKED if to is None else self._state(to)

    def left(self) -> Iterator[tuple[Entry, str | None]]:
        """Chosen trials that are waiting, each once, with their ids.

        None for a retrain whose genotype is not known: which of those will turn out to be one
        trial, nobody can tell.
        """
        for trial_id, search in self._searches.items():
            if self._chosen(search) and self._state(trial_id) == State.WAITING:
                yield search, trial_id
        seen: set[str] = set()
        for number, slot in enumerate(self._plan.retrains):
            to = self._released.get(number, "")
            if to is None or to in seen or not self._chosen(slot):
                continue
            if self._state(to) != State.WAITING:
                continue
            if to:
                seen.add(to)
            yield slot, to or None

    def _state(self, trial_id: str) -> State:
        if trial_id in self._settled:
            return self._settled[trial_id].state
        runs = trial_id in self._live or trial_id in self._elsewhere
        return State.RUNNING if runs else State.WAITING

    def _release(self, number: int) -> None:
        """Find the slot's genotype once all its parents are settled, and queue its trial."""
        slot = self._plan.retrains[number]
        if not all(parent in self._settled for parent in slot.parents):
            return
        genotype, origin = slot.genotype, slot.origin
        if slot.parents:
            winner = self._winner(slot.parents)
            if winner is None:
                self._released[number] = None
                return
            genotype = self._settled[winner].genotype
            origin = replace(origin, search_id=winner, seed=self._searches[winner].seed)
        assert genotype is not None, f"{origin} is done without a genotype"
        trial = slot.resolve(genotype)
        trial_id = trial.trial_id
        self._released[number] = trial_id
        if trial_id not in self._queued and trial_id not in self._settled and self._chosen(slot):
            self._queued.add(trial_id)
            self._ready.append(trial)
        origins = self._origins.setdefault(trial_id, [])
        if origin not in origins:
            origins.append(origin)

    def _winner(self, parents: tuple[str, ...]) -> str | None:
        """The done search with the best validation accuracy; of equals, the first."""
        done = [parent for parent in parents if self._settled[parent].state == State.DONE]
        return max(done, key=lambda parent: _rank(self._settled[parent]), default=None)


def _rank(outcome: Outcome) -> float:
    """Unknown and NaN accuracies are below all others."""
    accuracy = outcome.accuracy_validation
    return -math.inf if accuracy is None or math.isnan(accuracy) else accuracy
