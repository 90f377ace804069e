"""How far the grid is that a store's driver runs, or ran last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from nas_sweeps.chain import PHASES, Chain
from nas_sweeps.cost.pace import Parts, parts_of
from nas_sweeps.grid import Grid, GridError, Plan, plan
from nas_sweeps.store.driver import Driver
from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import State
from nas_sweeps.watch.known import Known
from nas_sweeps.watch.snapshot import Counts


class Planned:
    """The plan, counted again whenever something happens to its trials."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.title = ""
        self.counts: Counts = {phase: dict.fromkeys(State, 0) for phase in PHASES}
        self.waiting: Counter[Parts] = Counter()
        self._plan: Plan | None = None
        self._of: object = None  # whose plan it is
        self._counted: object = None

    def update(self, driver: Driver | None, trials: Iterable[Known]) -> None:
        """Find the plan, and count it."""
        of = self._of if driver is None else (driver.record.get("grid"), driver.record.get("doing"))
        if self._plan is None or of != self._of:
            self._plan, self._of = self._find(driver), of
        trials = list(trials)
        outcomes = {t.trial_id: t.outcome for t in trials if t.outcome is not None}
        running = frozenset(t.trial_id for t in trials if t.runs)
        state = (of, self._plan is None, len(trials), running, frozenset(outcomes.items()))
        if state == self._counted:
            return
        self._counted = state
        if self._plan is None:
            self._count_trials(trials)
            return
        chain = Chain(self._plan, outcomes, elsewhere=running)
        self.counts = chain.counts()
        self.waiting = Counter(parts_of(e) for e, state in chain.states() if state == State.WAITING)

    def _find(self, driver: Driver | None) -> Plan | None:
        """None where no grid was kept yet, or none that this version reads."""
        kept = self._kept(driver)
        if kept is None:
            return None
        try:
            grid = Grid.from_dict(kept, source="grid")
        except GridError:
            return None
        self.title = grid.name
        return plan(grid)

    def _kept(self, driver: Driver | None) -> dict[str, Any] | None:
        if driver is not None and driver.record.get("grid"):
            return self.store.layout.grid(str(driver.record["grid"])).read_json()
        kept = self.store.grids()
        named = [g for g in kept if driver is None or g.get("name") == driver.record.get("doing")]
        return next(iter(named), None)

    def _count_trials(self, trials: list[Known]) -> None:
        """Without a plan, what was asked for so far."""
        counts = {phase: dict.fromkeys(State, 0) for phase in PHASES}
        for trial in trials:
            counts["search" if trial.trial_id.startswith("s-") else "retrain"][trial.state] += 1
        self.counts = counts
