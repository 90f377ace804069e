"""The one loop around a pool: what is ready is placed, what has ended releases what waited for it.

Decisions about trials stand here and nowhere else: which goes next and where it fits, what is tried
again and when, and why a run stops.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nas_sweeps.cost.simulate import Floor, Room
from nas_sweeps.schedule import Scheduler, Task, outcome_of
from nas_sweeps.store import Result, State, Store
from nas_sweeps.store.lease import Lease
from nas_sweeps.sweep.executor import Pool, require_room
from nas_sweeps.sweep.failures import ALIKE, all_alike
from nas_sweeps.trial import Resources, Trial

MAX_RETRIES = 3
PAUSE_S = 5.0  # before the second retry; the first comes at once, each later one after five times
LOOK_S = 0.5  # how soon a node that has joined is seen, and a retry that is due


class Watcher:
    """Told what happens while trials run; it can look, not steer."""

    def begin(self, room: Room) -> None:
        """Called before anything runs, when it is known what trials will run on."""

    def started(self, work: Task) -> None: ...
    def again(self, trial: Trial, why: str) -> None: ...
    def settled(self, trial: Trial, result: Result) -> None: ...
    def stopping(self, how: str) -> None:
        """Called by a signal handler: see ``announce``."""


@dataclass(kw_only=True)
class Job:
    """A scheduler's trials, run on a pool.

    A trial that ended for no fault of its own (its worker died, no memory, no space) is handed
    out again, ``max_retries`` times.
    """

    scheduler: Scheduler
    store: Store
    resources: Callable[[str], Resources]
    lease: Lease  # workers watch it
    watchers: Sequence[Watcher] = ()
    variants: Mapping[str, str] = field(default_factory=dict)  # of search trials, by id
    slots: int | None = None  # at most so many trials at once
    max_retries: int = MAX_RETRIES
    fail_fast: bool = False
    started: int = field(default=0, init=False)
    stopping: str | None = field(default=None, init=False)  # why nothing more is handed out
    _again: list[tuple[float, Task]] = field(default_factory=list, init=False)  # from when on
    _tries: Counter[str] = field(default_factory=Counter, init=False)
    _live: dict[str, Task] = field(default_factory=dict, init=False)
    _results: list[Result] = field(default_factory=list, init=False)
    _problem: OSError | None = field(default=None, init=False)

    @property
    def phases(self) -> list[str]:
        """Those of which a trial may still run."""
        counts = self.scheduler.counts()
        return [phase for phase, of in counts.items() if of[State.WAITING]]

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing will be handed out any more."""
        if self._live:
            return False
        return self.stopping is not None or (not self._again and self.scheduler.next_phase is None)

    # The loop

    def run(self, pool: Pool) -> None:
        """Work until it is over.

        Where the store does not answer, nothing more is started, what runs publishes where it is,
        and the error is raised then.

        Raises:
            ValueError: no node of the pool could ever hold a trial.
            OSError: the store failed.
        """
        room = self._room(pool)
        require_room({phase: self.resources(phase) for phase in self.phases}, room, pool.where)
        self._tell(lambda watcher: watcher.begin(room))
        told = False
        while not self.over:
            if self.stopping is None:
                self._guarded(self._fill, pool)
            elif not told:
                told = True
                pool.stop()
            for end in pool.ended(LOOK_S):
                self._guarded(self.ended, end.trial_id, end.died)
        if self._problem is not None:
            raise self._problem

    def _fill(self, pool: Pool) -> None:
        """Start trials as long as the next one fits beside those that run."""
        if self.next_phase is None:
            return
        floor = Floor(self._room(pool))
        for work in self._live.values():
            if floor.place(self.resources(work.phase)) is None:
                return  # a node has left: trials that were on it are going to end
        while self.stopping is None:
            due = self._due()  # once: another may come due in between
            phase = due.phase if due else self.scheduler.next_phase
            if phase is None or floor.place(self.resources(phase)) is None:
                return
            work = self._hand_out(due)
            try:
                pool.start(work.trial.trial_id, self.resources(phase))
            except OSError as error:
                self.ended(work.trial.trial_id, f"could not be started ({error})")

    def _room(self, pool: Pool) -> Room:
        room = pool.room()
        slots = min(room.slots or math.inf, self.slots or math.inf)
        return replace(room, slots=None if slots == math.inf else int(slots))

    def _guarded(self, act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except OSError as error:
            self._problem = self._problem or error
            self.stop(f"the store failed: {error}")

    def _tell(self, what: Callable[[Watcher], None]) -> None:
        for watcher in self.watchers:
            what(watcher)

    # What it decides

    @property
    def next_phase(self) -> str | None:
        """The phase of the trial that ``hand_out`` would give now; None for none."""
        if self.stopping is not None:
            return None
        again = self._due()
        return again.phase if again else self.scheduler.next_phase

    def hand_out(self) -> Task:
        """The next trial, of ``next_phase``, written down in the store before anything runs."""
        return self._hand_out(self._due())

    def _hand_out(self, due: Task | None) -> Task:
        """A retry that is due, or the scheduler's next trial."""
        work = due
        if work is not None:
            self._again = [(when, w) for when, w in self._again if w is not work]
        else:
            work = self.scheduler.next_task()
            assert work is not None, "nothing is ready"
            self.started += 1
            self._write_down(work)
        self._live[work.trial.trial_id] = work
        self._tell(lambda watcher: watcher.started(work))
        return work

    def ended(self, trial_id: str, died: str | None = None) -> None:
        """A trial's worker has ended: see in the store how, and release what waited for it.

        Args:
            died: how the worker itself died, if it did.
        """
        work = self._live.pop(trial_id)
        trial, result = work.trial, self.store.result(trial_id)
        if result is None and not self.lease.holds():
            self.stop("another run has taken this store over: it thought this one dead")
        if result is None and self.stopping is not None:
            return  # the next run goes on with it
        died = died or "ended although nobody asked it to"
        retried = self._tries[trial_id]
        if (result is None or result.transient) and retried < self.max_retries:
            self._tries[trial_id] += 1
            pause = PAUSE_S * 5 ** (retried - 1) if retried else 0.0
            self._again.append((time.monotonic() + pause, work))
            why = result.cause if result else f"WorkerLost: {died}"
            self._tell(lambda watcher: watcher.again(trial, why))
            return
        if result is None:
            result = self.store.mark_failed(trial, "WorkerLost", f"its worker {died}")
        self._settle(trial, result)

    def _settle(self, trial: Trial, result: Result) -> None:
        self.scheduler.settle(trial.trial_id, outcome_of(result))
        self._results.append(result)
        self._tell(lambda watcher: watcher.settled(trial, result))
        if result.state == State.FAILED and self.fail_fast:
            self.stop(f"trial {trial.trial_id} failed, and --fail-fast was asked for")
        elif len(self._results) == ALIKE and all_alike(self._results):
            self.stop(
                f"the first {ALIKE} trials of this run all failed alike ({result.cause}): what is "
                "wrong is probably wrong with every trial; the same command goes on with the others"
            )

    def stop(self, why: str) -> None:
        """Hand out nothing more, and have what runs publish where it is and end."""
        self.stopping = self.stopping or why
        self.lease.stop()

    def say(self, how: str) -> None:
        """For a signal handler: the run is being stopped."""
        self._tell(lambda watcher: watcher.stopping(how))

    def _due(self) -> Task | None:
        now = time.monotonic()
        return next((work for when, work in self._again if when <= now), None)

    def _write_down(self, work: Task) -> None:
        trial_id = work.trial.trial_id
        self.store.register(work.trial, variant=self.variants.get(trial_id, ""))
        for origin in work.origins:
            self.store.add_origin(trial_id, origin)
