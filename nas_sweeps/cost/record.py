"""What a run was estimated at, kept in its store, and afterwards how wrong that was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from nas_sweeps.cost.rates import Interval
from nas_sweeps.store.layout import Layout, Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateRecord:
    """One run's estimate, in seconds. What came of it is None, or 0, until the run ends."""

    grid: str  # its digest
    began: str  # ISO 8601, UTC
    trials: int  # that were to do
    wall_s: Interval
    took_s: float | None = None  # None: the run goes on, or was killed
    done: int = 0  # trials that this run did
    done_s: float = 0.0  # what those were estimated at, added up
    done_took_s: float = 0.0  # and what they took

    def publish(self, layout: Layout, writer: Writer) -> None:
        """Only the driver of that name does. Raises OSError."""
        layout.estimate(writer).publish_json(asdict(self), durable=False)

    @classmethod
    def read(cls, layout: Layout, writer: Writer) -> EstimateRecord | None:
        """The record of a run; None where it cannot be read."""
        value = layout.estimate(writer).read_json()
        try:
            kept: EstimateRecord = _adapter().validate_json(json.dumps(value))
        except ValueError:
            return None
        return kept

    def closed(self, took_s: float, done: int, done_s: float, done_took_s: float) -> EstimateRecord:
        """The record with what came of the estimate."""
        return replace(self, took_s=took_s, done=done, done_s=done_s, done_took_s=done_took_s)


def latest(layout: Layout, grid: str) -> tuple[EstimateRecord, Writer] | None:
    """The estimate of the run of a grid that began last, and the driver that kept it."""
    found = [
        (kept, w)
        for w in layout.estimates()
        if (kept := EstimateRecord.read(layout, w)) is not None
    ]
    of_grid = [(kept, writer) for kept, writer in found if kept.grid == grid]
    return max(of_grid, key=lambda pair: pair[0].began, default=None)


def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(EstimateRecord)
