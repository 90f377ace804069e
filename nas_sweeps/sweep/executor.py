"""The one seam for where trials run, and what every executor does around a trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from nas_sweeps.chain import PHASES, Chain, Phase, Work
from nas_sweeps.standing import outcome_of
from nas_sweeps.store import Result, Store
from nas_sweeps.trial import Places, Resources, Trial


class Watcher(Protocol):
    """Told what happens while trials run; it can look, not steer."""

    def started(self, work: Work) -> None: ...
    def epoch(self, trial: Trial, row: dict[str, Any]) -> None: ...
    def settled(self, trial: Trial, result: Result) -> None: ...


@dataclass
class Job:
    """What an executor needs to work through a chain."""

    chain: Chain
    store: Store
    places: Places
    resources: Callable[[Phase], Resources]
    watcher: Watcher
    variants: dict[str, str] = field(default_factory=dict)  # of search trials, by id
    started: int = 0

    @property
    def phases(self) -> list[Phase]:
        """Those of which a trial may still run."""
        counts = self.chain.counts()
        return [phase for phase in PHASES if counts[phase]["waiting"]]

    def hand_out(self) -> Work | None:
        """The next trial, written down in the store before anything runs."""
        work = self.chain.take()
        if work is None:
            return None
        trial_id = work.trial.trial_id
        self.store.ask(work.trial, variant=self.variants.get(trial_id, ""))
        for origin in work.origins:
            self.store.link(trial_id, origin)
        self.started += 1
        self.watcher.started(work)
        return work

    def settle(self, trial: Trial, result: Result) -> None:
        """Tell the chain how a trial ended, so that it can release what waited for it."""
        self.chain.settle(trial.trial_id, outcome_of(result))
        self.watcher.settled(trial, result)


class Executor(Protocol):
    """Runs a job's trials until none is ready and none is running."""

    def run(self, job: Job) -> None: ...
