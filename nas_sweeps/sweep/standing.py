"""What still fits beside the trials that run, kept from one trial to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nas_sweeps.cost.simulate import Floor, Room
from nas_sweeps.schedule import Task
from nas_sweeps.trial import Resources


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
