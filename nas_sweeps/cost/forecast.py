"""What is left of a grid, in seconds: by phase and method, in all, and by the clock. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from nas_sweeps.cost.rates import Cost, Interval, Rates
from nas_sweeps.cost.simulate import Room, Schedule, Task, simulate
from nas_sweeps.grid.expand import Slot, alike, method_of
from nas_sweeps.schedule import Scheduler
from nas_sweeps.trial import Resources

NOTHING_DONE: Mapping[str, int] = {}
Left = tuple[str, float]  # of a trial that runs, and how many seconds it has left
NONE_RUNNING: Mapping[str, Left] = {}
ANYWHERE = ((math.inf, math.inf),)
NO_TIME = Interval()


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
    bands: tuple[Interval, ...]  # of the tasks
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
        low = simulate(self.tasks, needs, room, [band.low for band in self.bands])
        high = simulate(self.tasks, needs, room, [band.high for band in self.bands])
        return Interval(mid.wall_s, low.wall_s, high.wall_s), mid


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
    tasks = [Task(phase, left_s, runs=True) for phase, left_s in running.values()]
    bands = [Interval(left_s, left_s, left_s) for _, left_s in running.values()]
    # Of a kind each, since most trials differ in their seeds alone: a line, and the cost.
    kinds: dict[tuple[Hashable, int], tuple[Line, Cost | None]] = {}
    unreleased, followed = 0, scheduler.followed
    for entry, trial_id in scheduler.left():
        done = epochs_done.get(trial_id or "", 0)
        kind = alike(entry), done
        if kind not in kinds:
            key = entry.phase, method_of(entry)
            kinds[kind] = lines.setdefault(key, Line(*key)), rates.cost(entry, done)
        line, cost = kinds[kind]
        line.trials += 1
        unreleased += trial_id is None
        band = cost.seconds if cost else NO_TIME
        if cost is not None:
            line.work += band
            line.costs.append(cost)
        waits = tuple(places[parent] for parent in entry.parents if parent in places)
        if entry.phase in followed:
            for name in (entry.key, *keys.get(trial_id or "", ())):
                places[name] = len(tasks)
        tasks.append(Task(entry.phase, band.mid, waits))
        bands.append(band)
    return Forecast(
        tuple(lines.values()), tuple(tasks), tuple(bands), unreleased, not rates.spread_known
    )


def _keys(scheduler: Scheduler) -> dict[str, list[str]]:
    """By what the entries that wait for a trial know it: the slots that have become it."""
    keys: dict[str, list[str]] = {}
    for entry, seen in scheduler.known():
        if isinstance(entry, Slot) and entry.phase in scheduler.followed:
            keys.setdefault(seen.trial.trial_id, []).append(entry.key)
    return keys
