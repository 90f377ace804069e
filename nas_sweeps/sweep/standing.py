"""What still fits beside the trials that run, kept from one trial to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from nas_sweeps.cost.simulate import Floor, Room
from nas_sweeps.schedule import Task
from nas_sweeps.sweep.executor import Pool
from nas_sweeps.trial import Resources

MOST_ASKED = 1000  # trials, of an autoscaler; how many nodes there may be, it is told elsewhere


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
        return True

    def leave(self, trial_id: str) -> None:
        """A trial has ended."""
        if trial_id in self._on:
            self._floor.leave(*self._on.pop(trial_id))
            self._packed = False

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
        for trial_id, running in live.items():
            need = self.resources(running.phase)
            node = self._floor.place(need)
            if node is None:
                self._room = None  # looked at again the next time
                return False
            self._on[trial_id] = node, need
        return True
