"""What is left of a grid, in seconds: by phase and method, in all, and by the clock. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nas_sweeps.cost.rates import Cost, Interval, Rates
from nas_sweeps.cost.simulate import Room, Schedule, Task, simulate
from nas_sweeps.grid.expand import Slot, method_of
from nas_sweeps.schedule import Scheduler
from nas_sweeps.trial import Resources

NOTHING_DONE: Mapping[str, int] = {}
Left = tuple[str, float]  # of a trial that runs, and how many seconds it has left
NONE_RUNNING: Mapping[str, Left] = {}
ANYWHERE = ((math.inf, math.inf),)


@dataclass(slots=True)
class Line:
    """The trials of one phase and method."""

    phase: str
    method: str
    trials: int = 0
    work: Interval = field(default_factory=Interval)  # seconds, of those whose cost is known
    costs: list[Cost] = field(default_factory=list)

    @property
    def unknown(self) -> int:
        return self.trials - len(self.costs)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds of everything that is left; meaningful in all where ``complete``."""

    lines: tuple[Line, ...]
    tasks: tuple[Task, ...]  # in the middle of their bands
    low: tuple[Task, ...]
    high: tuple[Task, ...]
    unreleased: int  # trials of later phases, of which some may turn out to be one trial
    assumed_spread: bool

    @property
    def trials(self) -> int:
        return sum(line.trials for line in self.lines)

    @property
    def complete(self) -> bool:
        return not any(line.unknown for line in self.lines)

    def work(self, phase: str | None = None) -> Interval:
        """Seconds of trials, added up."""
        return sum((line.work for line in self.lines if phase in (None, line.phase)), Interval())

    def hours(self, needs: Mapping[str, Resources], what: str) -> Interval:
        """GPU-hours or CPU-hours that the trials hold: ``what`` is gpus or cpus."""
        parts = (self.work(phase) * (getattr(needs[phase], what) / 3600) for phase in needs)
        return sum(parts, Interval())

    def wall(self, needs: Mapping[str, Resources], room: Room) -> tuple[Interval, Schedule]:
        """Seconds by the clock, and the schedule of the middle.

        Raises:
            ValueError: a trial that fits on no node of the room.
        """
        mid = simulate(self.tasks, needs, room)
        low, high = (simulate(tasks, needs, room).wall_s for tasks in (self.low, self.high))
        return Interval(mid.wall_s, low, high), mid


def remaining_s(
    scheduler: Scheduler,
    rates: Rates,
    epochs_done: Mapping[str, int],
    running: Mapping[str, Left],
    slots: int,
) -> float | None:
    """Seconds until all is done if so many trials run at once; None while that is unknown."""
    found = forecast(scheduler, rates, epochs_done, running)
    if not found.complete:
        return None
    needs = dict.fromkeys(scheduler.phases, Resources())
    return simulate(found.tasks, needs, Room(ANYWHERE, max(1, slots))).wall_s


def forecast(
    scheduler: Scheduler,
    rates: Rates,
    epochs_done: Mapping[str, int] = NOTHING_DONE,
    running: Mapping[str, Left] = NONE_RUNNING,
) -> Forecast:
    """What the trials that a scheduler has left will take.

    Args:
        epochs_done: of trials that were begun, by id.
        running: trials that are tasks of the schedule, and of nothing else here.
    """
    lines: dict[tuple[str, str], Line] = {}
    keys = _keys(scheduler)
    places = {
        key: place
        for place, trial_id in enumerate(running)
        for key in (trial_id, *keys.get(trial_id, ()))
    }
    tasks = [
        (Task(phase, left_s, runs=True), Interval(left_s, left_s, left_s))
        for phase, left_s in running.values()
    ]
    unreleased = 0
    for entry, trial_id in scheduler.left():
        phase = entry.phase
        method = method_of(entry)
        line = lines.setdefault((phase, method), Line(phase, method))
        line.trials += 1
        unreleased += trial_id is None
        cost = rates.cost(entry, epochs_done.get(trial_id or "", 0))
        band = cost.seconds if cost else Interval()
        if cost is not None:
            line.work += band
            line.costs.append(cost)
        waits = tuple(places[parent] for parent in entry.parents if parent in places)
        if phase in scheduler.followed:
            places |= dict.fromkeys((entry.key, *keys.get(trial_id or "", ())), len(tasks))
        tasks.append((Task(phase, band.mid, waits), band))
    return Forecast(
        tuple(lines.values()),
        tuple(task for task, _ in tasks),
        tuple(replace(task, seconds=band.low) for task, band in tasks),
        tuple(replace(task, seconds=band.high) for task, band in tasks),
        unreleased,
        not rates.spread_known,
    )


def _keys(scheduler: Scheduler) -> dict[str, list[str]]:
    """By what the entries that wait for a trial know it: the slots that have become it."""
    keys: dict[str, list[str]] = {}
    for entry, seen in scheduler.known():
        if isinstance(entry, Slot) and entry.phase in scheduler.followed:
            keys.setdefault(seen.trial.trial_id, []).append(entry.key)
    return keys
