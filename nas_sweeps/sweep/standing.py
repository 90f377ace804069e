"""What still fits beside the trials that run, and what of the ready had better go next."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping

from nas_sweeps.cost.simulate import Floor, Room
from nas_sweeps.schedule import Scheduler, Task
from nas_sweeps.sweep.executor import Pool
from nas_sweeps.trial import Resources

MOST_ASKED = 1000  # trials, of an autoscaler; how many nodes there may be, it is told elsewhere
PATIENCE_S = 300.0  # that a trial waits for a free process to be used; one starts in 10 to 18 s


class Standing:
    """Trials that run, placed on the nodes that there are: O(log nodes) for each that comes.

    Which node a cluster really chose it does not say. So where trials of several sizes run and one
    does not fit, all are placed anew before it waits: the cluster may have packed them as well.
    """

    def __init__(self, resources: Callable[[str], Resources]) -> None:
        self.resources = resources  # of a trial of a phase
        self._room: Room | None = None
        self._floor = Floor(Room(()))
        self._on: dict[str, tuple[int, Resources]] = {}  # node and size, by trial
        self._asked: Counter[Resources] = Counter()
        self._packed = True  # nothing has left since all were placed
        self.keeps = False  # as of the pool
        self._began: dict[str, float] = {}  # when, by trial
        self._last: tuple[Resources, float] | None = None  # a free process: its size, and seconds

    def next(self, scheduler: Scheduler) -> Task | None:
        """The next trial: of the latest phase, or one for the process that has just got free.

        That process ends where the next trial takes other resources. So one that takes as much
        overtakes those of later phases, in the room of the last, if none of them will have waited
        for more than ``PATIENCE_S`` when it ends, by the time that the last took. Long trials thus
        keep their order.
        """
        first = scheduler.peek()
        if first is None or self._last is None or not self.keeps:
            return first
        size, took_s = self._last
        alike = [p for p, n in scheduler.ready.items() if n and self.resources(p) == size]
        waited_s = time.monotonic() - first.ready_s
        if not alike or waited_s + took_s > PATIENCE_S:
            return first
        return scheduler.peek(alike[0])

    def holds(self, room: Room, live: Mapping[str, Task]) -> bool:
        """Whether what runs fits into the nodes that there are now."""
        return room == self._room or self._place_anew(room, live)

    def place(self, work: Task, live: Mapping[str, Task]) -> bool:
        """Whether a trial fits beside those that run; then it stands there."""
        assert self._room is not None, "holds comes first"
        need = self.resources(work.phase)
        node = self._floor.place(need)
        if node is None and not self._packed and {size for _, size in self._on.values()} != {need}:
            if not self._place_anew(self._room, live):
                return False
            node = self._floor.place(need)
        if node is None:
            return False
        self._on[work.trial.trial_id] = node, need
        self._began[work.trial.trial_id] = time.monotonic()
        self._last = None  # the process is taken, or gone
        return True

    def leave(self, trial_id: str) -> None:
        """A trial has ended."""
        began = self._began.pop(trial_id, -math.inf)
        if trial_id in self._on:
            node, need = self._on.pop(trial_id)
            self._floor.leave(node, need)
            self._packed = False
            self._last = need, time.monotonic() - began

    def ask(
        self, pool: Pool, live: Mapping[str, Task], ready: Mapping[str, int], slots: int | None
    ) -> None:
        """Tell a pool that can grow what would run if there were room for it.

        Args:
            ready: trials by phase, those first that go first.
            slots: at most so many trials at once.
        """
        if not pool.grows:
            return
        wanted = Counter(self.resources(work.phase) for work in live.values())
        left = min(slots or MOST_ASKED, MOST_ASKED) - len(live)
        for phase, trials in ready.items():
            more = max(0, min(trials, left))
            wanted[self.resources(phase)] += more
            left -= more
        if +wanted != self._asked:
            self._asked = +wanted
            pool.want(self._asked)

    def _place_anew(self, room: Room, live: Mapping[str, Task]) -> bool:
        self._room, self._floor, self._on, self._packed = room, Floor(room), {}, True
        self._last = None  # it may have been on a node that has left
        for trial_id, running in live.items():
            need = self.resources(running.phase)
            node = self._floor.place(need)
            if node is None:
                self._room = None  # looked at again the next time
                return False
            self._on[trial_id] = node, need
        return True
