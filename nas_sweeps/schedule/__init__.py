"""Which trials are ready: the plan, worked through, and replayed from a store. No torch, no ray."""

from __future__ import annotations

from nas_sweeps.grid.expand import Outcome
from nas_sweeps.schedule.replay import outcome_of, recalled, replay, result_of
from nas_sweeps.schedule.scheduler import Scheduler, Task

__all__ = ["Outcome", "Scheduler", "Task", "outcome_of", "recalled", "replay", "result_of"]
