"""How well what there was to run on was used, from the recorded attempts of a grid's trials."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from nas_sweeps.cost.measured import PAUSE_S
from nas_sweeps.cost.simulate import Room, Task, simulate
from nas_sweeps.store import Store
from nas_sweeps.tables import load
from nas_sweeps.trial import Resources

_COLUMNS = {
    "trials": ["phase", "parents"],
    "attempts": ["started_at", "wall_s", "host", "visible_devices"],
} | {name: list[str]() for name in ("epochs", "classes", "genotypes")}


@dataclass(frozen=True, slots=True)
class Used:
    """``room`` GPUs, or slots of trials where no trial takes a GPU; seconds."""

    gpus: bool
    room: float
    busy_s: float  # of one GPU, or of one slot
    took_s: float  # from the first start to the last sign of life, without pauses
    bound_s: float  # no order of these trials takes less

    @property
    def share(self) -> float:
        """The part of the room's time that trials held."""
        return self.busy_s / (self.room * self.took_s)


@dataclass(frozen=True, slots=True)
class _Held:
    trial_id: str
    phase: str
    start: float
    end: float
    devices: tuple[tuple[str, str], ...]  # host and device


def used(store: Store, trial_ids: Collection[str], needs: Mapping[str, Resources]) -> Used | None:
    """What trials of a grid made of their room; None while nothing has been recorded.

    The room is what trials were seen on: the devices of all attempts, or the most trials at once.
    Where nothing ran for more than two minutes, the time between is not counted.

    Raises:
        ValueError: there is no store.
    """
    frames = load(store, columns=_COLUMNS)
    trials = {t["trial_id"]: t for t in frames.arrow("trials").to_pylist()}
    ours = trials.keys() & set(trial_ids)
    held = [
        _held(row, trials[row["trial_id"]]["phase"])
        for row in frames.arrow("attempts").to_pylist()
        if row["trial_id"] in ours and row["started_at"] and row["wall_s"]
    ]
    if not held:
        return None
    gpus = any(needs[h.phase].gpus for h in held)
    sizes = [needs[h.phase].gpus if gpus else 1.0 for h in held]
    devices = {device for h in held if needs[h.phase].gpus for device in h.devices}
    room = float(max(len(devices), _most_at_once(held, sizes)))
    busy_s = sum((h.end - h.start) * size for h, size in zip(held, sizes, strict=True))
    where = Room(((math.inf, room),)) if gpus else Room(((math.inf, 0.0),), int(room))
    bound_s = simulate(_tasks(held, trials), needs, where).bound_s
    return Used(gpus, room, busy_s, _took_s(held), bound_s)


def _held(row: Mapping[str, Any], phase: str) -> _Held:
    start = row["started_at"].timestamp()
    seen = filter(None, (row["visible_devices"] or "").split(","))
    devices = tuple((row["host"] or "", device) for device in seen)
    return _Held(row["trial_id"], phase, start, start + row["wall_s"], devices)


def _most_at_once(held: Sequence[_Held], sizes: Sequence[float]) -> int:
    moves = [(h.start, size) for h, size in zip(held, sizes, strict=True)]
    moves += [(h.end, -size) for h, size in zip(held, sizes, strict=True)]
    at_once = accumulate(size for _, size in sorted(moves))  # at a moment, who leaves goes first
    return math.ceil(max(at_once) - 1e-6)


def _took_s(held: Iterable[_Held]) -> float:
    spans = sorted((h.start, h.end) for h in held)
    took, until = 0.0, spans[0][0]
    for start, end in spans:
        if start - until > PAUSE_S:
            until = start
        took += max(0.0, end - until)
        until = max(until, end)
    return took


def _tasks(held: Iterable[_Held], trials: Mapping[str, Mapping[str, Any]]) -> list[Task]:
    """A task of each trial, of all its attempts' seconds. Of several searches that led to one
    retrain it had to wait for one, the first that ended."""
    took: dict[str, float] = {}
    ends: dict[str, float] = {}
    for h in sorted(held, key=lambda h: h.start):
        took[h.trial_id] = took.get(h.trial_id, 0.0) + h.end - h.start
        ends[h.trial_id] = h.end
    places: dict[str, int] = {}
    tasks: list[Task] = []
    for trial_id, seconds in took.items():
        of = trials[trial_id]
        before = [parent for parent in of["parents"] or () if parent in places]
        first = min(before, key=ends.__getitem__, default="")
        places[trial_id] = len(tasks)
        tasks.append(Task(of["phase"], seconds, (places[first],) if first else ()))
    return tasks
