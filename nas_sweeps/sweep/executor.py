"""The one seam for where trials run, and what every executor does around a trial."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from nas_sweeps.chain import PHASES, Chain, Phase, Work
from nas_sweeps.cost.simulate import Room
from nas_sweeps.standing import outcome_of
from nas_sweeps.store import Result, State, Store
from nas_sweeps.store.lease import Lease
from nas_sweeps.sweep.failures import ALIKE, all_alike
from nas_sweeps.sweep.foretold import Foretold
from nas_sweeps.trial import Places, Resources, Trial

NO_CLUSTER = "--address: the inline executor uses no cluster; leave it out, or --executor inline"
MAX_RETRIES = 3
PAUSE_S = 5.0  # before the second retry; the first comes at once, each later one after five times


class Watcher(AbstractContextManager[Any], Protocol):
    """Told what happens while trials run, inside ``with``; it can look, not steer."""

    def started(self, work: Work) -> None: ...
    def again(self, trial: Trial, why: str) -> None: ...
    def settled(self, trial: Trial, result: Result) -> None: ...
    def stopping(self, how: str) -> None: ...  # called by a signal handler: see ``announce``


@dataclass
class Job:
    """What an executor needs to work through a chain.

    A trial that ended for no fault of its own (its worker died, no memory, no space) is handed
    out again, ``max_retries`` times.
    """

    chain: Chain
    store: Store
    places: Places
    resources: Callable[[Phase], Resources]
    watcher: Watcher
    lease: Lease  # workers watch it
    variants: dict[str, str] = field(default_factory=dict)  # of search trials, by id
    foretold: Foretold | None = None
    max_retries: int = MAX_RETRIES
    fail_fast: bool = False
    started: int = 0
    stopping: str | None = None  # why nothing more is handed out
    _again: list[tuple[float, Work]] = field(default_factory=list)  # from when on
    _tries: Counter[str] = field(default_factory=Counter)
    _live: dict[str, Work] = field(default_factory=dict)
    _results: list[Result] = field(default_factory=list)

    @property
    def phases(self) -> list[Phase]:
        """Those of which a trial may still run."""
        counts = self.chain.counts()
        return [phase for phase in PHASES if counts[phase][State.WAITING]]

    @property
    def over(self) -> bool:
        """Nothing runs, and nothing will be handed out any more."""
        if self._live:
            return False
        return self.stopping is not None or (not self._again and self.chain.next_phase is None)

    @property
    def next_phase(self) -> Phase | None:
        """Of the trial that ``hand_out`` would give now; None for none."""
        if self.stopping is not None:
            return None
        again = self._due()
        return again.phase if again else self.chain.next_phase

    def begin(self, room: Room) -> None:
        """For an executor to say, once, what it has: the run is estimated before it begins."""
        if self.foretold is not None:
            self.foretold.begin(room)

    def hand_out(self) -> Work | None:
        """The next trial, written down in the store before anything runs; None for none now."""
        if self.stopping is not None:
            return None
        work = self._due()
        if work is not None:
            self._again = [(when, w) for when, w in self._again if w is not work]
        else:
            work = self.chain.take()
            if work is None:
                return None
            self.started += 1
            self._write_down(work)
        self._live[work.trial.trial_id] = work
        self.watcher.started(work)
        if self.foretold is not None:
            self.foretold.started(work)
        return work

    def ended(self, trial: Trial, died: str | None = None) -> None:
        """A trial's worker has ended: see in the store how, and release what waited for it.

        Args:
            died: how the worker itself died, if it did.
        """
        work = self._live.pop(trial.trial_id)
        result = self.store.result(trial.trial_id)
        if result is None and not self.lease.holds():
            self.stop("another run has taken this store over: it thought this one dead")
        if result is None and self.stopping is not None:
            return  # the next run goes on with it
        died = died or "ended although nobody asked it to"
        retried = self._tries[trial.trial_id]
        if (result is None or result.transient) and retried < self.max_retries:
            self._tries[trial.trial_id] += 1
            pause = PAUSE_S * 5 ** (retried - 1) if retried else 0.0
            self._again.append((time.monotonic() + pause, work))
            self.watcher.again(trial, result.cause if result else f"WorkerLost: {died}")
            return
        if result is None:
            result = self.store.condemn(trial, "WorkerLost", f"its worker {died}")
        if self.foretold is not None and result.state == State.DONE:
            self.foretold.done(work)
        self._settle(trial, result)

    def _settle(self, trial: Trial, result: Result) -> None:
        self.chain.settle(trial.trial_id, outcome_of(result))
        self._results.append(result)
        self.watcher.settled(trial, result)
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

    def _due(self) -> Work | None:
        now = time.monotonic()
        return next((work for when, work in self._again if when <= now), None)

    def _write_down(self, work: Work) -> None:
        trial_id = work.trial.trial_id
        self.store.ask(work.trial, variant=self.variants.get(trial_id, ""))
        for origin in work.origins:
            self.store.link(trial_id, origin)


class Executor(Protocol):
    """Runs a job's trials until it is over."""

    def run(self, job: Job) -> None: ...
