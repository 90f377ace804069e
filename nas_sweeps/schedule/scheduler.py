"""Which trials of a plan are ready, and what the end of each releases. Pure scheduling.

The scheduler hands out each trial once and is told how it ended; where and when it runs is an
executor's business. Of the ready trials those of the latest phase go first, so results come early
and a cell is finished before the next is begun.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from nas_sweeps.grid import Entry, Plan, Slot
from nas_sweeps.grid.expand import Outcome, Recalled, Seen
from nas_sweeps.phases import depth
from nas_sweeps.schedule.peers import Peers
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.store.records import State
from nas_sweeps.store.terms import Terms
from nas_sweeps.trial import Origin, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A trial to run now, and who asked for it (no one but the plan, where it has no parents)."""

    trial: Trial
    origins: tuple[Origin, ...] = ()
    ready_s: float = 0.0  # since when it is ready, by a monotonic clock

    @property
    def phase(self) -> str:
        """Whose resources it takes."""
        return self.trial.phase


class Scheduler:
    """The state of a plan while it is worked through.

    Args:
        plan: what is wanted.
        settled: outcomes by trial id that earlier runs left; ids of other plans are ignored.
        chosen: the part of the plan that is worked through and counted; None: all of it.
        elsewhere: ids of trials that are running without having been taken from here.
        along: the genotypes of a search after each of its epochs, by its id.
        recalled: what earlier runs put into slots that are filled so again.
    """

    def __init__(
        self,
        plan: Plan,
        settled: Mapping[str, Outcome] | None = None,
        chosen: Callable[[Entry], bool] | None = None,
        elsewhere: Collection[str] = (),
        along: Callable[[str], Mapping[int, Genotype]] = lambda trial_id: {},
        recalled: Mapping[Recalled, Trial] | None = None,
    ) -> None:
        self._along = along
        self._elsewhere, self._settled = elsewhere, dict(settled or {})
        self._recalled = recalled or {}
        self._chosen = chosen or (lambda entry: True)
        self._live: dict[str, Trial] = {}
        self._entries, self._phases = tuple(plan), tuple(plan.by_phase)
        self._peers, self.reasons = Peers(self._entries, plan.stops), plan.reasons
        self._resolved: dict[int, str | None] = {}  # entry to trial id; None: blocked
        self._entries_of: dict[str, list[int]] = {}  # trial id to entries
        self._trials: dict[str, Trial] = {}  # that entries were resolved to, by id
        self._askers: dict[int, Origin] = {}  # of entries
        self._filled: list[int] = []  # slots, since somebody asked
        self._origins: dict[str, list[Origin]] = {}  # of those, by id
        self._queued: dict[str, float] = {}  # ids of trials that are ready or were, since when
        self._cancelled: set[int] = set()  # entries
        latest_first = sorted(self._phases, key=depth, reverse=True)
        self._ready: dict[str, deque[Trial]] = {phase: deque() for phase in latest_first}
        self.followed = plan.followed  # phases of which something may wait for an entry
        self._numbers = {e.key: i for i, e in enumerate(self._entries) if e.phase in self.followed}
        self._parents = [tuple(self._numbers[key] for key in e.parents) for e in self._entries]
        self._children: dict[int, list[int]] = {}
        for number, parents in enumerate(self._parents):
            for parent in parents:
                self._children.setdefault(parent, []).append(number)
            self._resolve(number)

    def next_task(self, phase: str | None = None) -> Task | None:
        """The next trial to run, which is live from now on; None if none is ready now.

        Args:
            phase: of which it shall be; None: the latest phase that has one.
        """
        task = self.peek(phase)
        if task is not None:
            self._ready[task.phase].popleft()
            self._live[task.trial.trial_id] = task.trial
        return task

    def peek(self, phase: str | None = None) -> Task | None:
        """What ``next_task`` would hand out."""
        asked = self._ready.values() if phase is None else (self._ready[phase],)
        ready = next(filter(None, asked), None)
        if ready is None:
            return None
        trial_id = ready[0].trial_id
        origins = tuple(self._origins.get(trial_id, ()))
        return Task(trial=ready[0], origins=origins, ready_s=self._queued[trial_id])

    def drop(self, trial_id: str) -> None:
        """A live trial has ended without an outcome and is left: it waits, and is not ready."""
        del self._live[trial_id]
        self._queued.pop(trial_id, None)

    def cancel(self, meant: Callable[[Entry], bool]) -> set[str]:
        """Leave a part of the chosen trials; what could only follow them waits.

        Returns:
            Ids of live trials that nothing wants any more.
        """
        entries = enumerate(self._entries)
        self._cancelled |= {n for n, entry in entries if self._chosen(entry) and meant(entry)}
        for phase, ready in self._ready.items():
            left = [trial.trial_id for trial in ready if not self.wants(trial.trial_id)]
            for trial_id in left:
                del self._queued[trial_id]
            self._ready[phase] = deque(t for t in ready if t.trial_id in self._queued)
        return {trial_id for trial_id in self._live if not self.wants(trial_id)}

    def wants(self, trial_id: str) -> bool:
        """Whether a trial is asked for by a chosen entry that was not cancelled."""
        return any(
            number not in self._cancelled and self._chosen(self._entries[number])
            for number in self._entries_of[trial_id]
        )

    def settle(self, trial_id: str, outcome: Outcome) -> None:
        """A live trial has ended: release or block what waited for it."""
        assert trial_id in self._live, f"{trial_id} is not running"
        del self._live[trial_id]
        self._settled[trial_id] = outcome
        over = sorted(self._entries_of[trial_id])  # of a plan, what comes first is filled first
        while over:
            for child in self._children.get(heapq.heappop(over), ()):
                if child not in self._resolved:
                    self._resolve(child)
                    if self._is_over(child):  # blocked, or its trial was settled before
                        heapq.heappush(over, child)

    @property
    def phases(self) -> tuple[str, ...]:
        """Those of the plan, in its order."""
        return self._phases

    @property
    def next_phase(self) -> str | None:
        """The phase of the trial that ``next_task`` would hand out."""
        return next((phase for phase, ready in self._ready.items() if ready), None)

    @property
    def ready(self) -> dict[str, int]:
        """How many trials of each phase could run now."""
        return {phase: len(trials) for phase, trials in self._ready.items()}

    @property
    def live(self) -> tuple[Trial, ...]:
        """Taken and not settled."""
        return tuple(self._live.values())

    @property
    def finished(self) -> bool:
        """Whether nothing is live and nothing is ready: nothing can become ready any more."""
        return not self._live and self.next_phase is None

    @property
    def blocked(self) -> tuple[Entry, ...]:
        """Slots that no genotype will reach: everything they could come from failed."""
        return tuple(
            self._entries[n]
            for n, to in sorted(self._resolved.items())
            if to is None and self._never(n) == State.BLOCKED
        )

    def terms(self, trial_id: str) -> Terms | None:
        """On what terms a trial runs that is handed out now; None: nothing stops it."""
        return self._peers.terms(self._entries_of[trial_id], self._comparable)

    def _comparable(self, number: int) -> str | None:
        """The trial of an entry, if it has begun in this run or ended in any, and not failed."""
        to = self._resolved.get(number)
        known = to in self._live or (to in self._settled and self._state(to) != State.FAILED)
        return to if known else None

    def trial_ids(self) -> set[str]:
        """Ids of the chosen trials that are known; that of a slot is, once its genotype is."""
        return {
            to
            for number, to in self._resolved.items()
            if to is not None and self._chosen(self._entries[number])
        }

    def links(self) -> list[tuple[str, Origin]]:
        """Trials and the origins that asked for them, as far as known, earlier runs included."""
        return [(to, origin) for to, origins in self._origins.items() for origin in origins]

    def counts(self) -> dict[str, dict[State, int]]:
        """Chosen trials by phase and state: a phase's numbers sum to what is planned.

        They are counted by slot, so one trial counts for every slot that shares it.
        """
        counts = {phase: dict.fromkeys(State, 0) for phase in self._phases}
        for entry, state in self.states():
            counts[entry.phase][state] += 1
        return counts

    def states(self) -> Iterator[tuple[Entry, State]]:
        """Every chosen trial and slot with its state, in the plan's order."""
        for number, entry in enumerate(self._entries):
            if self._chosen(entry):
                to = self._resolved.get(number, "")
                state = self._never(number) if to is None else self._state(to)
                left = state == State.WAITING and number in self._cancelled
                yield entry, State.CANCELLED if left else state

    def known(self, chosen: bool = True) -> Iterator[tuple[Entry, Seen]]:
        """Every entry whose trial is known, with its outcome if it has one.

        Args:
            chosen: the chosen ones alone.
        """
        for number, entry in enumerate(self._entries):
            if number in self._resolved and (not chosen or self._chosen(entry)):
                seen = self._seen(number)
                if seen is not None:
                    yield entry, seen

    def filled(self) -> list[tuple[Slot, Seen]]:
        """The chosen slots whose trial has become known since this was last asked."""
        found, self._filled = self._filled, []
        seen = ((self._entries[number], self._seen(number)) for number in found)
        return [(e, of) for e, of in seen if isinstance(e, Slot) and of and self._chosen(e)]

    def left(self) -> Iterator[tuple[Entry, str | None]]:
        """Chosen trials that are waiting, each once, with their ids.

        None for a slot whose genotype is not known: which of those will turn out to be one trial,
        nobody can tell.
        """
        seen: set[str] = set()
        for number, entry in enumerate(self._entries):
            to = self._resolved.get(number, "")
            if to is None or to in seen or not self._chosen(entry):
                continue
            if number in self._cancelled:
                continue
            if self._state(to) != State.WAITING:
                continue
            if to:
                seen.add(to)
            yield entry, to or None

    def _state(self, trial_id: str) -> State:
        if trial_id in self._settled:
            return self._settled[trial_id].state
        runs = trial_id in self._live or trial_id in self._elsewhere
        return State.RUNNING if runs else State.WAITING

    def _never(self, number: int) -> State:
        """What a slot is that becomes no trial: pruned where everything before it was."""
        parents = self._parents[number]
        return State.PRUNED if parents and all(map(self._is_pruned, parents)) else State.BLOCKED

    def _is_pruned(self, number: int) -> bool:
        to = self._resolved.get(number, "")
        return (self._never(number) if to is None else self._state(to)) == State.PRUNED

    def _is_over(self, number: int) -> bool:
        """Whether an entry is blocked, or its trial settled."""
        to = self._resolved.get(number, "")
        return to is None or to in self._settled

    def _resolve(self, number: int) -> None:
        """Find an entry's trial once all its parents are over, and queue it."""
        entry = self._entries[number]
        found: tuple[Trial, Origin | None] | None
        if not isinstance(entry, Slot):
            found = entry, entry.origin
        else:
            parents = self._parents[number]
            founders = parents[: entry.founders]
            if not all(map(self._is_over, founders)):
                return
            found = entry.recalled(self._recalled, [self._seen(parent) for parent in founders])
            if found is None:
                if not all(map(self._is_over, parents)) or not entry.fillable:
                    return
                found = entry.fill(
                    [self._seen(parent) for parent in parents],
                    [seen for key in entry.beside if (seen := self._seen(self._numbers[key]))],
                )
        if found is None:
            self._resolved[number] = None
            return
        trial, origin = found
        trial_id = trial.trial_id
        self._resolved[number] = trial_id
        self._entries_of.setdefault(trial_id, []).append(number)
        known = trial_id in self._queued or trial_id in self._settled or trial_id in self._live
        if not known and self._chosen(entry) and number not in self._cancelled:
            self._queued[trial_id] = time.monotonic()
            self._ready[trial.phase].append(trial)
        origins = self._origins.setdefault(trial_id, [])
        if origin is not None:
            self._askers[number] = origin
            self._filled.append(number)
            if origin not in origins:
                origins.append(origin)
        self._trials.setdefault(trial_id, trial)

    def _seen(self, number: int) -> Seen | None:
        """What an entry has become, which is known; None for one that is blocked."""
        to = self._resolved[number]
        if to is None:
            return None
        along = partial(self._along, to)
        return Seen(self._trials[to], self._settled.get(to), along, self._askers.get(number))
