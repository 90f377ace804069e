"""What is known of one trial from its folder, read again only when that has changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from nas_sweeps.cost.epochs import parts_of
from nas_sweeps.cost.measured import observe
from nas_sweeps.cost.rates import Rates
from nas_sweeps.schedule import Outcome, outcome_of
from nas_sweeps.store.layout import AttemptFiles, TrialFiles, Writer
from nas_sweeps.store.records import AttemptRecord, Ending, Result, State
from nas_sweeps.store.trial_files import (
    is_live,
    read_asked,
    read_attempt,
    read_origins,
    read_result,
)
from nas_sweeps.tables.checksum import read_verified
from nas_sweeps.tables.schemas import EPOCH_FILE, conform
from nas_sweeps.trial import Origin, Trial
from nas_sweeps.watch.lines import name_of
from nas_sweeps.watch.snapshot import Row, Running, Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Something that happened to a trial."""

    kind: Literal["started", "note", "epoch"] | Ending
    trial: Known
    row: Row | None = None  # of an epoch
    result: Result | None = None  # of an ending
    note: str = ""  # what a person should know of how it goes on


@dataclass
class Known:
    """A trial as its files were when last read."""

    trial_id: str
    phase: str | None = None  # None: its files do not tell
    name: str = ""
    trial: Trial | None = None
    origins: tuple[Origin, ...] = ()
    outcome: Outcome | None = None
    spent: Spent = field(default_factory=Spent)
    record: AttemptRecord | None = None  # of the newest attempt
    row: Row | None = None  # the latest epoch's
    row_at: float = field(default_factory=time.monotonic)
    _attempt: Writer | None = None
    _epochs: int = 0  # that were news
    _resumed: bool = False  # the newest attempt has said from where it goes on
    _note: str | None = None
    _finished: str | None = None  # when the result says

    @property
    def runs(self) -> bool:
        """Whether it runs, as far as this machine can tell at this moment."""
        return self.outcome is None and self.record is not None and is_live(self.record)

    @property
    def state(self) -> State:
        """How far it is, as far as this machine can tell at this moment."""
        if self.outcome is not None:
            return self.outcome.state
        return State.RUNNING if self.runs else State.WAITING

    @property
    def epochs_done(self) -> int:
        return self.record.epochs_done if self.record else 0

    def read(self, files: TrialFiles, rates: Rates) -> Iterator[News]:
        """What its files say that they did not say before. Its epochs are counted among rates."""
        newest = files.newest
        if not self.name or self.trial is None:
            self._read_spec(files)
        if newest is None:
            return
        result, self.record = read_result(newest), read_attempt(newest) or self.record
        if newest.writer != self._attempt:
            self._attempt, self._resumed = newest.writer, False
            self._note = self._finished = self.row = None
            yield News(kind="started", trial=self)
        note = self.record.note if self.record else None
        if note and note != self._note:
            self._note = note
            yield News(kind="note", trial=self, note=note)
        for row in self._new_epochs(newest, rates):
            yield News(kind="epoch", trial=self, row=row)
        if result is None:
            self.outcome = None
            records = [self.record, *(read_attempt(attempt) for attempt in files.attempts[:-1])]
            self.spent = sum((_spent(record.cost) for record in records if record), start=Spent())
        elif result.finished_at != self._finished:
            self._finished = result.finished_at
            self.outcome, self.spent, self.row = outcome_of(result), _spent(result.cost), None
            yield News(kind=result.state, trial=self, result=result)

    def running(self, rates: Rates, now: float) -> Running:
        """The trial as a line of the view."""
        since_s = now - self.row_at
        if self.row is None and self.record is not None:
            began = datetime.fromisoformat(self.record.started_at)
            since_s = max(0.0, (datetime.now(UTC) - began).total_seconds())
        return Running(
            name=self.name,
            row=self.row,
            since_s=since_s,
            left_s=self.left_s(rates, self.epochs_done, since_s),
        )

    def left_s(self, rates: Rates, epochs_done: int, since_s: float = 0.0) -> float | None:
        """Seconds that are left after so many epochs; None while that is unknown."""
        if self.trial is None:
            return None
        return rates.left_s(self.trial, self.origins, epochs_done, since_s)

    def _read_spec(self, files: TrialFiles) -> None:
        """A name, also where what was asked cannot be read."""
        self.name = self.trial_id
        asked = read_asked(files)
        if asked is not None:
            self.trial, self.origins = asked.trial, read_origins(files)
            self.phase = asked.trial.phase
            self.name = name_of(asked.trial, self.origins)

    def _new_epochs(self, newest: AttemptFiles, rates: Rates) -> list[Row]:
        """Rows that nobody has seen. A file that is being replaced is read the next time."""
        record = self.record
        if record is not None and record.epochs_done and not self._resumed:
            self._epochs, self._resumed = min(self._epochs, record.epochs_from), True
        if record is None or record.epochs_done <= self._epochs or not newest.holds(newest.epochs):
            return []
        try:
            table = read_verified(newest.epochs.read(), use_threads=False)
            table = conform(table, EPOCH_FILE, newest.epochs)
        except (OSError, pa.ArrowException):
            return []
        total = record.epochs_done
        if self.trial is not None:
            observe(rates, self.trial, self.origins, table)
            total = sum(epochs for _, epochs in parts_of(self.trial, self.origins))
        rows = table.filter(pc.greater(table["epoch"], self._epochs)).to_pylist()
        found = [row | {"epochs_total": total} for row in rows if None not in _shown(row)]
        if found:
            self.row, self.row_at = found[-1], time.monotonic()
            self._epochs = found[-1]["epoch"]
        return found


def _shown(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a line of an epoch cannot do without."""
    return row["epoch"], row["epoch_s"], row["loss_weights"]


def _spent(cost: dict[str, float]) -> Spent:
    return Spent(hours=cost.get("wall_s", 0.0) / 3600, gpu_hours=cost.get("gpu_hours", 0.0))
