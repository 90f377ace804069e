"""How far the grid is that a store's driver runs, or ran last."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from nas_sweeps.grid import Entry, Grid, GridError, Plan, plan
from nas_sweeps.names import HEADLINE
from nas_sweeps.phases import in_order
from nas_sweeps.schedule import Outcome, Scheduler, recalled
from nas_sweeps.schedule.replay import along
from nas_sweeps.store.driver import Driver
from nas_sweeps.store.ledger import Store
from nas_sweeps.trial import Resources
from nas_sweeps.watch.snapshot import Counts


class Planned:
    """The plan, counted again whenever something happens to its trials.

    Args:
        chosen: as for ``Scheduler``.
    """

    def __init__(self, store: Store, chosen: Callable[[Entry], bool] | None = None) -> None:
        self.store, self.chosen = store, chosen
        self.scheduler: Scheduler | None = None  # None while no plan is known
        self.needs: Mapping[str, Resources] = dict.fromkeys(in_order(), Resources())
        self.counts: Counts | None = None
        self.headline = HEADLINE
        self._plan: Plan | None = None
        self._along = along(store)
        self._of: object = None  # whose plan it is
        self._counted: object = None

    @property
    def reasons(self) -> set[str] | None:
        """``Plan.reasons``; None where no plan is known."""
        return None if self._plan is None else self._plan.reasons

    def find(self, driver: Driver | None) -> None:
        """The plan of this driver; of the last one where there is none."""
        of = self._of if driver is None else (driver.record.get("grid"), driver.record.get("doing"))
        if self._plan is not None and of == self._of:
            return
        self._of, grid = of, self._grid(driver)
        if grid is not None:
            self._plan, self.headline = plan(grid), grid.headline
            self.needs = {phase: grid.resources(phase) for phase in grid.phases}

    def count(self, outcomes: Mapping[str, Outcome], running: Collection[str]) -> None:
        """What is left of the plan when these trials have ended and those run."""
        state = self._of, self._plan is None, dict(outcomes), frozenset(running)
        if self._plan is not None and state != self._counted:
            self.scheduler = Scheduler(
                self._plan,
                outcomes,
                self.chosen,
                elsewhere=running,
                along=self._along,
                recalled=recalled(self._plan, self.store),
            )
            self.counts = self.scheduler.counts()
        self._counted = state

    def _grid(self, driver: Driver | None) -> Grid | None:
        """The driver's grid; None where none was kept yet, or none that this version reads."""
        kept = self._kept(driver)
        try:
            return None if kept is None else Grid.from_dict(kept, source="grid")
        except GridError:
            return None

    def _kept(self, driver: Driver | None) -> dict[str, Any] | None:
        if driver is not None and driver.record.get("grid"):
            return self.store.layout.grid(str(driver.record["grid"])).read_json()
        kept = self.store.grids()
        named = [g for g in kept if driver is None or g.get("name") == driver.record.get("doing")]
        return next(iter(named), None)
