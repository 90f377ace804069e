"""What is known of one trial from its folder, read again only when that has changed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa

from nas_sweeps.chain import Outcome
from nas_sweeps.cost.pace import Pace, Parts, kind_at, left_s, parts_of
from nas_sweeps.standing import outcome_of
from nas_sweeps.store.layout import AttemptFiles, TrialFiles
from nas_sweeps.store.records import AttemptRecord, Ending, Result, State
from nas_sweeps.store.trial_files import (
    is_live,
    read_asked,
    read_attempt,
    read_origins,
    read_result,
)
from nas_sweeps.tables.sealed import unseal
from nas_sweeps.watch.lines import name_of
from nas_sweeps.watch.snapshot import Running, Spent

News = Literal["epoch"] | Ending


@dataclass
class Known:
    """A trial as its files were when last read."""

    trial_id: str
    name: str = ""
    parts: Parts = ()
    record: AttemptRecord | None = None  # of the newest attempt, while it has no result
    ending: Result | None = None  # without its bulk
    outcome: Outcome | None = None
    row: dict[str, Any] | None = None  # the latest epoch's
    row_at: float = field(default_factory=time.monotonic)
    spent: Spent = field(default_factory=Spent)

    @property
    def runs(self) -> bool:
        """As far as this machine can tell at this moment."""
        return self.record is not None and is_live(self.record)

    @property
    def state(self) -> State:
        """How far it is, as far as this machine can tell at this moment."""
        if self.outcome is not None:
            return self.outcome.state
        return State.RUNNING if self.runs else State.WAITING

    def read(self, files: TrialFiles, pace: Pace) -> News | None:
        """Read what there is, and measure epochs by it. What is new, if something is."""
        if not self.name:
            self._read_spec(files)
        newest = files.newest
        if newest is None:
            return None
        result = read_result(newest)
        if result is not None:
            return self._settle(result, pace)
        self.ending = self.outcome = None
        self.record = read_attempt(newest)
        records = [read_attempt(attempt) for attempt in files.attempts[:-1]]
        self.spent = sum(
            (_spent(record.cost) for record in [*records, self.record] if record), start=Spent()
        )
        return self._read_epochs(newest, pace)

    def running(self, pace: Pace, now: float) -> Running:
        """As a line of the view."""
        since_s = now - self.row_at
        if self.row is None and self.record is not None:
            began = datetime.fromisoformat(self.record.started_at)
            since_s = max(0.0, (datetime.now(UTC) - began).total_seconds())
        done = self.record.epochs_done if self.record else 0
        return Running(
            name=self.name,
            row=self.row,
            since_s=since_s,
            left_s=left_s(pace, self.parts, done, since_s),
        )

    def _read_spec(self, files: TrialFiles) -> None:
        """A name, also where what was asked cannot be read."""
        self.name = self.trial_id
        asked = read_asked(files)
        if asked is not None:
            origins = read_origins(files)
            self.name, self.parts = name_of(asked.trial, origins), parts_of(asked.trial, origins)

    def _settle(self, result: Result, pace: Pace) -> News | None:
        before, self.record = self.ending, None
        if before is not None and before.finished_at == result.finished_at:
            return None
        self.outcome, self.spent = outcome_of(result), _spent(result.cost)
        if result.state == State.DONE and self.row is None:
            self._measure_all(result, pace)
        self.ending = replace(result, traceback=None, genotype=None, genotype_facts={})
        self.row = None
        return result.state

    def _measure_all(self, result: Result, pace: Pace) -> None:
        """A trial whose epochs nobody watched counts with their mean."""
        wall_s, epochs = result.cost.get("wall_s"), sum(n for _, n in self.parts)
        if wall_s and epochs:
            for kind, n in self.parts:
                pace.add(kind, wall_s * n / epochs, n)

    def _read_epochs(self, newest: AttemptFiles, pace: Pace) -> News | None:
        """The latest row, if it is new. A file that is being replaced is read the next time."""
        known = self.row["epoch"] if self.row else 0
        if self.record is None or self.record.epochs_done <= known:
            return None
        try:
            table = unseal(newest.epochs.read(), use_threads=False)
        except (OSError, pa.ArrowException):
            return None
        row = table.slice(len(table) - 1).to_pylist()[0] if len(table) else {}
        if row.get("epoch_s") is None or row.get("loss_weights") is None:
            return None
        if self.parts:
            pace.add(kind_at(self.parts, row["epoch"]), row["epoch_s"])
        self.row = row | {"epochs_total": sum(n for _, n in self.parts)}
        self.row_at = time.monotonic()
        return "epoch"


def _spent(cost: dict[str, float]) -> Spent:
    return Spent(hours=cost.get("wall_s", 0.0) / 3600, gpu_hours=cost.get("gpu_hours", 0.0))
