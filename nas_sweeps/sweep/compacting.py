"""Tables that are written while a run works, so that what follows a kill reads little."""

from __future__ import annotations

import warnings
from threading import Thread

from nas_sweeps.store import Result, Store
from nas_sweeps.store.lease import Lease
from nas_sweeps.sweep.watcher import Watcher
from nas_sweeps.tables import compact
from nas_sweeps.trial import Trial

FIRST = 500  # trials; their own files are read in a second or two
PART = 4  # of the trials there are, a quarter is new: so all compactions together stay linear


class Compacting(Watcher):
    """Writes the tables in a thread, whenever enough trials have ended since.

    Args:
        held: trials that the tables hold when the run begins.
    """

    def __init__(self, store: Store, lease: Lease, held: int) -> None:
        self.store, self.lease, self.held = store, lease, held
        self.fresh = 0  # trials that have ended since
        self._thread: Thread | None = None

    def settled(self, trial: Trial, result: Result) -> None:
        """A trial has ended."""
        self.fresh += 1
        if self.fresh >= max(FIRST, self.held // PART):
            if self._thread is not None and self._thread.is_alive():
                return
            self.held, self.fresh = self.held + self.fresh, 0
            self._thread = Thread(target=self._compact, name="compaction", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Wait for what is being written."""
        if self._thread is not None:
            self._thread.join()

    def _compact(self) -> None:
        try:
            if self.lease.holds() and self.lease.compacts():
                compact(self.store)
        except Exception as error:  # the tables are derived: the end of the run writes them anew
            warnings.warn(f"the tables were not written while the run works: {error}", stacklevel=2)
