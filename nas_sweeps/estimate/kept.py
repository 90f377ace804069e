"""What a run was estimated at, kept in its store, and afterwards how wrong that was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from nas_sweeps.estimate.rates import Band
from nas_sweeps.live.lines import span
from nas_sweeps.store.driver import DriverMonitor
from nas_sweeps.store.layout import Layout, Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One run's estimate, in seconds. What came of it is None, or 0, until the run ends."""

    grid: str  # its digest
    began: str  # ISO 8601, UTC
    trials: int  # that were to do
    wall_s: Band
    took_s: float | None = None  # None: the run goes on, or was killed
    done: int = 0  # trials that this run did
    done_s: float = 0.0  # what those were estimated at, added up
    done_took_s: float = 0.0  # and what they took

    def publish(self, layout: Layout, writer: Writer) -> None:
        """Only the driver of that name does. Raises OSError."""
        layout.estimate(writer).publish_json(asdict(self), durable=False)

    @classmethod
    def read(cls, layout: Layout, writer: Writer) -> Kept | None:
        """None where it cannot be read."""
        value = layout.estimate(writer).read_json()
        try:
            kept: Kept = _adapter().validate_json(json.dumps(value))
        except ValueError:
            return None
        return kept

    def closed(self, took_s: float, done: int, done_s: float, done_took_s: float) -> Kept:
        """With what came of it."""
        return replace(self, took_s=took_s, done=done, done_s=done_s, done_took_s=done_took_s)

    def text(self, runs: bool) -> str:
        """A line for ``status``; ``runs``: whether its driver lives."""
        wall, n = self.wall_s, self.trials
        said = f"estimated {span(wall.mid)} ({span(wall.low)}–{span(wall.high)}) for {n} trials"
        if self.took_s is None:
            ending = "" if runs else ", but that run did not come to its end"
            return f"{said}{ending}"
        if self.done == self.trials:
            return f"{said}, took {span(self.took_s)}: {wrong(self.took_s, wall.mid)}"
        if not self.done:
            return f"{said}; that run did none of them"
        return (
            f"{said}; that run did {self.done} of them, in {span(self.done_took_s)} of work where "
            f"{span(self.done_s)} was estimated: {wrong(self.done_took_s, self.done_s)}"
        )


def latest(layout: Layout, grid: str) -> str | None:
    """The line of the run of a grid that began last."""
    found = [(kept, w) for w in layout.estimates() if (kept := Kept.read(layout, w)) is not None]
    of_grid = [(kept, writer) for kept, writer in found if kept.grid == grid]
    if not of_grid:
        return None
    kept, writer = max(of_grid, key=lambda pair: pair[0].began)
    driver = DriverMonitor(layout).look(writer)
    return kept.text(runs=driver is not None and driver.lives)


def wrong(took_s: float, estimated_s: float) -> str:
    """By how much the truth was more or less than the estimate."""
    part = took_s / estimated_s - 1
    return f"{abs(part):.0%} {'more' if part >= 0 else 'less'} than estimated"


def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Kept)
