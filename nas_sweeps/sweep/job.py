"""The one loop around a pool: what is ready is placed, what has ended releases what waited for it.

Decisions about trials stand here and nowhere else: which goes next and where it fits, what is tried
again and when, and why a run stops.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from nas_sweeps.cost.simulate import Room
from nas_sweeps.grid import Entry
from nas_sweeps.phases import phase_named
from nas_sweeps.schedule import Scheduler, Task, outcome_of, result_of
from nas_sweeps.store import Result, State, Store
from nas_sweeps.store.claims import Claims
from nas_sweeps.store.lease import Lease
from nas_sweeps.store.requests import Inbox, Request
from nas_sweeps.store.terms import say_terms
from nas_sweeps.sweep.executor import Pool, require_room
from nas_sweeps.sweep.failures import ALIKE, all_alike
from nas_sweeps.sweep.limits import Limiter
from nas_sweeps.sweep.standing import Standing
from nas_sweeps.sweep.watcher import Watcher
from nas_sweeps.trial import Resources, Trial

MAX_RETRIES = 3
PAUSE_S = 5.0  # before the second retry; the first comes at once, each later one after five times
CLAIMED_S = 5.0  # and up to twice that: when to look again at a trial that another driver runs
LOOK_S = 0.5  # how soon a node that has joined is seen, and a retry that is due


@dataclass(kw_only=True)
class Job:
    """A scheduler's trials, run on a pool.

    A trial that ended for no fault of its own (its worker died, no memory, no space) is handed
    out again, ``max_retries`` times.

    Args:
        reads: a query for planned trials, as ``chosen_by`` reads it; ValueError where it cannot.
    """

    scheduler: Scheduler
    store: Store
    resources: Callable[[str], Resources]
    lease: Lease  # workers watch it
    watchers: Sequence[Watcher] = ()
    slots: int | None = None  # at most so many trials at once
    max_retries: int = MAX_RETRIES
    fail_fast: bool = False
    limiter: Limiter | None = None
    inbox: Inbox | None = None  # what is asked from elsewhere while this works
    claims: Claims | None = None  # where other drivers may want the same trials
    damaged: frozenset[str] = frozenset()  # their results are taken back when they are handed out
    reads: Callable[[str], Callable[[Entry], bool]] = lambda query: lambda entry: False
    started: int = field(default=0, init=False)
    stopping: str | None = field(default=None, init=False)  # why nothing more is handed out
    limited: bool = field(default=False, init=False)  # that was by a limit
    paused: bool = field(default=False, init=False)
    _again: list[tuple[float, Task]] = field(default_factory=list, init=False)  # from when on
    _tries: Counter[str] = field(default_factory=Counter, init=False)
    _live: dict[str, Task] = field(default_factory=dict, init=False)
    _known: set[str] = field(default_factory=set, init=False)  # that were handed out before
    # What no limit allows, by phase, what should take the shortest time first.
    _held: dict[str, list[tuple[float, int, Task]]] = field(default_factory=dict, init=False)
    _order: Iterable[int] = field(default_factory=itertools.count, init=False)
    _halted: set[str] = field(default_factory=set, init=False)  # asked to end, and alive
    _cancelled: list[str] = field(default_factory=list, init=False)  # queries
    _stale: bool = field(default=False, init=False)  # workers know of more that is halted
    _mentioned: set[str] = field(default_factory=set, init=False)  # kinds that nobody measured
    _first: list[Result] = field(default_factory=list, init=False)  # of its results
    _standing: Standing = field(init=False)
    _problem: OSError | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._standing = Standing(self.resources)

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
        waits = self._again or any(self._held.values()) or self.scheduler.next_phase
        return self.stopping is not None or not waits

    # The loop

    def run(self, pool: Pool) -> None:
        """Work until it is over.

        Where the store does not answer, nothing more is started, what runs publishes where it is,
        and the error is raised then.

        Raises:
            ValueError: no node of the pool could ever hold a trial.
            OSError: the store failed.
        """
        room, self._standing.keeps = self._room(pool), pool.keeps
        if not pool.grows:
            require_room({phase: self.resources(phase) for phase in self.phases}, room, pool.where)
        self._tell(lambda watcher: watcher.begin(room))
        for line in self.limiter.begin() if self.limiter else ():
            self._say(line)
        told = False
        while not self.over:
            self.look()
            if self.stopping is None:
                self._guarded(self._fill, pool)
                ready = Counter(work.phase for work in self._due()) + Counter(self.scheduler.ready)
                self._standing.ask(pool, self._live, {} if self.paused else ready, self.slots)
            elif not told:
                told = True
                pool.stop()
            for end in pool.ended(LOOK_S):
                self._guarded(self.ended, end.trial_id, end.died, end.preempted)
        for work in [w for _, w in self._again] + [w for h in self._held.values() for _, _, w in h]:
            self.scheduler.drop(work.trial.trial_id)
        if self._problem is not None:
            raise self._problem

    def _fill(self, pool: Pool) -> None:
        """Start trials as long as the next one fits beside those that run."""
        if self.paused or self._choose() is None:
            return
        if self._stale:
            self._tell_workers()
        if not self._standing.holds(self._room(pool), self._live):
            return  # a node has left: trials that were on it are going to end
        while self.stopping is None:
            work = self._choose()
            if work is not None and self._elsewhere(work):
                continue
            if work is None or not self._standing.place(work, self._live):
                return
            self._hand_out(work)
            try:
                pool.start(work.trial.trial_id, self.resources(work.phase))
            except OSError as error:
                self.ended(work.trial.trial_id, f"could not be started ({error})")

    def _elsewhere(self, work: Task) -> bool:
        """Whether another driver runs a trial, or has: here it is then put off, or over."""
        trial_id = work.trial.trial_id
        if self.claims is None or trial_id in self._known or not work.origins:
            return False
        self._register(work)  # so that a claim is on a trial that was asked for
        before = self.claims.taken(trial_id)
        if before is None:
            return False
        self._take(work)
        result = self.store.result(trial_id)
        if result is not None and result.attempt > before:
            self._settle(work.trial, result)
        else:
            pause_s = CLAIMED_S * random.uniform(1, 2)
            self._again.append((time.monotonic() + pause_s, work))
        return True

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

    def _say(self, text: str) -> None:
        self._tell(lambda watcher: watcher.told(text))

    # What it decides

    @property
    def next_phase(self) -> str | None:
        """The phase of the trial that ``hand_out`` would give now; None for none."""
        work = None if self.stopping is not None or self.paused else self._choose()
        return None if work is None else work.phase

    def hand_out(self) -> Task:
        """The next trial, of ``next_phase``, written down in the store before anything runs."""
        work = self._choose()
        assert work is not None, "nothing is ready"
        return self._hand_out(work)

    def _choose(self) -> Task | None:
        """A retry that is due, the scheduler's next trial, or the shortest that was held back.

        Where only what no limit allows is left, and nothing runs that could change that, the run
        is over.
        """
        while (work := next(self._due(), None) or self._standing.next(self.scheduler)) is not None:
            expected_s = self._too_long(work)
            if expected_s is None:
                return work
            self._take(work)
            held = self._held.setdefault(work.phase, [])
            heapq.heappush(held, (expected_s, next(iter(self._order)), work))
        for held in filter(None, self._held.values()):
            if self._too_long(held[0][2]) is None:
                return held[0][2]
        if any(self._held.values()) and not self._live and not self._again:
            self.limited = True
            self.stop("nothing that is left is expected to end within the limits")
        return None

    def _too_long(self, work: Task) -> float | None:
        """The seconds that a trial should take, where no limit allows them; None: it may start."""
        if self.limiter is None:
            return None
        expected_s = self.limiter.expected_s(work)
        if expected_s is not None:
            return None if self.limiter.allows(work, expected_s) else expected_s
        phase = work.phase
        if phase not in self._mentioned:
            self._mentioned.add(phase)
            self._say(
                f"nothing like some {phase} trials was measured: they start, though nobody can say "
                "whether they end within the limits"
            )
        return None

    def _take(self, work: Task) -> None:
        """It waits no longer, wherever it did."""
        held = self._held.get(work.phase)
        if held and held[0][2] is work:
            heapq.heappop(held)
        elif any(waiting is work for _, waiting in self._again):
            self._again = [(when, w) for when, w in self._again if w is not work]
        else:
            self.scheduler.next_task(work.phase)

    def _hand_out(self, work: Task) -> Task:
        self._take(work)
        trial_id = work.trial.trial_id
        if trial_id not in self._known:
            self._known.add(trial_id)
            self.started += 1
            self._write_down(work)
        say_terms(self.store.layout.trial(trial_id), self.lease.key, self.scheduler.terms(trial_id))
        self._live[trial_id] = work
        if self.limiter is not None:
            self.limiter.started(work)
        self._tell(lambda watcher: watcher.started(work))
        return work

    def ended(self, trial_id: str, died: str | None = None, preempted: bool = False) -> None:
        """A trial's worker has ended: see in the store how, and release what waited for it.

        Args:
            died: how the worker itself died, if it did.
            preempted: with its machine, which was taken away: that costs the trial no try.
        """
        work = self._live.pop(trial_id)
        self._standing.leave(trial_id)
        trial, result = work.trial, result_of(self.store, trial_id, self.scheduler.reasons)
        halted = trial_id in self._halted
        self._halted.discard(trial_id)
        self._stale |= halted
        if self.limiter is not None:
            self.limiter.ended(work, result)
        if result is None and not self.lease.holds():
            self.stop("another run has taken this store over: it thought this one dead")
        if result is None and (self.stopping is not None or not self.scheduler.wants(trial_id)):
            self.scheduler.drop(trial_id)
            return  # the next run goes on with it
        if result is None and (halted or preempted):
            self._again.append((time.monotonic(), work))
            return
        died = died or "ended although nobody asked it to"
        retried = self._tries[trial_id]
        again = (result is None or result.transient) and self.scheduler.wants(trial_id)
        if again and retried < self.max_retries:
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
        early = len(self._first) < ALIKE
        if early:
            self._first.append(result)
        self._tell(lambda watcher: watcher.settled(trial, result))
        if result.state == State.FAILED and self.fail_fast:
            self.stop(f"trial {trial.trial_id} failed, and --fail-fast was asked for")
        elif early and len(self._first) == ALIKE and all_alike(self._first):
            self.stop(
                f"the first {ALIKE} trials of this run all failed alike ({result.cause}): what is "
                "wrong is probably wrong with every trial; the same command goes on with the others"
            )

    def stop(self, why: str) -> None:
        """Hand out nothing more, and have what runs publish where it is and end."""
        self.stopping = self.stopping or why
        self.lease.stop()

    # Limits, and what is asked from elsewhere

    def look(self) -> None:
        """See what limits and requests say now. Cheap, also between the steps of a trial."""
        self._guarded(self._look)

    def _look(self) -> None:
        if self.limiter is not None and self.stopping is None:
            why = self.limiter.reached()
            if why is not None:
                self.limited = True
                self.stop(why)
                self.say(f"stopping after the steps that are running: {why}")
        if self.inbox is None or self.stopping is not None:
            return  # whoever asks sees that the run ends
        for request, file in self.inbox.poll():
            self._obey(request)
            with suppress(OSError):
                file.remove()

    def _obey(self, request: Request) -> None:
        """Do what a person asks. Raises OSError."""
        if request.what == "cancel":
            self._cancel(str(request.only))
            return
        self.paused = request.what == "pause"
        if self.paused:
            self._halted |= self._live.keys()
        self._tell_workers()
        self._tell(lambda watcher: watcher.paused(self.paused))

    def _cancel(self, query: str) -> None:
        try:
            unwanted = self.scheduler.cancel(self.reads(query))
        except ValueError as error:
            self._say(f"what was asked to be cancelled cannot be read: {error}")
            return
        for trial_id in unwanted - self._live.keys():  # they wait, to be tried again or held back
            self.scheduler.drop(trial_id)
        self._again = [(when, w) for when, w in self._again if w.trial.trial_id not in unwanted]
        for phase, held in self._held.items():
            self._held[phase] = [one for one in held if one[2].trial.trial_id not in unwanted]
            heapq.heapify(self._held[phase])
        self._halted |= unwanted & self._live.keys()
        self._cancelled.append(query)
        self._tell_workers()
        self._say(f"cancelled: {query}")

    def _tell_workers(self) -> None:
        """Publish who is to end, so that a worker that starts from now on does not read of it.

        Raises OSError.
        """
        self.lease.tell(
            halted=sorted(self._halted), paused=self.paused, cancelled=list(self._cancelled)
        )
        self._stale = False

    def say(self, how: str) -> None:
        """For a signal handler: the run is being stopped."""
        self._tell(lambda watcher: watcher.stopping(how))

    def _due(self) -> Iterator[Task]:
        return (work for when, work in self._again if when <= time.monotonic())

    def _write_down(self, work: Task) -> None:
        trial_id = work.trial.trial_id
        if trial_id in self.damaged:
            self.store.reopen(trial_id)
        self._register(work)
        for origin in work.origins:
            self.store.add_origin(trial_id, origin)

    def _register(self, work: Task) -> None:
        called = phase_named(work.phase).labels(work.trial)
        self.store.register(work.trial, variant=called.variant)
