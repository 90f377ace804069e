"""A store as it changes: what is new since the last look, and the whole picture.

Only the store is read, and of it only the folders that changed since they were last read. A run's
own display looks at the trials alone that it has handed out: nobody else writes there.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterator
from itertools import chain

from nas_sweeps.choices import Retry
from nas_sweeps.cost.forecast import Left, remaining_s
from nas_sweeps.cost.measured import measure
from nas_sweeps.cost.rates import Rates
from nas_sweeps.grid import Entry
from nas_sweeps.phases import in_order
from nas_sweeps.schedule import outcome_of
from nas_sweeps.schedule.replay import runs_again
from nas_sweeps.store.driver import Driver, DriverMonitor
from nas_sweeps.store.index import read_index
from nas_sweeps.store.layout import TrialFiles
from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import State
from nas_sweeps.watch.known import Known, News
from nas_sweeps.watch.lines import done_text, epoch_columns, failed_text, pruned_text
from nas_sweeps.watch.planned import Planned
from nas_sweeps.watch.snapshot import Counts, Running, Snapshot, Spent

# A folder that changed less than this before it was read may change again without its time
# moving: see ``nas_sweeps.tables.compaction``.
RACY_NS = 2_000_000_000


class Follower:
    """Looks at one store again and again.

    Args:
        sources: other stores with measured trials.
        chosen: the part of the plan that is counted, as for ``Scheduler``; None: all of it.
        retry: which failures that are there before the first look count as trials to run.
    """

    def __init__(
        self,
        store: Store,
        *,
        sources: tuple[Store, ...] = (),
        chosen: Callable[[Entry], bool] | None = None,
        retry: Retry = "none",
    ) -> None:
        self.store, self.sources, self.retry = store, sources, retry
        self.planned = Planned(store, chosen)
        self.monitor = DriverMonitor(store.layout)
        self.driver: Driver | None = None
        self.trials: dict[str, Known] = {}
        self.rates, self.slots = Rates(), 0
        self._mtimes_ns: dict[str, int] = {}
        self._looked = False

    def poll(self, trial_ids: list[str] | None = None) -> list[News]:
        """Look again: what is new, in the order in which it happened to a trial.

        Of the first look nothing is new.

        Args:
            trial_ids: the trials to which something may have happened; None: any of them.

        Raises:
            OSError: the store does not answer.
        """
        news: list[News] = []
        if not self._looked:
            self._look_first()
        else:
            if trial_ids is None:
                self.driver = self.monitor.driver()
                self.planned.find(self.driver)
            changed = self._changed() if trial_ids is None else map(self._files, trial_ids)
            news = list(chain.from_iterable(map(self._read, changed)))
        running = [trial.trial_id for trial in self.trials.values() if trial.runs]
        self.slots = max(self.slots, len(running))
        self.planned.count({t: k.outcome for t, k in self.trials.items() if k.outcome}, running)
        return news

    @property
    def over(self) -> bool:
        """No run works on the store."""
        return self.driver is None and self.monitor.doubtful is None

    def _look_first(self) -> None:
        """The first look: of trials that have ended only the tables and their index are read."""
        self.driver = self.monitor.driver()
        self.planned.find(self.driver)
        measured = measure([self.store, *self.sources], self.planned.needs)
        self.rates, self.rates.roughly = measured.rates, True
        index = read_index(self.store.layout)
        settled, reasons = self.store.settled(index), self.planned.reasons
        for files, mtime_ns in index.listed:
            trial_id = files.trial_id
            self._note_stamp(trial_id, mtime_ns)
            if trial_id not in settled:
                list(self._read(files))
                continue
            ended = settled[trial_id]
            past = measured.past[trial_id]
            self.trials[trial_id] = Known(
                trial_id,
                past.phase,
                outcome=None if runs_again(ended, self.retry, reasons) else outcome_of(ended),
                spent=Spent(hours=past.wall_s / 3600, gpu_hours=past.gpu_hours),
            )
        self._looked = True

    def _changed(self) -> Iterator[TrialFiles]:
        for files, mtime_ns in self.store.layout.trials(self._mtimes_ns):
            if self._mtimes_ns.get(files.trial_id) != mtime_ns:
                self._note_stamp(files.trial_id, mtime_ns)
                yield files

    def _files(self, trial_id: str) -> TrialFiles:
        return self.store.layout.trial(trial_id)

    def _note_stamp(self, trial_id: str, mtime_ns: int) -> None:
        self._mtimes_ns[trial_id] = mtime_ns if mtime_ns < time.time_ns() - RACY_NS else 0

    def _read(self, files: TrialFiles) -> Iterator[News]:
        trial = self.trials.setdefault(files.trial_id, Known(files.trial_id))
        return trial.read(files, self.rates)

    # In words, and as a picture

    def text_of(self, news: News) -> str:
        """News in a line, without the trial's name; empty for those that make none."""
        trial, result = news.trial, news.result
        if news.row is not None:
            left_s = trial.left_s(self.rates, news.row["epoch"])
            return epoch_columns(news.row, left_s, self.planned.headline)
        if result is None:
            return news.note
        if result.state == State.FAILED:
            return failed_text(result.error_class, result.error_message, trial.trial_id)
        if result.stop is not None:
            return pruned_text(result.stop.why, self._counts())
        accuracy = result.metrics.get(self.planned.headline, math.nan)
        wall_s = result.cost.get("wall_s", math.nan)
        return done_text(accuracy, wall_s, self._counts(), self.planned.headline)

    def snapshot(self, notes: tuple[str, ...] | None = None) -> Snapshot:
        """The whole picture, as of the last look.

        Args:
            notes: what is said below it; None: who runs, and what failed.
        """
        now = time.monotonic()
        running = {t: k.running(self.rates, now) for t, k in self.trials.items() if k.runs}
        left = self._left_s(running)
        return Snapshot(
            counts=self._counts(),
            running=tuple(running.values()),
            left_s=None if left and self.driver is None else left,
            spent=sum((trial.spent for trial in self.trials.values()), start=Spent()),
            notes=tuple(self._notes(len(running))) if notes is None else notes,
            headline=self.planned.headline,
        )

    def _left_s(self, running: dict[str, Running]) -> float | None:
        left: dict[str, Left] = {}
        for trial_id, shown in running.items():
            trial = self.trials[trial_id].trial
            if trial is None or shown.left_s is None:
                return None
            left[trial_id] = trial.phase, shown.left_s
        if self.planned.scheduler is None:
            return max((seconds for _, seconds in left.values()), default=0.0)
        begun = {t: k.epochs_done for t, k in self.trials.items() if k.epochs_done}
        return remaining_s(self.planned.scheduler, self.rates, begun, left, self.slots)

    def _counts(self) -> Counts:
        """Without a plan, what was asked for so far."""
        if self.planned.counts is not None:
            return self.planned.counts
        counts = {phase: dict.fromkeys(State, 0) for phase in in_order()}
        for trial in self.trials.values():
            if trial.phase is not None:
                counts.setdefault(trial.phase, dict.fromkeys(State, 0))[trial.state] += 1
        return counts

    def _notes(self, running: int) -> Iterator[str]:
        if self.driver is not None:
            yield self.driver.who
            shard = self.driver.record.get("shard")
            if shard and self.planned.chosen is None:
                yield f"it runs a part of what is counted here: --shard {shard}"
            if self.driver.record.get("only") and self.planned.chosen is None:
                yield f"it runs a part of what is counted here: --only {self.driver.record['only']}"
            for query in self.driver.cancelled:
                yield f"cancelled, and still counted here: {query}"
        elif running:
            yield f"no run works on {self.store}; {running} workers of one may still be ending"
        else:
            yield f"no run works on {self.store} now"
        failed = sum(trial.state == State.FAILED for trial in self.trials.values())
        if failed:
            where = shlex.quote(str(self.store))
            yield f"{failed} failed: `nas-sweeps failures {where}` says why"
