"""Whether a trial goes on, asked by its worker between two epochs.

Nothing is decided but by the file that says it, the trial's result, which an attempt writes once:
killed before, nothing was decided, and the next attempt asks again at the same epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nas_sweeps.store import State, Store
from nas_sweeps.store.terms import Terms
from nas_sweeps.store.trial_files import read_newest_result
from nas_sweeps.tables.rows import read_epochs
from nas_sweeps.train.common import Row, TrainingDiverged
from nas_sweeps.trial import Trial
from nas_sweeps.tuning.stop import Curve, Peer, Pruned, Stop, collapsed, compare, diverged

ENDED: dict[State, Literal["done", "pruned"]] = {State.DONE: "done", State.PRUNED: "pruned"}


class GivenUp(Exception):
    """A rule says that a trial had better end."""

    def __init__(self, why: Pruned) -> None:
        super().__init__(why.why)
        self.why = why


class Judge:
    """Holds a trial against the terms on which its driver handed it out; without any, it goes on.

    Args:
        driver: as the store knows it.
    """

    def __init__(self, store: Store, trial: Trial, driver: str | None) -> None:
        self.store, self.trial = store, trial
        held = store.layout.trial(trial.trial_id).terms(driver) if driver else None
        self.terms = (Terms.read(held) if held else None) or Terms(stop=Stop())
        self._ended: dict[str, Peer] = {}  # peers, whose curves change no more

    def verdict(self, rows: Sequence[Row], epochs: int) -> Pruned | None:
        """Why the trial ends here; None: it goes on.

        Args:
            rows: of its epochs so far, which stand in the store.
            epochs: of the whole trial.
        """
        stop, phase = self.terms.stop, self.trial.phase
        if not rows or rows[-1]["epoch"] >= epochs:
            return None
        alone = collapsed(stop, phase, rows[-1])
        if alone is not None or stop.rule == "none" or rows[-1].get(stop.compares) is None:
            return alone
        if rows[-1]["epoch"] < stop.after_epochs:
            return None
        peers = {p: peer for p in self.terms.peers if (peer := self._peer(p)) is not None}
        return compare(stop, phase, epochs, self.terms.number, self._curve(rows), peers)

    def diverged(self, rows: Sequence[Row], error: Exception) -> Pruned | None:
        """Why a trial that raised this is given up; None: it failed."""
        if not isinstance(error, TrainingDiverged):
            return None
        return diverged(self.terms.stop, self.trial.phase, len(rows), error)

    def _peer(self, trial_id: str) -> Peer | None:
        """A trial that this one is compared with; None for one that failed."""
        if trial_id in self._ended:
            return self._ended[trial_id]
        files = self.store.layout.trial(trial_id)
        result = read_newest_result(files)
        if result is not None and result.state == State.FAILED:
            return None
        columns = read_epochs(files).select(["epoch", self.terms.stop.compares]).to_pylist()
        ended = None if result is None else ENDED[result.state]
        peer = Peer(self.terms.peers[trial_id], self._curve(columns), ended)
        if result is not None:
            self._ended[trial_id] = peer
        return peer

    def _curve(self, rows: Sequence[Row]) -> Curve:
        """What is compared, by epoch."""
        by = self.terms.stop.compares
        return {row["epoch"]: row[by] for row in rows if row.get(by) is not None}
