"""What a run is estimated at before it begins, and what it then takes."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field

from nas_sweeps.cost.forecast import forecast
from nas_sweeps.cost.measured import epochs_begun, measure
from nas_sweeps.cost.rates import Rates
from nas_sweeps.cost.record import EstimateRecord
from nas_sweeps.cost.simulate import Room
from nas_sweeps.grid import Grid
from nas_sweeps.schedule import Scheduler, Task
from nas_sweeps.store import Result, State, Store
from nas_sweeps.store.layout import Writer
from nas_sweeps.store.trial_files import now
from nas_sweeps.sweep.watcher import Watcher
from nas_sweeps.trial import Trial


@dataclass
class EstimateRecorder(Watcher):
    """Kept in the store where everything could be estimated; else nothing happens here.

    Args:
        scheduler: before anything is taken from it.
        digest: of the grid.
        source: another store with measured trials.
    """

    grid: Grid
    scheduler: Scheduler
    store: Store
    writer: Writer  # the driver's name
    digest: str
    source: Store | None = None
    kept: EstimateRecord | None = None
    _rates: Rates | None = None
    _begun: dict[str, int] = field(default_factory=dict)
    _since: dict[str, tuple[float, Task]] = field(default_factory=dict)  # first handed out
    _started: float = 0.0
    _done: int = 0
    _done_s: float = 0.0
    _done_took_s: float = 0.0

    def begin(self, room: Room) -> None:
        """The room is known, and nothing runs yet. Raises OSError."""
        needs = {phase: self.grid.resources(phase) for phase in self.grid.phases}
        stores = [self.store] if self.source is None else [self.store, self.source]
        rates, self._begun = measure(stores, needs).rates, epochs_begun(self.store)
        found = forecast(self.scheduler, rates, self._begun)
        self._started = time.monotonic()
        if not found.trials or not found.complete:
            return
        with suppress(ValueError):  # no room: the executor says so
            self._rates = rates
            self.kept = EstimateRecord(
                grid=self.digest,
                began=now(),
                trials=found.trials,
                wall_s=found.wall(needs, room)[0],
            )
            self.kept.publish(self.store.layout, self.writer)

    def started(self, work: Task) -> None:
        """A trial was handed out."""
        self._since.setdefault(work.trial.trial_id, (time.monotonic(), work))

    def settled(self, trial: Trial, result: Result) -> None:
        """Add what a trial that is done should have taken, and took."""
        handed_out = self._since.pop(trial.trial_id, None)
        if self._rates is None or handed_out is None or result.state != State.DONE:
            return
        began, work = handed_out
        cost = self._rates.cost(trial, self._begun.get(trial.trial_id, 0), work.origins)
        self._done += 1
        self._done_s += cost.seconds.mid if cost else 0.0
        self._done_took_s += time.monotonic() - began

    def end(self) -> None:
        """Close the record: nothing more is handed out. Raises OSError."""
        if self.kept is not None:
            took = time.monotonic() - self._started
            self.kept = self.kept.closed(took, self._done, self._done_s, self._done_took_s)
            self.kept.publish(self.store.layout, self.writer)
