"""A store as it changes: what is new since the last look, and the whole picture.

Only the store is read, and of it only the folders that changed since they were last read.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass

from nas_sweeps.cost.pace import Pace, remaining_s
from nas_sweeps.store.driver import Driver, DriverMonitor
from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import State
from nas_sweeps.watch.known import Known, News
from nas_sweeps.watch.lines import done_text, epoch_columns, failed_text
from nas_sweeps.watch.planned import Planned
from nas_sweeps.watch.snapshot import Snapshot, Spent

# A folder that changed less than this before it was read may change again without its time
# moving: see ``nas_sweeps.tables.compaction``.
RACY_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Said:
    """Something that happened to a trial, in words."""

    kind: News
    name: str
    text: str


class Follower:
    """Looks at one store again and again."""

    def __init__(self, store: Store) -> None:
        self.store, self.planned = store, Planned(store)
        self.monitor = DriverMonitor(store.layout)
        self.driver: Driver | None = None
        self.trials: dict[str, Known] = {}
        self.pace, self.slots = Pace(), 0
        self._stamps: dict[str, int] = {}
        self._looked = False

    def poll(self) -> list[Said]:
        """Look again: what is new, in words. Of the first look nothing is.

        Raises:
            OSError: the store does not answer.
        """
        self.driver = self.monitor.driver()
        news = [(trial, kind) for trial, kind in self._changes() if self._looked]
        self.planned.update(self.driver, self.trials.values())
        self.slots = max(self.slots, sum(trial.runs for trial in self.trials.values()))
        self._looked = True
        return [Said(kind, trial.name, self._told(trial, kind)) for trial, kind in news]

    @property
    def over(self) -> bool:
        """No run works on the store."""
        return self.driver is None and self.monitor.doubtful is None

    def _changes(self) -> list[tuple[Known, News]]:
        found = []
        for files, stamp in self.store.layout.trials():
            if self._stamps.get(files.trial_id) == stamp:
                continue
            settled = stamp < time.time_ns() - RACY_NS
            self._stamps[files.trial_id] = stamp if settled else 0
            trial = self.trials.setdefault(files.trial_id, Known(files.trial_id))
            news = trial.read(files, self.pace)
            if news is not None:
                found.append((trial, news))
        return found

    def _told(self, trial: Known, kind: News) -> str:
        if kind == "epoch":
            assert trial.row is not None, "a row is the news"
            return epoch_columns(trial.row)
        result = trial.ending
        assert result is not None, "the ending is the news"
        if kind == State.FAILED:
            return failed_text(result.error_class, result.error_message, trial.trial_id)
        accuracy = result.metrics.get("accuracy_balanced", math.nan)
        return done_text(accuracy, result.cost.get("wall_s", math.nan), self.planned.counts)

    def snapshot(self) -> Snapshot:
        """The whole picture, as of the last look."""
        now = time.monotonic()
        trials = list(self.trials.values())
        running = tuple(trial.running(self.pace, now) for trial in trials if trial.runs)
        left = remaining_s(
            self.pace, (r.left_s for r in running), self.planned.waiting, max(1, self.slots)
        )
        return Snapshot(
            counts=self.planned.counts,
            running=running,
            left_s=None if left and self.driver is None else left,
            spent=sum((trial.spent for trial in trials), start=Spent()),
            whose=" in this store",
            notes=tuple(self._notes(len(running))),
        )

    def _notes(self, running: int) -> Iterator[str]:
        if self.driver is not None:
            yield self.driver.who
            if self.driver.record.get("only"):
                yield f"it runs a part of what is counted here: --only {self.driver.record['only']}"
        elif running:
            yield f"no run works on {self.store}; {running} workers of one may still be ending"
        else:
            yield f"no run works on {self.store} now"
        failed = sum(trial.state == State.FAILED for trial in self.trials.values())
        if failed:
            where = shlex.quote(str(self.store))
            yield f"{failed} failed: `nas-sweeps failures {where}` says why"
